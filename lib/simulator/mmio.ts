/** Device accesses that end no run; the addon has the same in `native/mmio.cc`. */
import { errnos } from '../uapi.js'

const MOST_RANGES = 64
const MOST_WRITES = 4096
const END = 1n << 64n

interface Range {
  readonly address: bigint
  readonly size: bigint
}

interface Posted extends Range {
  readonly number: number
}

/** A write of a guest to a device. */
export interface MmioWrite extends Range {
  readonly data: bigint
}

interface Write extends MmioWrite {
  readonly number: number
}

/** The answers of a VM. Its guests load from no device, so that a constant has no effect here. */
export class MmioAnswers {
  #constants: Range[] = []
  #posted: Posted[] = []
  #log: Write[] = []

  setConstant(address: bigint, size: number): number {
    if (size < 1 || size > 8) return -errnos.EINVAL
    const range = { address, size: BigInt(size) }
    if (this.#constants.some((known) => known.address === address && known.size === range.size)) return 0
    return add(this.#constants, range)
  }

  removeConstant(address: bigint): number {
    const left = this.#constants.filter((known) => known.address !== address)
    const isKnown = left.length < this.#constants.length
    this.#constants = left
    return isKnown ? 0 : -errnos.ENOENT
  }

  addPosted(address: bigint, size: number, number: number): number {
    return size < 1 ? -errnos.EINVAL : add(this.#posted, { address, size: BigInt(size), number })
  }

  removePosted(address: bigint): number {
    const left = this.#posted.filter((known) => known.address !== address)
    const isKnown = left.length < this.#posted.length
    this.#posted = left
    return isKnown ? 0 : -errnos.ENOENT
  }

  /** Returns whether the guest need not wait for the write; it is in the log then. */
  post(write: MmioWrite): boolean {
    if (this.#log.length === MOST_WRITES) return false
    const { address, size } = write
    const range = this.#posted.find(
      (posted) => address >= posted.address && address + size <= posted.address + posted.size,
    )
    if (range === undefined) return false
    this.#log.push({ ...write, number: range.number })
    return true
  }

  take(entries: BigUint64Array): number {
    const taken = this.#log.splice(0, Math.floor(entries.length / 3))
    for (const [index, { number, address, size, data }] of taken.entries()) {
      entries.set([BigInt(number) | (size << 32n), address, data], 3 * index)
    }
    return taken.length
  }
}

function add<R extends Range>(ranges: R[], range: R): number {
  const end = range.address + range.size
  if (end > END) return -errnos.EINVAL
  if (ranges.some((other) => range.address < other.address + other.size && other.address < end)) {
    return -errnos.EEXIST
  }
  if (ranges.length === MOST_RANGES) return -errnos.ENOSPC
  ranges.push(range)
  return 0
}
