import { type Disk, SECTOR } from '../disk.js'
import type { VirtioDevice } from './device.js'
import { type Chain, QueueError, serveRequests, splitBuffers, type VirtQueue } from './queue.js'

const FEATURE_SIZE_MAX = 1n << 1n
const FEATURE_SEG_MAX = 1n << 2n
const FEATURE_RO = 1n << 5n
const FEATURE_FLUSH = 1n << 9n

/** With these two no driver asks for as much at once as a queue refuses. */
const SEGMENT_SIZE_MAX = 0x1_0000
const SEGMENTS_MAX = 126

const READ = 0
const WRITE = 1
const FLUSH = 4
const GET_ID = 8

const HEADER_SIZE = 16
const ID_SIZE = 20

const OK = 0
const IO_ERROR = 1
const UNSUPPORTED = 2

/** A disk (Virtual I/O Device 1.2, section 5.2). */
export class VirtioBlock implements VirtioDevice {
  readonly type = 2
  readonly queues = 1
  readonly features: bigint
  readonly configuration: Uint8Array
  readonly #disk: Disk

  constructor(disk: Disk) {
    this.#disk = disk
    this.features = FEATURE_SIZE_MAX | FEATURE_SEG_MAX | FEATURE_FLUSH | (disk.readonly ? FEATURE_RO : 0n)
    this.configuration = new Uint8Array(16)
    const view = new DataView(this.configuration.buffer)
    view.setBigUint64(0, BigInt(disk.size / SECTOR), true)
    view.setUint32(8, SEGMENT_SIZE_MAX, true)
    view.setUint32(12, SEGMENTS_MAX, true)
  }

  serve(_index: number, queue: VirtQueue): boolean {
    return serveRequests(queue, (chain) => this.#request(chain))
  }

  #request({ readable, readableLength, writable, writableLength }: Chain): number {
    // Without them nobody can say what was asked, or what came of it.
    if (readableLength < HEADER_SIZE) throw new QueueError('a request to a disk without its header')
    if (writableLength < 1) throw new QueueError('a request to a disk without room for its status')
    const [head, output] = splitBuffers(readable, HEADER_SIZE)
    const [input, [status]] = splitBuffers(writable, writableLength - 1)
    const header = Buffer.concat(head)
    const type = header.readUInt32LE(0)
    const offset = Number(header.readBigUInt64LE(8)) * SECTOR
    const result = this.#do(type, offset, type === WRITE ? output : input)
    status![0] = result
    const hasInput = result === OK && (type === READ || type === GET_ID)
    return hasInput ? writableLength : 1
  }

  #do(type: number, offset: number, buffers: readonly Uint8Array[]): number {
    switch (type) {
      case READ:
      case WRITE:
        return this.#transfer(type, offset, buffers)
      case FLUSH:
        return this.#attempt(() => this.#disk.flush())
      case GET_ID: {
        const id = Buffer.alloc(ID_SIZE)
        id.write(this.#disk.name, 'latin1')
        const [field] = splitBuffers(buffers, ID_SIZE)
        let copied = 0
        for (const buffer of field) copied += id.copy(buffer, 0, copied)
        return OK
      }
      default:
        return UNSUPPORTED
    }
  }

  #transfer(type: number, offset: number, buffers: readonly Uint8Array[]): number {
    const length = buffers.reduce((sum, buffer) => sum + buffer.length, 0)
    if (length % SECTOR !== 0 || offset > this.#disk.size - length) return IO_ERROR
    if (type === WRITE && this.#disk.readonly) return IO_ERROR
    return this.#attempt(() => {
      let place = offset
      for (const buffer of buffers) {
        if (type === READ) this.#disk.read(place, buffer)
        else this.#disk.write(place, buffer)
        place += buffer.length
      }
    })
  }

  /** What goes wrong with the file is the guest's to handle, as with a real disk. */
  #attempt(work: () => void): number {
    try {
      work()
      return OK
    } catch {
      return IO_ERROR
    }
  }
}
