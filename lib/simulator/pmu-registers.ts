/** Registers of a PMU that depend on the number and width of its event counters (`arch/arm64/kvm/sys_regs.c:set_pmcr`). */
import { encodeRegister, registerName, setClearPairs } from '../registers/index.js'
import type { ReportedRegister } from '../report/report.js'
import { recordedRegister } from './stored-registers.js'
import type { Register, VcpuState } from './state.js'

const ID_AA64DFR0_EL1 = encodeRegister('ID_AA64DFR0_EL1')
const PMCR_EL0 = encodeRegister('PMCR_EL0')
const PMCCNTR_EL0 = encodeRegister('PMCCNTR_EL0')
const eventCounters = Array.from({ length: 31 }, (_, index) => encodeRegister(`PMEVCNTR${index}_EL0`))
/** PMCR_EL0.P and C: writing 1 zeroes the event counters, or the cycle counter. */
const P = 1n << 1n
const C = 1n << 2n
const bitmaps = new Set(setClearPairs.flat())

/** PMCR_EL0.N, bits 15:11: the number of event counters. */
const N = 0xf800n
const CYCLE_COUNTER = 1n << 31n
/** ID_AA64DFR0_EL1.PMUVer of the first PMU whose event counters have 64 bits, PMUv3p5. */
const LONG_COUNTERS = 6n

/** A configuration's PMU. */
export interface Pmu {
  /** Whether its event counters have 64 bits. */
  hasLongCounters: boolean
  /** The number of counters, if userspace may give a VM fewer; else null. */
  mostCounters: number | null
}

export function describePmu(listed: readonly ReportedRegister[]): Pmu {
  const find = (wanted: bigint) => listed.find(({ id }) => BigInt(id) === wanted)
  const control = find(PMCR_EL0)
  const rule = control?.write
  const isChoosable = rule?.rule === 'bits' && (BigInt(rule.bits) & N) !== 0n
  return {
    hasLongCounters: hasLongCounters(BigInt(find(ID_AA64DFR0_EL1)?.value ?? 0)),
    mostCounters: isChoosable ? countersIn(BigInt(control!.value!)) : null,
  }
}

function hasLongCounters(debugFeatures: bigint): boolean {
  return ((debugFeatures >> 8n) & 0xfn) >= LONG_COUNTERS
}

function countersIn(control: bigint): number {
  return Number((control & N) >> 11n)
}

/** What the first run does with PMCR_EL0 as userspace wrote it (`arch/arm64/kvm/pmu-emul.c:kvm_pmu_handle_pmcr`). */
export function reloadPmu(vcpu: VcpuState): void {
  const { values, file, vm } = vcpu
  if (!vcpu.pmuReloadIsDue) return
  vcpu.pmuReloadIsDue = false
  const kept = vm.host.traits.pmu!.firstRunKeeps
  if (kept === undefined) return
  const control = BigInt(file!.byId.get(PMCR_EL0)!.read(vcpu))
  const zeroed = [
    ...((control & C) === 0n ? [] : [PMCCNTR_EL0]),
    ...((control & P) === 0n ? [] : eventCounters.slice(0, countersIn(control))),
  ]
  const slotOf = (id: bigint) => file!.slots.get(id)
  for (const slot of zeroed.map(slotOf)) if (slot !== undefined) values[slot] = 0n
  const slot = slotOf(PMCR_EL0)!
  values[slot] = values[slot]! & BigInt(kept)
}

/** Returns the register if it is one of those, else undefined. */
export function pmuRegister(pmu: Pmu, register: ReportedRegister, slot: number): Register | undefined {
  const { hasLongCounters: isLong, mostCounters } = pmu
  const id = BigInt(register.id)
  const recorded = recordedRegister(register, slot)
  if (mostCounters !== null && id === PMCR_EL0) return new ControlRegister(recorded, mostCounters)
  if (mostCounters !== null && bitmaps.has(id)) return new CounterBitmapRegister(recorded, mostCounters)
  const isCounter = registerName(id).startsWith('PMEVCNTR')
  return isLong && isCounter && register.write === undefined ? new EventCounterRegister(recorded) : undefined
}

/** Behaves as recorded, apart from what follows from the VM's configuration. */
abstract class Derived implements Register {
  readonly limit: bigint
  protected readonly recorded: Register

  constructor(recorded: Register) {
    this.recorded = recorded
    this.limit = recorded.limit
  }

  abstract read(vcpu: VcpuState): bigint

  write(vcpu: VcpuState, value: bigint): number {
    return this.recorded.write(vcpu, value)
  }
}

/** PMCR_EL0: its N belongs to the VM and may be lowered until the first run. */
class ControlRegister extends Derived {
  readonly #most: number

  constructor(recorded: Register, most: number) {
    super(recorded)
    this.#most = most
  }

  read(vcpu: VcpuState): bigint {
    const counters = vcpu.vm.eventCounters ?? this.#most
    return (BigInt(this.recorded.read(vcpu)) & ~N) | (BigInt(counters) << 11n)
  }

  override write(vcpu: VcpuState, value: bigint): number {
    const counters = countersIn(value)
    if (!vcpu.vm.hasRun && counters <= this.#most) vcpu.vm.eventCounters = counters
    return super.write(vcpu, value)
  }
}

/** A bitmap with one bit for each counter. In reads and writes, KVM masks the bits of counters that the VM's PMUs do not have. */
class CounterBitmapRegister extends Derived {
  readonly #most: number

  constructor(recorded: Register, most: number) {
    super(recorded)
    this.#most = most
  }

  read(vcpu: VcpuState): bigint {
    return BigInt(this.recorded.read(vcpu)) & this.#counters(vcpu)
  }

  override write(vcpu: VcpuState, value: bigint): number {
    return super.write(vcpu, value & this.#counters(vcpu))
  }

  #counters({ vm }: VcpuState): bigint {
    return CYCLE_COUNTER | ((1n << BigInt(vm.eventCounters ?? this.#most)) - 1n)
  }
}

/** PMEVCNTR<n>_EL0 of a host with 64-bit event counters: shows 32 bits in a VM whose ID registers describe an older PMU. */
class EventCounterRegister extends Derived {
  read(vcpu: VcpuState): bigint {
    const value = BigInt(this.recorded.read(vcpu))
    const debugFeatures = vcpu.file!.byId.get(ID_AA64DFR0_EL1)!.read(vcpu)
    return hasLongCounters(BigInt(debugFeatures)) ? value : BigInt.asUintN(32, value)
  }
}
