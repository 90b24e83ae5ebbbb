import type { GuestMemoryFd } from '../backend.js'
import { errnos } from '../uapi.js'
import { checkSize } from '../arguments.js'

/** Guest memory of a simulated VM: an ordinary ArrayBuffer. A VM that maps it keeps the content after `close()`. */
export class SimulatedMemory implements GuestMemoryFd {
  readonly size: number
  readonly pageSize: number
  #buffer: ArrayBuffer
  #kept: ArrayBuffer | null = null

  constructor(buffer: ArrayBuffer, pageSize: number) {
    this.#buffer = buffer
    this.size = buffer.byteLength
    this.pageSize = pageSize
  }

  get buffer(): ArrayBuffer {
    return this.#buffer
  }

  get closed(): boolean {
    return this.#kept !== null
  }

  /** The memory the guest sees. */
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

/** Detaches a buffer, which then has length 0 like an unmapped one; the returned buffer holds the content. */
export function detach(buffer: ArrayBuffer): ArrayBuffer {
  return structuredClone(buffer, { transfer: [buffer] })
}

/** Makes a memory of `size` bytes, or returns `-errno`. */
export function createMemory(size: number, pageSize: bigint): SimulatedMemory | number {
  checkSize(size, 'size')
  if (size === 0 || BigInt(size) % pageSize !== 0n) return -errnos.EINVAL
  try {
    return new SimulatedMemory(new ArrayBuffer(size), Number(pageSize))
  } catch {
    return -errnos.ENOMEM
  }
}
