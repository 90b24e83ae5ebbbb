import { encodeRegister } from './register.js'

/**
 * Pairs of PMU registers that show one bitmap of counters: ones written to the first set its bits, ones written to the second
 * clear them (Arm Architecture Reference Manual, D24.5).
 */
export const setClearPairs: readonly (readonly [set: bigint, clear: bigint])[] = [
  [encodeRegister('PMINTENSET_EL1'), encodeRegister('PMINTENCLR_EL1')],
  [encodeRegister('PMCNTENSET_EL0'), encodeRegister('PMCNTENCLR_EL0')],
  [encodeRegister('PMOVSSET_EL0'), encodeRegister('PMOVSCLR_EL0')],
]
