/** The host's ends of the machine's ports, as the agent in it uses them (agent.ts). */
import type { Socket } from 'node:net'
import { Readable, type Writable } from 'node:stream'

/** What comes out of a port, line by line. */
export async function* lines(port: Socket): AsyncGenerator<string, void, undefined> {
  let rest = ''
  for await (const chunk of port) {
    rest += String(chunk)
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      yield rest.slice(0, end).trimEnd()
      rest = rest.slice(end + 1)
    }
  }
}

/** One command's output: the data of a port up to the mark. */
export class Stream {
  readonly ended: Promise<void>
  readonly #chunks: Buffer[] = []

  constructor(port: Socket, mark: string, sink: Writable | undefined) {
    let held: Buffer = Buffer.alloc(0)
    const resume = () => {
      sink?.removeListener('drain', resume).removeListener('close', resume)
      port.resume()
    }
    const emit = (data: Buffer) => {
      if (data.length === 0) return
      if (!sink) this.#chunks.push(data)
      // Data that nobody reads any more is dropped; the command continues.
      else if (sink.writable && !sink.write(data)) {
        port.pause()
        sink.on('drain', resume).on('close', resume)
      }
    }
    this.ended = new Promise((resolve) => {
      const take = (chunk: Buffer) => {
        held = Buffer.concat([held, chunk])
        const end = held.indexOf(mark, 0, 'latin1')
        if (end < 0) {
          // Only a possible beginning of the mark is held back until more data comes.
          const safe = held.length - possibleStart(held, mark)
          emit(held.subarray(0, safe))
          held = held.subarray(safe)
          return
        }
        port.removeListener('data', take)
        emit(held.subarray(0, end))
        resolve()
      }
      port.on('data', take)
    })
  }

  get collected(): Buffer {
    return Buffer.concat(this.#chunks)
  }
}

/** Returns the length of the longest beginning of `mark` that `data` ends with. */
function possibleStart(data: Buffer, mark: string): number {
  for (let length = Math.min(data.length, mark.length - 1); length > 0; length--) {
    if (data.subarray(data.length - length).equals(Buffer.from(mark.slice(0, length), 'latin1')))
      return length
  }
  return 0
}

/** Bytes. */
const largestFrame = 1 << 20

/** Sends a stream to a command as frames, until the stream or the command ends. */
export class Feed {
  /** Why the stream ended early. */
  failure: Error | undefined
  readonly #source: Readable
  readonly #port: Socket
  #ended = false

  constructor(source: string | Uint8Array | Readable, port: Socket) {
    this.#port = port
    this.#source =
      source instanceof Readable
        ? source
        : Readable.from([Buffer.from(source as Uint8Array)], { objectMode: false })
    this.#source.on('data', this.#send).on('end', this.end).on('error', this.#fail)
  }

  readonly end = (): void => {
    if (this.#ended) return
    this.#ended = true
    this.#source.removeListener('data', this.#send).removeListener('end', this.end).pause()
    this.#port.write('0\n')
  }

  readonly #send = (data: Buffer | string): void => {
    const bytes = Buffer.from(data as Buffer)
    for (let start = 0; start < bytes.length; start += largestFrame) {
      const frame = bytes.subarray(start, start + largestFrame)
      this.#port.write(`${frame.length}\n`)
      const isRoomLeft = this.#port.write(frame)
      if (!isRoomLeft && !this.#source.isPaused()) {
        this.#source.pause()
        this.#port.once('drain', this.#resume)
      }
    }
  }

  readonly #resume = (): void => {
    if (!this.#ended) this.#source.resume()
  }

  readonly #fail = (error: Error): void => {
    this.failure ??= error
    this.end()
  }
}
