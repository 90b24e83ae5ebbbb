import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, test } from 'vitest'
import type { CheckResult } from '../../lib/conformance/index.js'
import { parseXml } from '../conformance/xml.js'
import { kvmArm64, onX64 } from './run.js'

const HOST = 'linux-6.12-neoverse-n1'
const directory = mkdtempSync(join(tmpdir(), 'kvm-arm64-conformance-'))
afterAll(() => rmSync(directory, { recursive: true }))

describe('conformance', () => {
  test('prints a line for each check and a summary', () => {
    const { status, out, error } = kvmArm64(['conformance', '--simulate', HOST])
    assert.equal(status, 0)
    assert.equal(error, '')
    assert.match(out, /^linux-6\.12-neoverse-n1, simulated\n\nBitmap firmware registers\n/)
    const lines = out.split('\n').filter((line) => /^ {2}(passes|deviates|not applicable) /.test(line))
    const [, total] = /^ {2}(\d+) checks: \d+ pass, 0 fail, \d+ deviate .*, \d+ do not apply\.$/m.exec(out)!
    assert.equal(lines.length, Number(total))
    assert.match(out, /^ {2}passes +promised {2}KVM_REG_ARM_STD_BMAP shows every .* — reads 0x1 and /m)
    assert.match(
      out,
      /^ {2}deviates +promised {2}KVM answers hypercalls by hvc alone — SMCCC_VERSION by smc/m,
    )
    assert.match(
      out,
      /^ {2}not applicable +\w+ +The functions of discover-impl-ver .* — this kernel has no KVM_REG_ARM_VENDOR_HYP/m,
    )
  })

  test('fails where a promise is broken, and tells promise and source', () => {
    const { status, out } = kvmArm64(['conformance', '--simulate', 'seed-v6'])
    assert.equal(status, 1)
    assert.match(
      out,
      /^ {2}fails +promised {2}The three bitmap registers of the series come together — has no /m,
    )
    assert.match(out, /^Failures\n {2}The three .*\n {4}promised: .*\n {4}source: .*\n {4}kernel: has no /m)
    assert.match(out, /: 157 pass, 3 fail \(1 of them promised\), /)
  })

  test('does not fail for what was only observed', () => {
    const { status, out } = kvmArm64([
      'conformance',
      '--simulate',
      'seed-v6',
      '--only',
      'std_bmap ACCEPTS the value it holds',
    ])
    assert.equal(status, 0)
    assert.match(out, /^ {2}fails +observed /m)
    assert.match(out, /^ {2}1 checks: 0 pass, 1 fail \(0 of them promised\), /m)
  })

  test('prints every result as JSON', () => {
    const { status, out } = kvmArm64(['conformance', '--simulate', HOST, '--only', 'SMCCC filter', '--json'])
    assert.equal(status, 0)
    const results = JSON.parse(out) as CheckResult[]
    assert.ok(results.length >= 20)
    assert.deepEqual(Object.keys(results[0]!).toSorted(), [
      'did',
      'group',
      'mark',
      'name',
      'promise',
      'seconds',
      'source',
      'verdict',
    ])
    assert.ok(results.every(({ group }) => group === 'SMCCC filter'))
  })

  test('writes JUnit XML in the place of an older file, whole', () => {
    const file = join(directory, 'results.xml')
    writeFileSync(file, 'older')
    const { status, out, error } = kvmArm64(['conformance', '--simulate', 'seed-v6', '--junit', file])
    assert.equal(status, 1)
    assert.match(error, /wrote .*results\.xml/)
    const { attributes, children } = parseXml(readFileSync(file, 'utf8'))
    assert.equal(attributes.failures, '1')
    assert.equal(children[0]!.children.length, Number(/ (\d+) checks: /.exec(out)![1]))
    assert.deepEqual(readdirSync(directory), ['results.xml'])
  })

  test('says where results cannot be written', () => {
    const file = join(directory, 'none', 'results.xml')
    const { status, error } = kvmArm64([
      'conformance',
      '--simulate',
      HOST,
      '--only',
      'vCPU init',
      '--junit',
      file,
    ])
    assert.equal(status, 2)
    assert.match(error, /results\.xml: cannot be written \(ENOENT\)/)
    assert.ok(!existsSync(file))
  })

  for (const [args, problem] of [
    [['--only', 'no such thing', '--simulate', HOST], /no check has "no such thing" in its name or group/],
    [['--simulate', 'linux-6.12-neoverse-n3'], /did you mean linux-6\.12-neoverse-n[12]/],
  ] as const) {
    test(`${args.join(' ')} is refused as wrong usage`, () => {
      const { status, out, error } = kvmArm64(['conformance', ...args])
      assert.equal(status, 2)
      assert.equal(out, '')
      assert.match(error, problem)
    })
  }

  test('needs arm64 KVM where no host is named', () => {
    const { status, out, error } = kvmArm64(['conformance'], { node: onX64 })
    assert.equal(status, 3)
    assert.equal(out, '')
    assert.match(error, /x64, not arm64/)
  })
})
