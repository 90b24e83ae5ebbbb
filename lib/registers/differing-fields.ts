/** Two values of a register, field by field. */
import { type Field, fieldMask, fieldValue, registerField, registerFields } from './index.js'

/** Fields in which two values differ; bits no field is known for come as nibbles. */
export function differingFields(id: bigint, a: bigint, b: bigint): Field[] {
  const fields = registerFields(id)
  const known = fields.reduce((mask, field) => mask | fieldMask(field), 0n)
  const nibbles = Array.from({ length: 16 }, (_, index) => nibbleField(4 * index)).filter(
    (field) => (fieldMask(field) & known) === 0n,
  )
  return [...fields, ...nibbles]
    .filter((field) => ((a ^ b) & fieldMask(field)) !== 0n)
    .toSorted((left, right) => right.lsb - left.lsb)
}

/**
 * The field that `differingFields` gives this name.
 * @throws RangeError if the register has no such field
 */
export function differingField(id: bigint, name: string): Field {
  const nibble = /^bits (\d+):(\d+)$/.exec(name)
  return nibble === null ? registerField(id, name) : nibbleField(Number(nibble[2]))
}

function nibbleField(lsb: number): Field {
  return { name: `bits ${lsb + 3}:${lsb}`, lsb, width: 4, signed: false, meanings: new Map() }
}

/** A field's value with what it means, `1 (AArch64)`. */
export function meaningOf(field: Field, value: bigint): string {
  const content = fieldValue(field, value)
  const meaning = field.meanings.get(content)
  return meaning === undefined ? `${content}` : `${content} (${meaning})`
}
