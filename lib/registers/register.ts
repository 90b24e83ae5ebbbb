/** Converts register ids to names and parts, and back. */
import { coreAliases, type CoreRegisterName, coreRegisters } from './core.js'
import { bitmapRegisters, type FirmwareRegisterName, firmwareRegisters } from './firmware.js'
import { ARM64, arm64Id, coprocessors, hex, type IdParts, idParts, registerWidth, sizes } from './id.js'
import type { RuntimeText } from '../literals.js'
import { macroId } from './macros.js'
import { nearestNames } from './nearest.js'
import { type SveParts, sveDescription, sveId, sveName, sveParts, type SveRegisterName } from './sve.js'
import {
  genericName,
  parseGenericName,
  systemRegisterId,
  systemRegisterIndex,
  systemRegisterIndices,
  type SystemRegisterName,
  systemRegisterNames,
  type SystemRegisterParts,
  systemRegisterParts,
} from './sysregs.js'
import { timerDescription, type TimerRegisterName, timerRegisters } from './timers.js'

type WithoutPrefix<Name extends string> = Name extends `KVM_REG_ARM_${infer Rest}`
  ? Rest
  : Name extends `KVM_REG_ARM64_${infer Rest}`
    ? Rest
    : Name
type NamedRegister =
  | CoreRegisterName
  | Uppercase<CoreRegisterName>
  | SystemRegisterName
  | TimerRegisterName
  | FirmwareRegisterName
  | SveRegisterName

/**
 * Every name of a register, for editors to complete and for the compiler to refuse a misspelt one. At run time names are accepted in
 * any case.
 */
export type RegisterName =
  | NamedRegister
  | WithoutPrefix<NamedRegister>
  | `CCSIDR_EL1[${number}]`
  | `S${number}_${number}_C${number}_C${number}_${number}`
  | `${typeof FIRMWARE_GENERIC | typeof BITMAP_GENERIC}(${number})`
  | `0x${string}`

interface RegisterOf<Space extends string, Parts> {
  space: Space
  id: bigint
  /** Canonical name: `encodeRegister(name)` is `id`. */
  name: string
  /** Bits of the value: 8 to 2048 for every register of KVM. */
  width: number
  /** The parts of the id, in the terms of its space. */
  parts: Parts
  /** One line, if the name alone does not explain the register. */
  description?: string
}

/** A field of `struct kvm_regs`; `offset` in bytes. */
type CoreRegister = RegisterOf<'core', { offset: number }>
/** CCSIDR_EL1 as seen with a value of CSSELR_EL1 (bits 3:1 level less one, bit 0 instruction cache). */
type DemuxRegister = RegisterOf<'demux', { csselr: number }>
type SystemRegister = RegisterOf<'sysreg', SystemRegisterParts>
/** One of the six ids of the timers; `content` names the system register whose content it holds. */
type TimerRegister = RegisterOf<'timer', SystemRegisterParts & { content: string }>
/** A pseudo-register of the firmware, coprocessor 0x14. */
type FirmwareRegister = RegisterOf<'firmware', { index: number }>
/** A bitmap of hypercall services, coprocessor 0x16. */
type BitmapRegister = RegisterOf<'bitmap', { index: number }>
type SveRegister = RegisterOf<'sve', SveParts>
/** An id to which no kernel gives a meaning: its name is the id in hexadecimal. */
type UnknownRegister = RegisterOf<'unknown', IdParts>

export type Register =
  | CoreRegister
  | DemuxRegister
  | SystemRegister
  | TimerRegister
  | FirmwareRegister
  | BitmapRegister
  | SveRegister
  | UnknownRegister

export type RegisterSpace = Register['space']

/** Thrown for a name that no register has. */
export class UnknownRegisterError extends RangeError {
  override readonly name = 'UnknownRegisterError'
  readonly code = 'ERR_KVM_UNKNOWN_REGISTER'
  /** The name that was looked up. */
  readonly register: string
  /** Names spelled alike, nearest first, at most three. */
  readonly nearest: readonly string[]

  constructor(register: string, reason: string, nearest: readonly string[]) {
    super(nearest.length === 0 ? reason : `${reason}; did you mean ${nearest.join(', ')}?`)
    this.register = register
    this.nearest = nearest
  }
}

/** Bits 63:16 of the ids with the encoding of a system register. */
const SYSREG_PREFIX = arm64Id(sizes.U64, coprocessors.SYSREG, 0) >> 16n

const FIRMWARE_GENERIC = 'KVM_REG_ARM_FW_REG'
const BITMAP_GENERIC = 'KVM_REG_ARM_FW_FEAT_BMAP_REG'

const coreById = new Map(coreRegisters.map((entry) => [entry.id, entry]))
const timerByIndex = new Map(timerRegisters.map((entry) => [systemRegisterIndex(entry), entry]))

/** Encodings of system registers that KVM exposes as a core register. */
const coreEncodings = new Map<number, string>(
  (
    [
      ['spsr_el1', { op0: 3, op1: 0, crn: 4, crm: 0, op2: 0 }],
      ['elr_el1', { op0: 3, op1: 0, crn: 4, crm: 0, op2: 1 }],
      ['sp', { op0: 3, op1: 0, crn: 4, crm: 1, op2: 0 }],
      ['fpcr', { op0: 3, op1: 3, crn: 4, crm: 4, op2: 0 }],
      ['fpsr', { op0: 3, op1: 3, crn: 4, crm: 4, op2: 1 }],
      ['sp_el1', { op0: 3, op1: 4, crn: 4, crm: 1, op2: 0 }],
      ['spsr_irq', { op0: 3, op1: 4, crn: 4, crm: 3, op2: 0 }],
      ['spsr_abt', { op0: 3, op1: 4, crn: 4, crm: 3, op2: 1 }],
      ['spsr_und', { op0: 3, op1: 4, crn: 4, crm: 3, op2: 2 }],
      ['spsr_fiq', { op0: 3, op1: 4, crn: 4, crm: 3, op2: 3 }],
    ] satisfies [string, SystemRegisterParts][]
  ).map(([name, parts]) => [systemRegisterIndex(parts), name]),
)

/** Name of a timer, an architectural system register or the generic form, for all 65536 encodings. */
function sysregName(index: number): string {
  return timerByIndex.get(index)?.name ?? systemRegisterNames.get(index) ?? genericName(index)
}

function decodeSysreg(id: bigint, index: number): SystemRegister | TimerRegister {
  const parts = systemRegisterParts(index)
  const timer = timerByIndex.get(index)
  if (timer !== undefined) {
    const { name, content } = timer
    return {
      space: 'timer',
      id,
      name,
      width: 64,
      parts: { ...parts, content },
      description: timerDescription(timer),
    }
  }
  const register: SystemRegister = { space: 'sysreg', id, name: sysregName(index), width: 64, parts }
  const core = coreEncodings.get(index)
  if (core !== undefined)
    register.description = `an encoding KVM does not list: the register is core register ${core}`
  return register
}

function decodeFirmware(id: bigint, index: number): FirmwareRegister {
  const known = firmwareRegisters[index]
  const name = known?.name ?? `${FIRMWARE_GENERIC}(${index})`
  const register: FirmwareRegister = { space: 'firmware', id, name, width: 64, parts: { index } }
  if (known !== undefined) register.description = known.description
  return register
}

function decodeBitmap(id: bigint, index: number): BitmapRegister {
  const known = bitmapRegisters[index]
  const name = known?.name ?? `${BITMAP_GENERIC}(${index})`
  const register: BitmapRegister = { space: 'bitmap', id, name, width: 64, parts: { index } }
  if (known !== undefined) register.description = known.description
  return register
}

/** The cache that `CSSELR_EL1` selects. */
function cacheDescription(csselr: number): string {
  return `CCSIDR_EL1 of the level ${(csselr >> 1) + 1} ${csselr & 1 ? 'instruction' : 'data or unified'} cache`
}

function decodeKnown(id: bigint, { arch, size, coproc, index, stray }: IdParts): Register | undefined {
  if (arch !== ARM64 || stray !== 0n) return undefined
  switch (coproc) {
    case coprocessors.CORE: {
      const entry = coreById.get(id)
      if (entry === undefined) return undefined
      const { name, offset, description } = entry
      const register: CoreRegister = { space: 'core', id, name, width: registerWidth(id), parts: { offset } }
      if (description !== undefined) register.description = description
      return register
    }
    case coprocessors.DEMUX:
      // Bits 15:8 choose what is demultiplexed, and 0 (CCSIDR) is the only choice.
      if (size !== sizes.U32 || index > 0xff) return undefined
      return {
        space: 'demux',
        id,
        name: `CCSIDR_EL1[${index}]`,
        width: 32,
        parts: { csselr: index },
        description: cacheDescription(index),
      }
    case coprocessors.SYSREG:
      return size === sizes.U64 ? decodeSysreg(id, index) : undefined
    case coprocessors.FW:
      return size === sizes.U64 ? decodeFirmware(id, index) : undefined
    case coprocessors.FW_FEAT_BMAP:
      return size === sizes.U64 ? decodeBitmap(id, index) : undefined
    case coprocessors.SVE: {
      const parts = sveParts(size, index)
      if (parts === undefined) return undefined
      const description = sveDescription(parts)
      return { space: 'sve', id, name: sveName(parts), width: registerWidth(id), parts, description }
    }
    default:
      return undefined
  }
}

/** Architectures by bits 63:60 of an id (`include/uapi/linux/kvm.h`). */
const architectures: ReadonlyMap<number, string> = new Map([
  [1, 'PowerPC'],
  [2, 'x86'],
  [3, 'Itanium'],
  [4, '32-bit Arm'],
  [5, 's390'],
  [7, 'MIPS'],
  [8, 'RISC-V'],
  [9, 'LoongArch'],
])

/** Describes an id of another architecture's KVM; those of 32-bit Arm by the parts of its coprocessor registers. */
function foreignDescription({ arch, coproc, index }: IdParts): string | undefined {
  const name = architectures.get(arch)
  if (name === undefined) return undefined
  const description = `an id of ${name}, which arm64 KVM does not know`
  const isCoprocessor = arch === 4 && (coproc === 14 || coproc === 15)
  if (!isCoprocessor) return description
  // KVM_REG_ARM_{32_CRN,CRM,OPC1,32_OPC2} of arch/arm/include/uapi/asm/kvm.h, gone since Linux 5.7; QEMU still uses them.
  const [crn, crm, opc1, opc2] = [(index >> 11) & 15, (index >> 7) & 15, (index >> 3) & 15, index & 7]
  return `${description}: coprocessor ${coproc}, opc1 ${opc1}, CRn ${crn}, CRm ${crm}, opc2 ${opc2}`
}

/**
 * Decodes an id. Every 64-bit id decodes; an id to which no kernel gives a meaning has space `unknown`.
 *
 * @throws RangeError if `id` is not an unsigned 64-bit number
 */
export function decodeRegister(id: bigint): Register {
  const parts = idParts(id)
  const known = decodeKnown(id, parts)
  if (known !== undefined) return known
  const register: UnknownRegister = { space: 'unknown', id, name: hex(id), width: registerWidth(id), parts }
  const description = foreignDescription(parts)
  if (description !== undefined) register.description = description
  return register
}

/**
 * Returns the canonical name of an id: an architectural or kernel name, the generic form of a system register, or the id in
 * hexadecimal.
 *
 * @throws RangeError if `id` is not an unsigned 64-bit number
 */
export function registerName(id: bigint): string {
  if (id >> 16n === SYSREG_PREFIX) return sysregName(Number(id & 0xffffn))
  return coreById.get(id)?.name ?? decodeRegister(id).name
}

/** Canonical names that `nearestNames` may propose. */
let canonicalNames: string[] | undefined

function withoutPrefix(name: string): string {
  return name.replace(/^KVM_REG_ARM(64)?_/, '')
}

/** Ids by lower-case name, for all names that are neither a system register's nor match a pattern. */
const idsByName = new Map<string, bigint>()

function addName(name: string, id: bigint): void {
  idsByName.set(name.toLowerCase(), id)
}

for (const { name, id } of [...firmwareRegisters, ...bitmapRegisters]) {
  addName(name, id)
  addName(withoutPrefix(name), id)
}
for (const timer of timerRegisters) {
  const id = systemRegisterId(timer)
  addName(timer.name, id)
  addName(withoutPrefix(timer.name), id)
  addName(timer.content, id)
}
for (const { name, id } of coreRegisters) addName(name, id)
for (const [alias, name] of Object.entries(coreAliases)) addName(alias, idsByName.get(name)!)

/** Returns the id of a name that consists of a pattern and numbers. */
function patternId(name: string): bigint | undefined {
  const index = parseGenericName(name)
  if (index !== undefined) return arm64Id(sizes.U64, coprocessors.SYSREG, index)
  const match =
    /^(ccsidr_el1\[|kvm_reg_arm_fw_reg\(|kvm_reg_arm_fw_feat_bmap_reg\()(0|[1-9][0-9]*)[\])]$/.exec(name)
  if (match === null) return sveId(name)
  const number = Number(match[2])
  if (match[1] === 'ccsidr_el1[')
    return number <= 0xff ? arm64Id(sizes.U32, coprocessors.DEMUX, number) : undefined
  if (number > 0xffff) return undefined
  const coproc = match[1] === 'kvm_reg_arm_fw_reg(' ? coprocessors.FW : coprocessors.FW_FEAT_BMAP
  return arm64Id(sizes.U64, coproc, number)
}

function systemRegisterNamed(name: string): bigint | undefined {
  const index = systemRegisterIndices.get(name.toUpperCase())
  return index === undefined ? undefined : arm64Id(sizes.U64, coprocessors.SYSREG, index)
}

function namedRegister(name: string): bigint | undefined {
  return idsByName.get(name) ?? systemRegisterNamed(name) ?? patternId(name)
}

/** Returns canonical names spelled like `text`, nearest first, at most three. */
function nearestRegisterNames(text: string): string[] {
  canonicalNames ??= [
    ...systemRegisterNames.values(),
    ...new Set([...idsByName.values()].map(registerName)),
    'KVM_REG_ARM64_SVE_VLS',
  ]
  return nearestNames(text, canonicalNames, withoutPrefix)
}

/**
 * Id of a register by its name, in any case, with or without the `KVM_REG_ARM_` in front of a kernel's name; by the id itself
 * in hexadecimal with `0x`; or by the kernel's macro that makes it, `ARM64_SYS_REG(3, 0, 0, 4, 0)`. An architectural name of a timer means the id that holds that register's content
 * (see `timers.ts`).
 *
 * @throws UnknownRegisterError (a RangeError with code `ERR_KVM_UNKNOWN_REGISTER`) with the unknown name and names spelled alike
 */
export function encodeRegister<Given extends string>(nameOrHex: RegisterName | RuntimeText<Given>): bigint {
  const text = nameOrHex.trim().toLowerCase()
  if (text.startsWith('0x')) {
    if (/^0x0*[0-9a-f]{1,16}$/.test(text)) return BigInt(text)
    throw new UnknownRegisterError(
      nameOrHex,
      `"${nameOrHex}" is no register id: expected 0x and 1 to 16 hexadecimal digits`,
      [],
    )
  }
  const id = namedRegister(text) ?? macroId(text, namedRegister)
  if (id !== undefined) return id
  throw new UnknownRegisterError(
    nameOrHex,
    `No arm64 register is called "${nameOrHex}"`,
    nearestRegisterNames(text),
  )
}
