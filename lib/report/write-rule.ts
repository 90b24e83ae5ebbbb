/**
 * What a register accepts from `KVM_SET_ONE_REG`: the shape of the rule on a register's row of a report, and its only interpreter.
 * A row without a rule keeps every value written.
 */
import * as v from 'valibot'
import { hex, hex64 } from '../documents/entries.js'
import { U64 } from '../registers/index.js'
import { errnos, type ErrnoName } from '../uapi.js'

/** The bits of the sixteen nibbles of a 64-bit value, from the least significant. */
export const nibblePlaces: readonly string[] = Array.from(
  { length: 16 },
  (_, nibble) => `${4 * nibble + 3}:${4 * nibble}`,
)

/** Values of a nibble, in order: `0-5,f`; the empty text for no value. */
export const digits = v.pipe(
  v.string(),
  v.regex(
    /^([0-9a-f](-[0-9a-f])?(,[0-9a-f](-[0-9a-f])?)*)?$/,
    'is not a list like 0-5,f of hexadecimal digits',
  ),
)
export const nibblePlace = v.picklist(nibblePlaces)
const digit = v.pipe(v.string(), v.regex(/^[0-9a-f]$/, 'is not a hexadecimal digit'))
const errno = v.picklist(Object.keys(errnos) as ErrnoName[])

export const writeRuleSchema = v.variant('rule', [
  /** Every value except that of a fresh VM fails. */
  v.strictObject({ rule: v.literal('fixed'), errno }),
  /** Every write fails, even one of the current value. */
  v.strictObject({ rule: v.literal('refused'), errno }),
  /** Every write succeeds and changes only these bits; if there are none, the write is ignored. */
  v.strictObject({ rule: v.literal('bits'), bits: hex }),
  /** Bits written as one are set, the others stay: the SET register of a pair, whose storage the CLR register shares. */
  v.strictObject({ rule: v.literal('sets'), bits: hex }),
  /** Bits written as one are cleared, the others stay. */
  v.strictObject({ rule: v.literal('clears'), bits: hex }),
  /** Any of these bits may be set; a value with another bit is `EINVAL`, after the first run too. */
  v.strictObject({ rule: v.literal('subset'), of: hex64 }),
  /** One of these values, else `EINVAL`. */
  v.strictObject({ rule: v.literal('values'), accepts: v.array(hex64) }),
  /**
   * The state of a mitigation: a write of one of these values succeeds and changes nothing; another is `EINVAL`. `withoutSsbs`
   * holds the state, and the values accepted, once ID_AA64PFR1_EL1.SSBS was cleared; absent if that is impossible or changes
   * nothing.
   */
  v.strictObject({
    rule: v.literal('checked'),
    accepts: v.array(hex64),
    withoutSsbs: v.optional(v.strictObject({ value: hex64, accepts: v.array(hex64) })),
  }),
  /**
   * Each nibble of the value must be one of those accepted there, else `EINVAL`; a nibble not named keeps the value of a fresh VM.
   */
  v.strictObject({
    rule: v.literal('nibbles'),
    accepts: v.record(nibblePlace, digits),
    /**
     * For writes after the first run, when a different value is `EBUSY`: the values that are still `EINVAL`, because KVM checks
     * them first. Absent if there are none.
     */
    invalidAfterRun: v.optional(v.record(nibblePlace, digits)),
    /** Accepted values of a nibble for which KVM stores another value. Absent if there are none. */
    storedAs: v.optional(v.record(nibblePlace, v.record(digit, digit))),
  }),
])

/** What a register accepts, and what it then holds. */
export type WriteRule = v.InferOutput<typeof writeRuleSchema>
export type NibblesRule = Extract<WriteRule, { rule: 'nibbles' }>

/** Sixteen sets of a nibble's values, from bits 3:0 upwards: bit n of each stands for n. */
export type NibbleSets = readonly number[]

/** How KVM answers writes after the VM's first run: see the traits of a report. */
type AfterRun = 'busy' | 'busy-if-changed' | 'unguarded'

/** A register's rule, ready to be applied to its writes. */
export class WriteInterpreter {
  /** Bits that userspace can choose; null for a register that has only one value. */
  readonly choosable: bigint | null
  readonly #apply: (current: bigint, value: bigint) => bigint | number
  readonly #isInvalidAfterRun: (value: bigint) => boolean
  readonly #stored: readonly { shift: bigint; written: bigint; stored: bigint }[]

  /** @param fresh the register's value in a fresh VM */
  constructor(rule: WriteRule | undefined, fresh: bigint) {
    this.choosable = choosableBits(rule, fresh)
    this.#apply = applying(rule, fresh)
    this.#isInvalidAfterRun = invalidAfterRun(rule)
    this.#stored = rule?.rule === 'nibbles' ? replacements(rule) : []
  }

  /**
   * Returns what the register holds after a write, or `-errno`.
   * @param current its value before the write
   * @param afterRun the host's answer to writes after the first run; null before it, and for a register that no run freezes
   */
  write(current: bigint, written: bigint, afterRun: AfterRun | null = null): bigint | number {
    const value = this.#replace(written)
    if (afterRun === null || afterRun === 'unguarded') return this.#apply(current, value)
    if (this.#isInvalidAfterRun(value)) return -errnos.EINVAL
    return afterRun === 'busy-if-changed' && value === current ? current : -errnos.EBUSY
  }

  #replace(written: bigint): bigint {
    let value = written
    for (const { shift, written: from, stored } of this.#stored) {
      if (((written >> shift) & 0xfn) === from) value = (value & ~(0xfn << shift)) | (stored << shift)
    }
    return value
  }
}

function applying(
  rule: WriteRule | undefined,
  fresh: bigint,
): (current: bigint, value: bigint) => bigint | number {
  if (rule === undefined) return (_current, value) => value
  switch (rule.rule) {
    case 'fixed':
      return (_current, value) => (value === fresh ? value : -errnos[rule.errno])
    case 'refused':
      return () => -errnos[rule.errno]
    case 'bits': {
      const bits = BigInt(rule.bits)
      return (current, value) => (current & ~bits) | (value & bits)
    }
    case 'sets': {
      const bits = BigInt(rule.bits)
      return (current, value) => current | (value & bits)
    }
    case 'clears': {
      const bits = BigInt(rule.bits)
      return (current, value) => current & ~(value & bits)
    }
    case 'subset': {
      const others = ~BigInt(rule.of)
      return (_current, value) => ((value & others) === 0n ? value : -errnos.EINVAL)
    }
    case 'values': {
      const accepted = new Set(rule.accepts.map(BigInt))
      return (_current, value) => (accepted.has(value) ? value : -errnos.EINVAL)
    }
    case 'checked': {
      const accepted = new Set(rule.accepts.map(BigInt))
      return (current, value) => (accepted.has(value) ? current : -errnos.EINVAL)
    }
    default: {
      const sets = acceptedNibbles(rule, fresh)
      const free = freeBits(sets, fresh)
      // Excludes the bits that KVM changes by itself: userspace can choose what KVM stores.
      return (current, value) => (hasAll(sets, value) ? (current & ~free) | (value & free) : -errnos.EINVAL)
    }
  }
}

function choosableBits(rule: WriteRule | undefined, fresh: bigint): bigint | null {
  switch (rule?.rule) {
    case 'fixed':
    case 'refused':
      return null
    case 'nibbles':
      return freeBits(acceptedNibbles(rule, fresh), fresh)
    case 'bits':
    case 'sets':
    case 'clears':
      return BigInt(rule.bits)
    case 'subset':
      return BigInt(rule.of)
    case 'checked':
      return 0n
    default:
      return U64
  }
}

function invalidAfterRun(rule: WriteRule | undefined): (value: bigint) => boolean {
  if (rule?.rule === 'subset') return (value) => (value & ~BigInt(rule.of)) !== 0n
  if (rule?.rule !== 'nibbles' || rule.invalidAfterRun === undefined) return () => false
  const invalid = setsOf(rule.invalidAfterRun)
  return (value) => hasAny(invalid, value)
}

function replacements({ storedAs }: NibblesRule): { shift: bigint; written: bigint; stored: bigint }[] {
  return replacedNibbles(storedAs).map(({ nibble, written, stored }) => ({
    shift: BigInt(4 * nibble),
    written: BigInt(written),
    stored: BigInt(stored),
  }))
}

export interface ReplacedNibble {
  nibble: number
  written: number
  stored: number
}

/** Nibbles for which KVM stores other values. */
export function replacedNibbles(storedAs: NibblesRule['storedAs'] = {}): ReplacedNibble[] {
  return Object.entries(storedAs).flatMap(([bits, digitOf]) =>
    Object.entries(digitOf).map(([written, stored]) => ({
      nibble: nibblePlaces.indexOf(bits),
      written: Number.parseInt(written, 16),
      stored: Number.parseInt(stored, 16),
    })),
  )
}

/**
 * Returns the values that userspace can give a register of at most 64 bits before the first run, by nibble; null if it keeps any
 * value, and if a nibble alone does not decide (`values`, `checked`: see {@link acceptedValues}).
 */
export function reachableNibbles(rule: WriteRule | undefined, fresh: bigint): NibbleSets | null {
  switch (rule?.rule) {
    case 'fixed':
    case 'refused':
      return within(fresh, 0n)
    case 'bits':
      return within(fresh, BigInt(rule.bits))
    case 'sets':
    case 'clears':
      return within(0n, BigInt(rule.bits))
    case 'subset':
      return within(0n, BigInt(rule.of))
    case 'nibbles':
      return acceptedNibbles(rule, fresh).map((set, nibble) =>
        Object.keys(rule.storedAs?.[nibblePlaces[nibble]!] ?? {}).reduce(
          (rest, written) => rest & ~(1 << Number.parseInt(written, 16)),
          set,
        ),
      )
    default:
      return null
  }
}

/** Returns the values of a register of which KVM accepts only some; undefined under any other rule. */
export function acceptedValues(rule: WriteRule | undefined): readonly bigint[] | undefined {
  return rule?.rule === 'values' || rule?.rule === 'checked' ? rule.accepts.map(BigInt) : undefined
}

/** Returns the bits of a bitmap that may be set; 0 under any other rule. */
export function settableBits(rule: WriteRule | undefined): bigint {
  return rule?.rule === 'subset' ? BigInt(rule.of) : 0n
}

/** Returns whether KVM accepts every write and drops it. */
export function isIgnored(rule: WriteRule | undefined): boolean {
  return rule?.rule === 'bits' && BigInt(rule.bits) === 0n
}

/** Returns the values that differ from this one only in bits of the mask. */
export function within(value: bigint, mask: bigint): NibbleSets {
  return nibblePlaces.map((_, nibble) => {
    const fixed = nibbleOf(~mask, nibble)
    const bits = nibbleOf(value, nibble) & fixed
    return sixteen.reduce(
      (set, candidate) => ((candidate & fixed) === bits ? set | (1 << candidate) : set),
      0,
    )
  })
}

/** Returns what each nibble accepts, including those that the rule does not name. */
export function acceptedNibbles({ accepts }: NibblesRule, fresh: bigint): NibbleSets {
  return nibblePlaces.map((bits, nibble) => {
    const listed = accepts[bits]
    return listed === undefined ? 1 << nibbleOf(fresh, nibble) : parseDigits(listed)
  })
}

/** Returns the rule for a register whose nibbles accept these values and return `EINVAL` for all others. */
export function nibblesRule(
  sets: NibbleSets,
  fresh: bigint,
  more: Pick<NibblesRule, 'invalidAfterRun' | 'storedAs'> = {},
): WriteRule {
  const accepts = namedSets(sets, (nibble) => 1 << nibbleOf(fresh, nibble))
  if (
    Object.keys(accepts).length === 0 &&
    more.invalidAfterRun === undefined &&
    more.storedAs === undefined
  ) {
    return { rule: 'fixed', errno: 'EINVAL' }
  }
  return { rule: 'nibbles', accepts, ...more }
}

/** Returns the sets as a rule names them, without those that have the default. */
export function namedSets(sets: NibbleSets, byDefault: (nibble: number) => number): Record<string, string> {
  return Object.fromEntries(
    sets.flatMap((set, nibble) =>
      set === byDefault(nibble) ? [] : [[nibblePlaces[nibble]!, formatDigits(set)]],
    ),
  )
}

/** The inverse of {@link replacedNibbles}. */
export function namedReplacements(replaced: readonly ReplacedNibble[]): NonNullable<NibblesRule['storedAs']> {
  const named: Record<string, Record<string, string>> = {}
  for (const { nibble, written, stored } of replaced) {
    ;(named[nibblePlaces[nibble]!] ??= {})[written.toString(16)] = stored.toString(16)
  }
  return named
}

/** Returns what is wrong with a rule for a register of this width in bits, beyond its shape. */
export function ruleProblem(rule: WriteRule, width: number): string | undefined {
  switch (rule.rule) {
    case 'bits':
    case 'sets':
    case 'clears':
      return 4 * (rule.bits.length - 2) > width ? `${rule.bits} is wider than ${width} bits` : undefined
    case 'nibbles': {
      if (width > 64) return `nibbles are of registers of at most 64 bits, not of ${width}`
      const lists = [...Object.values(rule.accepts), ...Object.values(rule.invalidAfterRun ?? {})]
      const odd = lists.find((listed) => formatDigits(parseDigits(listed)) !== listed)
      return odd === undefined
        ? undefined
        : `expected ${JSON.stringify(formatDigits(parseDigits(odd)))}, found ${JSON.stringify(odd)}`
    }
    default:
      return undefined
  }
}

function setsOf(named: Readonly<Record<string, string>>): NibbleSets {
  return nibblePlaces.map((bits) => parseDigits(named[bits] ?? ''))
}

/** Returns a set of digits from its text, `0-5,f`. */
export function parseDigits(listed: string): number {
  return listed
    .split(',')
    .filter((range) => range !== '')
    .reduce((set, range) => {
      const [first, last] = [range[0]!, range.at(-1)!].map((value) => Number.parseInt(value, 16))
      return set | ((2 << last!) - (1 << first!))
    }, 0)
}

/** The set as text: `0-5,f`. */
export function formatDigits(set: number): string {
  const has = (value: number) => value < 16 && ((set >> value) & 1) === 1
  const ranges: string[] = []
  for (let first = 0; first < 16; first++) {
    if (!has(first)) continue
    let last = first
    while (has(last + 1)) last++
    ranges.push(first === last ? first.toString(16) : `${first.toString(16)}-${last.toString(16)}`)
    first = last
  }
  return ranges.join(',')
}

export const sixteen: readonly number[] = Array.from({ length: 16 }, (_, value) => value)

export function nibbleOf(value: bigint, nibble: number): number {
  return Number((value >> BigInt(4 * nibble)) & 0xfn)
}

/** Returns whether every nibble of a value is in its set. */
export function hasAll(sets: NibbleSets, value: bigint): boolean {
  const [low, high] = halves(value)
  for (let nibble = 0; nibble < 16; nibble++) {
    if (((sets[nibble]! >> nibbleIn(low, high, nibble)) & 1) === 0) return false
  }
  return true
}

function hasAny(sets: NibbleSets, value: bigint): boolean {
  const [low, high] = halves(value)
  return sets.some((set, nibble) => (set >> nibbleIn(low, high, nibble)) & 1)
}

/** Returns the bits of the nibbles that accept another value than theirs in `fresh`. */
function freeBits(sets: NibbleSets, fresh: bigint): bigint {
  return sets.reduce(
    (bits, set, nibble) =>
      set & ~(1 << nibbleOf(fresh, nibble)) ? bits | (0xfn << BigInt(4 * nibble)) : bits,
    0n,
  )
}

/** Splitting bigints is slow. */
function halves(value: bigint): [low: number, high: number] {
  return [Number(value & 0xffff_ffffn), Number(value >> 32n)]
}

function nibbleIn(low: number, high: number, nibble: number): number {
  return ((nibble < 8 ? low : high) >>> (4 * (nibble & 7))) & 0xf
}
