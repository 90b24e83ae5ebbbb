/** What stands in the way of reading and writing outside the command: pipes, signals, machines without KVM. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, test } from 'vitest'
import { packageRoot } from '../../lib/package-root.js'
import { gravitonFile } from '../interchange/graviton.js'
import { kvmArm64, main, onX64 } from './run.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-outside-'))
afterAll(() => rmSync(folder, { recursive: true }))
const HOST = 'linux-6.12-max'
const recorded = fileURLToPath(new URL('lib/hosts/recorded', packageRoot))

describe('a script that is', () => {
  test('a pipe without a writer is refused', () => {
    const pipe = join(folder, 'pipe')
    spawnSync('mkfifo', [pipe])
    const { status, error } = kvmArm64(['trace', 'record', pipe, '--simulate', HOST])
    assert.equal(status, 2)
    assert.equal(error, `kvm-arm64: ${pipe}: cannot be loaded: is a pipe, not a module\n`)
  })

  test('a directory is refused', () => {
    const { status, error } = kvmArm64(['trace', 'record', folder, '--simulate', HOST])
    assert.equal(status, 2)
    assert.equal(error, `kvm-arm64: ${folder}: cannot be loaded: is a directory, not a module\n`)
  })

  test('a loop of links is refused, also with an output', () => {
    const loop = join(folder, 'loop')
    symlinkSync('loop', loop)
    const { status, error } = kvmArm64(['trace', 'record', loop, '--simulate', HOST, '-o', join(folder, 'x')])
    assert.equal(status, 2)
    assert.match(error, /^kvm-arm64: .*loop: cannot be loaded: ELOOP/)
  })
})

describe('a loop of links is refused by its errno', () => {
  const loop = join(folder, 'ring')
  symlinkSync('ring', loop)
  for (const [args, problem] of [
    [['show', loop], 'read'],
    [['fleet', loop], 'read'],
    [['import', loop], 'read'],
    [['apply', loop, '--simulate', HOST], 'read'],
    [['check', '--state', loop, '--to', HOST], 'read'],
    [['trace', 'replay', loop, '--simulate', HOST], 'read'],
    [['probe', '--simulate', HOST, '-o', loop], 'written'],
    [['fleet', recorded, '--html', loop], 'written'],
  ] as const) {
    test(`by ${args.slice(0, -1).join(' ')}`, () => {
      const { status, error } = kvmArm64(args)
      assert.equal(status, 2)
      assert.equal(error, `kvm-arm64: ${loop}: cannot be ${problem} (ELOOP)\n`)
    })
  }
})

describe('a line of 100 MB is refused for its length', () => {
  const file = join(folder, 'long.ndjson')
  writeFileSync(file, `{"a":"${'x'.repeat(100_000_000)}"}\n`)
  for (const [args, message] of [
    [['show', file], `${file}: is larger than any report (64 MiB at most)`],
    [['fleet', file], `${file}, line 1: is longer than any report (64 MiB)`],
    [['check', '--state', file, '--to', HOST], `${file}: is larger than any state (64 MiB at most)`],
    [['trace', 'replay', file, '--simulate', HOST], `${file}:1: is longer than 4 MiB`],
  ] as const) {
    test(`by ${args.join(' ').replaceAll(file, 'FILE')}`, () => {
      const { status, error } = kvmArm64(args)
      assert.equal(status, 2)
      assert.equal(error.split('\n')[0], `kvm-arm64: ${message}`)
    })
  }
})

describe('the file - is standard output', () => {
  const report = join(recorded, `${HOST}.json`)
  for (const [args, begin] of [
    [['probe', '--simulate', HOST, '-o'], /^\{\n {2}"format": "kvm-arm64\/report"/],
    [['capture', '--simulate', HOST, '-o'], /^\{\n {2}"format": "kvm-arm64\/state"/],
    [['baseline', HOST, '-o'], /^\{\n {2}"format": "kvm-arm64\/baseline"/],
    [['import', gravitonFile('N1', '6.1'), '--like', HOST, '-o'], /^\{\n {2}"format": "kvm-arm64\/report"/],
    [['fleet', report, '--html'], /^<!doctype html>/i],
    [['conformance', '--simulate', HOST, '--junit'], /^<\?xml/],
  ] as const) {
    test(`of ${args.slice(0, 1).join()} ${args.at(-1)!}`, () => {
      const { out } = kvmArm64([...args, '-'], { cwd: folder })
      assert.match(out, begin)
      assert.ok(!readdirSync(folder).includes('-'))
    })
  }
})

describe('Ctrl-C leaves no part of a file', () => {
  const fleet = join(folder, 'fleet')
  cpSync(recorded, fleet, { recursive: true })
  for (const args of [
    ['fleet', fleet, '--html'],
    ['conformance', '--simulate', HOST, '--junit'],
    ['probe', '--simulate', HOST, '--census', '-o'],
  ]) {
    test(`of ${args[0]}`, async () => {
      const output = mkdtempSync(join(folder, 'output-'))
      // On a terminal it says when it is at work.
      const child = spawn(
        'script',
        ['-qec', [process.execPath, main, ...args, join(output, 'file')].join(' '), '/dev/null'],
        { stdio: ['pipe', 'pipe', 'inherit'] },
      )
      await once(child.stdout, 'data')
      child.stdin.write('\u0003')
      const [status] = (await once(child, 'close')) as [number]
      assert.equal(status, 130)
      assert.deepEqual(readdirSync(output), [])
    })
  }
})

describe('without arm64 KVM', () => {
  for (const args of [
    ['diff', 'this', HOST],
    ['baseline', 'this', HOST],
    ['check', '--from', 'this', '--to', HOST],
    ['check', '--from', HOST, '--to', 'this'],
  ]) {
    test(`${args.join(' ')} proposes what it accepts`, () => {
      const { status, error } = kvmArm64(args, { node: onX64 })
      assert.equal(status, 3)
      assert.match(error, /Use a simulated host, linux-[\w.-]+ or a report instead of "this", or boot /)
      assert.match(error, /kvm-arm64 lab run$/m)
      assert.doesNotMatch(error, /--simulate|openKvm|bootLab/)
    })
  }

  test('a command with --simulate proposes it', () => {
    const { status, error } = kvmArm64(['census'], { node: onX64 })
    assert.equal(status, 3)
    assert.match(error, /--simulate linux-[\w.-]+, or boot a real arm64 kernel with kvm-arm64 lab run$/m)
  })
})
