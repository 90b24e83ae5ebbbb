/** Checks on registers in documents that every reader makes, beyond the shape of an entry. */
import { encodeRegister, hex, registerName, registerWidth } from '../registers/index.js'
import { FormatError, refuseDuplicateIds } from './document.js'

interface RegisterRow {
  /** An id of the shape `registerId`. */
  readonly id: string
  readonly value?: string | null
  readonly mask?: string | undefined
}

/**
 * Refuses a list of registers that contains one twice, or a value or mask wider than its register.
 * @param path of the list, `$.registers`
 * @throws FormatError
 */
export function checkRegisterRows(rows: readonly RegisterRow[], path: string, source: string): void {
  refuseDuplicateIds(rows, path, source)
  for (const [index, { id, value, mask }] of rows.entries()) {
    checkWidth(id, value, `${path}[${index}].value`, source)
    checkWidth(id, mask, `${path}[${index}].mask`, source)
  }
}

/**
 * Refuses a value that does not fit its register.
 * @param value a `0x…` number without leading zeros, if any
 * @throws FormatError
 */
export function checkWidth(id: string, value: string | null | undefined, path: string, source: string): void {
  const width = registerWidth(BigInt(id))
  // Each digit after the 0x is 4 bits, and every width a multiple of them.
  if (typeof value !== 'string' || 4 * (value.length - 2) <= width) return
  const name = registerName(BigInt(id))
  throw new FormatError(source, path, `${value} is wider than the ${width} bits of ${name}`)
}

/** Registers that KVM lists for every vCPU; no guest can run without them. */
const CORE = ['pc', 'sp', 'pstate', ...Array.from({ length: 31 }, (_, number) => `x${number}`)]

/**
 * Refuses a list of a vCPU's registers that lacks a register every vCPU has.
 * @param more names of registers needed besides the core registers
 * @throws FormatError
 */
export function requireRegisters(
  rows: readonly RegisterRow[],
  path: string,
  source: string,
  more: readonly string[] = [],
): void {
  const held = new Set(rows.map(({ id }) => id))
  const missing = [...CORE, ...more].find((name) => !held.has(hex(encodeRegister(name))))
  if (missing !== undefined) throw new FormatError(source, path, `lacks ${missing}, which every vCPU has`)
}

/**
 * Refuses rows of registers that are not in the list they refer to.
 * @throws FormatError
 */
export function requireListed(
  rows: readonly RegisterRow[],
  listed: ReadonlySet<string>,
  path: string,
  source: string,
): void {
  const index = rows.findIndex(({ id }) => !listed.has(id))
  if (index >= 0) throw new FormatError(source, `${path}[${index}].id`, 'is not in the list of registers')
}
