/**
 * Guests that write garbage into their queues, rings and device registers. Whatever they write, each access ends after a bounded
 * number of steps, touches nothing outside guest memory, and leaves a device that works or one that needs a reset.
 *
 * `FUZZ_RUNS=100000 npx vitest run --project unit test/machine/hostile-queues.test.ts` runs the last tests for longer.
 */
import assert from 'node:assert/strict'
import { setImmediate as nextTurn } from 'node:timers/promises'
import * as fc from 'fast-check'
import { describe, test } from 'vitest'
import { memoryDisk } from '../../lib/machine/disk.js'
import { RAM_BASE } from '../../lib/machine/memory-map.js'
import { Ram } from '../../lib/machine/ram.js'
import { VirtioBlock } from '../../lib/machine/virtio/block.js'
import { VirtioConsole } from '../../lib/machine/virtio/console.js'
import type { VirtioDevice } from '../../lib/machine/virtio/device.js'
import { VirtioMmio } from '../../lib/machine/virtio/mmio.js'
import { CHAIN_LIMIT, QueueError, VirtQueue } from '../../lib/machine/virtio/queue.js'
import { VirtioRng } from '../../lib/machine/virtio/rng.js'
import { Driver, RAM_SIZE } from './virtio-driver.js'

const numRuns = Number(process.env['FUZZ_RUNS'] ?? 300)

const devices: Record<string, () => VirtioDevice> = {
  rng: () => new VirtioRng(),
  console: () => new VirtioConsole(() => undefined),
  disk: () => new VirtioBlock(memoryDisk('d', new Uint8Array(4096), false)),
}

/** Requires that the device is dead, says so to its driver, ignores it, and works again after a reset. */
function isDead(driver: Driver, problem: RegExp): void {
  assert.match(driver.port.failure?.message ?? 'none', problem)
  assert.equal(driver.read(0x70) & 0x40, 0x40)
  assert.equal(driver.read(0x60) & 2, 2)
  driver.write(0x50, 0)
  assert.deepEqual(driver.received(0), [])
  driver.start()
  assert.equal(driver.port.failure, undefined)
  driver.send(0, [8])
  assert.deepEqual(driver.received(0), [8])
}

describe('a device is dead until its driver resets it', () => {
  const broken: Record<string, (driver: Driver) => void> = {}
  const descriptors = RAM_BASE
  const available = RAM_BASE + 0x1000
  const end = RAM_BASE + RAM_SIZE

  function request(problem: string, fields: object, head = 0): void {
    broken[problem] = (driver) => {
      driver.descriptor(descriptors, { address: RAM_BASE + 0x8_0000, length: 16, flags: 2, ...fields })
      driver.ram.at(available + 4, 2).set([head, 0])
      driver.ram.store16(available + 2, 1)
    }
  }
  request('descriptor 16 in', {}, 16)
  request('descriptor 77 in', { flags: 3, next: 77 })
  request('round in a circle', { flags: 3, next: 0 })
  request('indirect descriptor', { flags: 4 })
  request('buffer of 0 bytes', { length: 0 })
  request('buffer of 17 bytes', { address: end - 16, length: 17 })
  request('buffer of 4294967295 bytes', { length: 0xffff_ffff })
  request('at 0x0', { address: 0 })
  request(`at 0x${(RAM_BASE - 1).toString(16)}`, { address: RAM_BASE - 1 })
  request('at 0xffffff00', { address: 0xffff_ff00 })
  request('at 0xfffffffffffff800', { address: 2 ** 64 - 2048, length: 4096 })
  broken['17 requests available'] = ({ ram }) => ram.store16(available + 2, 17)
  broken['65535 requests available'] = ({ ram }) => ram.store16(available + 2, 0xffff)
  broken['readable buffer behind a writable'] = (driver) => {
    driver.descriptor(descriptors, { address: end - 64, length: 8, flags: 3, next: 1 })
    driver.descriptor(descriptors + 16, { address: end - 64, length: 8, flags: 0 })
    driver.ram.store16(available + 2, 1)
  }

  for (const [problem, breakRule] of Object.entries(broken)) {
    test(problem, () => {
      const driver = new Driver(new VirtioRng())
      driver.start()
      breakRule(driver)
      driver.write(0x50, 0)
      isDead(driver, new RegExp(problem))
    })
  }

  for (const [problem, parts] of [
    ['without its header', [new Uint8Array(15), 1]],
    ['without its header', [1]],
    ['without room for its status', [new Uint8Array(16)]],
  ] as const) {
    test(`a disk: ${problem}, ${parts.length}`, () => {
      const driver = new Driver(devices['disk']!())
      driver.start()
      driver.send(0, parts)
      assert.match(driver.port.failure!.message, new RegExp(problem))
    })
  }
})

test('a queue can only be where memory is, aligned, and of a size that exists', () => {
  const ram = new Ram(RAM_BASE, new ArrayBuffer(RAM_SIZE))
  const good = { size: 16, descriptors: RAM_BASE, available: RAM_BASE + 0x1000, used: RAM_BASE + 0x2000 }
  assert.equal(new VirtQueue(ram, good).isPending, false)
  const end = RAM_BASE + RAM_SIZE
  for (const bad of [
    { size: 0 },
    { size: 3 },
    { size: 512 },
    { size: 2 ** 31 },
    { descriptors: RAM_BASE + 8 },
    { descriptors: end - 240 },
    { available: RAM_BASE + 1 },
    { available: end - 36 },
    { used: RAM_BASE + 2 },
    { used: end },
    { used: 2 ** 64 },
    { descriptors: 0 },
  ]) {
    assert.throws(() => new VirtQueue(ram, { ...good, ...bad }), QueueError, JSON.stringify(bad))
  }
})

test('a request has at most 16 MiB, however often it names one buffer', () => {
  const size = CHAIN_LIMIT / 4
  const ram = new Ram(RAM_BASE, new ArrayBuffer(size + 0x1_0000))
  const place = { size: 16, descriptors: RAM_BASE, available: RAM_BASE + 0x1000, used: RAM_BASE + 0x2000 }
  const queue = new VirtQueue(ram, place)
  for (let index = 0; index < 5; index++) {
    const at = place.descriptors + 16 * index
    ram.write32(at, RAM_BASE + 0x1_0000)
    ram.write32(at + 8, size)
    ram.write32(at + 12, 3 | ((index + 1) << 16))
  }
  ram.store16(place.available + 2, 1)
  assert.throws(() => queue.take(), /more than 16777216 bytes/)
})

/** Counts what a device reads of its queue. */
class CountingRam extends Ram {
  accesses = 0

  override read16(address: number): number {
    this.accesses++
    return super.read16(address)
  }
  override read32(address: number): number {
    this.accesses++
    return super.read32(address)
  }
  override read64(address: number): number {
    this.accesses++
    return super.read64(address)
  }
  override load16(address: number): number {
    this.accesses++
    return super.load16(address)
  }
  override at(address: number, length: number): Uint8Array {
    const bytes = super.at(address, length)
    assert.equal(bytes.length, length)
    return bytes
  }
}

const SMALL = 0x8000
/** Queue 0, and queue 1 behind it; buffers are anywhere. */
const QUEUE_STRIDE = 0x1000
const AVAILABLE = 0x400
const USED = 0x800

/** Mostly numbers that mean something: addresses in and around memory, small lengths, indexes, flags. */
const word = fc.oneof(
  fc.nat(20),
  fc.nat(0xffff_ffff),
  fc.nat(SMALL + 64).map((offset) => RAM_BASE + offset - 32),
  fc.constantFrom(0xffff, 0xffff_ffff, 0x8000_0000, RAM_BASE, RAM_BASE + SMALL),
)

/** Mostly right, and now and then anything. */
function mostly<T>(right: fc.Arbitrary<T>, wrong: fc.Arbitrary<T>): fc.Arbitrary<T> {
  return fc.oneof({ weight: 24, arbitrary: right }, { weight: 1, arbitrary: wrong })
}

const requestHeader = fc.record({ type: fc.constantFrom(0, 1, 4, 8, 99), sector: mostly(fc.nat(9), word) })

/** A chain of descriptors in a row, each of which may be wrong in one part. */
const descriptors = fc.array(
  fc.record({
    low: mostly(
      fc.nat(SMALL - 0x200).map((offset) => RAM_BASE + offset),
      word,
    ),
    high: mostly(fc.constant(0), fc.constantFrom(1, 0x8000_0000, 0xffff_ffff)),
    length: mostly(fc.constantFrom(1, 16, 20, 512), word),
    isWritable: fc.boolean(),
    flags: mostly(fc.constant(0), fc.nat(7)),
    next: mostly(fc.constant(undefined), fc.nat(0xffff)),
  }),
  { minLength: 1, maxLength: 5 },
)
type Descriptors = typeof descriptors extends fc.Arbitrary<infer T> ? T : never

/** With a header and a status around them, as a disk wants it. */
function framed(list: Descriptors): Descriptors {
  const [model] = list
  const part = { ...model!, high: 0 as const, flags: 0, next: undefined }
  const header = { ...part, low: RAM_BASE + SMALL - 0x100, length: 16, isWritable: false }
  const status = { ...part, low: RAM_BASE + SMALL - 0x80, length: 1, isWritable: true }
  return [header, ...list, status]
}

/** Writes a chain from the first descriptor of a table on, readable buffers first. */
function writeChain(ram: Ram, table: number, list: Descriptors): void {
  const inOrder = list.toSorted((a, b) => Number(a.isWritable) - Number(b.isWritable))
  for (const [index, { low, high, length, isWritable, flags, next }] of inOrder.entries()) {
    const at = table + 16 * index
    const isLast = index + 1 === list.length
    ram.write32(at, low)
    ram.write32(at + 4, high)
    ram.write32(at + 8, length)
    ram.write32(at + 12, (((isWritable ? 2 : 0) | (isLast ? 0 : 1)) ^ flags) | ((next ?? index + 1) << 16))
  }
}

const request = fc.record({
  kind: fc.constant('request' as const),
  queue: fc.nat(1),
  list: fc.oneof({ weight: 3, arbitrary: descriptors.map(framed) }, descriptors),
  header: requestHeader,
  head: mostly(fc.constant(0), fc.nat(0xffff)),
  ahead: mostly(fc.constant(1), fc.nat(0xffff)),
  isPosted: fc.boolean(),
})
const poke = fc.record({
  kind: fc.constant('poke' as const),
  offset: fc.nat(SMALL / 4 - 1).map((index) => index * 4),
  value: word,
})
const registers = [
  0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0x100,
]
const access = fc.record({
  kind: fc.constantFrom('write' as const, 'read' as const),
  offset: fc.oneof(fc.constantFrom(...registers), fc.nat(0x1ff)),
  size: fc.constantFrom(1, 2, 4, 4, 4, 4),
  value: fc.oneof(word, fc.constantFrom(0, 1, 2, 15)),
})
const start = fc.record({ kind: fc.constant('start' as const), size: fc.constantFrom(8, 8, 8, 16, 1) })
const step = fc.oneof(
  { weight: 8, arbitrary: request },
  { weight: 2, arbitrary: poke },
  { weight: 2, arbitrary: access },
  { weight: 2, arbitrary: start },
)

/** A device, its guest, and how many requests the device has given back. */
class Guest {
  readonly ram = new CountingRam(RAM_BASE, new ArrayBuffer(SMALL))
  readonly port: VirtioMmio
  readonly #device: VirtioDevice
  #size = 8
  #level = false
  #status: number | undefined

  constructor(device: VirtioDevice) {
    this.#device = device
    this.port = new VirtioMmio(
      this.ram,
      device,
      (level) => {
        assert.notEqual(level, this.#level)
        this.#level = level
      },
      (status) => (this.#status = status),
    )
  }

  do(each: typeof step extends fc.Arbitrary<infer T> ? T : never): void {
    if (each.kind === 'poke') this.ram.write32(RAM_BASE + each.offset, each.value)
    else if (each.kind === 'start') this.#start(each.size)
    else if (each.kind === 'request') this.#request(each)
    else if (each.kind === 'write') this.port.write(each.offset, each.size, each.value % 2 ** (8 * each.size))
    else {
      const value = this.port.read(each.offset, each.size)
      assert.ok(value >= 0 && value < 2 ** (8 * each.size))
    }
  }

  #start(size: number): void {
    this.#size = size
    const write = (offset: number, value: number) => this.port.write(offset, 4, value)
    for (const [offset, value] of [
      [0x70, 0],
      [0x24, 1],
      [0x20, 1],
      [0x70, 11],
    ] as const) {
      write(offset, value)
    }
    for (const queue of [0, 1]) {
      const base = RAM_BASE + queue * QUEUE_STRIDE
      this.ram.at(base, QUEUE_STRIDE).fill(0)
      for (const [offset, value] of [
        [0x30, queue],
        [0x38, size],
        [0x80, base],
        [0x84, 0],
        [0x90, base + AVAILABLE],
        [0x94, 0],
        [0xa0, base + USED],
        [0xa4, 0],
        [0x44, 1],
      ] as const) {
        write(offset, value)
      }
    }
    write(0x70, 15)
  }

  #request({
    queue,
    list,
    header,
    head,
    ahead,
    isPosted,
  }: typeof request extends fc.Arbitrary<infer T> ? T : never): void {
    const base = RAM_BASE + queue * QUEUE_STRIDE
    const index = this.ram.load16(base + AVAILABLE + 2)
    writeChain(this.ram, base, list)
    const first = list.find(({ isWritable }) => !isWritable)
    // For a disk; to others it is a text.
    if (first !== undefined && this.ram.has(first.low, 16)) {
      this.ram.write32(first.low, header.type)
      this.ram.write32(first.low + 8, header.sector)
      this.ram.write32(first.low + 12, 0)
    }
    this.ram.at(base + AVAILABLE + 4 + 2 * (index % this.#size), 2).set([head & 0xff, head >> 8])
    this.ram.store16(base + AVAILABLE + 2, (index + ahead) & 0xffff)
    if (isPosted) this.port.notify(queue)
    else this.port.write(0x50, 4, queue)
    if (!(this.#device instanceof VirtioConsole)) return
    this.#device.receive(Buffer.from('typed'))
    this.#device.hold(isPosted && ahead !== 1)
  }

  /** What a driver is answered without a call of the device. */
  checkStatus(): void {
    assert.equal(this.port.read(0x60, 4), this.#status)
  }

  /** Requests given back in the queues as they are now; garbage counts as little as it should. */
  get givenBack(): number {
    return [0, 1].reduce((sum, queue) => {
      const count = this.ram.load16(RAM_BASE + queue * QUEUE_STRIDE + USED + 2)
      return sum + (count <= 80 ? count : 0)
    }, 0)
  }
}

describe('a device survives every guest', () => {
  for (const [name, make] of Object.entries(devices)) {
    test(name, async () => {
      let served = 0
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
          const guest = new Guest(make())
          guest.do({ kind: 'start', size: 8 })
          for (const each of steps) {
            guest.ram.accesses = 0
            // A start empties the queues.
            if (each.kind === 'start') served += guest.givenBack
            guest.do(each)
            if (each.kind === 'request' && each.isPosted) await nextTurn()
            guest.checkStatus()
            // A notification serves at most a queue of 256 chains of 256 descriptors of 4 reads, twice, and input once more.
            assert.ok(guest.ram.accesses < 3 * 256 * (4 + 256 * 5), `${guest.ram.accesses} accesses`)
          }
          served += guest.givenBack
          guest.port.stop()
          await nextTurn()
        }),
        { numRuns },
      )
      // Otherwise these guests would only show that a dead device does nothing.
      assert.ok(served > numRuns / 4, `${served} requests served in ${numRuns} runs`)
    })
  }
})

test('every request of random descriptors lies in memory, or is refused', () => {
  const outcomes = { served: 0, refused: 0 }
  fc.assert(
    fc.property(
      descriptors,
      mostly(fc.constant(0), fc.nat(9)),
      mostly(fc.constant(1), fc.nat(9)),
      (list, head, ahead) => {
        const buffer = new ArrayBuffer(SMALL)
        const ram = new CountingRam(RAM_BASE, buffer)
        const place = {
          size: 8,
          descriptors: RAM_BASE,
          available: RAM_BASE + AVAILABLE,
          used: RAM_BASE + USED,
        }
        const queue = new VirtQueue(ram, place)
        writeChain(ram, place.descriptors, list)
        ram.write32(place.available + 4, head)
        ram.store16(place.available + 2, ahead)
        ram.accesses = 0
        try {
          const chain = queue.take()
          if (chain === undefined) return assert.equal(ahead, 0)
          const buffers = [...chain.readable, ...chain.writable]
          assert.ok(buffers.every((part) => part.buffer === buffer && part.length > 0))
          const total = buffers.reduce((sum, part) => sum + part.length, 0)
          assert.equal(total, chain.readableLength + chain.writableLength)
          queue.give(chain, total)
          outcomes.served++
        } catch (error) {
          assert.ok(error instanceof QueueError, String(error))
          outcomes.refused++
        } finally {
          assert.ok(ram.accesses <= 4 + 8 * 5)
        }
      },
    ),
    { numRuns: 10 * numRuns },
  )
  assert.ok(Math.min(outcomes.served, outcomes.refused) > numRuns, JSON.stringify(outcomes))
})
