/** Finds the registers that a line of text speaks of: an error of a VMM, a line of a log, C source. */
import { ARM64, idParts } from './id.js'
import { decodeRegister, encodeRegister } from './register.js'

export interface Mention {
  id: bigint
  /** The words of the line that name the register. */
  text: string
  /** The value that was to be written to it, if the line says so. */
  written?: bigint
  /** The value it held, if the line says so. */
  held?: bigint
}

/**
 * How text names registers, most telling first; each finds one id or none.
 *
 * QEMU: `target/arm/kvm.c:kvm_print_register_name`. Its numbers of core, SVE and demultiplexed registers are hexadecimal without
 * `0x`. Firecracker prints some ids in decimal.
 */
const spellings: readonly (readonly [RegExp, (match: RegExpExecArray) => bigint | undefined])[] = [
  [
    /(?:system register )?\bop0:\s?(\d+),? op1:\s?(\d+),? crn:\s?(\d+),? crm:\s?(\d+),? op2:\s?(\d+)/gi,
    (match) => named(`ARM64_SYS_REG(${match.slice(1).join(',')})`),
  ],
  [/\bfw feat reg (\d+)/g, ([, index]) => named(`KVM_REG_ARM_FW_FEAT_BMAP_REG(${index})`)],
  [/\bfw reg (\d+)/g, ([, index]) => named(`KVM_REG_ARM_FW_REG(${index})`)],
  [/\b(?:core|sve|demuxed) reg ([0-9a-f]{16})\b/g, ([, digits]) => known(BigInt(`0x${digits}`))],
  [/\b\w+\s?\([\w\s.,[\]]+\)/g, ([macro]) => named(macro)],
  [/\b0x([0-9a-f]{16})\b/gi, ([digits]) => known(BigInt(digits))],
  [/\b[46]0[0-9a-f]{14}\b/gi, ([digits]) => known(BigInt(`0x${digits}`))],
  [/\b\d{19}\b/g, ([digits]) => known(BigInt(digits))],
  // Short names like x0 and sp are words of many texts.
  [/\b[A-Za-z]\w*_(?:EL\d|BMAP(?:_2)?|VLS)(?:\[\d+\])?|\b(?:KVM_REG|SYS)_\w+/g, ([name]) => named(name)],
  [/\bS\d_\d_C\d+_C\d+_\d\b/gi, ([name]) => named(name)],
]

function named(name: string): bigint | undefined {
  try {
    return encodeRegister(name)
  } catch {
    return undefined
  }
}

/** Any other number of this size is a value or an address. */
function known(id: bigint): bigint | undefined {
  if (id >= 1n << 64n) return undefined
  const { arch, coproc, stray } = idParts(id)
  if (arch === ARM64) return decodeRegister(id).space === 'unknown' ? undefined : id
  return arch === ARM32 && (stray & ~QEMU_BITS) === 0n && coproc <= 0x14 ? id : undefined
}

const ARM32 = 4
/** QEMU marks registers of the normal world. */
const QEMU_BITS = 1n << 29n

/** What follows a register: ` to 10305408 (is 10305406)` of QEMU, ` to value 0x1` of Firecracker. */
const WRITTEN = /^[^\w]*to (value )?(0x[0-9a-f]+|[0-9a-f]+)\b(?: \(is ([0-9a-f]+)\))?/i

/** Returns the registers a line speaks of, each once, in its order. */
export function registerMentions(line: string): Mention[] {
  const found: (Mention & { start: number })[] = []
  for (const [pattern, idOf] of spellings) {
    for (const match of line.matchAll(pattern)) {
      const start = match.index
      const text = match[0]
      if (
        found.some((other) => start < other.start + other.text.length && other.start < start + text.length)
      ) {
        continue
      }
      const id = idOf(match)
      if (id === undefined) continue
      found.push({ id, text, start, ...valuesIn(line.slice(start + text.length)) })
    }
  }
  // QEMU names a register twice, by its id and by its encoding.
  const mentions = new Map<bigint, Mention>()
  for (const { start: _start, ...mention } of found.toSorted((a, b) => a.start - b.start)) {
    mentions.set(mention.id, { ...mention, ...mentions.get(mention.id) })
  }
  return [...mentions.values()]
}

function valuesIn(rest: string): Pick<Mention, 'written' | 'held'> {
  const match = WRITTEN.exec(rest)
  if (match === null) return {}
  const [, isDecimal, written = '', held] = match
  const digits = written.startsWith('0x') || isDecimal ? written : `0x${written}`
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(digits)) return {}
  return { written: BigInt(digits), ...(held !== undefined && { held: BigInt(`0x${held}`) }) }
}
