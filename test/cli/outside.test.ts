/** What stands in the way of reading and writing outside the command: pipes, signals, machines without KVM. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, test } from 'vitest'
import { packageRoot } from '../../lib/package-root.js'
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

  test('a loop of links is refused, also with an output', () => {
    const loop = join(folder, 'loop')
    symlinkSync('loop', loop)
    const { status, error } = kvmArm64(['trace', 'record', loop, '--simulate', HOST, '-o', join(folder, 'x')])
    assert.equal(status, 2)
    assert.match(error, /^kvm-arm64: .*loop: cannot be loaded: ELOOP/)
  })
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
