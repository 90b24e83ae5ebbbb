/** The source's side of a move: sends memory while the guest runs, then the rest while it stands still. */
import { finished, type Duplex, type Writable } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Kvm } from '../kvm/index.js'
import { capture } from '../migration/capture.js'
import type { State } from '../migration/state.js'
import { type Board, RAM_SLOT } from './board.js'
import { DirtyPages, type PageRun } from './dirty-pages.js'
import type { Disk } from './disk.js'
import { MachineError, MoveRefusedError } from './errors.js'
import { type Frame, FrameReader, FrameWriter, PIECE, within } from './frames.js'
import { type Header, readRefusal, type Saved } from './moving-machine.js'

/** What a move took. */
export interface Sent {
  /** Bytes of the stream. */
  readonly bytes: number
  /** Times that pages were sent while the guest ran, the first time all of them. */
  readonly rounds: number
  /** Milliseconds for which the guest stood still: until it ran at the destination, or until the stream took the whole snapshot. */
  readonly downtime: number
  /** Milliseconds in all. */
  readonly duration: number
}

/** How a machine is sent; see `SendOptions`. */
export interface SendPlan {
  /** Whether the destination answers on the stream. */
  readonly asks: boolean
  readonly rounds: number
  readonly downtime: number
  readonly timeout: number
  readonly whileStopped: () => void | Promise<void>
}

/** What is sent. */
export interface SendSource {
  readonly kvm: Kvm
  readonly board: Board
  readonly console: Header['console']
  readonly disks: readonly Disk[]
  /** What the guest has yet to receive on its virtio console. */
  readonly input: () => Uint8Array
}

/** Bytes in which memory is found to be 0; a page of any host is a multiple of it. */
const GRAIN = 4096
/** Pieces of memory, however small, after which other work of this thread has its turn. */
const PIECES_A_TURN = 16
const ZEROS = new Uint8Array(PIECE)

/**
 * Sends a machine. When the promise resolves, the guest stands still: it is the destination's, or in the snapshot. When it rejects
 * the guest goes on, except with `ERR_MACHINE_UNCERTAIN`: then it stands still.
 */
export async function sendMachine(source: SendSource, stream: Writable, plan: SendPlan): Promise<Sent> {
  const sender = new Sender(source, stream, plan)
  try {
    return await sender.send()
  } catch (error) {
    const reason = await sender.reasonOf(error)
    stream.destroy()
    throw reason
  }
}

class Sender {
  readonly #source: SendSource
  readonly #board: Board
  readonly #stream: Writable
  readonly #plan: SendPlan
  readonly #writer: FrameWriter
  readonly #reader: FrameReader | undefined
  readonly #dirty: DirtyPages
  /** The destination's next answer, once it has accepted. */
  #answer: Promise<Frame> | undefined
  #refusal: unknown
  /** What was sent since other work of this thread had its turn, in bytes. */
  #sinceTurn = 0

  constructor(source: SendSource, stream: Writable, plan: SendPlan) {
    this.#source = source
    this.#board = source.board
    this.#stream = stream
    this.#plan = plan
    this.#writer = new FrameWriter(stream, plan.timeout)
    this.#reader = plan.asks ? new FrameReader(stream as Duplex, plan.timeout) : undefined
    this.#dirty = new DirtyPages(source.board)
    // Its errors are those of the calls that use it; one that comes later means nothing any more.
    stream.on('error', () => undefined)
  }

  async send(): Promise<Sent> {
    const started = performance.now()
    await this.#announce()
    this.#dirty.begin()
    try {
      const rounds = await this.#sendWhileRunning()
      const downtime = await this.#sendStopped()
      return { bytes: this.#writer.written, rounds, downtime, duration: performance.now() - started }
    } finally {
      this.#dirty.end()
    }
  }

  /** Returns the cause of an error of the stream or of the VM: the destination refused, or the guest ended. */
  async reasonOf(error: unknown): Promise<unknown> {
    if (error instanceof MachineError && error.code === 'ERR_MACHINE_UNCERTAIN') return error
    if (this.#board.isOver) {
      return new MachineError('ERR_MACHINE_ENDED', 'the machine ended while it was being sent', {
        cause: error,
      })
    }
    // A refusal may have come in before the stream broke.
    if (this.#answer !== undefined) await nextTurn()
    return this.#refusal ?? error
  }

  async #announce(): Promise<void> {
    const { console, disks } = this.#source
    await this.#board.pause()
    let state: State
    try {
      state = this.#capture()
    } finally {
      this.#board.resume()
    }
    const header: Header = {
      format: 'kvm-arm64/machine',
      version: 1,
      asks: this.#plan.asks,
      memory: this.#board.memory.size,
      console,
      disks: disks.map(({ size, readonly }) => ({ size, readonly })),
      state,
    }
    await this.#writer.begin()
    await this.#writer.writeJson('header', header)
    if (this.#reader === undefined) return
    throwIfRefused(await this.#reader.next(['accepted', 'refused']))
    this.#answer = this.#reader.next(['ready', 'refused'], 0)
    this.#answer.then(throwIfRefused).catch((error: unknown) => (this.#refusal = error))
  }

  /** @throws MachineError `ERR_MACHINE_SEND` */
  #capture(): State {
    const state = capture(this.#source.kvm, this.#board.vm)
    const { notCarried = [], memory = [] } = state.vm
    if (notCarried.length > 0) {
      throw new MachineError('ERR_MACHINE_SEND', `a stream cannot carry ${notCarried.join(', ')} of this VM`)
    }
    if (memory.length !== 1 || memory[0]!.slot !== RAM_SLOT) {
      const slots = memory.map(({ slot }) => slot).join(', ') || 'none'
      throw new MachineError(
        'ERR_MACHINE_SEND',
        `a stream carries only the memory that the machine made: expected slot ${RAM_SLOT} alone, found ${slots}`,
      )
    }
    return state
  }

  /** Returns the number of rounds. */
  async #sendWhileRunning(): Promise<number> {
    const { rounds, downtime } = this.#plan
    const started = performance.now()
    await this.#sendRun({ offset: 0, length: this.#board.memory.size }, true)
    for (let round = 1; ; round++) {
      const left = this.#dirty.collect()
      const bytesPerMs = this.#writer.written / (performance.now() - started)
      if (round >= rounds || left / bytesPerMs <= downtime) return round
      for (const run of this.#dirty.take()) await this.#sendRun(run)
    }
  }

  /** Returns the milliseconds for which the guest stood still. */
  async #sendStopped(): Promise<number> {
    const started = performance.now()
    await this.#board.pause()
    try {
      this.#dirty.collect()
      for (const run of this.#dirty.take()) await this.#sendRun(run)
      for (const disk of this.#source.disks) disk.flush()
      await this.#plan.whileStopped()
      const saved: Saved = {
        state: this.#capture(),
        devices: this.#board.save(),
        input: Buffer.from(this.#source.input()).toString('base64'),
      }
      await this.#writer.writeJson('state', saved)
      await this.#writer.end()
      if (this.#reader === undefined) await this.#finish()
      else await this.#giveAway(this.#reader)
      return performance.now() - started
    } catch (error) {
      if (!(error instanceof MachineError && error.code === 'ERR_MACHINE_UNCERTAIN')) this.#board.resume()
      throw error
    }
  }

  async #finish(): Promise<void> {
    const taken = new Promise<void>((resolve, reject) => {
      finished(this.#stream, { readable: false }, (error) => (error ? reject(error) : resolve()))
    })
    this.#stream.end()
    try {
      await within(this.#plan.timeout, 'the stream did not end', taken)
    } catch (error) {
      if (error instanceof MachineError) throw error
      throw new MachineError('ERR_MACHINE_STREAM', `the stream broke: ${(error as Error).message}`, {
        cause: error,
      })
    }
  }

  async #giveAway(reader: FrameReader): Promise<void> {
    throwIfRefused(await within(this.#plan.timeout, 'the destination did not answer', this.#answer!))
    this.#writer.check()
    try {
      await this.#writer.write('go')
      await reader.next(['started'])
    } catch (error) {
      throw new MachineError(
        'ERR_MACHINE_UNCERTAIN',
        `the stream broke when the guest was given away (${(error as Error).message}); the guest stands still here. ` +
          'Find out whether it runs at the destination; if it does, close() this machine, if not, resume() it',
        { cause: error },
      )
    }
    this.#stream.end(() => this.#stream.destroy())
  }

  /** @param isFirst whether the destination's memory there is still 0, so that zeros need not be sent */
  async #sendRun({ offset, length }: PageRun, isFirst = false): Promise<void> {
    for (let done = 0; done < length; done += PIECE) {
      if (this.#refusal !== undefined) throw this.#refusal
      this.#writer.check()
      const piece = Math.min(PIECE, length - done)
      await this.#sendPiece(offset + done, this.#board.memory.read(offset + done, piece), isFirst)
      this.#sinceTurn += Math.max(piece, PIECE / PIECES_A_TURN)
      if (this.#sinceTurn < PIECE) continue
      // The guest's accesses to devices are served by this thread too.
      this.#sinceTurn = 0
      await nextTurn()
    }
  }

  async #sendPiece(offset: number, bytes: Uint8Array, isFirst: boolean): Promise<void> {
    for (let start = 0; start < bytes.length;) {
      const zero = isZero(bytes, start, start + GRAIN)
      let end = start + GRAIN
      // Most memory is all one or all the other.
      if (zero && isZero(bytes, start, bytes.length)) end = bytes.length
      while (end < bytes.length && isZero(bytes, end, end + GRAIN) === zero) end += GRAIN
      const place = new BigUint64Array([BigInt(offset + start), BigInt(end - start)])
      if (!zero) await this.#writer.write('pages', bytesOf(place.subarray(0, 1)), bytes.subarray(start, end))
      else if (!isFirst) await this.#writer.write('zeros', bytesOf(place))
      start = end
    }
  }
}

function isZero(bytes: Uint8Array, start: number, end: number): boolean {
  return Buffer.compare(bytes.subarray(start, end), ZEROS.subarray(0, end - start)) === 0
}

function bytesOf({ buffer, byteOffset, byteLength }: BigUint64Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength)
}

/** @throws MoveRefusedError */
function throwIfRefused({ type, bytes }: Frame): void {
  if (type !== 'refused') return
  const { reasons, findings } = readRefusal(bytes)
  throw new MoveRefusedError(reasons, findings)
}
