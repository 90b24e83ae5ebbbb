/**
 * Core registers: fields of `struct kvm_regs`, whose index in the id is their offset in the struct divided by four. An offset inside
 * a field, or a size that is not the field's, is no register (KVM answers `EINVAL`).
 */
import type { Below } from './below.js'
import { arm64Id, coprocessors, sizes } from './id.js'

interface CoreEntry {
  id: bigint
  name: string
  /** Bytes from the start of `struct kvm_regs`. */
  offset: number
  description?: string
}

/** Of `user_pt_regs`, 8 bytes each like x0 to x30 before them, and of what follows it. */
const special = [
  ['sp', 'SP_EL0, the stack pointer of EL0'],
  ['pc', 'program counter'],
  ['pstate', 'process state, in the layout of SPSR'],
  ['sp_el1', 'SP_EL1, the stack pointer of EL1'],
  ['elr_el1', 'ELR_EL1, the exception link register of EL1'],
  ['spsr_el1', 'SPSR_EL1 (SPSR_svc of AArch32), the saved process state of EL1'],
  ['spsr_abt', 'SPSR_abt, saved process state of AArch32 Abort mode'],
  ['spsr_und', 'SPSR_und, saved process state of AArch32 Undefined mode'],
  ['spsr_irq', 'SPSR_irq, saved process state of AArch32 IRQ mode'],
  ['spsr_fiq', 'SPSR_fiq, saved process state of AArch32 FIQ mode'],
] as const

const general: readonly (readonly [name: string, description?: string])[] = [
  ...Array.from({ length: 31 }, (_, n) => [`x${n}`] as const),
  ...special,
]

/** `user_fpsimd_state` is aligned to 16 bytes. */
const VREGS = 0x150

function entry(size: number, offset: number, name: string, description?: string): CoreEntry {
  const id = arm64Id(size, coprocessors.CORE, offset / 4)
  return description === undefined ? { id, name, offset } : { id, name, offset, description }
}

export const coreRegisters: readonly CoreEntry[] = [
  ...general.map(([name, description], n) => entry(sizes.U64, n * 8, name, description)),
  ...Array.from({ length: 32 }, (_, n) => entry(sizes.U128, VREGS + n * 16, `v${n}`)),
  entry(sizes.U32, VREGS + 512, 'fpsr', 'FPSR, floating-point status'),
  entry(sizes.U32, VREGS + 516, 'fpcr', 'FPCR, floating-point control'),
]

/** Architectural names that mean a core register and are not its name in KVM but for the case of letters. */
export const coreAliases = { sp_el0: 'sp', spsr_svc: 'spsr_el1' } as const

export type CoreRegisterName =
  `x${Below<31>}` | `v${Below<32>}` | (typeof special)[number][0] | 'fpsr' | 'fpcr' | keyof typeof coreAliases
