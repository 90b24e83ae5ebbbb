/** The statistics of VMs and vCPUs. */
import type { StatsFd } from '../backend.js'
import {
  errnos,
  statsBases,
  STATS_DESCRIPTOR_SIZE,
  STATS_HEADER_SIZE,
  type StatsDescriptor,
  statsTypes,
  statsUnits,
  unpackStatsDescriptor,
  unpackStatsHeader,
  unpackText,
} from '../uapi.js'
import { KvmError, kvmError } from './errors.js'

/** What a number of a statistic means. */
export interface Statistic {
  /** The kernel's name: `exits`, `halt_wait_ns`. */
  readonly name: string
  /**
   * `cumulative`: it only grows. `instant`: it goes up and down. `peak`: the largest so far. In a histogram each number counts the
   * cases of one bucket: of `bucketSize` each, or each twice as wide as the one before. A number for a type this library does not know.
   */
  readonly type: keyof typeof statsTypes | number
  /** A number for a unit this library does not know. */
  readonly unit: keyof typeof statsUnits | number
  /**
   * One of its numbers counts `base ** exponent` units: 10 and -9 for nanoseconds, if the unit is seconds. 2 or 10, or the kernel's
   * number for a base this library does not know.
   */
  readonly base: number
  readonly exponent: number
  /** How many numbers it has: 1, or the buckets of a histogram. */
  readonly size: number
  /** The width of a bucket of a `linear-histogram`, in units; 0 for other types. */
  readonly bucketSize: number
}

const typeOf = namesOf(statsTypes)
const unitOf = namesOf(statsUnits)

function namesOf<Name extends string>(table: Readonly<Record<Name, number>>): ReadonlyMap<number, Name> {
  return new Map(Object.entries<number>(table).map(([name, number]) => [number, name as Name]))
}

function toStatistic({ name, flags, exponent, size, bucketSize }: StatsDescriptor): Statistic {
  const [type, unit, base] = [flags & 0xf, (flags >>> 4) & 0xf, (flags >>> 8) & 0xf]
  return {
    name,
    type: typeOf.get(type) ?? type,
    unit: unitOf.get(unit) ?? unit,
    base: statsBases[base] ?? base,
    exponent,
    size,
    bucketSize,
  }
}

/** The fixed part of a handle's statistics: all but their numbers. */
export interface StatsLayout {
  readonly id: string
  readonly descriptors: readonly StatsDescriptor[]
  /** Where the numbers begin, and how many bytes they have. */
  readonly dataOffset: number
  readonly dataSize: number
}

/** Reads the header, the id and the descriptors. Returns `-errno` of a read that failed, `-EIO` if the bytes end too early. */
export function readStatsLayout(fd: StatsFd): StatsLayout | number {
  const head = new Uint8Array(STATS_HEADER_SIZE)
  const errno = readWhole(fd, 0, head)
  if (errno < 0) return errno
  const { nameSize, count, idOffset, descriptorOffset, dataOffset } = unpackStatsHeader(head)
  const id = new Uint8Array(nameSize)
  const size = STATS_DESCRIPTOR_SIZE + nameSize
  const bytes = new Uint8Array(count * size)
  const failure = readWhole(fd, idOffset, id) || readWhole(fd, descriptorOffset, bytes)
  if (failure < 0) return failure
  const descriptors = Array.from({ length: count }, (_, index) =>
    unpackStatsDescriptor(bytes.subarray(index * size, (index + 1) * size)),
  )
  const dataSize = Math.max(0, ...descriptors.map(({ offset, size: numbers }) => offset + 8 * numbers))
  return { id: unpackText(id), descriptors, dataOffset, dataSize }
}

/** Fills `into`; returns 0 or `-errno`, `-EIO` if the kernel's bytes end before. */
function readWhole(fd: StatsFd, offset: number, into: Uint8Array): number {
  const got = fd.read(offset, into)
  if (got < 0) return got
  return got < into.length ? -errnos.EIO : 0
}

/** @throws KvmError for `-errno` of a read */
function checkRead<T>(outcome: T | number): T {
  if (typeof outcome !== 'number') return outcome
  if (outcome === -errnos.EIO) {
    throw new KvmError('EIO', outcome, 'the statistics end too early', {
      syscall: 'pread',
      remedy: 'This kernel describes them otherwise than this library reads them: do without, or update it',
    })
  }
  throw kvmError(outcome, {
    syscall: 'pread',
    remedy:
      outcome === -errnos.EBADF
        ? 'Open the statistics again with openStats()'
        : 'The kernel could not read the statistics: close them, and open them again with openStats()',
  })
}

/** What KVM counts of a VM or of a vCPU, and the numbers. `Vm.openStats` and `Vcpu.openStats` make it. */
export class Stats implements Disposable {
  /** The kernel's name for the VM or vCPU, with the process that made it: `kvm-1234/vcpu-0`. */
  readonly id: string
  /** What there is, in the kernel's order. It depends on the kernel's version. */
  readonly statistics: readonly Statistic[]
  readonly #fd: StatsFd
  readonly #layout: StatsLayout
  readonly #onClose: () => void

  /** Closes `fd` if it cannot read from it. */
  constructor(fd: StatsFd, onClose: () => void) {
    try {
      this.#layout = checkRead(readStatsLayout(fd))
    } catch (error) {
      fd.close()
      throw error
    }
    this.#fd = fd
    this.#onClose = onClose
    this.id = this.#layout.id
    this.statistics = this.#layout.descriptors.map(toStatistic)
  }

  /**
   * Returns the numbers of each statistic by its name, one number for all but histograms. Legal while vCPUs run: the numbers are
   * then not all of one moment.
   * @throws KvmError `ERR_KVM_CLOSED`, the errno of a read that failed, `EIO` if the kernel's numbers end too early
   */
  read(): Map<string, readonly bigint[]> {
    const { descriptors, dataOffset, dataSize } = this.#layout
    const bytes = new Uint8Array(dataSize)
    const errno = readWhole(this.#fd, dataOffset, bytes)
    if (errno < 0) checkRead(errno)
    const view = new DataView(bytes.buffer)
    return new Map(
      descriptors.map(({ name, offset, size }) => [
        name,
        Array.from({ length: size }, (_, index) => view.getBigUint64(offset + 8 * index, true)),
      ]),
    )
  }

  /** Closes the statistics; closing the VM or vCPU closes them too. May be repeated; `read()` then throws `ERR_KVM_CLOSED`. */
  close(): void {
    this.#fd.close()
    this.#onClose()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** Open statistics of one handle, which closes them with itself. */
export class OpenStats {
  readonly #open = new Set<Stats>()

  add(fd: StatsFd): Stats {
    const stats: Stats = new Stats(fd, () => this.#open.delete(stats))
    this.#open.add(stats)
    return stats
  }

  close(): void {
    for (const stats of this.#open) stats.close()
  }
}

/** The remedy for a kernel without statistics. */
export const NO_STATS = 'Linux has statistics from 5.14 on (KVM_CAP_BINARY_STATS_FD)'
