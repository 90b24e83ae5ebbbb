/** ID registers: what a VM may be told it is (`arch/arm64/kvm/sys_regs.c:set_id_reg`, `set_imp_id_reg`). */
import { encodeRegister, implementationIds, isFeatureIdRegister, U64 } from '../registers/index.js'
import { registerValue } from '../report/registers.js'
import type { Accepts, Report, ReportedRegister } from '../report/report.js'
import { errnos } from '../uapi.js'
import { NibbleSets } from './nibbles.js'
import { StoredRegister } from './stored-registers.js'
import type { Register, VcpuState } from './state.js'

const CLIDR_EL1 = encodeRegister('CLIDR_EL1')
const CTR_EL0 = encodeRegister('CTR_EL0')

/** What a VM's vCPU reads: its configuration's value but for the bits that belong to the VM. */
function readVmWide({ vm, values }: VcpuState, id: bigint, slot: number): bigint {
  const own = values[slot]!
  const changed = vm.idRegisters.get(id)
  return changed === undefined ? own : (own & ~changed.mask) | changed.value
}

/** A feature ID register, of the whole VM. `accepts` null: no value but the one a fresh VM has, even once KVM changed it. */
class FeatureIdRegister implements Register {
  readonly limit = U64
  readonly #id: bigint
  readonly #slot: number
  readonly #accepted: NibbleSets | null
  readonly #invalidAfterRun: NibbleSets | null
  readonly #storedAs: NonNullable<Accepts['storedAs']>
  readonly #free: bigint

  constructor(id: bigint, slot: number, value: bigint, accepts: Accepts | null) {
    this.#id = id
    this.#slot = slot
    this.#accepted = accepts && new NibbleSets(accepts.nibbles)
    this.#invalidAfterRun = accepts?.invalidAfterRun ? new NibbleSets(accepts.invalidAfterRun) : null
    this.#storedAs = accepts?.storedAs ?? []
    this.#free = this.#accepted?.freeBits(value) ?? 0n
  }

  read(vcpu: VcpuState): bigint {
    return readVmWide(vcpu, this.#id, this.#slot)
  }

  write(vcpu: VcpuState, written: bigint): number {
    const { vm } = vcpu
    const rule = vm.host.traits.idRegisterAfterRun
    const value = this.#stored(written)
    if (vm.hasRun && rule !== 'unguarded') {
      if (this.#invalidAfterRun?.hasAny(value)) return -errnos.EINVAL
      return rule === 'busy-if-changed' && value === this.read(vcpu) ? 0 : -errnos.EBUSY
    }
    if (this.#accepted === null) {
      if (value !== vcpu.values[this.#slot]) return -errnos.EINVAL
      vm.idRegisters.delete(this.#id)
      return 0
    }
    if (!this.#accepted.hasAll(value)) return -errnos.EINVAL
    vm.overrideIdRegister(this.#id, this.#free, value)
    return 0
  }

  /** KVM puts another value in the place of some that it accepts. */
  #stored(written: bigint): bigint {
    if (this.#storedAs.length === 0) return written
    let value = written
    for (const entry of this.#storedAs) {
      const shift = BigInt(4 * entry.nibble)
      if (((written >> shift) & 0xfn) === BigInt(entry.written)) {
        value = (value & ~(0xfn << shift)) | (BigInt(entry.stored) << shift)
      }
    }
    return value
  }
}

/** An AArch32 feature register of a host without AArch32: KVM drops what is written. */
class IgnoringRegister extends StoredRegister {
  override write(): number {
    return 0
  }
}

/** CTR_EL0.IDC: the data cache need not be cleaned for instructions. */
const IDC = 1n << 28n

/** CLIDR_EL1: of each vCPU, and writable after the run too. */
class CacheLevelIdRegister extends StoredRegister {
  readonly #accepted: NibbleSets | null
  /** Whether a value that says the same as CTR_EL0.IDC, which no field says alone, is refused. */
  readonly #mustClean: boolean

  constructor(slot: number, accepts: Accepts | null, report: Report) {
    super(slot, 64)
    this.#accepted = accepts && new NibbleSets(accepts.nibbles)
    this.#mustClean = ((registerValue(report, CTR_EL0) ?? 0n) & IDC) === 0n
  }

  override write(vcpu: VcpuState, value: bigint): number {
    const isAccepted =
      this.#accepted === null
        ? value === vcpu.values[this.slot]
        : this.#accepted.hasAll(value) && !(this.#mustClean && needsNoCleaning(value))
    return isAccepted ? super.write(vcpu, value) : -errnos.EINVAL
  }
}

/** LoC is 0, or both LoUIS and LoUU are (`arch/arm64/kvm/sys_regs.c:set_clidr`). */
function needsNoCleaning(clidr: bigint): boolean {
  const level = (lsb: bigint) => (clidr >> lsb) & 7n
  return level(24n) === 0n || (level(21n) === 0n && level(27n) === 0n)
}

/** MIDR_EL1, REVIDR_EL1, AIDR_EL1 on a host with `KVM_CAP_ARM_WRITABLE_IMP_ID_REGS`: of the whole VM. */
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

/** The register if it is an ID register with rules of its own, else undefined. */
export function idRegister(
  report: Report,
  register: ReportedRegister,
  slot: number,
  accepts: Accepts | null,
): Register | undefined {
  const id = BigInt(register.id)
  if (id === CLIDR_EL1) return new CacheLevelIdRegister(slot, accepts, report)
  if (implementationIds.includes(id)) {
    if ((report.capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS?.[1] ?? 0) <= 0) return undefined
    const mask = report.writableMasks?.find((entry) => entry.id === register.id)?.mask
    return new ImplementationIdRegister(id, slot, BigInt(mask ?? 0))
  }
  if (!isFeatureIdRegister(id)) return undefined
  // No feature register is free in every bit: what KVM accepts whole, it ignores.
  if (accepts?.nibbles.every((set) => set === 'ffff')) return new IgnoringRegister(slot, 64)
  return new FeatureIdRegister(id, slot, BigInt(register.value!), accepts)
}
