import type { Ram } from '../ram.js'

/** The driver broke the rules of its queue; the device stops until the driver resets it. */
export class QueueError extends Error {
  override readonly name = 'QueueError'
}

/** The most descriptors a queue can have. */
export const QUEUE_SIZE_MAX = 256

/** Where the driver has put a queue, and how large it made it. */
export interface QueuePlace {
  /** A power of 2, at most `QUEUE_SIZE_MAX`. */
  readonly size: number
  /** Guest addresses. */
  readonly descriptors: number
  readonly available: number
  readonly used: number
}

/** A request: buffers in guest memory, those the device reads and those it writes. The guest can change their content meanwhile. */
export interface Chain {
  /** The number by which the driver recognises it. */
  readonly head: number
  readonly readable: readonly Uint8Array[]
  readonly writable: readonly Uint8Array[]
  /** Bytes of all buffers together. */
  readonly readableLength: number
  readonly writableLength: number
}

/** How far a queue has come: requests taken and given back, modulo 2^16. */
export interface QueueProgress {
  readonly taken: number
  readonly given: number
}

const HAS_NEXT = 1
const DEVICE_WRITES = 2
const INDIRECT = 4
const NO_INTERRUPT = 1
/** More than any driver that keeps to the limits its device announces puts into one request. */
export const CHAIN_LIMIT = 16 << 20

/**
 * The device's side of a split virtqueue (Virtual I/O Device 1.2, section 2.7). Whatever the driver writes into it, each call reads
 * a bounded number of descriptors, touches nothing outside guest memory, and either succeeds or throws `QueueError`.
 */
export class VirtQueue {
  readonly size: number
  readonly #ram: Ram
  readonly #place: QueuePlace
  /** Both count up to 2^16 and wrap. */
  #taken: number
  #given: number
  #isInterruptDue = false

  /** @throws QueueError for a size or an address that no queue may have */
  constructor(ram: Ram, place: QueuePlace, { taken, given }: QueueProgress = { taken: 0, given: 0 }) {
    const { size, descriptors, available, used } = place
    if (!Number.isInteger(size) || size < 1 || size > QUEUE_SIZE_MAX || (size & (size - 1)) !== 0) {
      throw new QueueError(`a queue cannot have ${size} descriptors`)
    }
    const parts = [
      [descriptors, 16 * size, 16],
      [available, 6 + 2 * size, 2],
      [used, 6 + 8 * size, 4],
    ] as const
    for (const [address, length, alignment] of parts) {
      if (address % alignment !== 0 || !ram.has(address, length)) {
        throw new QueueError(`${length} bytes of a queue cannot be at 0x${address.toString(16)}`)
      }
    }
    this.#ram = ram
    this.#place = place
    this.#taken = taken
    this.#given = given
    this.size = size
  }

  get place(): QueuePlace {
    return this.#place
  }

  get progress(): QueueProgress {
    return { taken: this.#taken, given: this.#given }
  }

  /** Whether the driver has made a request available that `take` has not returned. */
  get isPending(): boolean {
    return this.#ram.load16(this.#place.available + 2) !== this.#taken
  }

  /**
   * Returns the next request; undefined if there is none.
   * @throws QueueError
   */
  take(): Chain | undefined {
    const ahead = (this.#ram.load16(this.#place.available + 2) - this.#taken) & 0xffff
    if (ahead === 0) return undefined
    if (ahead > this.size) throw new QueueError(`${ahead} requests available in a queue of ${this.size}`)
    const head = this.#ram.read16(this.#place.available + 4 + 2 * (this.#taken % this.size))
    const chain = this.#chain(head)
    this.#taken = (this.#taken + 1) & 0xffff
    return chain
  }

  /**
   * Gives a request back.
   * @param written the bytes the device wrote, from the first writable buffer on
   */
  give({ head }: Chain, written: number): void {
    const entry = this.#place.used + 4 + 8 * (this.#given % this.size)
    this.#ram.write32(entry, head)
    this.#ram.write32(entry + 4, written)
    this.#given = (this.#given + 1) & 0xffff
    this.#ram.store16(this.#place.used + 2, this.#given)
    if ((this.#ram.load16(this.#place.available) & NO_INTERRUPT) === 0) this.#isInterruptDue = true
  }

  /** Returns once whether the driver wants an interrupt for what was given back. */
  takeInterrupt(): boolean {
    const due = this.#isInterruptDue
    this.#isInterruptDue = false
    return due
  }

  #chain(head: number): Chain {
    const readable: Uint8Array[] = []
    const writable: Uint8Array[] = []
    const lengths = { readable: 0, writable: 0 }
    let index = head
    // A chain that is longer than the queue goes round in a circle.
    for (let count = 0; count < this.size; count++) {
      if (index >= this.size) throw new QueueError(`descriptor ${index} in a queue of ${this.size}`)
      const descriptor = this.#place.descriptors + 16 * index
      const address = this.#ram.read64(descriptor)
      const length = this.#ram.read32(descriptor + 8)
      const flags = this.#ram.read16(descriptor + 12)
      if ((flags & INDIRECT) !== 0) throw new QueueError('an indirect descriptor, which was not offered')
      if (length === 0 || !this.#ram.has(address, length)) {
        throw new QueueError(`a buffer of ${length} bytes at 0x${address.toString(16)}`)
      }
      if (lengths.readable + lengths.writable + length > CHAIN_LIMIT) {
        throw new QueueError(`a request of more than ${CHAIN_LIMIT} bytes`)
      }
      const isWritable = (flags & DEVICE_WRITES) !== 0
      if (!isWritable && writable.length > 0) throw new QueueError('a readable buffer behind a writable one')
      if (isWritable) writable.push(this.#ram.writableAt(address, length))
      else readable.push(this.#ram.at(address, length))
      lengths[isWritable ? 'writable' : 'readable'] += length
      if ((flags & HAS_NEXT) === 0) {
        return {
          head,
          readable,
          writable,
          readableLength: lengths.readable,
          writableLength: lengths.writable,
        }
      }
      index = this.#ram.read16(descriptor + 14)
    }
    throw new QueueError('a chain of descriptors that goes round in a circle')
  }
}

/** After so many bytes other work of this process comes first. */
const SERVED_AT_ONCE = 4 << 20

/**
 * Serves the requests of a queue, at most as many as it has descriptors: a driver can add further ones without end.
 * @param serve does one request and returns how many bytes it wrote
 * @param isHeld whether to leave the other requests where they are
 * @returns whether requests are left
 * @throws QueueError
 */
export function serveRequests(
  queue: VirtQueue,
  serve: (chain: Chain) => number,
  isHeld: () => boolean = () => false,
): boolean {
  let bytes = 0
  for (let count = 0; count < queue.size && bytes < SERVED_AT_ONCE; count++) {
    const chain = queue.take()
    if (chain === undefined) return false
    queue.give(chain, serve(chain))
    if (isHeld()) return false
    bytes += chain.readableLength + chain.writableLength
  }
  return queue.isPending
}

/**
 * Splits buffers into the first `length` bytes and the rest, without a copy.
 * @param length at most what the buffers have together
 */
export function splitBuffers(
  buffers: readonly Uint8Array[],
  length: number,
): readonly [Uint8Array[], Uint8Array[]] {
  const first: Uint8Array[] = []
  const rest: Uint8Array[] = []
  let left = length
  for (const buffer of buffers) {
    const here = Math.min(left, buffer.length)
    if (here > 0) first.push(buffer.subarray(0, here))
    if (here < buffer.length) rest.push(buffer.subarray(here))
    left -= here
  }
  return [first, rest]
}
