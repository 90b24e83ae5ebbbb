/** A range of guest addresses that is not, or not wholly, in the machine's memory. */
export class OutsideMemoryError extends RangeError {
  override readonly name = 'OutsideMemoryError'

  constructor(address: number, length: number) {
    super(`${length} bytes at guest address 0x${address.toString(16)} are outside the machine's memory`)
  }
}

/**
 * The guest's memory, by guest physical addresses. Every access is checked: a guest can name any address in its queues.
 *
 * The guest runs on other threads. `load16` orders all later accesses behind it, and `store16` all earlier ones before it, which is
 * what a virtqueue's indexes need; all other accesses have no order.
 */
export class Ram {
  readonly base: number
  readonly size: number
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #halves: Uint16Array
  /** While writes are logged: the size of a page, and the numbers of those written. */
  #log: { pageSize: number; pages: Set<number> } | undefined

  /** @param buffer the memory, which begins at guest address `base`; its length is even */
  constructor(base: number, buffer: ArrayBuffer) {
    this.base = base
    this.size = buffer.byteLength
    this.#bytes = new Uint8Array(buffer)
    this.#view = new DataView(buffer)
    this.#halves = new Uint16Array(buffer)
  }

  /** Whether `length` bytes from `address` on are memory. */
  has(address: number, length: number): boolean {
    return (
      Number.isSafeInteger(address) &&
      Number.isSafeInteger(length) &&
      length >= 0 &&
      address >= this.base &&
      address - this.base <= this.size - length
    )
  }

  /**
   * Begins a log of the pages that are written here, which KVM's log does not see; `undefined` ends it.
   * @param pageSize bytes
   */
  logWrites(pageSize: number | undefined): void {
    this.#log = pageSize === undefined ? undefined : { pageSize, pages: new Set() }
  }

  /** Returns the numbers of the pages written since the last call, from the first page of memory on. */
  takeWritten(): Iterable<number> {
    const { pages = [] } = this.#log ?? {}
    if (this.#log) this.#log.pages = new Set()
    return pages
  }

  /**
   * Returns the memory itself, without a copy, to be written before this turn of the event loop ends: it is logged as written now.
   * @throws OutsideMemoryError
   */
  writableAt(address: number, length: number): Uint8Array {
    const bytes = this.at(address, length)
    this.#written(address, length)
    return bytes
  }

  /**
   * Returns the memory itself, without a copy, to be read.
   * @throws OutsideMemoryError
   */
  at(address: number, length: number): Uint8Array {
    const offset = this.#offset(address, length)
    return this.#bytes.subarray(offset, offset + length)
  }

  read16(address: number): number {
    return this.#view.getUint16(this.#offset(address, 2), true)
  }

  read32(address: number): number {
    return this.#view.getUint32(this.#offset(address, 4), true)
  }

  /** Returns a guest address, or another number of 64 bits; one that is not exact as a `number` is no address of any memory. */
  read64(address: number): number {
    return Number(this.#view.getBigUint64(this.#offset(address, 8), true))
  }

  write32(address: number, value: number): void {
    this.#view.setUint32(this.#offset(address, 4), value, true)
    this.#written(address, 4)
  }

  /** `address` is even. */
  load16(address: number): number {
    return Atomics.load(this.#halves, this.#offset(address, 2) >> 1)
  }

  /** `address` is even. */
  store16(address: number, value: number): void {
    Atomics.store(this.#halves, this.#offset(address, 2) >> 1, value)
    this.#written(address, 2)
  }

  #written(address: number, length: number): void {
    if (this.#log === undefined || length === 0) return
    const { pageSize, pages } = this.#log
    const last = Math.floor((address - this.base + length - 1) / pageSize)
    for (let page = Math.floor((address - this.base) / pageSize); page <= last; page++) pages.add(page)
  }

  #offset(address: number, length: number): number {
    if (!this.has(address, length)) throw new OutsideMemoryError(address, length)
    return address - this.base
  }
}
