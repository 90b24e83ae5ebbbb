/** Device accesses that end no run; the addon has the same in `native/mmio.cc`. */
import { errnos, exitReasons, kvmRun } from '../uapi.js'
import type { RawExit } from './exits.js'

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

interface Write {
  readonly number: number
  readonly address: bigint
  readonly size: bigint
  readonly data: bigint
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

  /** Returns whether the exit was a write that the guest need not wait for; it is in the log then. */
  post({ reason, words }: RawExit): boolean {
    if (reason !== exitReasons.KVM_EXIT_MMIO || this.#log.length === MOST_WRITES) return false
    const at = new Map(words)
    const address = at.get(kvmRun.mmio.phys_addr)!
    const size = BigInt.asUintN(32, at.get(kvmRun.mmio.len)!)
    const range = this.#posted.find(
      (posted) => address >= posted.address && address + size <= posted.address + posted.size,
    )
    if (range === undefined) return false
    this.#log.push({ number: range.number, address, size, data: at.get(kvmRun.mmio.data)! })
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
