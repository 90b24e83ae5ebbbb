import type { VirtioDevice } from './device.js'
import { type Chain, serveRequests, type VirtQueue } from './queue.js'

const RECEIVE = 0
const TRANSMIT = 1

/** A console with one port (Virtual I/O Device 1.2, section 5.3): `hvc0` of Linux. */
export class VirtioConsole implements VirtioDevice {
  readonly type = 3
  readonly features = 0n
  readonly queues = 2
  readonly configuration = new Uint8Array(0)
  readonly #send: (bytes: Uint8Array) => void
  readonly #waiting: Uint8Array[] = []
  #isHeld = false
  #wake: (queue: number) => void = () => undefined

  /** @param send receives copies of what the guest sends */
  constructor(send: (bytes: Uint8Array) => void) {
    this.#send = send
  }

  /** Gives the guest bytes to receive; they wait without limit. */
  receive(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#waiting.push(bytes)
    this.#wake(RECEIVE)
  }

  /** What the guest has yet to receive. */
  get waiting(): Uint8Array {
    return Buffer.concat(this.#waiting)
  }

  /** Leaves what the guest sends in its queue, until it is called with false. */
  hold(isHeld: boolean): void {
    this.#isHeld = isHeld
    if (!isHeld) this.#wake(TRANSMIT)
  }

  attach(wake: (queue: number) => void): void {
    this.#wake = wake
  }

  serve(index: number, queue: VirtQueue): boolean {
    if (index === TRANSMIT) {
      return (
        !this.#isHeld &&
        serveRequests(
          queue,
          (chain) => this.#transmit(chain),
          () => this.#isHeld,
        )
      )
    }
    for (let count = 0; count < queue.size; count++) {
      // Only what has come takes a buffer, so that none is given back empty.
      if (this.#waiting.length === 0) return false
      const chain = queue.take()
      if (chain === undefined) return false
      queue.give(chain, this.#fill(chain))
    }
    return this.#waiting.length > 0 && queue.isPending
  }

  #transmit({ readable }: Chain): number {
    for (const buffer of readable) this.#send(buffer.slice())
    return 0
  }

  #fill({ writable }: Chain): number {
    let written = 0
    for (const buffer of writable) {
      let filled = 0
      while (filled < buffer.length && this.#waiting.length > 0) {
        const piece = this.#waiting[0]!
        const part = piece.subarray(0, buffer.length - filled)
        buffer.set(part, filled)
        filled += part.length
        if (part.length === piece.length) this.#waiting.shift()
        else this.#waiting[0] = piece.subarray(part.length)
      }
      written += filled
    }
    return written
  }
}
