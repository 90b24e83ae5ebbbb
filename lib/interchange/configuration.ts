import type { Kvm } from '../kvm/index.js'
import {
  decodeRegister,
  encodeRegister,
  hasAArch32,
  isAArch32IdRegister,
  isIdRegister,
  registerWidth,
} from '../registers/index.js'
import type { VcpuFeature } from '../uapi.js'

export interface ConfiguredRegister {
  id: bigint
  value: bigint
  /** Bits that are fixed; the others are left to the host. */
  mask: bigint
}

/** What userspace can decide about a guest's view of its CPU before the first run: the input of the exporters. */
export interface GuestConfiguration {
  features: readonly VcpuFeature[]
  /** Features that nobody chose and of which the host's report does not say whether it has them. */
  unknownFeatures?: readonly VcpuFeature[]
  /** Value of `KVM_REG_ARM_PSCI_VERSION`; absent if it is left to the host. */
  psciVersion?: bigint
  /** Bitmap firmware registers, by id. */
  bitmaps: readonly ConfiguredRegister[]
  /** Feature ID registers and CTR_EL0, by id; no AArch32 ones if the guest has no AArch32. */
  idRegisters: readonly ConfiguredRegister[]
  /** SVE vector lengths in bits, ascending; empty without the feature `sve`, or if they are left to the host. */
  vectorLengths: readonly number[]
  /** Names of registers that cannot be pinned, because some of the hosts lack them. */
  leftToHosts: readonly string[]
}

const psciVersionId = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
const vectorLengthsId = encodeRegister('KVM_REG_ARM64_SVE_VLS')
const ctrId = encodeRegister('CTR_EL0')
const pfr0Id = encodeRegister('ID_AA64PFR0_EL1')

/** Vector lengths in bits of a value of `KVM_REG_ARM64_SVE_VLS`, whose bit n stands for (n + 1) × 128. */
export function vectorLengthsOf(value: bigint): number[] {
  return Array.from({ length: 512 }, (_, bit) => bit)
    .filter((bit) => (value >> BigInt(bit)) & 1n)
    .map((bit) => (bit + 1) * 128)
}

/**
 * Returns what a guest of this host sees if userspace decides only the features of its vCPUs.
 * @throws KvmError if the host has no vCPU with these features
 */
export function guestConfiguration(
  kvm: Kvm,
  features: readonly VcpuFeature[] = ['psci-0.2'],
): GuestConfiguration {
  using vm = kvm.createVm()
  using vcpu = vm.createVcpu(0, { features })
  const { registers } = vcpu
  const listed = [...registers.list()]
  const aarch32 = hasAArch32(registers.get(pfr0Id))
  const valued = (wanted: (id: bigint) => boolean): ConfiguredRegister[] =>
    listed
      .filter(wanted)
      .map((id) => ({ id, value: registers.get(id), mask: (1n << BigInt(registerWidth(id))) - 1n }))
      .toSorted((a, b) => (a.id < b.id ? -1 : 1))
  return {
    features,
    psciVersion: registers.get(psciVersionId),
    bitmaps: valued((id) => decodeRegister(id).space === 'bitmap'),
    idRegisters: valued((id) => id === ctrId || (isIdRegister(id) && (aarch32 || !isAArch32IdRegister(id)))),
    vectorLengths: features.includes('sve') ? vectorLengthsOf(registers.get(vectorLengthsId)) : [],
    leftToHosts: [],
  }
}
