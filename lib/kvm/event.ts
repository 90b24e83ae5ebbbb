import { checkUint64 } from '../arguments.js'
import type { EventFd } from '../backend.js'
import { errnos } from '../uapi.js'
import { kvmError, NO_THREAD } from './errors.js'

const signalRemedies = new Map<number, string>([
  [errnos.EAGAIN, 'The counter is full: take() the count, then signal again'],
  [errnos.EINVAL, 'Signal at most 2^64 - 2'],
])

/** A wait has a thread of its own, made by the first, and an eventfd that ends it. */
const waitRemedies = new Map<number, string>([
  [errnos.EBUSY, 'A wait() of this event is in flight: await it first'],
  [errnos.EAGAIN, NO_THREAD],
])

/**
 * A counter of events that KVM and this process add to, and that JavaScript can await: an eventfd, made by `Kvm.createEvent`. KVM
 * counts a guest's writes in it (`Mmio.doorbell`), or raises an interrupt when it is signalled (`Vm.connectIrq`).
 *
 * @example
 * using event = kvm.createEvent()
 * using doorbell = vm.mmio.doorbell(0x900_0050n, 4, event)
 * for await (const rings of event) console.log(`the guest rang ${rings} times`)
 */
export class HostEvent implements Disposable, AsyncIterable<bigint> {
  /** The bare handle, which `VmFd` takes. */
  readonly fd: EventFd
  #closed = false

  /** `Kvm.createEvent` makes the events. */
  constructor(fd: EventFd) {
    this.fd = fd
  }

  /**
   * Adds to the counter.
   * @param count up to 2^64 - 2
   * @throws KvmError `EAGAIN` if the counter would pass 2^64 - 2 or KVM has counted to 2^64 - 1, `EINVAL` for 2^64 - 1,
   * `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for anything but a 64-bit number
   */
  signal(count = 1n): void {
    checkUint64(count, 'count')
    const outcome = this.fd.signal(count)
    if (outcome < 0) {
      throw kvmError(outcome, {
        syscall: 'eventfd_write',
        value: count,
        remedy: signalRemedies.get(-outcome),
      })
    }
  }

  /**
   * Returns what was counted since the last call, 0n for nothing, and sets the counter to 0.
   * @throws KvmError `ERR_KVM_CLOSED`
   */
  take(): bigint {
    const outcome = this.fd.take()
    if (typeof outcome === 'bigint') return outcome
    if (outcome === -errnos.EAGAIN) return 0n
    throw kvmError(outcome, { syscall: 'eventfd_read' })
  }

  /**
   * Resolves with the count once there is one, and sets the counter to 0; with 0n if the event is closed meanwhile. The process does
   * not end while a wait is in flight.
   * @throws KvmError `EBUSY` if a wait is in flight already, `EAGAIN` if the thread that waits cannot be created, `EMFILE` or
   * `ENFILE` if there is no file descriptor left for it, `ENOMEM`, `ERR_KVM_CLOSED`
   */
  async wait(): Promise<bigint> {
    const outcome = await this.fd.wait()
    if (typeof outcome === 'bigint') return outcome
    if (outcome === -errnos.EINTR) return 0n
    throw kvmError(outcome, { syscall: 'eventfd_read', remedy: waitRemedies.get(-outcome) })
  }

  /** Waits again and again, until the event is closed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<bigint, void, undefined> {
    while (!this.#closed) {
      const count = await this.wait()
      if (count !== 0n) yield count
    }
  }

  /**
   * Closes the event and ends a wait in flight. May be repeated; every other call then throws `ERR_KVM_CLOSED`. A doorbell that was
   * not closed before goes on keeping the guest's writes from being exits; an interrupt is disconnected.
   */
  close(): void {
    this.#closed = true
    this.fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
