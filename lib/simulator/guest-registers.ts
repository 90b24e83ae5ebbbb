/** The registers that guest code uses, by number. */
import { encodeRegister } from '../registers/index.js'
import type { VcpuState } from './state.js'

/** Ids of x0 to x30. */
export const generalRegisters: readonly bigint[] = Array.from({ length: 31 }, (_, n) =>
  encodeRegister(`x${n}`),
)
export const PC = encodeRegister('pc')

/** xn; 31 means xzr. */
export function generalRegister(vcpu: VcpuState, n: number): bigint {
  return n === 31 ? 0n : guestRegister(vcpu, generalRegisters[n]!)
}

export function setGeneralRegister(vcpu: VcpuState, n: number, value: bigint): void {
  setGuestRegister(vcpu, generalRegisters[n]!, value)
}

/** Returns a core register that every vCPU has. */
export function guestRegister({ file, values }: VcpuState, id: bigint): bigint {
  return values[file!.slots.get(id)!]!
}

export function setGuestRegister({ file, values }: VcpuState, id: bigint, value: bigint): void {
  values[file!.slots.get(id)!] = value
}
