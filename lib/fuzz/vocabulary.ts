/** The vocabulary of the generator: the ids, values and function ids near which KVM's answers are likely to change. */
import { functionIdOf, functionIds, hypercallFunctions } from '../hypercalls/index.js'
import {
  arm64Id,
  coprocessors,
  encodeRegister,
  featureIdAt,
  fieldMask,
  idParts,
  registerField,
  registerWidth,
  sizes,
  U64,
  withSize,
} from '../registers/index.js'
import { capabilities } from '../uapi.js'

export const ID_AA64PFR0_EL1 = encodeRegister('ID_AA64PFR0_EL1')
export const MPIDR_EL1 = encodeRegister('MPIDR_EL1')
export const MPIDR_RES1 = 1n << 31n
export const DBGVCR32_EL2 = encodeRegister('DBGVCR32_EL2')
const PSTATE = encodeRegister('pstate')

/** Op0 3, op1 0, CRn 0. */
export const ID_REGISTERS: ReadonlySet<bigint> = new Set(
  Array.from({ length: 64 }, (_, index) => featureIdAt(index)),
)
export const GIC_FIELD = fieldMask(registerField(ID_AA64PFR0_EL1, 'GIC'))

/** Registers to read before a list is known. */
export const FIRMWARE: readonly bigint[] = [0, 1, 2, 3].flatMap((index) => [
  arm64Id(sizes.U64, coprocessors.FW, index),
  arm64Id(sizes.U64, coprocessors.FW_FEAT_BMAP, index),
])
export const FIRMWARE_VALUES: readonly bigint[] = [
  0, 1, 2, 3, 4, 0x10, 0x11, 0x12, 0x10000, 0x10001, 0x10002, 0x10003, 0x10004, 0x1_0000_0000,
].map(BigInt)
/** Spaces whose registers must be read at 64 bits at most: old kernels overran their stack. */
export const FIRMWARE_SPACES: ReadonlySet<number> = new Set([coprocessors.FW, coprocessors.FW_FEAT_BMAP])
export const SPACES: readonly number[] = [0x0, 0xf, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0xfff]

/** System registers that do nothing to a guest that does not use them. */
export const UNUSED_BY_GUEST: ReadonlySet<bigint> = new Set(
  ['AFSR0_EL1', 'AFSR1_EL1', 'AMAIR_EL1', 'MAIR_EL1', 'PAR_EL1', 'TPIDR_EL1'].map(encodeRegister),
)

/** Function ids near which the filter's rules change. */
export const FUNCTION_IDS: readonly number[] = [
  0, 1, 0x7fff_fffe, 0x8000_0000, 0x8000_ffff, 0x8001_0000, 0x8400_0000, 0x8600_0000, 0x95c1_ba5e,
  0xc000_0000, 0xc400_0003, 0xc600_0000, 0xffff_ffff,
]

/**
 * Function ids that a guest calls, and names in a query: every function, its neighbours, and ids next to PSCI's range and those of
 * other owners.
 */
export const CALLED: readonly number[] = [
  ...new Set([
    ...hypercallFunctions.flatMap(({ id }) =>
      [id, id - 1, id + 1, id ^ 0x4000_0000].map((each) => each >>> 0),
    ),
    0,
    1,
    0x0400_0003,
    0x7fff_ffff,
    0x8001_0000,
    0x8100_0000,
    0x8200_0000,
    0x8300_0000,
    0x8400_001f,
    0x8400_0020,
    0x8401_0000,
    0x8402_0003,
    0xc400_001f,
    0xb200_0000,
    0xbf00_ff01,
    0xffff_ffff,
  ]),
]
export const PSCI: readonly number[] = CALLED.filter((id) => [0x84, 0xc4, 0x95].includes(id >>> 24))
export const QUESTIONS: readonly number[] = [
  functionIds.SMCCC_ARCH_FEATURES,
  functionIds.TRNG_FEATURES,
  functionIds.PV_TIME_FEATURES,
  functionIdOf('PSCI_FEATURES'),
]
export const CPU_ON: readonly number[] = ['PSCI_CPU_ON', 'PSCI_CPU_ON_64', 'KVM_PSCI_CPU_ON'].map(
  functionIdOf,
)
export const AFFINITY_INFO: readonly number[] = ['PSCI_AFFINITY_INFO', 'PSCI_AFFINITY_INFO_64'].map(
  functionIdOf,
)
export const AFFINITIES: readonly bigint[] = [
  0, 1, 1, 2, 3, 0x100, 0x100_0000, 0x8000_0000, 0x1_0000_0000, 0x100_0000_0000,
].map(BigInt)
export const LEVELS: readonly bigint[] = [0n, 0n, 1n, 2n, 3n, 4n, 1n << 32n]
/** Numbers of bits for a guest to request from TRNG. */
export const COUNTS: readonly bigint[] = [
  0, 1, 31, 32, 33, 64, 96, 97, 192, 193, 0xffff_ffff, 0x1_0000_0020,
].map(BigInt)
export const WORDS: readonly bigint[] = [0n, 0n, 1n, 2n, 0x8000_0000n, 1n << 32n, U64]

/** Capabilities that can be enabled and affect nothing but KVM's answers. */
export const ENABLED: readonly number[] = [
  capabilities.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
  capabilities.KVM_CAP_DIRTY_LOG_RING_ACQ_REL,
  capabilities.KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP,
  capabilities.KVM_CAP_HALT_POLL,
  capabilities.KVM_CAP_ARM_NISV_TO_USER,
  capabilities.KVM_CAP_ARM_SYSTEM_SUSPEND,
  capabilities.KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE,
  capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS,
  capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS,
  capabilities.KVM_CAP_ARM_SEA_TO_USER,
  capabilities.KVM_CAP_ARM_PSCI,
  9999,
]

/** Addresses of a GIC's frames. */
export const DISTRIBUTOR = 0x800_0000n
export const REDISTRIBUTORS = 0x80a_0000n
export const MOST_VMS = 3
export const MOST_VCPUS = 4
/** Size of a page, in bytes, that works on a host of any page size. */
export const PAGE = 0x1_0000

/** Returns whether a write may keep a guest from its call: its mode, timers, most system registers that are not ID registers. */
export function isOddToWrite(id: bigint): boolean {
  return id === PSTATE || (isHeldByCpu(id) && !UNUSED_BY_GUEST.has(id))
}

/** A system register other than a feature ID register. */
export function isHeldByCpu(id: bigint): boolean {
  return idParts(id).coproc === coprocessors.SYSREG && !ID_REGISTERS.has(id)
}

/** Returns the id with a width that is safe in its space. */
export function fit(id: bigint): bigint {
  const isWide = registerWidth(id) > 64
  return isWide && FIRMWARE_SPACES.has(idParts(id).coproc) ? withSize(id, sizes.U64) : id
}

/** Returns the digits of a payload of `size` bytes, of which at most six are not 0. */
export function littleEndian(value: bigint, size: number): string {
  const bytes = Buffer.alloc(size)
  bytes.writeUIntLE(Number(value), 0, Math.min(size, 6))
  return bytes.toString('hex')
}
