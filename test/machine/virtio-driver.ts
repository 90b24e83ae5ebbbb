/** A driver's side of a virtio device in memory, as simple as the rules allow. */
import type { FixRegister } from '../../lib/machine/bus.js'
import { RAM_BASE } from '../../lib/machine/memory-map.js'
import { Ram } from '../../lib/machine/ram.js'
import type { VirtioDevice } from '../../lib/machine/virtio/device.js'
import { VirtioMmio } from '../../lib/machine/virtio/mmio.js'

export const RAM_SIZE = 0x10_0000

/** A buffer of a request: bytes the device reads, or the number of bytes it may write. */
export type Part = Uint8Array | number

interface Queue {
  readonly base: number
  available: number
  used: number
}

const QUEUE_BYTES = 0x4000
const BUFFERS = RAM_BASE + 0x4_0000

/** Queues of 16 descriptors from the start of memory, buffers behind them. */
export class Driver {
  readonly ram = new Ram(RAM_BASE, new ArrayBuffer(RAM_SIZE))
  port: VirtioMmio
  readonly size = 16
  level = false
  readonly #queues: Queue[]

  constructor(device: VirtioDevice, fixInterruptStatus?: FixRegister, fail?: (error: unknown) => void) {
    this.port = new VirtioMmio(this.ram, device, (level) => (this.level = level), fixInterruptStatus, fail)
    this.#queues = Array.from({ length: device.queues }, (_, index) => ({
      base: RAM_BASE + index * QUEUE_BYTES,
      available: 0,
      used: 0,
    }))
  }

  /** Gives the driver another device in the state of its own, as a move does. */
  move(device: VirtioDevice): void {
    this.port.pause()
    const state = JSON.parse(JSON.stringify(this.port.save())) as ReturnType<VirtioMmio['save']>
    this.port.stop()
    this.port = new VirtioMmio(this.ram, device, (level) => (this.level = level))
    this.port.restore(state)
    this.port.resume()
  }

  read(offset: number): number {
    return this.port.read(offset, 4)
  }

  write(offset: number, value: number): void {
    this.port.write(offset, 4, value)
  }

  places(index: number): { descriptors: number; available: number; used: number } {
    const { base } = this.#queues[index]!
    return { descriptors: base, available: base + 0x1000, used: base + 0x2000 }
  }

  /** The whole initialisation of section 3.1.1. */
  start(features = 0, lastStatus = 15): void {
    this.write(0x70, 0)
    for (const queue of this.#queues) Object.assign(queue, { available: 0, used: 0 })
    this.ram.at(RAM_BASE, QUEUE_BYTES * this.#queues.length).fill(0)
    for (const status of [1, 3]) this.write(0x70, status)
    this.write(0x24, 0)
    this.write(0x20, features)
    this.write(0x24, 1)
    this.write(0x20, 1)
    this.write(0x70, 11)
    for (const index of this.#queues.keys()) this.#startQueue(index)
    this.write(0x70, lastStatus)
  }

  #startQueue(index: number): void {
    const { descriptors, available, used } = this.places(index)
    this.write(0x30, index)
    this.write(0x38, this.size)
    for (const [register, address] of [
      [0x80, descriptors],
      [0x90, available],
      [0xa0, used],
    ] as const) {
      this.write(register, address)
      this.write(register + 4, 0)
    }
    this.write(0x44, 1)
  }

  /** Makes a request available, its buffers one behind the other, and notifies the device. Returns where the buffers are. */
  send(index: number, parts: readonly Part[], notify = true): number[] {
    const queue = this.#queues[index]!
    const { descriptors, available } = this.places(index)
    let address = BUFFERS
    const addresses = parts.map((part, place) => {
      const length = typeof part === 'number' ? part : part.length
      if (typeof part === 'number') this.ram.at(address, length).fill(0xee)
      else this.ram.at(address, length).set(part)
      const flags = (typeof part === 'number' ? 2 : 0) | (place + 1 < parts.length ? 1 : 0)
      this.descriptor(descriptors + 16 * place, { address, length, flags, next: place + 1 })
      const here = address
      address += length
      return here
    })
    this.ram.at(available + 4 + 2 * (queue.available % this.size), 2).set([0, 0])
    queue.available = (queue.available + 1) & 0xffff
    this.ram.store16(available + 2, queue.available)
    if (notify) this.write(0x50, index)
    return addresses
  }

  descriptor(at: number, { address = 0, length = 0, flags = 0, next = 0 }): void {
    this.ram.write32(at, address % 2 ** 32)
    this.ram.write32(at + 4, Math.floor(address / 2 ** 32))
    this.ram.write32(at + 8, length)
    this.ram.write32(at + 12, flags | (next << 16))
  }

  /** The requests given back since the last call: the number of bytes the device wrote in each. */
  received(index: number): number[] {
    const queue = this.#queues[index]!
    const { used } = this.places(index)
    const written: number[] = []
    while (queue.used !== this.ram.load16(used + 2)) {
      written.push(this.ram.read32(used + 8 + 8 * (queue.used % this.size)))
      queue.used = (queue.used + 1) & 0xffff
    }
    return written
  }
}
