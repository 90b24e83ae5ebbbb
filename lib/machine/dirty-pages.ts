import { type Board, RAM_SLOT } from './board.js'
import { RAM_BASE } from './memory-map.js'

/** A run of pages, in bytes from the start of memory. */
export interface PageRun {
  readonly offset: number
  readonly length: number
}

/** The pages that the guest, KVM or a device has written, from `begin` on. */
export class DirtyPages {
  readonly #board: Board
  readonly #pageSize: number
  /** A bit for each page; bit 0 of the first word is the first page. */
  #bits: Uint32Array

  constructor(board: Board) {
    this.#board = board
    this.#pageSize = board.memory.pageSize
    this.#bits = this.#none()
  }

  begin(): void {
    this.#map(true)
    this.#board.ram.logWrites(this.#pageSize)
  }

  end(): void {
    this.#board.ram.logWrites(undefined)
    if (!this.#board.isOver) this.#map(false)
  }

  /** Adds what was written since the last call, and returns how many bytes there are to `take`. */
  collect(): number {
    const { vm, ram } = this.#board
    const log = vm.getDirtyLog(RAM_SLOT)
    if (vm.enabledCapabilities.includes('KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2')) vm.clearDirtyLog(RAM_SLOT, log)
    for (const [word, bits] of new Uint32Array(log.buffer).entries()) this.#bits[word]! |= bits
    for (const page of ram.takeWritten()) this.#bits[page >>> 5]! |= 1 << (page & 31)
    return this.#runs().reduce((sum, { length }) => sum + length, 0)
  }

  /** Returns the pages that were collected, in ascending order, and forgets them. */
  take(): PageRun[] {
    const runs = this.#runs()
    this.#bits = this.#none()
    return runs
  }

  #none(): Uint32Array {
    // As KVM has it: whole words of 64 bits.
    return new Uint32Array(2 * Math.ceil(this.#board.memory.size / this.#pageSize / 64))
  }

  #runs(): PageRun[] {
    const size = this.#pageSize
    const found: PageRun[] = []
    let start = -1
    const end = (page: number): void => {
      if (start >= 0) found.push({ offset: start * size, length: (page - start) * size })
      start = -1
    }
    for (const [word, bits] of this.#bits.entries()) {
      if (bits === 0) {
        end(32 * word)
        continue
      }
      for (let bit = 0; bit < 32; bit++) {
        const page = 32 * word + bit
        if (((bits >>> bit) & 1) === 0) end(page)
        else if (start < 0) start = page
      }
    }
    end(32 * this.#bits.length)
    return found
  }

  /** Mapping the slot again changes nothing but whether KVM logs what is written there. */
  #map(logDirtyPages: boolean): void {
    const { vm, memory } = this.#board
    vm.mapMemory(RAM_SLOT, { address: BigInt(RAM_BASE), memory, logDirtyPages })
  }
}
