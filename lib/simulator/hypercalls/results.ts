/** Returns a call's results to the guest. */
import { setGeneralRegister } from '../guest-registers.js'
import type { VcpuState } from '../state.js'

/** Writes x0 onwards; the guest continues. */
export function setResults(vcpu: VcpuState, words: readonly bigint[]): 'on' {
  for (const [n, word] of words.entries()) setGeneralRegister(vcpu, n, word)
  return 'on'
}
