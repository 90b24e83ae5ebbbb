/** Fields of ID registers and of others that identify a CPU: where they are, how their values are ordered, what values mean. */
import { aarch32Fields } from './fields-aarch32.js'
import { aarch64Fields } from './fields-aarch64.js'
import { cacheTypeFields, identityFields } from './fields-other.js'
import { registerName } from './register.js'

/**
 * Which values of a field a guest can be shown on a host that has another one, as the kernel compares them (`arm64_ftr_safe_value`,
 * with KVM's own choices for PMUVer, PerfMon and DebugVer): a lower one, a higher one, zero or a higher one, or exactly the host's.
 */
export type SafeRule = 'lower' | 'higher' | 'higher-or-zero' | { readonly only: bigint }

export interface Field {
  /** As in Linux' `arch/arm64/tools/sysreg`. */
  readonly name: string
  /** Lowest bit. */
  readonly lsb: number
  /** Bits. */
  readonly width: number
  /** Whether values are ordered as two's complement: 0b1111 means less than 0, mostly "not implemented". */
  readonly signed: boolean
  /** Absent if no value is safer than another. */
  readonly safe?: SafeRule
  /** The meaning of values (as signed numbers in a signed field), where it is recorded here. */
  readonly meanings: ReadonlyMap<bigint, string>
}

export interface FieldValue {
  readonly field: Field
  /** Negative only in a signed field. */
  readonly value: bigint
  readonly meaning?: string
}

const FLAG = ' | 0 no; 1 yes'

function parseRule(word: string | undefined): SafeRule | undefined {
  if (word === 'higher' || word === 'higher-or-zero') return word
  return word?.startsWith('only=') ? { only: BigInt(word.slice('only='.length)) } : undefined
}

function parseField(text: string, safe: SafeRule | undefined): Field {
  const [layout = '', meanings = ''] = text.replace(/ flag$/, FLAG).split(' | ')
  const [name = '', bits = '', ...words] = layout.split(' ')
  const [msb = 0, lsb = msb] = bits.split(':').map(Number)
  const rule = parseRule(words.at(-1)) ?? safe
  const field = {
    name,
    lsb,
    width: msb - lsb + 1,
    signed: words[0] === 'signed',
    meanings: new Map(
      meanings === ''
        ? []
        : meanings.split('; ').map((entry): [bigint, string] => {
            const space = entry.indexOf(' ')
            return [BigInt(entry.slice(0, space)), entry.slice(space + 1)]
          }),
    ),
  }
  return rule === undefined ? field : { ...field, safe: rule }
}

const tables: readonly [Readonly<Record<string, readonly string[]>>, SafeRule | undefined][] = [
  [aarch64Fields, 'lower'],
  [aarch32Fields, 'lower'],
  [cacheTypeFields, 'lower'],
  [identityFields, undefined],
]

const parsed = new Map<string, readonly Field[]>()

/**
 * Returns the fields of the register with this id, highest bit first; empty if its fields are not described here.
 *
 * @throws RangeError if `id` is not an unsigned 64-bit number
 */
export function registerFields(id: bigint): readonly Field[] {
  // All CCSIDR_EL1[n] share the layout of CCSIDR_EL1.
  const name = registerName(id).replace(/\[.*\]$/, '')
  const known = parsed.get(name)
  if (known !== undefined) return known
  for (const [table, safe] of tables) {
    const lines = table[name]
    if (lines === undefined) continue
    const fields = lines.map((line) => parseField(line, safe))
    parsed.set(name, fields)
    return fields
  }
  return []
}

/**
 * Returns the field of this name of the register with this id.
 *
 * @throws RangeError if the register has none, or `id` is not an unsigned 64-bit number
 */
export function registerField(id: bigint, name: string): Field {
  const found = registerFields(id).find((field) => field.name === name)
  if (found === undefined) throw new RangeError(`${registerName(id)} has no field ${name}`)
  return found
}

/** Returns the mask of a field's bits. */
export function fieldMask({ lsb, width }: Field): bigint {
  return ((1n << BigInt(width)) - 1n) << BigInt(lsb)
}

/** Returns the register's `value` with `content`, truncated to the field's width, in one field. */
export function withField(field: Field, value: bigint, content: bigint): bigint {
  const mask = fieldMask(field)
  return (value & ~mask) | ((content << BigInt(field.lsb)) & mask)
}

/** Returns the content of one field in a register's `value`: negative only in a signed field. */
export function fieldValue(field: Field, value: bigint): bigint {
  const bits = value >> BigInt(field.lsb)
  return field.signed ? BigInt.asIntN(field.width, bits) : BigInt.asUintN(field.width, bits)
}

/**
 * All fields of a register's value, highest bit first.
 *
 * @throws RangeError if `id` is not an unsigned 64-bit number
 */
export function decodeFields(id: bigint, value: bigint): FieldValue[] {
  return registerFields(id).map((field) => {
    const content = fieldValue(field, value)
    const meaning = field.meanings.get(content)
    return meaning === undefined ? { field, value: content } : { field, value: content, meaning }
  })
}
