/** Eventfds, and what connects them with a VM. */
import type { EventFd } from '../backend.js'
import { checkUint64 } from '../arguments.js'
import { errnos } from '../uapi.js'

/** The most that userspace can add up to; KVM can count one more. */
const MOST = (1n << 64n) - 2n
/** Longest delay of a timer of Node, milliseconds. */
const LONGEST_DELAY = 0x7fff_ffff

export class SimulatedEvent implements EventFd {
  #count = 0n
  #closed = false
  #settle: ((outcome: bigint | number) => void) | null = null
  /** Raises the interrupt with which the event is connected; returns whether KVM takes the count for that. */
  raise: (() => boolean) | null = null

  get hasCount(): boolean {
    return this.#count > 0n
  }

  get closed(): boolean {
    return this.#closed
  }

  signal(count: bigint): number {
    checkUint64(count, 'count')
    if (this.#closed) return -errnos.EBADF
    if (count > MOST) return -errnos.EINVAL
    if (this.#count + count > MOST) return -errnos.EAGAIN
    this.add(count)
    return 0
  }

  /** Adds to the counter as the kernel does, also once userspace has closed it. */
  add(count: bigint): void {
    this.#count = this.#count + count > MOST ? MOST + 1n : this.#count + count
    // The kernel wakes KVM by any write, also of 0.
    if (this.raise?.()) {
      this.#count = 0n
      return
    }
    if (this.#settle === null || this.#count === 0n) return
    this.#settle(this.#count)
    this.#count = 0n
  }

  take(): bigint | number {
    if (this.#closed) return -errnos.EBADF
    if (this.#count === 0n) return -errnos.EAGAIN
    const count = this.#count
    this.#count = 0n
    return count
  }

  wait(): Promise<bigint | number> {
    if (this.#closed) return Promise.resolve(-errnos.EBADF)
    if (this.#settle !== null) return Promise.resolve(-errnos.EBUSY)
    const taken = this.take()
    if (typeof taken === 'bigint') return Promise.resolve(taken)
    return new Promise((resolve) => {
      // Keeps the process alive, as the addon does.
      const anchor = setInterval(() => undefined, LONGEST_DELAY)
      this.#settle = (outcome) => {
        this.#settle = null
        clearInterval(anchor)
        resolve(outcome)
      }
    })
  }

  close(): void {
    this.#closed = true
    this.raise = null
    this.#settle?.(-errnos.EINTR)
  }
}

/** A place of a VM's address space whose writes an event counts. */
export interface IoEvent {
  readonly event: SimulatedEvent
  /** Of PIO, of CCW, or of memory. */
  readonly bus: number
  readonly address: bigint
  /** Bytes; 0 for writes of any size. */
  readonly size: number
  /** The value that is counted; null for every value. */
  readonly match: bigint | null
}

/** An interrupt that an event raises. */
export interface IrqEvent {
  readonly event: SimulatedEvent
  readonly gsi: number
}
