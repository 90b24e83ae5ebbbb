import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, test } from 'vitest'
import { parseReport, readReport } from '../../lib/report/read.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { kvmArm64, onX64 } from './run.js'

const HOST = 'linux-6.12-neoverse-n1'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-probe-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('probe', () => {
  test('prints the report of a simulated host, which is the recorded one but for its date and who answered', () => {
    const { status, out, error } = kvmArm64(['probe', '--simulate', HOST, '--json'])
    assert.equal(status, 0)
    assert.equal(error, '')
    const recorded = builtInReport(HOST)
    const found = parseReport(out, 'stdout')
    assert.notEqual(found.probedAt, recorded.probedAt)
    assert.deepEqual(found.origin, { kind: 'simulation', of: HOST })
    assert.deepEqual({ ...found, probedAt: recorded.probedAt, origin: { kind: 'kernel' } }, recorded)
  })

  test('puts what a guest discovers into the report when asked', () => {
    const { status, out } = kvmArm64(['probe', '--simulate', HOST, '--census', '--json'])
    assert.equal(status, 0)
    const { census, ...report } = parseReport(out, 'stdout')
    const { probedAt, origin } = report
    assert.deepEqual(report, { ...builtInReport(HOST), probedAt, origin })
    const found = (name: string): unknown =>
      census!.find((call) => call.conduit === 'hvc' && call.name === name && call.argument === '0x0')
    const version = { conduit: 'hvc', functionId: '0x80000000', name: 'SMCCC_VERSION', argument: '0x0' }
    assert.deepEqual(found('SMCCC_VERSION'), { ...version, x: ['0x10001', '0x0', '0x0', '0x0'] })
    assert.equal((found('KVM_PTP') as { x: unknown }).x, null)
    assert.equal((found('PSCI_SYSTEM_OFF') as { exit: unknown }).exit, 'system-event shutdown')
    assert.equal(found('PSCI_SYSTEM_OFF2'), undefined)
  })

  test('--census tells what a guest discovers, and so does show of the report', () => {
    const file = join(folder, 'census.json')
    const line = /^ +hvc +SMCCC_VERSION +0x80000000 /m
    assert.match(kvmArm64(['probe', '--simulate', HOST, '--census']).out, line)
    kvmArm64(['probe', '--simulate', HOST, '--census', '-o', file])
    const { status, out } = kvmArm64(['show', file, '--census'])
    assert.equal(status, 0)
    assert.match(out, line)
    assert.ok(kvmArm64(['census', '--simulate', HOST]).out.includes(out.trimEnd()))
    const without = kvmArm64(['show', HOST, '--census'])
    assert.equal(without.status, 1)
    assert.match(without.error, /holds no census: add one with kvm-arm64 probe --census -o FILE/)
  })

  test('sums a host up: kernel, CPU, PSCI, services with their functions, mitigations', () => {
    const { status, out, error } = kvmArm64(['probe', '--simulate', HOST])
    assert.equal(status, 0)
    assert.equal(error, '')
    for (const line of [
      /^linux-6\.12-neoverse-n1, simulated$/m,
      /kernel +6\.12\./,
      /answered by +a simulation of linux-6\.12-neoverse-n1/,
      /CPU +Arm Neoverse N1 r4p1/,
      /PSCI +1\.1; accepts 0\.2 1\.0 1\.1$/m,
      /registers +\d+ with psci-0\.2 alone \(75 core, 4 firmware, 3 bitmap/,
      /KVM_REG_ARM_VENDOR_HYP_BMAP +0x6030000000160002 +0x3 +0x3$/m,
      / STD_BMAP +0 +trng-v1\.0 +shown +gates +TRNG_VERSION/,
      /KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1 +Spectre variant 2 +0x2 not-required +0x0 0x1 0x2/,
      /kvm-arm64 show linux-6\.12-neoverse-n1 --registers/,
    ]) {
      assert.match(out, line)
    }
  })

  test('says so where nothing can be elected', () => {
    assert.match(
      kvmArm64(['probe', '--simulate', 'linux-5.10-neoverse-n1']).out,
      /has no bitmap firmware registers/,
    )
  })

  test('probes a simulated host where there is no arm64 KVM, and says so on stderr', () => {
    const { status, out, error } = kvmArm64(['probe'], { node: onX64 })
    assert.equal(status, 0)
    assert.match(out, new RegExp(`^${HOST}, simulated$`, 'm'))
    assert.match(error, /^kvm-arm64: no arm64 KVM here \(this machine is x64\): probing the simulated host/)
    assert.match(error, /to fail here instead: --backend kernel/)
  })

  test('makes no report of a simulated host that nobody asked for', () => {
    const file = join(folder, 'lie.json')
    for (const flags of [['--json'], ['-o', file], ['-o', '-'], ['-o', file, '--json']]) {
      const { status, out, error } = kvmArm64(['probe', ...flags], { node: onX64 })
      assert.equal(status, 3, flags.join(' '))
      assert.equal(out, '')
      assert.match(error, /^kvm-arm64: no arm64 KVM here \(this machine is x64\), so there is no report/)
      assert.match(error, /--simulate linux-6\.12-neoverse-n1.*kvm-arm64 lab run -- kvm-arm64 probe --json/)
      assert.ok(!existsSync(file))
    }
    const { status, out } = kvmArm64(['probe', '--simulate', HOST, '--json'], { node: onX64 })
    assert.equal(status, 0)
    assert.equal(parseReport(out, 'stdout').host.release, builtInReport(HOST).host.release)
  })

  test('says nothing of it where the simulator was asked for', () => {
    assert.equal(kvmArm64(['probe', '--backend', 'simulator', '--json'], { node: onX64 }).error, '')
  })

  test('fails where --backend kernel forbids the simulated host, and says what to do', () => {
    const { status, out, error } = kvmArm64(['probe', '--backend', 'kernel'], { node: onX64 })
    assert.equal(status, 3)
    assert.equal(out, '')
    assert.match(error, /ERR_KVM_WRONG_ARCHITECTURE.*kvm-arm64 lab run/)
  })

  test('lists every register of a vCPU with the features asked for', () => {
    const { status, out } = kvmArm64(['probe', '--simulate', 'linux-6.12-max', '--features', 'psci-0.2,sve'])
    assert.equal(status, 0)
    assert.match(out, /KVM_REG_ARM64_SVE_VLS +0x606000000015ffff +512 +0x/)
    assert.match(out, /KVM_REG_ARM_TIMER_CNT +0x603000000013df1a +64 +\(counts time\)/)
  })

  test('answers no where the host has no such vCPU', () => {
    const { status, out, error } = kvmArm64(['probe', '--simulate', HOST, '--features', 'psci-0.2,sve'])
    assert.equal(status, 1)
    assert.equal(out, '')
    assert.match(error, /no vCPU with the features psci-0\.2, sve \(EINVAL\)/)
  })

  test('probes the host of a report', () => {
    const file = join(folder, 'host.json')
    writeFileSync(file, JSON.stringify(builtInReport('linux-6.1-cortex-a57')))
    const { status, out } = kvmArm64(['probe', '--simulate', file])
    assert.equal(status, 0)
    assert.match(out, /Arm Cortex-A57/)
  })
})

describe('probe -o', () => {
  test('writes the report beside the summary', () => {
    const file = join(folder, 'written.json')
    const { status, out, error } = kvmArm64(['probe', '--simulate', HOST, '-o', file])
    assert.equal(status, 0)
    assert.match(out, /Hypercall services/)
    assert.equal(error, `kvm-arm64: wrote ${file}\n`)
    assert.deepEqual(readReport(file).registers, builtInReport(HOST).registers)
  })

  test('writes nothing where the host cannot be probed', () => {
    const file = join(folder, 'never.json')
    assert.equal(kvmArm64(['probe', '--simulate', 'none.json', '-o', file]).status, 2)
    assert.equal(kvmArm64(['probe', '--backend', 'kernel', '-o', file], { node: onX64 }).status, 3)
    assert.equal(kvmArm64(['probe', '--simulate', HOST, '--features', 'sve', '-o', file]).status, 1)
    assert.ok(!existsSync(file))
  })

  test('names the file it cannot write, and leaves nothing behind', () => {
    const old = join(folder, 'old')
    writeFileSync(old, 'old')
    const before = readdirSync(folder)
    for (const [file, code] of [
      [folder, 'EISDIR'],
      [join(folder, 'missing', 'report.json'), 'ENOENT'],
      [join(old, 'report.json'), 'ENOTDIR'],
    ] as const) {
      const { status, out, error } = kvmArm64(['probe', '--simulate', HOST, '-o', file])
      assert.equal(status, 2)
      assert.equal(out, '')
      assert.equal(error, `kvm-arm64: ${file}: cannot be written (${code})\n`)
    }
    assert.deepEqual(readdirSync(folder), before)
    assert.equal(readFileSync(old, 'utf8'), 'old')
  })
})
