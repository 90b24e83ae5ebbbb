/** `kvm-arm64 boot` where nothing is booted, and its terminal; test/lab-kernels/machine.test.ts boots Linux with it. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterAll, describe, test } from 'vitest'
import { exitStatus } from '../../lib/cli/exit.js'
import { connectTerminal, type Input } from '../../lib/cli/terminal.js'
import { GuestConsole } from '../../lib/machine/guest-console.js'
import { kernelImage } from '../machine/images.js'
import { kvmArm64, onX64 } from './run.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-boot-'))
afterAll(() => rmSync(folder, { recursive: true }))
const kernel = join(folder, 'Image')
writeFileSync(kernel, kernelImage())
const short = join(folder, 'short')
writeFileSync(short, 'short')

describe('kvm-arm64 boot', () => {
  for (const [args, status, problem] of [
    [[], exitStatus.usage, /required option '--kernel <file>'/],
    [['--kernel', '/nonexistent/Image'], exitStatus.usage, /the kernel \/nonexistent\/Image cannot be read/],
    [['--kernel', short], exitStatus.usage, /no arm64 Image: it has 5 bytes/],
    [['--kernel', kernel, '--disk', `${short},readonly`], exitStatus.usage, /the disk \S+short has 5 bytes/],
    [['--kernel', kernel, '--memory', '7'], exitStatus.usage, /even number of MiB/],
    [['--kernel', kernel, '--smp', '0'], exitStatus.usage, /from 1 to 126/],
    [['--kernel', kernel, '--console', 'vga'], exitStatus.usage, /serial, virtio/],
    [['--kernel', kernel], exitStatus.machine, /arm64/],
  ] as const) {
    test(`${args.join(' ').replaceAll(folder, '…')}: ${status}`, () => {
      const outcome = kvmArm64(['boot', ...args], { node: onX64 })
      assert.match(outcome.error, problem)
      assert.deepEqual([outcome.status, outcome.out], [status, ''])
    })
  }
})

function connect(isTTY: boolean) {
  const log: string[] = []
  const guest = new GuestConsole((bytes) => log.push(`typed ${Buffer.from(bytes).toString()}`))
  const input: Input = Object.assign(new PassThrough(), {
    isTTY,
    setRawMode: (raw: boolean) => log.push(`raw ${raw}`),
  })
  const output = new PassThrough()
  const disconnect = connectTerminal(guest, { input, output, quit: () => log.push('quit') })
  return { log, guest, input: input as PassThrough, output, disconnect }
}

describe('the terminal', () => {
  test('gives every key to the guest but Ctrl-], and is given back', async () => {
    const { log, input, disconnect } = connect(true)
    input.write('ls\x03')
    input.write('x\x1dy')
    await nextTurn()
    disconnect()
    assert.deepEqual(log, ['raw true', 'typed ls\x03', 'typed x', 'quit', 'raw false'])
    assert.equal(input.destroyed, true)
  })

  test('a pipe gives every byte, and its end changes nothing', async () => {
    const { log, input, disconnect } = connect(false)
    input.end('x\x1dy')
    await nextTurn()
    disconnect()
    assert.deepEqual(log, ['typed x\x1dy'])
  })

  test('makes the guest wait for a slow reader, and lets it go on', async () => {
    const { guest, output, disconnect } = connect(false)
    guest.print(new Uint8Array(output.writableHighWaterMark + 1).fill(0x61))
    assert.equal(guest.isPaused, true)
    output.resume()
    await nextTurn()
    assert.equal(guest.isPaused, false)
    disconnect()
  })

  test('goes on without input that cannot be read', async () => {
    const { guest, input, output, disconnect } = connect(false)
    input.destroy(new Error('EISDIR: illegal operation on a directory, read'))
    await nextTurn()
    guest.print(Buffer.from('hello'))
    assert.equal(String(output.read()), 'hello')
    disconnect()
  })

  test('shows what the guest prints until the connection ends', () => {
    const { guest, output, disconnect } = connect(false)
    guest.print(Buffer.from('hello'))
    disconnect()
    guest.print(Buffer.from('more'))
    assert.equal(String(output.read()), 'hello')
  })
})
