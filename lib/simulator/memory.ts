import type { GuestMemoryFd } from '../backend.js'
import { errnos } from '../uapi.js'
import { checkSize } from '../arguments.js'

/** Guest memory of a simulated VM: an ArrayBuffer like any other. A VM it is mapped into keeps what it holds after `close()`. */
export class SimulatedMemory implements GuestMemoryFd {
  readonly size: number
  #buffer: ArrayBuffer
  #kept: ArrayBuffer | null = null

  constructor(buffer: ArrayBuffer) {
    this.#buffer = buffer
    this.size = buffer.byteLength
  }

  get buffer(): ArrayBuffer {
    return this.#buffer
  }

  get closed(): boolean {
    return this.#kept !== null
  }

  /** What the guest sees. */
  get contents(): ArrayBuffer {
    return this.#kept ?? this.#buffer
  }

  read(offset: number, into: Uint8Array): number {
    const outcome = this.#check(offset, into.byteLength)
    if (outcome === 0) into.set(new Uint8Array(this.#buffer, offset, into.byteLength))
    return outcome
  }

  write(offset: number, from: Uint8Array): number {
    const outcome = this.#check(offset, from.byteLength)
    if (outcome === 0) new Uint8Array(this.#buffer).set(from, offset)
    return outcome
  }

  close(): void {
    this.#kept ??= detach(this.#buffer)
  }

  #check(offset: number, size: number): number {
    checkSize(offset, 'offset')
    if (this.closed) return -errnos.EBADF
    return offset + size > this.size ? -errnos.EFAULT : 0
  }
}

/** Leaves a buffer with length 0, as an unmapped one is; what it held is in the one returned. */
export function detach(buffer: ArrayBuffer): ArrayBuffer {
  return structuredClone(buffer, { transfer: [buffer] })
}

/** A memory of `size` bytes, or `-errno`. */
export function createMemory(size: number, pageSize: bigint): SimulatedMemory | number {
  checkSize(size, 'size')
  if (size === 0 || BigInt(size) % pageSize !== 0n) return -errnos.EINVAL
  try {
    return new SimulatedMemory(new ArrayBuffer(size))
  } catch {
    return -errnos.ENOMEM
  }
}
