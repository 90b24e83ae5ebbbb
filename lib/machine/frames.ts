/**
 * The stream by which a machine moves: eight bytes that name it, then frames of a type, a length, a checksum and as many bytes.
 *
 *     type u8, 0 u8, 0 u16 | length u32 | CRC-32 of the bytes u32 | bytes
 *
 * Numbers are little-endian. Answers come back in frames of the same form, without the first eight bytes.
 */
import { createHash, type Hash } from 'node:crypto'
import type { Readable, Writable } from 'node:stream'
import { crc32 } from 'node:zlib'
import { MachineError } from './errors.js'

export const frameTypes = {
  /** JSON: what the machine is, and its state when the move began. */
  header: 1,
  /** An offset in memory (u64), and the bytes there. */
  pages: 2,
  /** An offset in memory and a length (u64 each): these bytes are 0. */
  zeros: 3,
  /** JSON: what the stopped VM and its devices hold. */
  state: 4,
  /** SHA-256 of the heads of all frames before, and with them of all checksums. */
  end: 5,
  /** The guest is the destination's. */
  go: 6,
  /** An answer: the verdict allows the move. */
  accepted: 16,
  /** An answer: JSON with the reasons why not. */
  refused: 17,
  /** An answer: everything is in place. */
  ready: 18,
  /** An answer: the guest runs. */
  started: 19,
} as const

export type FrameType = keyof typeof frameTypes

/** Bytes of memory that one frame says something about, at most. */
export const PIECE = 256 << 10
const JSON_MAX = 64 << 20
const longest: Readonly<Record<FrameType, number>> = {
  header: JSON_MAX,
  pages: PIECE + 8,
  zeros: 16,
  state: JSON_MAX,
  end: 32,
  go: 0,
  accepted: 0,
  refused: JSON_MAX,
  ready: 0,
  started: 0,
}

const MAGIC = Buffer.from('KVMARM64', 'latin1')
const HEAD = 12

export interface Frame {
  readonly type: FrameType
  readonly bytes: Buffer
}

function broken(problem: string, cause?: unknown): MachineError {
  return new MachineError('ERR_MACHINE_STREAM', problem, cause === undefined ? {} : { cause })
}

/**
 * Rejects if a promise does not settle in time.
 * @param timeout milliseconds; 0 means no limit
 * @param what begins the error, which ends in the time: `nothing came`
 * @throws MachineError `ERR_MACHINE_STREAM`; the promise rejects
 */
export async function within<T>(timeout: number, what: string, promise: Promise<T>): Promise<T> {
  if (timeout === 0) return await promise
  let timer: NodeJS.Timeout | undefined
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(broken(`${what} for ${timeout} ms`)), timeout)
  })
  try {
    return await Promise.race([promise, expired])
  } finally {
    clearTimeout(timer)
  }
}

/** Writes frames, no faster than the stream takes them. */
export class FrameWriter {
  readonly #stream: Writable
  readonly #timeout: number
  readonly #hash: Hash = createHash('sha256')
  #written = 0

  /** @param timeout milliseconds for which the stream may take nothing; 0 means no limit */
  constructor(stream: Writable, timeout: number) {
    this.#stream = stream
    this.#timeout = timeout
  }

  /** Bytes written so far. */
  get written(): number {
    return this.#written
  }

  /** @throws MachineError `ERR_MACHINE_STREAM` for a stream that is broken or takes nothing; the promise rejects */
  async begin(): Promise<void> {
    await this.#write(MAGIC)
  }

  /** Writes one frame, whose bytes may come in parts. @throws MachineError as `begin` */
  async write(type: FrameType, ...parts: Uint8Array[]): Promise<void> {
    const head = Buffer.alloc(HEAD)
    head.writeUInt8(frameTypes[type], 0)
    head.writeUInt32LE(
      parts.reduce((sum, { length }) => sum + length, 0),
      4,
    )
    head.writeUInt32LE(
      parts.reduce((sum, bytes) => crc32(bytes, sum), 0),
      8,
    )
    this.#hash.update(head)
    // One call of the stream costs more than a copy.
    await this.#write(Buffer.concat([head, ...parts]))
  }

  /** @throws MachineError as `begin` */
  async writeJson(type: FrameType, value: unknown): Promise<void> {
    const bytes = Buffer.from(JSON.stringify(value))
    if (bytes.length > longest[type])
      throw broken(`the ${type} of this machine has ${bytes.length} bytes, more than a stream holds`)
    await this.write(type, bytes)
  }

  /** Writes the digest of all frames that were written. @throws MachineError as `begin` */
  async end(): Promise<void> {
    await this.write('end', this.#hash.copy().digest())
  }

  async #write(bytes: Uint8Array): Promise<void> {
    this.check()
    this.#written += bytes.length
    const hasRoom = this.#stream.write(bytes)
    if (!hasRoom) await within(this.#timeout, 'the stream took nothing', this.#drained())
    this.check()
  }

  /** @throws MachineError `ERR_MACHINE_STREAM` if the stream is broken or closed */
  check(): void {
    const { errored, destroyed, writableEnded } = this.#stream
    if (errored) throw broken(`the stream broke: ${errored.message}`, errored)
    if (destroyed || writableEnded) throw broken('the stream was closed before all was sent')
  }

  #drained(): Promise<void> {
    const stream = this.#stream
    return new Promise((resolve) => {
      const events = ['drain', 'error', 'close'] as const
      const settle = () => {
        for (const event of events) stream.off(event, settle)
        resolve()
      }
      for (const event of events) stream.on(event, settle)
    })
  }
}

/** Reads frames, and holds no more of the stream than the frame it returns next and what the stream itself holds. */
export class FrameReader {
  readonly #chunks: AsyncIterator<unknown>
  readonly #timeout: number
  readonly #hash: Hash = createHash('sha256')
  /** What has come of the stream beyond what was taken. */
  #rest: Buffer = Buffer.alloc(0)

  /** @param timeout milliseconds for which nothing may come; 0 means no limit */
  constructor(stream: Readable, timeout: number) {
    this.#chunks = stream[Symbol.asyncIterator]()
    this.#timeout = timeout
  }

  /** @throws MachineError `ERR_MACHINE_STREAM` for a stream that begins otherwise; the promise rejects */
  async begin(): Promise<void> {
    const found = await this.#take(MAGIC.length, 'the stream ends before it has begun')
    if (!found.equals(MAGIC))
      throw broken('the stream is not one of a kvm-arm64 machine: expected KVMARM64 at its start')
  }

  /**
   * Returns the next frame. That of type `end` has been compared with all frames before it.
   * @param expected the types that may come
   * @param timeout milliseconds for which nothing may come; 0 means no limit. Default: the reader's
   * @throws MachineError `ERR_MACHINE_STREAM` for a stream that ends, stalls, or holds anything else; the promise rejects
   */
  async next(expected: readonly FrameType[], timeout = this.#timeout): Promise<Frame> {
    const place = `the stream ends where ${expected.join(' or ')} should follow`
    const digest = expected.includes('end') ? this.#hash.copy().digest() : undefined
    const head = await this.#take(HEAD, place, timeout)
    const type = expected.find((name) => frameTypes[name] === head[0])
    if (type === undefined || head.readUIntLE(1, 3) !== 0) {
      const found = Object.entries(frameTypes).find(([, number]) => number === head.readUInt32LE(0))?.[0]
      throw broken(
        `the stream holds ${found ?? 'an unknown frame'} where ${expected.join(' or ')} should follow`,
      )
    }
    this.#hash.update(head)
    const length = head.readUInt32LE(4)
    if (length > longest[type])
      throw broken(`a frame ${type} of ${length} bytes: at most ${longest[type]} are possible`)
    const bytes = await this.#take(length, `the stream ends in a frame ${type}`)
    if (crc32(bytes) !== head.readUInt32LE(8))
      throw broken(`a frame ${type} is damaged: its checksum differs`)
    if (type === 'end' && !bytes.equals(digest!)) throw broken('the stream is damaged: its digest differs')
    return { type, bytes }
  }

  async #take(length: number, ifEnds: string, timeout = this.#timeout): Promise<Buffer> {
    if (this.#rest.length >= length) {
      const taken = this.#rest.subarray(0, length)
      this.#rest = this.#rest.subarray(length)
      return taken
    }
    // Copied as they come: a chunk of one byte may hold a whole buffer of the socket.
    const taken = Buffer.allocUnsafeSlow(length)
    let filled = this.#rest.copy(taken)
    while (filled < length) {
      const chunk = await this.#chunk(ifEnds, timeout)
      const used = chunk.copy(taken, filled)
      this.#rest = chunk.subarray(used)
      filled += used
    }
    return taken
  }

  async #chunk(ifEnds: string, timeout: number): Promise<Buffer> {
    let next: IteratorResult<unknown>
    try {
      next = await within(timeout, 'nothing came', this.#chunks.next())
    } catch (error) {
      if (error instanceof MachineError) throw error
      throw broken(`${ifEnds}: ${(error as Error).message}`, error)
    }
    if (next.done === true) throw broken(ifEnds)
    if (!(next.value instanceof Uint8Array)) throw broken('the stream holds no bytes: do not set an encoding')
    const { buffer, byteOffset, byteLength } = next.value
    return Buffer.from(buffer, byteOffset, byteLength)
  }
}
