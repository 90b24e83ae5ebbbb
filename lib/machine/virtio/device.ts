import type { VirtQueue } from './queue.js'

/** What a virtio device is, apart from how the guest reaches it. */
export interface VirtioDevice {
  /** The device's type (Virtual I/O Device 1.2, section 5). */
  readonly type: number
  /** Feature bits it offers besides `VIRTIO_F_VERSION_1`. */
  readonly features: bigint
  /** Number of its queues. */
  readonly queues: number
  /** Its configuration, which the guest can only read. */
  readonly configuration: Uint8Array
  /**
   * Serves a queue: the driver has notified it, or the device asked for it by `attach`'s function.
   * @returns whether to call again soon, because requests are left
   * @throws QueueError, and the device is dead until the driver resets it
   */
  serve(index: number, queue: VirtQueue): boolean
  /** Receives a function with which the device asks for `serve`, when something has come for the guest. */
  attach?(wake: (queue: number) => void): void
}
