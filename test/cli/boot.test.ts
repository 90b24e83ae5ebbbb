/** `kvm-arm64 boot` where nothing is booted, and its terminal; test/lab-kernels/machine.test.ts boots Linux with it. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, test } from 'vitest'
import { exitStatus } from '../../lib/cli/exit.js'
import { connectTerminal, type Input } from '../../lib/cli/terminal.js'
import { GuestConsole } from '../../lib/machine/guest-console.js'
import { kernelImage, zbootImage } from '../machine/images.js'
import { kvmArm64, onX64 } from './run.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-boot-'))
afterAll(() => rmSync(folder, { recursive: true }))
const kernel = join(folder, 'Image')
writeFileSync(kernel, kernelImage())
const short = join(folder, 'short')
writeFileSync(short, 'short')

/** Writes a file, and returns its path. */
function file(name: string, content: Uint8Array): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

const packed = gzipSync(kernelImage())
const cut = file('cut.gz', packed.subarray(0, -9))
const changed = file('changed.gz', Buffer.from(packed).fill(0x55, packed.length - 8, packed.length - 4))
const twice = file('twice.gz', gzipSync(packed))
const zboot = file('zboot', zbootImage('gzip', packed, packed.length + 1000))
const zbootOfNothing = file('zboot0', zbootImage('gzip', packed, 0))
const zbootOfBytes = file('zboot-bytes', zbootImage('gzip', Buffer.alloc(500, 0x1f)))
const huge = file('huge', kernelImage({ size: 1n << 30n }))
const crooked = file('crooked', kernelImage({ textOffset: 0x1f_fffen }))
const endless = file('endless.gz', Buffer.concat(Array<Buffer>(1025).fill(gzipSync(Buffer.alloc(1 << 20)))))
const large = file('large', new Uint8Array(3 << 20))
const sectors = file('sectors', new Uint8Array(513))
const none = file('none', new Uint8Array(0))
const fifo = join(folder, 'fifo')
execFileSync('mkfifo', [fifo])

describe('kvm-arm64 boot', () => {
  for (const [args, status, problem] of [
    [[], exitStatus.usage, /required option '--kernel <file>'/],
    [['--kernel', '/nonexistent/Image'], exitStatus.usage, /the kernel \/nonexistent\/Image cannot be read/],
    [['--kernel', short], exitStatus.usage, /no arm64 Image: it has 5 bytes/],
    [['--kernel', kernel, '--disk', `${short},readonly`], exitStatus.usage, /the disk \S+short has 5 bytes/],
    [['--kernel', folder], exitStatus.usage, /the kernel \S+ cannot be read: EISDIR/],
    [['--kernel', none], exitStatus.usage, /no arm64 Image: it has 0 bytes/],
    [['--kernel', '/dev/zero'], exitStatus.usage, /the kernel \/dev\/zero does not fit into 256 MiB/],
    [['--kernel', '/proc/self/mem'], exitStatus.usage, /the kernel \/proc\/self\/mem cannot be read/],
    [['--kernel', cut], exitStatus.usage, /cannot be unpacked \(gzip\): unexpected end of file/],
    [['--kernel', changed], exitStatus.usage, /cannot be unpacked \(gzip\): incorrect data check/],
    [['--kernel', twice], exitStatus.usage, /no arm64 Image/],
    [['--kernel', endless], exitStatus.usage, /cannot be unpacked \(gzip\): it would have more than 1 GiB/],
    [['--kernel', zboot], exitStatus.usage, /its payload ends beyond the end of the file/],
    [['--kernel', zbootOfNothing], exitStatus.usage, /cannot be unpacked \(gzip\)/],
    [['--kernel', zbootOfBytes], exitStatus.usage, /cannot be unpacked \(gzip\)/],
    [['--kernel', huge], exitStatus.usage, /do not fit into 256 MiB: give the machine more than \d+ MiB/],
    [['--kernel', crooked], exitStatus.usage, /its header is damaged: it begins at 2097150/],
    [['--kernel', kernel, '--initrd', folder], exitStatus.usage, /the initrd \S+ cannot be read: EISDIR/],
    [['--kernel', kernel, '--initrd', '/dev/zero'], exitStatus.usage, /the initrd \/dev\/zero does not fit/],
    [
      ['--kernel', kernel, '--initrd', `${large}x`],
      exitStatus.usage,
      /the initrd \S+ cannot be read: ENOENT/,
    ],
    [['--kernel', kernel, '--initrd', large, '--memory', '6'], exitStatus.usage, /do not fit into 6 MiB/],
    [
      ['--kernel', kernel, '--disk', folder],
      exitStatus.usage,
      /the disk \S+ cannot be opened: not a regular/,
    ],
    [['--kernel', kernel, '--disk', fifo], exitStatus.usage, /the disk \S+ cannot be opened: not a regular/],
    [['--kernel', kernel, '--disk', none], exitStatus.usage, /the disk \S+none has 0 bytes/],
    [['--kernel', kernel, '--disk', sectors], exitStatus.usage, /the disk \S+sectors has 513 bytes/],
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
