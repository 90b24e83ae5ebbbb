/** Writes that KVM itself keeps in a ring (`virt/kvm/coalesced_mmio.c`). */
import { errnos } from '../uapi.js'
import type { Host } from './host.js'
import type { MmioWrite } from './mmio.js'

/** `NR_IOBUS_DEVS`: the devices of a VM inside KVM. */
const MOST_ZONES = 1000
/** Bytes of the two indexes of the ring, and of an entry. */
const INDEXES = 8
const ENTRY = 24
/** The limit of a size that KVM takes for a signed number of 32 bits. */
const SIGNED = 0x8000_0000

interface Zone {
  readonly address: bigint
  readonly size: bigint
  readonly pio: number
}

/** The zones of a VM, and its ring; `kvm_run` of a simulated vCPU does not show it. */
export class CoalescedMmio {
  readonly #capacity: number
  readonly #countsRoom: boolean
  #zones: Zone[] = []
  #ring: MmioWrite[] = []
  /** Where the ring begins. */
  #first = 0

  constructor({ pageSize, countsCoalescedRoom }: Host) {
    this.#capacity = Math.floor((Number(pageSize) - INDEXES) / ENTRY)
    this.#countsRoom = countsCoalescedRoom
  }

  register(address: bigint, size: number, pio: number): number {
    if (pio > 1) return -errnos.EINVAL
    // The frames of a GIC count too, and are left out here: that shows only with nearly 1000 zones.
    if (this.#zones.filter((zone) => zone.pio === pio).length >= MOST_ZONES) return -errnos.ENOSPC
    this.#zones.push({ address, size: BigInt(size), pio })
    return 0
  }

  unregister(address: bigint, size: number, pio: number): number {
    if (pio > 1) return -errnos.EINVAL
    if (size >= SIGNED) return 0
    this.#zones = this.#zones.filter((zone) => zone.pio !== pio || !holds(zone, address, BigInt(size)))
    return 0
  }

  /** Returns whether the ring has taken the write, after which the guest goes on. */
  keep(write: MmioWrite): boolean {
    const isCoalesced = this.#zones.some((zone) => zone.pio === 0 && holds(zone, write.address, write.size))
    if (!isCoalesced || !this.#hasRoom()) return false
    this.#ring.push(write)
    return true
  }

  take(entries: BigUint64Array): number {
    const taken = this.#ring.splice(0, Math.floor(entries.length / 3))
    for (const [index, { address, size, data }] of taken.entries())
      entries.set([size, address, data], 3 * index)
    this.#first = (this.#first + taken.length) % this.#capacity
    return taken.length
  }

  #hasRoom(): boolean {
    const last = (this.#first + this.#ring.length) % this.#capacity
    const next = (last + 1) % this.#capacity
    // A negative difference is counted as one of 32 bits, which the capacity does not divide.
    return this.#countsRoom ? ((this.#first - last - 1) >>> 0) % this.#capacity !== 0 : next !== this.#first
  }
}

/** All in 64 bits, as KVM counts: a zone that passes the end holds nothing. */
function holds(zone: Zone, address: bigint, size: bigint): boolean {
  const end = BigInt.asUintN(64, address + size)
  return end >= address && address >= zone.address && end <= BigInt.asUintN(64, zone.address + zone.size)
}
