/** The registers that describe the CPU to a guest (`Documentation/arch/arm64/cpu-feature-registers.rst`). */
import { fieldValue, registerField } from './fields.js'
import { decodeRegister, encodeRegister } from './register.js'
import { systemRegisterId } from './sysregs.js'

const CTR_EL0 = encodeRegister('CTR_EL0')
const CLIDR_EL1 = encodeRegister('CLIDR_EL1')

/** Whose CPU it is: userspace may change them only with `KVM_CAP_ARM_WRITABLE_IMP_ID_REGS`. */
export const implementationIds: readonly bigint[] = ['MIDR_EL1', 'REVIDR_EL1', 'AIDR_EL1'].map(encodeRegister)

/** Values of op1 in the feature ID space, which is op0 3, CRn 0, CRm 0 to 7. */
const OP1: readonly number[] = [0, 1, 3]

/** The register of an entry, 0 to 191, of `KVM_ARM_GET_REG_WRITABLE_MASKS` (`KVM_ARM_FEATURE_ID_RANGE_IDX`). */
export function featureIdAt(index: number): bigint {
  return systemRegisterId({ op0: 3, op1: OP1[index >> 6]!, crn: 0, crm: (index >> 3) & 7, op2: index & 7 })
}

/** The inverse of `featureIdAt`; undefined for an id outside the feature ID space. */
export function featureIdIndex(id: bigint): number | undefined {
  const register = decodeRegister(id)
  if (register.space !== 'sysreg') return undefined
  const { op0, op1, crn, crm, op2 } = register.parts
  if (op0 !== 3 || !OP1.includes(op1) || crn !== 0 || crm > 7) return undefined
  return (OP1.indexOf(op1) << 6) | (crm << 3) | op2
}

/** Whether it is one of `ID_*`, of AArch32 or AArch64: op0 3, op1 0, CRn 0, CRm 1 to 7. */
export function isIdRegister(id: bigint): boolean {
  const index = featureIdIndex(id) ?? 0
  return index >= 8 && index < 64
}

/** Whether it is one of `ID_*` of AArch32: CRm 1 to 3. */
export function isAArch32IdRegister(id: bigint): boolean {
  const index = featureIdIndex(id) ?? 0
  return index >= 8 && index < 32
}

/**
 * Returns whether userspace may limit what the register shows: `ID_*` and CTR_EL0, which belong to the VM, and CLIDR_EL1, which
 * belongs to each vCPU.
 */
export function isFeatureIdRegister(id: bigint): boolean {
  return id === CTR_EL0 || id === CLIDR_EL1 || isIdRegister(id)
}

const AARCH32 = 2n
const EL0 = registerField(encodeRegister('ID_AA64PFR0_EL1'), 'EL0')

/** Returns whether this value of ID_AA64PFR0_EL1 shows AArch32 at EL0: without it the AArch32 ID registers mean nothing. */
export function hasAArch32(pfr0: bigint): boolean {
  return fieldValue(EL0, pfr0) === AARCH32
}

const IDC = registerField(CTR_EL0, 'IDC')

/** Returns whether this value of CTR_EL0 says that data caches need no cleaning for instructions. */
export function cleansByItself(ctr: bigint): boolean {
  return fieldValue(IDC, ctr) === 1n
}

/** Returns whether this value of CLIDR_EL1 says the same: LoC is 0, or both LoUIS and LoUU are (`arch/arm64/kvm/sys_regs.c:set_clidr`). */
export function needsNoCleaning(clidr: bigint): boolean {
  const level = (lsb: bigint) => (clidr >> lsb) & 7n
  return level(24n) === 0n || (level(21n) === 0n && level(27n) === 0n)
}
