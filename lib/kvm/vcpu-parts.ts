/** Typed settings of a vCPU, over the attributes of `Documentation/virt/kvm/devices/vcpu.rst`. */
import { checkChoice, checkOptions, checkUint32, checkUint64, outOfRange } from '../arguments.js'
import {
  KVM_ARM_VCPU_PMU_V3_CTRL,
  KVM_ARM_VCPU_PMU_V3_FILTER,
  KVM_ARM_VCPU_PMU_V3_INIT,
  KVM_ARM_VCPU_PMU_V3_IRQ,
  KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS,
  KVM_ARM_VCPU_PMU_V3_SET_PMU,
  KVM_ARM_VCPU_PVTIME_CTRL,
  KVM_ARM_VCPU_PVTIME_IPA,
  KVM_ARM_VCPU_TIMER_CTRL,
} from '../uapi.js'
import type { Attributes } from './attributes.js'
import { KvmError } from './errors.js'

/** Timers by the number of their attribute: those of the guest, and those of a hypervisor in it. */
const timers = { virtual: 0n, physical: 1n, hypervisorVirtual: 2n, hypervisorPhysical: 3n } as const

export type TimerName = keyof typeof timers
const timerNames = Object.keys(timers) as TimerName[]

/** The private interrupts (PPIs) of a vCPU's timers; `Vcpu.timers`. */
export class Timers {
  readonly #attributes: Attributes

  constructor(attributes: Attributes) {
    this.#attributes = attributes
  }

  /**
   * Returns the number of a timer's interrupt.
   * @param timer old kernels have `virtual` and `physical` alone
   * @throws KvmError `ENXIO` for a timer that this kernel does not have, `EBUSY` while the vCPU runs, `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for another name
   */
  irq(timer: TimerName): number {
    checkChoice(timer, 'timer', timerNames)
    return uint32From(this.#attributes.get(KVM_ARM_VCPU_TIMER_CTRL, timers[timer], 4))
  }

  /**
   * Sets the number of a timer's interrupt, for all vCPUs of the VM that exist; on old kernels vCPUs made later have KVM's own again.
   * @param intid 16 to 31, different for each timer
   * @throws KvmError `EINVAL` without a GIC and for another number, `EBUSY` after the first run, `ENXIO` for a timer that this kernel
   * does not have, `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for another name, and for anything but a 32-bit number
   */
  setIrq(timer: TimerName, intid: number): void {
    checkChoice(timer, 'timer', timerNames)
    checkUint32(intid, 'intid')
    this.#attributes.set(KVM_ARM_VCPU_TIMER_CTRL, timers[timer], bytesOf(Uint32Array.of(intid)))
  }
}

/** A range of events of the PMU, and whether the guest may count them. */
export interface FilteredEvents {
  /** The first event number, 16 bits. */
  base: number
  /** 16 bits, not 0. */
  count: number
  action: 'allow' | 'deny'
}

/** The PMU of a vCPU with the feature `pmu-v3`; `Vcpu.pmu`. Every call is for a PMU that is not initialised. */
export class Pmu {
  readonly #attributes: Attributes

  constructor(attributes: Attributes) {
    this.#attributes = attributes
  }

  /**
   * The number of the overflow interrupt; undefined before it is set.
   * @throws KvmError `EINVAL` without a GIC, `ENODEV` without the feature `pmu-v3`, `EBUSY` while the vCPU runs, `ERR_KVM_CLOSED`
   */
  get irq(): number | undefined {
    return unlessUnset(() =>
      uint32From(this.#attributes.get(KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_IRQ, 4)),
    )
  }

  /**
   * Sets the number of the overflow interrupt, once for each vCPU, before `init`.
   * @param intid 16 to 31, the same for all vCPUs; or a shared one, 32 and more, another for each vCPU
   * @throws KvmError `EINVAL` without a GIC and for a number that breaks these rules, `EBUSY` if it is set, `ENODEV` without the
   * feature `pmu-v3`, `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for anything but a 32-bit number
   */
  setIrq(intid: number): void {
    checkUint32(intid, 'intid')
    this.#set(KVM_ARM_VCPU_PMU_V3_IRQ, bytesOf(Uint32Array.of(intid)))
  }

  /**
   * Initialises the PMU, without which most kernels refuse the first run. With a GIC, set the interrupt before.
   * @throws KvmError `ENXIO` without an interrupt, `ENODEV` without the feature `pmu-v3` or for a GIC that is not initialised, `EBUSY`
   * if it is initialised, `ERR_KVM_CLOSED`
   */
  init(): void {
    this.#set(KVM_ARM_VCPU_PMU_V3_INIT)
  }

  /**
   * Decides whether the guest may count events. The first call decides about all others too: where it allows a range, every other
   * event is denied, and the other way round.
   * @throws KvmError `EINVAL` for events beyond those of the host's PMU, `EBUSY` once the VM has run or the PMU is initialised,
   * `ENXIO` for a kernel without filters, `ENODEV` without the feature `pmu-v3`, `ERR_KVM_CLOSED`
   * @throws TypeError for another type or an unknown key; RangeError for another action and for numbers of more than 16 bits
   */
  filter(events: FilteredEvents): void {
    checkOptions(events, 'events', ['base', 'count', 'action'])
    const { base, count, action } = events
    checkUint16(base, 'base')
    checkUint16(count, 'count')
    checkChoice(action, 'action', ['allow', 'deny'])
    const data = new Uint8Array(8)
    const view = new DataView(data.buffer)
    view.setUint16(0, base, true)
    view.setUint16(2, count, true)
    view.setUint8(4, action === 'allow' ? 0 : 1)
    this.#set(KVM_ARM_VCPU_PMU_V3_FILTER, data)
  }

  /**
   * Chooses the host's PMU that the VM's vCPUs use; they then run only on its CPUs.
   * @param id as in `/sys/bus/event_source/devices/<pmu>/type`
   * @throws KvmError `ENXIO` for an unknown id and for a kernel without the attribute, `EBUSY` once the VM has run, has a filter or another PMU,
   * `ENODEV` without the feature `pmu-v3`, `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for anything but a 32-bit number
   */
  setPmu(id: number): void {
    checkUint32(id, 'id')
    this.#set(KVM_ARM_VCPU_PMU_V3_SET_PMU, bytesOf(Uint32Array.of(id)))
  }

  /**
   * Sets how many event counters the guest finds, for all vCPUs of the VM.
   * @param count at most as many as the host's PMU has, without the cycle counter
   * @throws KvmError `EINVAL` for more, `EBUSY` once the VM has run, `ENXIO` for a kernel without the attribute, `ENODEV` without the
   * feature `pmu-v3`, `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for anything but a 32-bit number
   */
  setCounters(count: number): void {
    checkUint32(count, 'count')
    this.#set(KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS, bytesOf(Uint32Array.of(count)))
  }

  #set(attribute: bigint, data?: Uint8Array): void {
    this.#attributes.set(KVM_ARM_VCPU_PMU_V3_CTRL, attribute, data)
  }
}

/** What KVM returns for an address that was not set. */
const NO_ADDRESS = (1n << 64n) - 1n

/** Where a vCPU's guest reads the time that the host took from it; `Vcpu.stolenTime`. */
export class StolenTime {
  readonly #attributes: Attributes

  constructor(attributes: Attributes) {
    this.#attributes = attributes
  }

  /**
   * Guest physical address of the structure; undefined before it is set.
   * @throws KvmError `ENXIO` for a host without stolen time (`KVM_CAP_STEAL_TIME`), `EBUSY` while the vCPU runs, `ERR_KVM_CLOSED`
   */
  get address(): bigint | undefined {
    const data = this.#attributes.get(KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA, 8)
    const address = new DataView(data.buffer).getBigUint64(0, true)
    return address === NO_ADDRESS ? undefined : address
  }

  /**
   * Sets the address, once for each vCPU, of 64 bytes in memory that the guest may write. Without it the guest finds no stolen time.
   * @param address a multiple of 64
   * @throws KvmError `EINVAL` for an address that is not aligned or where there is no such memory, `EEXIST` if it is set, `ENXIO` for
   * a host without stolen time, `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for anything but a 64-bit number
   */
  setAddress(address: bigint): void {
    checkUint64(address, 'address')
    this.#attributes.set(
      KVM_ARM_VCPU_PVTIME_CTRL,
      KVM_ARM_VCPU_PVTIME_IPA,
      bytesOf(BigUint64Array.of(address)),
    )
  }
}

function unlessUnset<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof KvmError && error.code === 'ENXIO') return undefined
    throw error
  }
}

function checkUint16(value: number, name: string): void {
  checkUint32(value, name)
  if (value > 0xffff) throw outOfRange(name, 'at most 65535', value)
}

function uint32From(data: Uint8Array): number {
  return new DataView(data.buffer, data.byteOffset).getUint32(0, true)
}

function bytesOf(numbers: Uint32Array | BigUint64Array): Uint8Array {
  return new Uint8Array(numbers.buffer)
}
