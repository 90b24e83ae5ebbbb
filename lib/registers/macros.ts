/**
 * Register ids as C programs write them: the macros of `arch/arm64/include/uapi/asm/kvm.h`, those of the kernel's selftests, and those
 * of QEMU and Firecracker. Spaces and the case of letters do not matter.
 */
import { coreRegisters } from './core.js'
import { arm64Id, coprocessors, sizes } from './id.js'
import { sveId } from './sve.js'
import { systemRegisterId } from './sysregs.js'
import { timerRegisters } from './timers.js'

/** Fields of `struct kvm_regs` whose C name is not this package's name of the register. */
const fields = new Map<string, string>([
  ...['spsr_el1', 'spsr_abt', 'spsr_und', 'spsr_irq', 'spsr_fiq'].map((name, n): [string, string] => [
    `spsr[${n}]`,
    name,
  ]),
  ['spsr[kvm_spsr_el1]', 'spsr_el1'],
  ['spsr[kvm_spsr_svc]', 'spsr_el1'],
  ['spsr[kvm_spsr_abt]', 'spsr_abt'],
  ['spsr[kvm_spsr_und]', 'spsr_und'],
  ['spsr[kvm_spsr_irq]', 'spsr_irq'],
  ['spsr[kvm_spsr_fiq]', 'spsr_fiq'],
])

/** The name of the register that a field of `struct kvm_regs` holds: `regs.pc`, `regs.regs[3]`, `fp_regs.vregs[0]`. */
function fieldName(path: string): string | undefined {
  const general = /^regs\.regs\[(\d+)\]$/.exec(path)?.[1]
  if (general !== undefined) return `x${general}`
  const vector = /^fp_regs\.vregs\[(\d+)\]$/.exec(path)?.[1]
  if (vector !== undefined) return `v${vector}`
  return fields.get(path) ?? path.replace(/^(fp_)?regs\./, '')
}

/** The timers by the encoding of their ids, which is what `SYS_CNTV_CVAL_EL0` means in C; see `timers.ts`. */
const timersByEncoding = new Map(
  timerRegisters.map((timer) => [timer.encoding.toLowerCase(), systemRegisterId(timer)]),
)

const coreByName = new Map(coreRegisters.map(({ name, id }) => [name, id]))

type Macro = (args: readonly string[]) => bigint | undefined

/** Returns the arguments as numbers, if each is one, from 0 to its limit. */
function numbers(args: readonly string[], limits: readonly number[]): number[] | undefined {
  const values = args.map((text) => (/^(0x[0-9a-f]+|\d+)$/.test(text) ? Number(text) : Number.NaN))
  return values.length === limits.length && values.every((value, n) => value <= limits[n]!)
    ? values
    : undefined
}

const systemRegister: Macro = (args) => {
  const parts = numbers(args, [3, 7, 15, 15, 7])
  if (parts === undefined) return undefined
  const [op0, op1, crn, crm, op2] = parts as [number, number, number, number, number]
  return systemRegisterId({ op0, op1, crn, crm, op2 })
}

const coreField: Macro = ([path = '', ...others]) =>
  others.length > 0 ? undefined : coreByName.get(fieldName(path) ?? '')

const sveSlice =
  (kind: 'z' | 'p', last: number): Macro =>
  (args) => {
    const [number, slice] = numbers(args, [last, 31]) ?? []
    return number === undefined ? undefined : sveId(`${kind}${number}[${slice}]`)
  }

const macros: Readonly<Record<string, Macro>> = {
  arm64_sys_reg: systemRegister,
  __arm64_sys_reg: systemRegister,
  sys_reg: systemRegister,
  kvm_reg_arm_core_reg: coreField,
  arm64_core_reg: coreField,
  aarch64_core_reg: coreField,
  aarch64_simd_core_reg: coreField,
  aarch64_simd_ctrl_reg: coreField,
  kvm_reg_arm64_sve_zreg: sveSlice('z', 31),
  kvm_reg_arm64_sve_preg: sveSlice('p', 15),
  kvm_reg_arm64_sve_ffr: (args) => {
    const [slice] = numbers(args, [31]) ?? []
    return slice === undefined ? undefined : sveId(`ffr[${slice}]`)
  },
  kvm_reg_arm_demux_id_ccsidr: (args) => {
    const [csselr] = numbers(args, [0xff]) ?? []
    return csselr === undefined ? undefined : arm64Id(sizes.U32, coprocessors.DEMUX, csselr)
  },
}

/**
 * Returns the id that a macro with its arguments stands for; undefined for anything else, also for arguments that are out of range.
 * @param named resolves a name inside `KVM_ARM64_SYS_REG(SYS_…)`
 */
export function macroId(text: string, named: (name: string) => bigint | undefined): bigint | undefined {
  const compact = text.replaceAll(/\s/g, '').toLowerCase()
  const encoded = (name: string) =>
    name.startsWith('sys_') ? (timersByEncoding.get(name.slice(4)) ?? named(name.slice(4))) : undefined
  const call = /^(\w+)\(([^()]*)\)$/.exec(compact)
  if (call === null) return encoded(compact)
  const [, macro = '', inside = ''] = call
  if (macro === 'kvm_arm64_sys_reg') return encoded(inside)
  return Object.hasOwn(macros, macro) ? macros[macro]!(inside.split(',')) : undefined
}
