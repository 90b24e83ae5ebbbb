/** The Power State Coordination Interface (Arm DEN0022) as KVM speaks it: versions, functions, return codes. */
import { hex } from '../registers/index.js'

/** All versions KVM of any release can show a guest. 0.1 is what a vCPU without the feature PSCI_0_2 speaks. */
export const psciVersions = ['0.1', '0.2', '1.0', '1.1', '1.2', '1.3'] as const

export type PsciVersion = (typeof psciVersions)[number]

/**
 * The value of `KVM_REG_ARM_PSCI_VERSION` for a version like `1.1`: major in bits 31:16, minor in bits 15:0.
 *
 * @throws RangeError if the text is no version or does not fit
 */
export function encodePsciVersion(version: string): bigint {
  const match = /^(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})$/.exec(version)
  const [major, minor] = [Number(match?.[1]), Number(match?.[2])]
  if (match === null || major > 0xffff || minor > 0xffff) {
    throw new RangeError(`"${version}" is no PSCI version; ${psciVersions.join(', ')} are`)
  }
  return (BigInt(major) << 16n) | BigInt(minor)
}

/**
 * A version like `1.1` for a value of `KVM_REG_ARM_PSCI_VERSION`.
 *
 * @throws RangeError if the value has bits above 31
 */
export function decodePsciVersion(value: bigint): string {
  if (value < 0n || value > 0xffff_ffffn) throw new RangeError(`${hex(value)} is no PSCI version`)
  return `${value >> 16n}.${value & 0xffffn}`
}

export interface PsciFunction {
  /** SMC32 id. */
  id: number
  /** SMC64 id, where there is one. */
  id64?: number
  /** As in Arm DEN0022, with `PSCI_` in front. */
  name: string
  /** The version that brought the function, of those KVM can show. */
  since: PsciVersion
  /** False for what KVM answers with NOT_SUPPORTED in every version. */
  kvm: boolean
}

const SMC32 = 0x8400_0000
const SMC64 = 0xc400_0000

function psci(
  number: number,
  name: string,
  since: PsciVersion,
  options: { wide?: boolean; kvm?: boolean },
): PsciFunction {
  const { wide = false, kvm = true } = options
  const base = { id: SMC32 + number, name: name.startsWith('PSCI_') ? name : `PSCI_${name}`, since, kvm }
  return wide ? { ...base, id64: SMC64 + number } : base
}

/** Functions of PSCI 0.2 and later. */
export const psciFunctions: readonly PsciFunction[] = [
  psci(0x00, 'PSCI_VERSION', '0.2', {}),
  psci(0x01, 'CPU_SUSPEND', '0.2', { wide: true }),
  psci(0x02, 'CPU_OFF', '0.2', {}),
  psci(0x03, 'CPU_ON', '0.2', { wide: true }),
  psci(0x04, 'AFFINITY_INFO', '0.2', { wide: true }),
  psci(0x05, 'MIGRATE', '0.2', { wide: true, kvm: false }),
  psci(0x06, 'MIGRATE_INFO_TYPE', '0.2', {}),
  psci(0x07, 'MIGRATE_INFO_UP_CPU', '0.2', { wide: true, kvm: false }),
  psci(0x08, 'SYSTEM_OFF', '0.2', {}),
  psci(0x09, 'SYSTEM_RESET', '0.2', {}),
  psci(0x0a, 'PSCI_FEATURES', '1.0', {}),
  psci(0x0b, 'CPU_FREEZE', '1.0', { kvm: false }),
  psci(0x0c, 'CPU_DEFAULT_SUSPEND', '1.0', { wide: true, kvm: false }),
  psci(0x0d, 'NODE_HW_STATE', '1.0', { wide: true, kvm: false }),
  psci(0x0e, 'SYSTEM_SUSPEND', '1.0', { wide: true }),
  psci(0x0f, 'SET_SUSPEND_MODE', '1.0', { kvm: false }),
  psci(0x10, 'STAT_RESIDENCY', '1.0', { wide: true, kvm: false }),
  psci(0x11, 'STAT_COUNT', '1.0', { wide: true, kvm: false }),
  psci(0x12, 'SYSTEM_RESET2', '1.1', { wide: true }),
  psci(0x13, 'MEM_PROTECT', '1.1', { kvm: false }),
  psci(0x14, 'MEM_PROTECT_CHECK_RANGE', '1.1', { wide: true, kvm: false }),
  psci(0x15, 'SYSTEM_OFF2', '1.3', { wide: true }),
]

/** KVM's functions of PSCI 0.1, whose ids are its own and no SMCCC ids (`KVM_PSCI_FN`). CPU_SUSPEND and MIGRATE are refused. */
export const psci01Functions: readonly PsciFunction[] = [
  { id: 0x95c1_ba5e, name: 'KVM_PSCI_CPU_SUSPEND', since: '0.1', kvm: false },
  { id: 0x95c1_ba5f, name: 'KVM_PSCI_CPU_OFF', since: '0.1', kvm: true },
  { id: 0x95c1_ba60, name: 'KVM_PSCI_CPU_ON', since: '0.1', kvm: true },
  { id: 0x95c1_ba61, name: 'KVM_PSCI_MIGRATE', since: '0.1', kvm: false },
]

/** `PSCI_RET_*`, as signed numbers in x0. */
export const psciReturns = {
  SUCCESS: 0,
  NOT_SUPPORTED: -1,
  INVALID_PARAMS: -2,
  DENIED: -3,
  ALREADY_ON: -4,
  ON_PENDING: -5,
  INTERNAL_FAILURE: -6,
  NOT_PRESENT: -7,
  DISABLED: -8,
  INVALID_ADDRESS: -9,
} as const

/** `PSCI_0_2_AFFINITY_LEVEL_*`: the results of AFFINITY_INFO. */
export const affinityLevels = { ON: 0, OFF: 1 } as const

/** Aff3 to Aff0 of MPIDR_EL1; calls identify a vCPU by them. */
export const MPIDR_HWID_BITMASK = 0xff_00ff_ffffn
