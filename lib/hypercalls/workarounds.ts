/**
 * Levels of `KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_{1,2,3}`: how far the host mitigates a Spectre variant, as userspace and the guest
 * see it (`Documentation/virt/kvm/arm/fw-pseudo-registers.rst`).
 */
import { encodeRegister } from '../registers/index.js'
import { functionIds, smcccReturns } from './functions.js'

export interface WorkaroundLevel {
  value: bigint
  name: 'not-available' | 'unknown' | 'available' | 'not-required'
  /** x0 of SMCCC_ARCH_FEATURES for the workaround, as a signed number. */
  archFeatures: number
}

export interface Workaround {
  register: bigint
  /** The function the guest calls. */
  functionId: number
  /** Lowest first: a lower level promises less. */
  levels: readonly WorkaroundLevel[]
}

/** `SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED` */
const UNAFFECTED = 1

const { SUCCESS, NOT_SUPPORTED, NOT_REQUIRED } = smcccReturns

const spectreV2Levels: readonly WorkaroundLevel[] = [
  { value: 0n, name: 'not-available', archFeatures: NOT_SUPPORTED },
  { value: 1n, name: 'available', archFeatures: SUCCESS },
  { value: 2n, name: 'not-required', archFeatures: UNAFFECTED },
]

const spectreV4Levels: readonly WorkaroundLevel[] = [
  { value: 0n, name: 'not-available', archFeatures: NOT_SUPPORTED },
  { value: 1n, name: 'unknown', archFeatures: NOT_SUPPORTED },
  { value: 2n, name: 'available', archFeatures: SUCCESS },
  { value: 3n, name: 'not-required', archFeatures: NOT_REQUIRED },
]

function workaround(number: 1 | 2 | 3, levels: readonly WorkaroundLevel[]): Workaround {
  const name = `SMCCC_ARCH_WORKAROUND_${number}` as const
  return { register: encodeRegister(`KVM_REG_ARM_${name}`), functionId: functionIds[name], levels }
}

/** Workarounds 1 (Spectre variant 2), 2 (variant 4) and 3 (Spectre-BHB). */
export const workarounds: readonly Workaround[] = [
  workaround(1, spectreV2Levels),
  workaround(2, spectreV4Levels),
  workaround(3, spectreV2Levels),
]
