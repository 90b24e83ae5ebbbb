/** Which ID register announces a register to a guest, and which vCPU feature is behind it. */
import { decodeRegister, encodeRegister, registerField, fieldValue } from '../registers/index.js'
import type { CapturedRegister } from './state.js'
import type { OptionalFeature } from './vmm/rules.js'

/** Registers that exist only where a field of an ID register is not 0. */
const announcements: readonly [register: RegExp, idRegister: string, field: string][] = [
  [/^TCR2_EL1$/, 'ID_AA64MMFR3_EL1', 'TCRX'],
  [/^SCTLR2_EL1$/, 'ID_AA64MMFR3_EL1', 'SCTLRX'],
  [/^PIRE?0?_EL1$/, 'ID_AA64MMFR3_EL1', 'S1PIE'],
  [/^POR_EL[01]$/, 'ID_AA64MMFR3_EL1', 'S1POE'],
  [/^FPMR$/, 'ID_AA64PFR2_EL1', 'FPMR'],
  [/^GCS/, 'ID_AA64PFR1_EL1', 'GCS'],
  [/^(RGSR_EL1|GCR_EL1|TFSRE?0?_EL1)$/, 'ID_AA64PFR1_EL1', 'MTE'],
  [/^ZCR_EL1$/, 'ID_AA64PFR0_EL1', 'SVE'],
]

/** Returns the field that announces a register to guests and is 0 in these registers; undefined if there is none. */
export function missingAnnouncement(id: bigint, registers: readonly CapturedRegister[]): string | undefined {
  const { name } = decodeRegister(id)
  const row = announcements.find(([register]) => register.test(name))
  if (row === undefined) return undefined
  const [, idName, field] = row
  const idRegister = encodeRegister(idName)
  const value = registers.find((register) => BigInt(register.id) === idRegister)?.value
  if (value === undefined || fieldValue(registerField(idRegister, field), BigInt(value)) !== 0n)
    return undefined
  return `${idName}.${field}`
}

/** Fields of ID registers that a vCPU feature decides. */
const decided: Readonly<Record<string, OptionalFeature>> = {
  'ID_AA64PFR0_EL1.SVE': 'sve',
  'ID_AA64ISAR1_EL1.APA': 'ptrauth',
  'ID_AA64ISAR1_EL1.API': 'ptrauth',
  'ID_AA64ISAR1_EL1.GPA': 'ptrauth',
  'ID_AA64ISAR1_EL1.GPI': 'ptrauth',
  'ID_AA64ISAR2_EL1.APA3': 'ptrauth',
  'ID_AA64ISAR2_EL1.GPA3': 'ptrauth',
  'ID_AA64DFR0_EL1.PMUVer': 'pmu',
  'ID_DFR0_EL1.PerfMon': 'pmu',
}

/** Returns the vCPU feature that decides whether a VM has a register, or what a field of it holds. */
export function featureBehind(id: bigint, field: string | undefined): OptionalFeature | undefined {
  const { name, space } = decodeRegister(id)
  if (field !== undefined && decided[`${name}.${field}`] !== undefined) return decided[`${name}.${field}`]
  if (space === 'sve' || name === 'ZCR_EL1' || name === 'ID_AA64ZFR0_EL1') return 'sve'
  if (/^AP[DIG][AB]?KEY/.test(name)) return 'ptrauth'
  return /^PM[A-Z]/.test(name) ? 'pmu' : undefined
}
