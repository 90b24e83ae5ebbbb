/** The pseudo-registers of KVM's firmware (`arch/arm64/kvm/hypercalls.c:kvm_arm_set_fw_reg`, `kvm_arm_set_fw_reg_bmap`). */
import { encodeRegister, fieldMask, registerField, U64 } from '../registers/index.js'
import type { Report, ReportedRegister } from '../report/report.js'
import { errnos, featureWord } from '../uapi.js'
import type { Register, VcpuState } from './state.js'

const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
const WORKAROUND_2 = encodeRegister('KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2')
const ID_AA64PFR1_EL1 = encodeRegister('ID_AA64PFR1_EL1')
const SSBS = fieldMask(registerField(ID_AA64PFR1_EL1, 'SSBS'))
const PSCI_0_1 = 1n

/** The VM's version of PSCI, seen only by vCPUs with `psci-0.2`; the others speak PSCI 0.1. */
class PsciVersionRegister implements Register {
  readonly limit = U64
  readonly #latest: bigint
  readonly #accepted: ReadonlySet<bigint>

  constructor(latest: bigint, accepted: readonly string[]) {
    this.#latest = latest
    this.#accepted = new Set(accepted.map(BigInt))
  }

  read(vcpu: VcpuState): bigint {
    return hasPsci(vcpu) ? (vcpu.vm.psciVersion ?? this.#latest) : PSCI_0_1
  }

  write(vcpu: VcpuState, value: bigint): number {
    const isAccepted = hasPsci(vcpu) ? this.#accepted.has(value) : value === PSCI_0_1
    if (!isAccepted) return -errnos.EINVAL
    // Even from a vCPU without the feature: on hosts where vCPUs may differ in it, one with it then reads PSCI 0.1.
    vcpu.vm.psciVersion = value
    return 0
  }
}

function hasPsci(vcpu: VcpuState): boolean {
  return (vcpu.features & featureWord(['psci-0.2'])) !== 0
}

/** State of a mitigation: a write is checked against the host's and forgotten. */
class WorkaroundRegister implements Register {
  readonly limit = U64
  readonly #value: bigint
  readonly #accepted: ReadonlySet<bigint>

  constructor({ value, accepted }: { value: string; accepted: readonly string[] }) {
    this.#value = BigInt(value)
    this.#accepted = new Set(accepted.map(BigInt))
  }

  read(_vcpu: VcpuState): bigint {
    return this.#value
  }

  write(_vcpu: VcpuState, value: bigint): number {
    return this.#accepted.has(value) ? 0 : -errnos.EINVAL
  }
}

/** A mitigation whose state depends on whether the VM has SSBS. */
class SsbsWorkaroundRegister implements Register {
  readonly limit = U64
  readonly #withSsbs: WorkaroundRegister
  readonly #withoutSsbs: WorkaroundRegister

  constructor(withSsbs: WorkaroundRegister, withoutSsbs: WorkaroundRegister) {
    this.#withSsbs = withSsbs
    this.#withoutSsbs = withoutSsbs
  }

  read(vcpu: VcpuState): bigint {
    return this.#state(vcpu).read(vcpu)
  }

  write(vcpu: VcpuState, value: bigint): number {
    return this.#state(vcpu).write(vcpu, value)
  }

  #state(vcpu: VcpuState): WorkaroundRegister {
    const features = vcpu.file!.byId.get(ID_AA64PFR1_EL1)?.read(vcpu)
    return features !== undefined && (BigInt(features) & SSBS) === 0n ? this.#withoutSsbs : this.#withSsbs
  }
}

/** Services of one owner that the guest may discover, of the whole VM. */
class BitmapRegister implements Register {
  readonly limit = U64
  readonly #id: bigint
  readonly #reset: bigint
  readonly #mask: bigint

  constructor(id: bigint, { reset, mask }: { reset: string; mask: string }) {
    this.#id = id
    this.#reset = BigInt(reset)
    this.#mask = BigInt(mask)
  }

  read({ vm }: VcpuState): bigint {
    return vm.bitmaps.get(this.#id) ?? this.#reset
  }

  write(vcpu: VcpuState, value: bigint): number {
    const { vm } = vcpu
    if ((value & ~this.#mask) !== 0n) return -errnos.EINVAL
    if (vm.hasRun) {
      const rule = vm.host.traits.bitmapAfterRun
      if (rule === 'busy') return -errnos.EBUSY
      if (rule === 'busy-if-changed' && value !== this.read(vcpu)) return -errnos.EBUSY
    }
    vm.bitmaps.set(this.#id, value)
    return 0
  }
}

/** The register if it is one of the firmware's, else undefined. */
export function firmwareRegister(report: Report, { id, value }: ReportedRegister): Register | undefined {
  const number = BigInt(id)
  if (number === PSCI_VERSION) {
    return new PsciVersionRegister(BigInt(value!), report.traits.psciVersions)
  }
  const bitmap = report.bitmaps.find((entry) => entry.id === id)
  if (bitmap !== undefined) return new BitmapRegister(number, bitmap)
  const entry = report.workarounds.find((candidate) => candidate.id === id)
  if (entry === undefined) return undefined
  const { workaround2WithoutSsbs } = report.traits
  const workaround = new WorkaroundRegister(entry)
  return number === WORKAROUND_2 && workaround2WithoutSsbs !== null
    ? new SsbsWorkaroundRegister(workaround, new WorkaroundRegister(workaround2WithoutSsbs))
    : workaround
}
