/** How a call's answer gets to the guest. */
import { smcccReturns } from '../../hypercalls/index.js'
import { setGeneralRegister } from '../guest-registers.js'
import type { VcpuState } from '../state.js'

export const { NOT_SUPPORTED } = smcccReturns

/** A result code as the 64-bit register holds it. */
export function toWord(code: number): bigint {
  return BigInt.asUintN(64, BigInt(code))
}

/** Writes x0 onwards; the guest goes on. */
export function setResults(vcpu: VcpuState, words: readonly bigint[]): 'on' {
  for (const [n, word] of words.entries()) setGeneralRegister(vcpu, n, word)
  return 'on'
}
