/** `KVM_GET_STATS_FD` (`virt/kvm/binary_stats.c`). */
import type { StatsFd } from '../backend.js'
import { checkArray, checkSize } from '../arguments.js'
import {
  errnos,
  packStatsDescriptor,
  packStatsHeader,
  STATS_DESCRIPTOR_SIZE,
  STATS_HEADER_SIZE,
  statsTypes,
  statsUnits,
} from '../uapi.js'
import type { VcpuState, VmState } from './state.js'

const NAME_SIZE = 48
const BUCKETS = 32
const NANOSECONDS = { unit: statsUnits.seconds, exponent: -9 }

interface Described {
  readonly name: string
  readonly type?: number
  readonly unit?: number
  readonly exponent?: number
  readonly size?: number
}

const histogram = { type: statsTypes['logarithmic-histogram'], ...NANOSECONDS, size: BUCKETS }

/** Those of Linux 6.1 to 7.2, which are the same. */
const ofVm: readonly Described[] = [{ name: 'remote_tlb_flush' }, { name: 'remote_tlb_flush_requests' }]
const ofVcpu: readonly Described[] = [
  { name: 'halt_successful_poll' },
  { name: 'halt_attempted_poll' },
  { name: 'halt_poll_invalid' },
  { name: 'halt_wakeup' },
  { name: 'halt_poll_success_ns', ...NANOSECONDS },
  { name: 'halt_poll_fail_ns', ...NANOSECONDS },
  { name: 'halt_wait_ns', ...NANOSECONDS },
  { name: 'halt_poll_success_hist', ...histogram },
  { name: 'halt_poll_fail_hist', ...histogram },
  { name: 'halt_wait_hist', ...histogram },
  { name: 'blocking', type: statsTypes.instant, unit: statsUnits.boolean },
  { name: 'hvc_exit_stat' },
  { name: 'wfe_exit_stat' },
  { name: 'wfi_exit_stat' },
  { name: 'mmio_exit_user' },
  { name: 'mmio_exit_kernel' },
  { name: 'signal_exits' },
  { name: 'exits' },
]

/** Returns the statistics of a VM, or `-errno`. */
export function vmStats(vm: VmState): StatsFd | number {
  return open(vm, `kvm-${process.pid}`, ofVm, () => new Map())
}

/** Returns the statistics of a vCPU, or `-errno`. */
export function vcpuStats(vcpu: VcpuState): StatsFd | number {
  return open(vcpu.vm, `kvm-${process.pid}/vcpu-${vcpu.id}`, ofVcpu, () => vcpu.counts.byName)
}

type Read = () => ReadonlyMap<string, bigint>

function open({ host }: VmState, id: string, described: readonly Described[], read: Read): StatsFd | number {
  if (host.capability('KVM_CAP_BINARY_STATS_FD') <= 0) return -errnos.EINVAL
  return new SimulatedStats(id, described, read)
}

class SimulatedStats implements StatsFd {
  readonly #bytes: Uint8Array<ArrayBuffer>
  readonly #numbers: ReadonlyMap<string, number>
  readonly #read: Read
  #closed = false

  constructor(id: string, described: readonly Described[], read: Read) {
    this.#read = read
    const idOffset = STATS_HEADER_SIZE
    const descriptorOffset = idOffset + NAME_SIZE
    const descriptorSize = STATS_DESCRIPTOR_SIZE + NAME_SIZE
    const count = described.length
    const dataOffset = descriptorOffset + count * descriptorSize
    const size = described.reduce((sum, { size: numbers = 1 }) => sum + 8 * numbers, 0)
    this.#bytes = new Uint8Array(dataOffset + size)
    this.#bytes.set(packStatsHeader({ nameSize: NAME_SIZE, count, idOffset, descriptorOffset, dataOffset }))
    this.#bytes.set(new TextEncoder().encode(id), idOffset)
    const places = new Map<string, number>()
    let offset = 0
    for (const [
      index,
      { name, type = 0, unit = 0, exponent = 0, size: numbers = 1 },
    ] of described.entries()) {
      const descriptor = { name, flags: type | (unit << 4), exponent, size: numbers, offset, bucketSize: 0 }
      const place = descriptorOffset + index * descriptorSize
      this.#bytes.set(packStatsDescriptor(descriptor, NAME_SIZE), place)
      places.set(name, dataOffset + offset)
      offset += 8 * numbers
    }
    this.#numbers = places
  }

  read(offset: number, into: Uint8Array): number {
    checkSize(offset, 'offset')
    checkArray(into, Uint8Array, 0, 'into')
    if (this.#closed) return -errnos.EBADF
    const view = new DataView(this.#bytes.buffer)
    for (const [name, number] of this.#read()) view.setBigUint64(this.#numbers.get(name)!, number, true)
    const found = this.#bytes.subarray(offset, offset + into.length)
    into.set(found)
    return found.length
  }

  close(): void {
    this.#closed = true
  }
}
