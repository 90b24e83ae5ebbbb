/**
 * What a feature ID register accepts on a host of which only the register's value is known: inferred from hosts of the same kernel,
 * whose rules were found by experiment, and from the order of each field's values (`arch/arm64/kernel/cpufeature.c:
 * arm64_ftr_safe_value`, `arch/arm64/kvm/sys_regs.c:set_id_reg`). What neither decides is named.
 */
import {
  type Field,
  fieldMask,
  fieldValue,
  registerFields,
  registerName,
  withField,
} from '../registers/index.js'
import type { ReportedRegister } from '../report/report.js'
import {
  acceptedNibbles,
  hasAll,
  namedReplacements,
  nibbleOf,
  nibblePlaces,
  nibblesRule,
  type NibblesRule,
  type NibbleSets,
  type ReplacedNibble,
  replacedNibbles,
  sixteen,
  type WriteRule,
} from '../report/write-rule.js'

/** The register on a host of the same kernel. */
export interface Witness {
  row: ReportedRegister
  /** MIDR_EL1 of that host. */
  midr: bigint
}

export interface InferredRule {
  write: WriteRule
  /** Nibbles that no witness decides: `write` says what the field's order suggests. */
  untried: string[]
}

/** Wider fields are no feature levels, and no kernel lets userspace change them. */
const WIDEST_FIELD = 8

/**
 * Infers the rule of a feature ID register with this value.
 * @param midr of the host whose rule is inferred
 * @param hasMasks whether the kernel has `KVM_ARM_GET_REG_WRITABLE_MASKS`, and with it rules by field
 */
export function inferRule(
  id: bigint,
  value: bigint,
  midr: bigint,
  witnesses: readonly Witness[],
  hasMasks: boolean,
): InferredRule {
  const seen = witnesses.flatMap(observed)
  const fields = registerFields(id)
  const contents = new Map(
    fields
      .filter(({ width }) => width <= WIDEST_FIELD)
      .map((field) => [field, contentsOf(id, field, value, seen, hasMasks)]),
  )
  const untried: string[] = []
  const replaced: ReplacedNibble[] = []
  const sets = nibblePlaces.map((place, nibble) => {
    const own = 1 << nibbleOf(value, nibble)
    const mask = 0xfn << BigInt(4 * nibble)
    const inside = fields.filter((field) => (fieldMask(field) & mask) !== 0n)
    const isHidden = own === 1 && hasMasks && inside.some((field) => hiddenFields.has(nameOf(id, field)))
    const written = isHidden ? hiddenFields.get(nameOf(id, inside[0]!))!.get(partOf(midr)) : undefined
    const alike = seen.filter(
      (other) =>
        nibbleOf(other.value, nibble) === nibbleOf(value, nibble) &&
        (!isHidden || (isSameCpu(other.midr, midr) && showsHidden(other, nibble, written))),
    )
    if (inside.every((field) => (fieldMask(field) & ~mask) === 0n) && alike.length > 0) {
      replaced.push(...alike[0]!.replaced.filter((entry) => entry.nibble === nibble))
      const common = alike.reduce((set, other) => set & other.sets[nibble]!, 0xffff)
      if (alike.some((other) => other.sets[nibble] !== common)) untried.push(place)
      return common
    }
    if (isHidden) {
      // An emulated CPU of the same name may lack the field, so the table alone is no proof.
      if (written !== 0) untried.push(place)
      if (written === undefined || written === 0) return own
      replaced.push({ nibble, written, stored: 0 })
      return own | (1 << written)
    }
    if (inside.some((field) => contents.get(field)?.isSure === false)) untried.push(place)
    const described = inside.reduce((bits, field) => bits | fieldMask(field), 0n)
    return sixteen.reduce((set, digit) => {
      const candidate = (value & ~mask) | (BigInt(digit) << BigInt(4 * nibble))
      const isAccepted =
        ((candidate ^ value) & ~described) === 0n &&
        inside.every((field) => {
          const bits = contentOf(field, candidate)
          return bits === contentOf(field, value) || contents.get(field)?.accepted.has(bits) === true
        })
      return isAccepted ? set | (1 << digit) : set
    }, 0)
  })
  const plain = nibblesRule(sets, value)
  if (plain.rule !== 'nibbles') return { write: plain, untried }
  const invalidAfterRun = seen.find((other) => other.invalidAfterRun !== undefined)?.invalidAfterRun
  const more = {
    ...(invalidAfterRun && { invalidAfterRun }),
    ...(replaced.length > 0 && { storedAs: namedReplacements(replaced) }),
  }
  return { write: { ...plain, ...more }, untried }
}

/** What is known of the register on another host. */
interface Observed {
  midr: bigint
  value: bigint
  mask: bigint
  sets: NibbleSets
  replaced: readonly ReplacedNibble[]
  invalidAfterRun: NibblesRule['invalidAfterRun']
}

function observed({ row, midr }: Witness): Observed[] {
  const { value: text, write, mask = '0x0' } = row
  if (text === null) return []
  const value = BigInt(text)
  const own = { midr, value, mask: BigInt(mask) }
  switch (write?.rule) {
    case 'nibbles': {
      const { storedAs, invalidAfterRun } = write
      return [
        { ...own, sets: acceptedNibbles(write, value), replaced: replacedNibbles(storedAs), invalidAfterRun },
      ]
    }
    case 'fixed': {
      const sets = nibblePlaces.map((_, nibble) => 1 << nibbleOf(value, nibble))
      return [{ ...own, sets, replaced: [], invalidAfterRun: undefined }]
    }
    default:
      return []
  }
}

/** Implementer and part number of a CPU. */
export function partOf(midr: bigint): string {
  return [midr >> 24n, (midr >> 4n) & 0xfffn].map((number) => number.toString(16)).join(':')
}

/** CPUs of implementer 0, such as QEMU's `max`, have no part number of their own: what they have depends on the QEMU. */
function isSameCpu(one: bigint, other: bigint): boolean {
  return one >> 24n !== 0n && partOf(one) === partOf(other)
}

/** Whether a host accepts, in a nibble that KVM hides, the value that CPUs of its name have. An emulated one may lack the field. */
function showsHidden({ sets }: Observed, nibble: number, written: number | undefined): boolean {
  return written === undefined || (sets[nibble]! & (1 << written)) !== 0
}

/**
 * Fields KVM showed by mistake and has hidden since, with the values that CPUs have there. KVM still accepts the CPU's own value and
 * stores 0, so that VMs of the older kernels can be restored (`set_id_aa64pfr0_el1`, `set_id_aa64pfr1_el1` and
 * `set_id_aa64mmfr2_el1` in `arch/arm64/kvm/sys_regs.c`, Linux 6.18). A fingerprint of a newer kernel shows 0. The values are those of
 * fingerprints of the same CPUs with older kernels.
 */
const hiddenFields: ReadonlyMap<string, ReadonlyMap<string, number>> = new Map(
  Object.entries({
    'ID_AA64PFR0_EL1.MPAM': { '41:d0c': 0, '41:d40': 1, '41:d4f': 1 },
    'ID_AA64PFR1_EL1.MPAM_frac': { '41:d0c': 0, '41:d40': 0, '41:d4f': 0 },
    'ID_AA64MMFR2_EL1.NV': { '41:d0c': 0, '41:d40': 2, '41:d4f': 2 },
  }).map(([field, values]) => [field, new Map(Object.entries(values))]),
)

/** The bits of a field in a register's value. */
function contentOf({ lsb, width }: Field, value: bigint): bigint {
  return BigInt.asUintN(width, value >> BigInt(lsb))
}

function everyContent({ width }: Field): bigint[] {
  return Array.from({ length: 1 << width }, (_, bits) => BigInt(bits))
}

/** Returns what the field's order of values allows on a host where it has this value. */
function allowed(field: Field, value: bigint): Set<bigint> {
  const host = fieldValue(field, value)
  return new Set(
    everyContent(field).filter((bits) => {
      const wanted = field.signed ? BigInt.asIntN(field.width, bits) : bits
      if (wanted === host) return true
      switch (field.safe) {
        case undefined:
          return false
        case 'lower':
          return wanted <= host
        case 'higher':
          return wanted >= host
        case 'higher-or-zero':
          return wanted === 0n || (host !== 0n && wanted >= host)
        default:
          return bits === field.safe.only
      }
    }),
  )
}

interface Contents {
  accepted: ReadonlySet<bigint>
  /** False if no witness shows that the kernel treats the field so. */
  isSure: boolean
}

/** Returns what a field accepts, for a value that no witness has there. */
function contentsOf(
  id: bigint,
  field: Field,
  value: bigint,
  others: readonly Observed[],
  hasMasks: boolean,
): Contents {
  const own = contentOf(field, value)
  const byOrder = allowed(field, value)
  const seen = others.map(({ sets, value: their, mask }) => ({
    order: allowed(field, their),
    accepted: everyContent(field).filter((bits) => hasAll(sets, withField(field, their, bits))),
    isWritable: (mask & fieldMask(field)) === fieldMask(field),
  }))
  // Values that KVM refuses although the order allows them (EL0 0, an old DebugVer) are refused on every host.
  const refused = new Set(
    seen.flatMap(({ order, accepted }) => [...order].filter((bits) => !accepted.includes(bits))),
  )
  const lowered = new Set([...byOrder].filter((bits) => bits === own || !refused.has(bits)))
  if (seen.some(({ accepted }) => accepted.length > 1)) {
    const isBeyond = seen.some(({ order, accepted }) => accepted.some((bits) => !order.has(bits)))
    return { accepted: lowered, isSure: !isBeyond }
  }
  const mayBeFree = hasMasks
    ? seen.length === 0 || seen.some(({ isWritable }) => isWritable)
    : freeWithoutMasks.has(nameOf(id, field))
  return mayBeFree && lowered.size > 1
    ? { accepted: lowered, isSure: false }
    : { accepted: new Set([own]), isSure: true }
}

/** Fields that userspace may lower on kernels where all others are fixed (`set_id_aa64pfr0_el1`, Linux 5.10 and 6.1). */
const freeWithoutMasks: ReadonlySet<string> = new Set(['ID_AA64PFR0_EL1.CSV2', 'ID_AA64PFR0_EL1.CSV3'])

function nameOf(id: bigint, field: Field): string {
  return `${registerName(id)}.${field.name}`
}
