/** Chooses the best of the values that every host can show: field by field, in the kernel's order. */
import { type Field, fieldValue, registerFields } from '../../registers/index.js'
import { hasAll, nibbleOf, type NibbleSets, sixteen } from '../../report/write-rule.js'

/** A register of several hosts: its value in a fresh VM of each, and the values it can be set to on all of them. */
interface Common {
  readonly id: bigint
  readonly initial: readonly bigint[]
  readonly nibbles: NibbleSets
  /** Returns whether a value is accepted as a whole, if its nibbles alone do not decide that. */
  readonly admits?: (value: bigint) => boolean
}

export interface Choice {
  value: bigint
  /** Bits for which a common value exists. */
  mask: bigint
  /** Names of the fields without a common value; the bits, `7:4`, if they have no name. */
  conflicts: string[]
}

/** Returns the values that every host accepts: those in the sets of all. */
export function intersect(all: readonly NibbleSets[]): NibbleSets {
  return sixteen.map((nibble) => all.reduce((set, sets) => set & sets[nibble]!, 0xffff))
}

/**
 * Returns the greatest value of a register. Each field gets the value that promises a guest the most, among those that promise
 * nothing a host lacks, because a guest would rely on it there. Fields without an order, such as those of MIDR_EL1, come from the
 * register's most common value.
 */
export function choose({ id, initial, nibbles, admits = () => true }: Common): Choice {
  const model = mostCommon(initial, (value) => hasAll(nibbles, value) && admits(value))
  const choice: Choice = { value: 0n, mask: 0n, conflicts: [] }
  for (const { first, last, fields } of runsOfNibbles(registerFields(id))) {
    const places = sixteen.slice(first, last + 1)
    const mask = (16n ** BigInt(places.length) - 1n) << BigInt(4 * first)
    if (places.some((nibble) => nibbles[nibble] === 0)) {
      const named = fields.filter((field) => initial.some((value) => fieldsDiffer(field, value, initial[0]!)))
      choice.conflicts.push(...(named.length > 0 ? named : fields).map(({ name }) => name))
      if (fields.length === 0) choice.conflicts.push(`${4 * last + 3}:${4 * first}`)
      continue
    }
    choice.mask |= mask
    choice.value |= best(fields, places, { id, initial, nibbles }, model)
  }
  return choice
}

function fieldsDiffer(field: Field, one: bigint, other: bigint): boolean {
  return fieldValue(field, one) !== fieldValue(field, other)
}

interface Run {
  first: number
  last: number
  fields: readonly Field[]
}

/** Splits the sixteen nibbles into runs whose boundaries no field crosses; most are one nibble long. */
function runsOfNibbles(fields: readonly Field[]): Run[] {
  const runs: Run[] = []
  for (let first = 0; first < 16; first++) {
    let last = first
    let inside: readonly Field[] = []
    for (;;) {
      inside = fields.filter(({ lsb, width }) => lsb <= 4 * last + 3 && lsb + width > 4 * first)
      const end = Math.max(last, ...inside.map(({ lsb, width }) => (lsb + width - 1) >> 2))
      if (end === last) break
      last = end
    }
    runs.push({ first, last, fields: inside })
    first = last
  }
  return runs
}

/** Beyond three nibbles there are too many candidates to try, and no field with an order is that wide. */
const WIDEST = 3

function best(fields: readonly Field[], places: readonly number[], common: Common, model: bigint): bigint {
  const { initial, nibbles } = common
  const mask = places.reduce((bits, nibble) => bits | (0xfn << BigInt(4 * nibble)), 0n)
  // If nothing differs, nothing changes.
  if (initial.every((value) => ((value ^ initial[0]!) & mask) === 0n)) return initial[0]! & mask
  const ordered = fields.filter(({ safe }) => safe !== undefined)
  if (ordered.length === 0 || places.length > WIDEST) {
    return places.reduce((value, nibble) => value | nibbleLike(nibbles, nibble, model), 0n)
  }
  const candidates = places.reduce(
    (values, nibble) =>
      values.flatMap((value) =>
        members(nibbles[nibble]!).map((content) => value | (BigInt(content) << BigInt(4 * nibble))),
      ),
    [0n],
  )
  return candidates.reduce((one, other) => (isBetter(other, one, ordered, common) ? other : one))
}

/** Returns whether a value is better than another: the first field whose rank differs decides. */
function isBetter(one: bigint, other: bigint, fields: readonly Field[], { initial }: Common): boolean {
  for (const field of fields) {
    const [a, b] = [rank(field, one, initial), rank(field, other, initial)]
    if (a !== b) return a > b
  }
  return false
}

/** The rank of a field's value, higher is better; negative if it is not safe for every host. */
function rank(field: Field, value: bigint, initial: readonly bigint[]): bigint {
  const span = 1n << BigInt(field.width)
  const found = fieldValue(field, value)
  const limits = initial.map((limit) => fieldValue(field, limit))
  switch (field.safe) {
    case 'lower':
      return limits.every((limit) => found <= limit) ? found + span : found - 2n * span
    case 'higher':
      return limits.every((limit) => found >= limit) ? 2n * span - found : -found - 2n * span
    case 'higher-or-zero':
      if (found === 0n) return 0n
      return limits.every((limit) => limit !== 0n && found >= limit) ? 2n * span - found : -found - 2n * span
    default:
      if (limits.every((limit) => limit === found)) return 1n
      return typeof field.safe === 'object' && found === field.safe.only ? 0n : -1n
  }
}

function nibbleLike(nibbles: NibbleSets, nibble: number, model: bigint): bigint {
  const content = has(nibbles, nibble, model) ? nibbleOf(model, nibble) : members(nibbles[nibble]!)[0]!
  return BigInt(content) << BigInt(4 * nibble)
}

function members(set: number): number[] {
  return sixteen.filter((value) => (set >> value) & 1)
}

function has(nibbles: NibbleSets, nibble: number, value: bigint): boolean {
  return ((nibbles[nibble]! >> nibbleOf(value, nibble)) & 1) === 1
}

/** Returns the value most hosts have among those that pass, the lowest if several do; among all values if none passes. */
function mostCommon(values: readonly bigint[], passes: (value: bigint) => boolean): bigint {
  const counts = new Map<bigint, number>()
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
  const passing = [...counts].filter(([value]) => passes(value))
  const [[value] = [0n]] = (passing.length > 0 ? passing : [...counts]).toSorted(
    ([a, m], [b, n]) => n - m || (a < b ? -1 : 1),
  )
  return value
}
