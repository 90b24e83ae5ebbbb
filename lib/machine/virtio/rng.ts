import { randomFillSync } from 'node:crypto'
import type { VirtioDevice } from './device.js'
import { serveRequests, splitBuffers, type VirtQueue } from './queue.js'

/** More than this a request does not get: the driver asks again. */
const LIMIT = 0x1_0000

/** A source of random numbers (Virtual I/O Device 1.2, section 5.4). */
export class VirtioRng implements VirtioDevice {
  readonly type = 4
  readonly features = 0n
  readonly queues = 1
  readonly configuration = new Uint8Array(0)

  serve(_index: number, queue: VirtQueue): boolean {
    return serveRequests(queue, ({ writable, writableLength }) => {
      const length = Math.min(writableLength, LIMIT)
      for (const buffer of splitBuffers(writable, length)[0]) randomFillSync(buffer)
      return length
    })
  }
}
