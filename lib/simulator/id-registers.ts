/** ID registers: what a VM's guest may see of its CPU (`arch/arm64/kvm/sys_regs.c:set_id_reg`, `set_imp_id_reg`). */
import {
  cleansByItself,
  encodeRegister,
  implementationIds,
  isFeatureIdRegister,
  needsNoCleaning,
  U64,
} from '../registers/index.js'
import { registerValue } from '../report/registers.js'
import type { Report, ReportedRegister } from '../report/report.js'
import { isIgnored, WriteInterpreter } from '../report/write-rule.js'
import { errnos } from '../uapi.js'
import { StoredRegister } from './stored-registers.js'
import type { Register, VcpuState } from './state.js'

const CLIDR_EL1 = encodeRegister('CLIDR_EL1')
const CTR_EL0 = encodeRegister('CTR_EL0')

/** Returns what a vCPU reads: its configuration's value, with the bits that belong to the VM replaced. */
function readVmWide({ vm, values }: VcpuState, id: bigint, slot: number): bigint {
  const own = values[slot]!
  const changed = vm.idRegisters.get(id)
  return changed === undefined ? own : (own & ~changed.mask) | changed.value
}

/** A feature ID register, shared by the whole VM. */
class FeatureIdRegister implements Register {
  readonly limit = U64
  readonly #id: bigint
  readonly #slot: number
  readonly #rule: WriteInterpreter

  constructor(id: bigint, slot: number, rule: WriteInterpreter) {
    this.#id = id
    this.#slot = slot
    this.#rule = rule
  }

  read(vcpu: VcpuState): bigint {
    return readVmWide(vcpu, this.#id, this.#slot)
  }

  write(vcpu: VcpuState, written: bigint): number {
    const { vm } = vcpu
    const afterRun = vm.hasRun ? vm.host.traits.idRegisterAfterRun : 'unguarded'
    const outcome = this.#rule.write(this.read(vcpu), written, afterRun)
    if (typeof outcome === 'number') return outcome
    // A frozen register accepts only its current value.
    if (afterRun !== 'unguarded') return 0
    // The only value of a fixed register is that of a fresh VM, even if KVM has changed it since.
    if (this.#rule.choosable === null) vm.idRegisters.delete(this.#id)
    else vm.overrideIdRegister(this.#id, this.#rule.choosable, outcome)
    return 0
  }
}

/** CLIDR_EL1: belongs to each vCPU, and stays writable after the run. */
class CacheLevelIdRegister extends StoredRegister {
  readonly #rule: WriteInterpreter
  /** Whether KVM refuses a value that, like CTR_EL0.IDC, says that no cache needs cleaning; no single field says this. */
  readonly #mustClean: boolean

  constructor(slot: number, rule: WriteInterpreter, report: Report) {
    super(slot, 64)
    this.#rule = rule
    this.#mustClean = !cleansByItself(registerValue(report, CTR_EL0) ?? 0n)
  }

  override write(vcpu: VcpuState, value: bigint): number {
    const outcome = this.#rule.write(vcpu.values[this.slot]!, value)
    if (typeof outcome === 'number') return outcome
    const isChecked = this.#rule.choosable !== null && this.#mustClean
    return isChecked && needsNoCleaning(value) ? -errnos.EINVAL : super.write(vcpu, outcome)
  }
}

/** MIDR_EL1, REVIDR_EL1, AIDR_EL1 on a host with `KVM_CAP_ARM_WRITABLE_IMP_ID_REGS`: shared by the whole VM. */
class ImplementationIdRegister implements Register {
  readonly limit = U64
  readonly #id: bigint
  readonly #slot: number
  readonly #mask: bigint

  constructor(id: bigint, slot: number, mask: bigint) {
    this.#id = id
    this.#slot = slot
    this.#mask = mask
  }

  read(vcpu: VcpuState): bigint {
    return readVmWide(vcpu, this.#id, this.#slot)
  }

  write(vcpu: VcpuState, value: bigint): number {
    const { vm } = vcpu
    if (value === this.read(vcpu)) return 0
    if (!vm.writableImplementationIds) return -errnos.EINVAL
    if (vm.hasRun) return -errnos.EBUSY
    if ((value & ~this.#mask) !== 0n) return -errnos.EINVAL
    vm.overrideIdRegister(this.#id, U64, value)
    return 0
  }
}

/** Returns the register if it is an ID register with rules of its own, else undefined. */
export function idRegister(report: Report, register: ReportedRegister, slot: number): Register | undefined {
  const id = BigInt(register.id)
  if (implementationIds.includes(id)) {
    if ((report.capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS?.[1] ?? 0) <= 0) return undefined
    const mask = report.registers.find((entry) => entry.id === register.id)?.mask
    return new ImplementationIdRegister(id, slot, BigInt(mask ?? 0))
  }
  if (!isFeatureIdRegister(id) || isIgnored(register.write)) return undefined
  const rule = new WriteInterpreter(register.write, BigInt(register.value!))
  return id === CLIDR_EL1
    ? new CacheLevelIdRegister(slot, rule, report)
    : new FeatureIdRegister(id, slot, rule)
}
