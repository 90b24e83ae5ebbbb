/**
 * Streams of a move as an attacker would write them, with checksums and digest in order: whatever they hold, `receiveMachine` makes a
 * machine or throws an error of ours, soon, and leaves nothing behind.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { crc32 } from 'node:zlib'
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { KvmError } from '../../lib/kvm/index.js'
import { MachineError } from '../../lib/machine/errors.js'
import { type FrameType, frameTypes, PIECE } from '../../lib/machine/frames.js'
import { bootMachine, type Machine, receiveMachine } from '../../lib/machine/index.js'
import { RAM_BASE } from '../../lib/machine/memory-map.js'
import { Host } from './host.js'
import { kernelImage } from './images.js'

const MEMORY = 4
const BYTES = MEMORY << 20
const HEAD = 12
/** Memory that the guest's code does not lie in. */
const QUEUES = RAM_BASE + 0x10_0000
/** Milliseconds that no stream of this length may take. */
const SOON = 20_000

interface Frame {
  readonly type: FrameType
  readonly bytes: Buffer
}

type Json = Record<string, unknown>

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-hostile-'))
const disk = join(folder, 'disk.img')
let recorded: Frame[]

beforeAll(async () => {
  writeFileSync(disk, new Uint8Array(1024))
  using host = new Host()
  const kernel = kernelImage()
  kernel.writeUInt32LE(0x1400_0000, 0)
  const { kvm } = host
  const machine = bootMachine({ kvm, kernel, memory: MEMORY, smp: 2, console: 'virtio', disks: [disk] })
  machine.console.write('typed')
  const stream = new PassThrough({ highWaterMark: 1 << 26 })
  await machine.send(stream)
  recorded = framesOf(stream.read() as Buffer)
})
afterAll(() => rmSync(folder, { recursive: true }))

function framesOf(stream: Buffer): Frame[] {
  const frames: Frame[] = []
  for (let at = 8; at < stream.length;) {
    const length = stream.readUInt32LE(at + 4)
    const [type] = Object.entries(frameTypes).find(([, number]) => number === stream[at])!
    frames.push({ type: type as FrameType, bytes: stream.subarray(at + HEAD, at + HEAD + length) })
    at += HEAD + length
  }
  return frames
}

/** Writes frames as `FrameWriter` does; a frame `end` gets the digest of those before it. */
function streamOf(frames: readonly Frame[]): Buffer {
  const hash = createHash('sha256')
  const parts: Buffer[] = [Buffer.from('KVMARM64')]
  for (const { type, bytes: given } of frames) {
    const bytes = type === 'end' && given.length === 32 ? hash.copy().digest() : given
    const head = Buffer.alloc(HEAD)
    head.writeUInt8(frameTypes[type], 0)
    head.writeUInt32LE(bytes.length, 4)
    head.writeUInt32LE(crc32(bytes), 8)
    hash.update(head)
    parts.push(head, bytes)
  }
  return Buffer.concat(parts)
}

/** Receives a stream; returns the error, or undefined if it made a machine, which is closed. */
async function receive(stream: Buffer | Readable): Promise<unknown> {
  const before = readdirSync('/proc/self/fd').length
  using host = new Host()
  const begun = performance.now()
  let machine: Machine | undefined
  let error: unknown
  try {
    const readable = Buffer.isBuffer(stream) ? Readable.from([stream]) : stream
    machine = await receiveMachine(readable, { kvm: host.kvm, disks: [disk], timeout: 5000 })
  } catch (reason) {
    error = reason
  }
  if (machine !== undefined) {
    // Its guest runs, and its devices serve what is in their queues.
    const turns = (async () => {
      for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate)
      return 'runs'
    })()
    const ended = machine.ended.catch((reason: { code?: string }) => reason.code)
    const state = await Promise.race([ended, turns])
    // The simulator executes nothing but a few instructions, which a stream need not bring.
    assert.ok(state === 'runs' || state === 'ERR_KVM_SIMULATOR_NO_GUEST_CODE', String(state))
  }
  assert.ok(performance.now() - begun < SOON)
  await machine?.close()
  await new Promise(setImmediate)
  assert.equal(host.open, 0)
  assert.equal(readdirSync('/proc/self/fd').length, before)
  return error
}

function assertOurs(error: unknown, detail = ''): void {
  if (error === undefined) return
  const isOurs =
    (error instanceof MachineError && ['ERR_MACHINE_STREAM', 'ERR_MACHINE_REFUSED'].includes(error.code)) ||
    // Memory that this host cannot make.
    (error instanceof KvmError && error.syscall === 'memfd_create')
  assert.ok(isOurs, `${detail} ${(error as Error).stack}`)
  assert.ok((error as Error).message.length > 15)
}

async function assertRefused(frames: readonly Frame[], problem: RegExp): Promise<void> {
  const error = await receive(streamOf(frames))
  assertOurs(error)
  assert.ok(error instanceof MachineError, String(error))
  assert.match(error.message, problem)
}

function jsonOf({ bytes }: Frame): Json {
  return JSON.parse(bytes.toString()) as Json
}

/** The recorded frames with one that is JSON changed. */
function withJson(type: 'header' | 'state', change: (json: Json) => void): Frame[] {
  return recorded.map((frame) => {
    if (frame.type !== type) return frame
    const json = jsonOf(frame)
    change(json)
    return { type, bytes: Buffer.from(JSON.stringify(json)) }
  })
}

function withInput(input: string): Frame[] {
  return withJson('state', (json) => (json.input = input))
}

/** A frame about memory. */
function place(type: 'pages' | 'zeros', offset: bigint, more: Uint8Array | bigint): Frame {
  const first = Buffer.from(BigUint64Array.of(offset).buffer)
  const rest = typeof more === 'bigint' ? Buffer.from(BigUint64Array.of(more).buffer) : more
  return { type, bytes: Buffer.concat([first, rest]) }
}

/** The recorded frames with others behind the header. */
function withFrames(...frames: readonly Frame[]): Frame[] {
  return recorded.toSpliced(1, 0, ...frames)
}

/** Values that no entry of a stream expects everywhere. */
const strange = fc.constantFrom<unknown>(
  null,
  true,
  -1,
  0,
  0.5,
  3,
  255,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  2 ** 64,
  1e308,
  '',
  'x',
  '0x0',
  '0x1',
  '0xffffffffffffffff',
  'a'.repeat(2000),
  'AAAA'.repeat(5000),
  '\u0007',
  [],
  {},
  [[]],
  [null],
  { length: 5 },
  Array(5000).fill(0),
)

/** Changes one entry of a JSON value, found by the numbers given. */
function damage(root: Json, path: readonly number[], how: number, value: unknown): void {
  let at: unknown = root
  for (const [depth, pick] of path.entries()) {
    const holder = at as Record<string, unknown> | unknown[]
    const keys = Object.keys(holder)
    if (keys.length === 0) return
    const key = keys[pick % keys.length]!
    const next = (holder as Record<string, unknown>)[key]
    const isLast = depth === path.length - 1 || next === null || typeof next !== 'object'
    if (!isLast) {
      at = next
      continue
    }
    if (how === 0) (holder as Record<string, unknown>)[key] = value
    else if (how === 1 && Array.isArray(holder)) holder.splice(Number(key), 1)
    else if (how === 1) delete (holder as Record<string, unknown>)[key]
    else if (how === 2 && Array.isArray(holder)) holder.push(structuredClone(next))
    else if (how === 2) (holder as Record<string, unknown>)[`${key}x`] = structuredClone(next)
    else if (how === 3 && Array.isArray(holder)) holder.unshift(holder.pop())
    else if (typeof next === 'number') (holder as Record<string, unknown>)[key] = next + 1
    else if (typeof next === 'string' && next.startsWith('0x'))
      (holder as Record<string, unknown>)[key] = `0x${(BigInt(next) ^ 1n).toString(16)}`
    return
  }
}

describe('a stream that an attacker writes', () => {
  test('is one that is received, unchanged', async () => {
    assert.equal(await receive(streamOf(recorded)), undefined)
  })

  test('may have any entry of its JSON changed', async () => {
    const path = fc.array(fc.nat(9999), { minLength: 1, maxLength: 8 })
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('header', 'state'),
        path,
        fc.nat(4),
        strange,
        async (type, places, how, value) => {
          const frames = withJson(type, (json) => damage(json, places, how, value))
          assertOurs(await receive(streamOf(frames)), `${type} ${places.join()} ${how}`)
        },
      ),
      { numRuns: 300 },
    )
  })

  test('may have its frames dropped, repeated, exchanged, cut, filled and renamed', async () => {
    const types = Object.keys(frameTypes) as FrameType[]
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(5), fc.nat(999), fc.nat(999)), { minLength: 1, maxLength: 4 }),
        async (steps) => {
          const frames = [...recorded]
          for (const [how, one, two] of steps) {
            const [a, b] = [one % frames.length, two % frames.length]
            const frame = frames[a]!
            if (how === 0 && frames.length > 1) frames.splice(a, 1)
            else if (how === 1) frames.splice(b, 0, frame)
            else if (how === 2) [frames[a], frames[b]] = [frames[b]!, frame]
            else if (how === 3) frames[a] = { ...frame, bytes: frame.bytes.subarray(0, two) }
            else if (how === 4)
              frames[a] = { ...frame, bytes: Buffer.concat([frame.bytes, Buffer.alloc(two)]) }
            else frames[a] = { ...frame, type: types[two % types.length]! }
          }
          assertOurs(await receive(streamOf(frames)), JSON.stringify(steps))
        },
      ),
      { numRuns: 100 },
    )
  })

  test('may be cut, and have bytes changed, repeated and left out, in chunks of any size', async () => {
    const stream = streamOf(recorded)
    await fc.assert(
      fc.asyncProperty(
        fc.nat(3),
        fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
        fc.integer({ min: 1, max: 5000 }),
        fc.constantFrom(1000, 4096, 65_536),
        async (how, part, length, size) => {
          const at = Math.floor(part * stream.length)
          const damaged = [
            () => stream.subarray(0, at),
            () => Buffer.concat([stream.subarray(0, at), stream.subarray(at + length)]),
            () => Buffer.concat([stream.subarray(0, at + length), stream.subarray(at)]),
            () => {
              const copy = Buffer.from(stream)
              for (let byte = at; byte < Math.min(at + length, copy.length); byte++)
                copy[byte]! ^= length & 0xff
              return copy
            },
          ][how]!()
          const chunks = Array.from({ length: Math.ceil(damaged.length / size) }, (_, index) =>
            damaged.subarray(index * size, (index + 1) * size),
          )
          assertOurs(await receive(Readable.from(chunks)), `${how} ${at} ${length}`)
        },
      ),
      { numRuns: 60 },
    )
  })

  test('cannot write outside memory', async () => {
    const byte = Uint8Array.of(1)
    const last = BigInt(BYTES - 1)
    assert.equal(
      await receive(streamOf(withFrames(place('pages', last, byte), place('zeros', last, 1n)))),
      undefined,
    )
    for (const offset of [
      last + 1n,
      BigInt(RAM_BASE),
      (1n << 53n) + 1n,
      (1n << 63n) - 1n,
      (1n << 64n) - 1n,
    ]) {
      await assertRefused(withFrames(place('pages', offset, byte)), /outside the machine's memory/)
      await assertRefused(withFrames(place('zeros', offset, 1n)), /outside the machine's memory/)
    }
    await assertRefused(withFrames(place('zeros', last, 2n)), /outside the machine's memory/)
  })

  test('cannot have this host fill memory by a few bytes, nor go on for ever without saying anything', async () => {
    for (const length of [BigInt(PIECE + 1), BigInt(BYTES), (1n << 64n) - 1n]) {
      await assertRefused(withFrames(place('zeros', 0n, length)), /a frame zeros about \d+ bytes: 1 to/)
    }
    await assertRefused(withFrames(place('zeros', 0n, 0n)), /about 0 bytes/)
    await assertRefused(withFrames(place('pages', 0n, new Uint8Array(0))), /about 0 bytes/)
    await assertRefused(withFrames({ type: 'zeros', bytes: Buffer.alloc(8) }), /a frame zeros of 8 bytes/)
    await assertRefused(withFrames({ type: 'pages', bytes: Buffer.alloc(7) }), /a frame pages of 7 bytes/)
  })

  test('cannot have this host make memory that it does not have', async () => {
    for (const memory of [Number.MAX_SAFE_INTEGER, 2 ** 46]) {
      const frames = withJson('header', (json) => {
        json.memory = memory
        ;(json.state as { vm: { memory: { size: number }[] } }).vm.memory[0]!.size = memory
      })
      await assertRefused(frames, /it has \d+ bytes of memory, and this host \d+/)
    }
  })

  test('cannot bring another VM than the one that was judged', async () => {
    type State = { vm: Json & { memory: Json[] }; vcpus: (Json & { id: number })[] }
    for (const [problem, edit] of [
      [/its vCPUs and their features differ/, ({ vcpus }) => vcpus.push({ ...vcpus[0]!, id: 9 })],
      [/its vCPUs and their features differ/, ({ vcpus }) => vcpus.pop()],
      [/its vCPUs and their features differ/, ({ vcpus }) => (vcpus[0]!.features = ['psci-0.2', 'pmu-v3'])],
      [/its type and capabilities differ/, ({ vm }) => (vm.type = '0x28')],
      [/its slots of memory differ/, ({ vm }) => (vm.memory = [])],
      [/its interrupt controllers differ/, ({ vm }) => (vm.gic = null)],
      [/its devices that are not carried differ/, ({ vm }) => (vm.notCarried = ['its'])],
    ] as const satisfies readonly (readonly [RegExp, (state: State) => unknown])[]) {
      await assertRefused(
        withJson('state', ({ state }) => edit(state as State)),
        problem,
      )
    }
    const parts = (json: Json): void =>
      void (((json.state as State).vm.notCarried = ['its']) satisfies unknown)
    await assertRefused(withJson('header', parts), /its VM has its, which a stream does not carry/)
  })

  test('cannot put devices into a state that they cannot have', async () => {
    type Devices = { serial: Json; virtio: Json[] }
    for (const edit of [
      ({ virtio }) => virtio.pop(),
      ({ virtio }) => virtio.push({ ...virtio[0]! }),
      ({ virtio }) => virtio.unshift(virtio.pop()!),
      ({ virtio }) => (virtio[0]!.setups = []),
      ({ virtio }) => (virtio[0]!.queues = [queue({ index: 7 })]),
      ({ virtio }) => (virtio[0]!.queues = [queue({ size: 3 })]),
      ({ virtio }) => (virtio[0]!.queues = [queue({ descriptors: 0 })]),
      ({ virtio }) => (virtio[0]!.queues = [queue({ used: 2 ** 64 })]),
      ({ virtio }) => Object.assign(virtio[0]!, { accepted: '0xffffffffffffffff', status: 15 }),
      ({ serial }) => (serial.fifo = 'AAAA'.repeat(20)),
      ({ serial }) => (serial.waiting = 'A'),
    ] as const satisfies readonly ((devices: Devices) => unknown)[]) {
      const frames = withJson('state', ({ devices }) => edit(devices as Devices))
      await assertRefused(frames, /the stream|no machine can be in the state/)
    }
  })

  test('may bring queues that no driver would set up, and the guest goes on', async () => {
    const at = fc.integer({ min: 0, max: 0x3ff }).map((line) => QUEUES + 16 * line)
    const queueAt = fc.record({
      size: fc.nat(8).map((bits) => 1 << bits),
      descriptors: at,
      available: at,
      used: at,
      taken: fc.nat(0xffff),
      given: fc.nat(0xffff),
    })
    const words = fc.uint8Array({ minLength: 0x2000, maxLength: 0x2000 })
    const flags = fc.constantFrom(0, 1, 2, 3, 4, 0xffff)
    await fc.assert(
      fc.asyncProperty(
        fc.array(queueAt, { minLength: 4, maxLength: 4 }),
        words,
        flags,
        fc.nat(300),
        async (queues, noise, kind, ahead) => {
          const memory = Buffer.from(noise)
          for (const [index, { descriptors, available, taken }] of queues.entries()) {
            // Descriptors that are nearly right get further than noise does.
            const table = descriptors - QUEUES
            for (let n = 0; n < 8; n++) {
              if (table + 16 * n + 16 > memory.length) break
              memory.writeBigUInt64LE(BigInt(QUEUES + 0x8000 + 64 * n), table + 16 * n)
              memory.writeUInt32LE(n === 5 ? 0xffff_ffff : 16 + n, table + 16 * n + 8)
              memory.writeUInt16LE(kind, table + 16 * n + 12)
              memory.writeUInt16LE((n + index) % 9, table + 16 * n + 14)
            }
            const ring = available - QUEUES
            if (ring + 4 <= memory.length) memory.writeUInt16LE((taken + ahead) & 0xffff, ring + 2)
            for (let n = 0; n < 8 && ring + 6 + 2 * n < memory.length; n++)
              memory.writeUInt16LE(n, ring + 4 + 2 * n)
          }
          const [block, rng, receiving, transmitting] = queues
          const frames = withJson('state', (json) => {
            const { virtio } = json.devices as { virtio: Json[] }
            const ready = { accepted: '0x100000000', status: 15 }
            Object.assign(virtio[0]!, ready, { queues: [{ index: 0, ...block }] })
            Object.assign(virtio[1]!, ready, { queues: [{ index: 0, ...rng }] })
            const both = [
              { index: 0, ...receiving },
              { index: 1, ...transmitting },
            ]
            Object.assign(virtio[2]!, ready, { queues: both })
          })
          // Behind the frames of memory.
          frames.splice(-2, 0, place('pages', BigInt(QUEUES - RAM_BASE), memory))
          assert.equal(await receive(streamOf(frames)), undefined)
        },
      ),
      // Thousands of bytes would be made smaller one by one.
      { numRuns: 100, endOnFailure: true },
    )
  })

  test('may bring megabytes that were typed, and nothing that is not base64', async () => {
    assert.equal(await receive(streamOf(withInput('AAAA'.repeat(5 << 20)))), undefined)
    for (const input of ['A', 'AB', 'AB=', 'A===', 'A-_A', ' AAAA', 'AAAA\n']) {
      await assertRefused(withInput(input), /is not base64/)
    }
  })

  test('may be nested as deeply as it likes', async () => {
    for (const depth of [1000, 1 << 20]) {
      const bytes = Buffer.from(`${'['.repeat(depth)}${']'.repeat(depth)}`)
      await assertRefused([{ type: 'header', bytes }], /the stream/)
      const nested = Buffer.from(
        JSON.stringify({ ...jsonOf(recorded[0]!), state: 0 }).replace(
          '"state":0',
          `"state":${bytes.toString()}`,
        ),
      )
      await assertRefused([{ type: 'header', bytes: nested }], /the stream/)
    }
  })

  test('may come byte by byte, and takes no more memory than it has bytes', async () => {
    const length = 1 << 20
    const head = Buffer.alloc(HEAD)
    head.writeUInt8(frameTypes.header, 0)
    head.writeUInt32LE(length, 4)
    const before = process.memoryUsage().arrayBuffers
    let most = 0
    // As of a socket: each chunk is a byte of a buffer of its own.
    function* chunks(): Generator<Buffer> {
      yield Buffer.concat([Buffer.from('KVMARM64'), head])
      for (let index = 0; index < length / 64; index++) {
        if (index % 1000 === 0) most = Math.max(most, process.memoryUsage().arrayBuffers - before)
        yield Buffer.allocUnsafeSlow(65_536).subarray(0, 1)
      }
    }
    assertOurs(await receive(Readable.from(chunks())))
    assert.ok(most > 0 && most < 512 << 20, `${most >> 20} MiB`)
  })

  test('may say that a header has 64 MiB, and end', async () => {
    const head = Buffer.alloc(HEAD)
    head.writeUInt8(frameTypes.header, 0)
    for (const [length, problem] of [
      [64 << 20, /ends in a frame header/],
      [(64 << 20) + 1, /at most/],
      [0xffff_ffff, /at most/],
    ] as const) {
      head.writeUInt32LE(length, 4)
      const error = await receive(Buffer.concat([Buffer.from('KVMARM64'), head]))
      assertOurs(error)
      assert.match(String(error), problem)
    }
  })
})

/** A queue in memory, but for what is given. */
function queue(more: Json): Json {
  const addresses = { descriptors: RAM_BASE, available: RAM_BASE + 4096, used: RAM_BASE + 8192 }
  return { index: 0, size: 8, ...addresses, taken: 0, given: 0, ...more }
}
