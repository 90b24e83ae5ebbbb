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

const SMALL = 0x4000
/** Mostly numbers that mean something: addresses in and around memory, small lengths, indexes, flags. */
const word = fc.oneof(
  fc.nat(20),
  fc.nat(0xffff_ffff),
  fc.nat(SMALL + 64).map((offset) => RAM_BASE + offset - 32),
  fc.constantFrom(0xffff, 0xffff_ffff, 0x8000_0000, RAM_BASE, RAM_BASE + SMALL),
)
/** Where the parts of the queues are, and words in them. */
const poke = fc.record({
  kind: fc.constant('poke' as const),
  offset: fc.oneof(fc.nat(63), fc.nat(SMALL / 4 - 1)).map((index) => index * 4),
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
const start = fc.record({ kind: fc.constant('start' as const), size: fc.constantFrom(1, 2, 4, 8) })
const notify = fc.record({ kind: fc.constant('notify' as const), available: fc.nat(9) })
const step = fc.oneof({ weight: 6, arbitrary: poke }, access, start, { weight: 3, arbitrary: notify })

function valueFits(value: number, size: number): number {
  return value % 2 ** (8 * size)
}

describe('a device survives every guest', () => {
  for (const [name, make] of Object.entries(devices)) {
    test(name, async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
          const ram = new CountingRam(RAM_BASE, new ArrayBuffer(SMALL))
          const device = make()
          let level = false
          const port = new VirtioMmio(ram, device, (now) => {
            assert.notEqual(now, level)
            level = now
          })
          const write = (offset: number, value: number) => port.write(offset, 4, value)
          for (const each of steps) {
            ram.accesses = 0
            if (each.kind === 'poke') ram.write32(RAM_BASE + each.offset, each.value)
            else if (each.kind === 'read') {
              const value = port.read(each.offset, each.size)
              assert.ok(value >= 0 && value < 2 ** (8 * each.size))
            } else if (each.kind === 'write')
              port.write(each.offset, each.size, valueFits(each.value, each.size))
            else if (each.kind === 'notify') {
              ram.store16(RAM_BASE + 0x400 + 2, (ram.load16(RAM_BASE + 0x400 + 2) + each.available) & 0xffff)
              write(0x50, 0)
              write(0x50, 1)
              if (device instanceof VirtioConsole) device.receive(Buffer.from('typed'))
            } else {
              for (const [offset, value] of [
                [0x70, 0],
                [0x24, 1],
                [0x20, 1],
                [0x70, 11],
                [0x30, 0],
                [0x38, each.size],
                [0x80, RAM_BASE],
                [0x90, RAM_BASE + 0x400],
                [0xa0, RAM_BASE + 0x800],
                [0x44, 1],
                [0x70, 15],
              ] as const) {
                write(offset, value)
              }
            }
            // A notification serves at most a queue of 256 chains of 256 descriptors of 4 reads, twice, and input once more.
            assert.ok(ram.accesses < 3 * 256 * (4 + 256 * 5), `${ram.accesses} accesses`)
          }
          port.stop()
          await nextTurn()
        }),
        { numRuns },
      )
    })
  }
})

test('every request of random descriptors lies in memory, or is refused', () => {
  const descriptor = fc.record({
    low: word,
    high: fc.constantFrom(0, 0, 0, 0, 1, 0xffff_ffff),
    length: word,
    tail: word,
  })
  fc.assert(
    fc.property(
      fc.array(descriptor, { minLength: 1, maxLength: 8 }),
      fc.nat(9),
      fc.nat(9),
      (list, head, ahead) => {
        const buffer = new ArrayBuffer(SMALL)
        const ram = new CountingRam(RAM_BASE, buffer)
        const place = { size: 8, descriptors: RAM_BASE, available: RAM_BASE + 0x400, used: RAM_BASE + 0x800 }
        const queue = new VirtQueue(ram, place)
        for (const [index, { low, high, length, tail }] of list.entries()) {
          const at = place.descriptors + 16 * index
          ram.write32(at, low)
          ram.write32(at + 4, high)
          ram.write32(at + 8, length)
          // Flags and the next descriptor; those with a meaning most of the time.
          ram.write32(at + 12, (tail & 0x7) | ((tail >> 3) << 16))
        }
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
        } catch (error) {
          assert.ok(error instanceof QueueError, String(error))
        } finally {
          assert.ok(ram.accesses <= 4 + 8 * 5)
        }
      },
    ),
    { numRuns: 10 * numRuns },
  )
})
