/**
 * vCPU features of an imported host that a person vouches for. The fingerprint holds no vCPU with them, so their registers are those
 * of a host of the same kernel, and what the CPU decides in them is marked as untried.
 */
import {
  decodeRegister,
  encodeRegister,
  fieldMask,
  hex,
  registerField,
  registerFields,
  registerWidth,
} from '../registers/index.js'
import { registersOf, registerValue } from '../report/registers.js'
import type { Configuration, Report, ReportedRegister } from '../report/report.js'
import {
  acceptedNibbles,
  isIgnored,
  namedReplacements,
  nibbleOf,
  nibblePlaces,
  nibblesRule,
  type NibbleSets,
  replacedNibbles,
  type WriteRule,
} from '../report/write-rule.js'
import { type Capability, type VcpuFeature } from '../uapi.js'
import { partOf } from './inferred-rule.js'

/** Thrown if nobody can know the registers of a feature. */
export class VouchError extends Error {
  override readonly name = 'VouchError'
  readonly code = 'ERR_KVM_VOUCH'
}

export interface Vouched {
  features: readonly VcpuFeature[]
  /** Longest SVE vectors, in bits. Default: those of the CPU, if they are known here. */
  longestVector?: number
}

const MIDR_EL1 = encodeRegister('MIDR_EL1')
const ID_AA64PFR0_EL1 = encodeRegister('ID_AA64PFR0_EL1')
/** Bits of the longest vectors that the architecture allows, and of a Z register. */
const LONGEST_VECTOR = 2048
const SVE_VLS = encodeRegister('KVM_REG_ARM64_SVE_VLS')

/** Longest SVE vectors of CPUs in bits, by implementer and part number (their technical reference manuals). */
const longestVectors: ReadonlyMap<string, number> = new Map([
  ['41:d40', 256],
  ['41:d49', 128],
  ['41:d4f', 128],
  ['41:d84', 128],
  ['46:1', 512],
])

const ofFeatures: Readonly<Partial<Record<VcpuFeature, Capability>>> = {
  'el1-32bit': 'KVM_CAP_ARM_EL1_32BIT',
  'pmu-v3': 'KVM_CAP_ARM_PMU_V3',
  'pmu-v3-strict': 'KVM_CAP_ARM_PMU_V3_STRICT',
  sve: 'KVM_CAP_ARM_SVE',
  'ptrauth-address': 'KVM_CAP_ARM_PTRAUTH_ADDRESS',
  'ptrauth-generic': 'KVM_CAP_ARM_PTRAUTH_GENERIC',
  'has-el2': 'KVM_CAP_ARM_EL2',
  'has-el2-e2h0': 'KVM_CAP_ARM_EL2_E2H0',
}

/**
 * Returns the imported report with these features, and what `like` records of vCPUs that have them.
 * @throws VouchError for a feature that `like` lacks, and for vectors of unknown length
 */
export function withFeatures(imported: Report, like: Report, { features, longestVector }: Vouched): Report {
  const lacking = features.find((feature) => !like.traits.init.supported.includes(feature))
  if (lacking !== undefined) {
    throw new VouchError(
      `the host ${like.host.release} has no vCPU with ${lacking}, whose registers are needed`,
    )
  }
  const { supported, unknown = [], ...init } = imported.traits.init
  const known = new Set([...supported, ...features])
  const still = unknown.filter((feature) => !known.has(feature))
  const vectors = features.includes('sve')
    ? vectorLengths(imported, longestVector)
    : { longest: 0, lengths: 0n, open: 0n }
  const configurations = like.configurations
    .filter((configuration) => configuration.features.every((feature) => known.has(feature)))
    .map((configuration) =>
      'refused' in configuration ? configuration : translated(configuration, imported, like, vectors),
    )
  return {
    ...imported,
    capabilities: {
      ...imported.capabilities,
      ...Object.fromEntries(
        features.flatMap((feature) => {
          const capability = ofFeatures[feature]
          const answer = capability && like.capabilities[capability]
          return answer === undefined ? [] : [[capability, answer]]
        }),
      ),
    },
    configurations,
    traits: {
      ...imported.traits,
      init: {
        ...init,
        supported: like.traits.init.supported.filter((feature) => known.has(feature)),
        ...(still.length > 0 && { unknown: still }),
      },
    },
  }
}

/** SVE vector lengths as KVM_REG_ARM64_SVE_VLS has them, bit n for 128 × (n + 1) bits, and which of its bits are not known. */
interface VectorLengths {
  /** Bits. */
  longest: number
  lengths: bigint
  open: bigint
}

/**
 * Returns the lengths up to the longest: all powers of two, which the architecture demands, and the longest itself. Whether the CPU
 * has others in between is known only of CPUs whose lengths are.
 */
function vectorLengths(imported: Report, longest: number | undefined): VectorLengths {
  const ofCpu = longestVectors.get(partOf(registerValue(imported, MIDR_EL1) ?? 0n))
  const bits = longest ?? ofCpu
  if (bits === undefined) {
    throw new VouchError('the SVE vector lengths of this CPU are not known: name the longest, like sve256')
  }
  let lengths = 1n << BigInt(bits / 128 - 1)
  for (let length = 128; length < bits; length *= 2) lengths |= 1n << BigInt(length / 128 - 1)
  const all = (1n << BigInt(bits / 128)) - 1n
  return { longest: bits, lengths, open: bits === ofCpu ? 0n : all & ~lengths }
}

function translated(
  configuration: Configuration,
  imported: Report,
  like: Report,
  vectors: VectorLengths,
): Configuration {
  const base = new Map(imported.registers.map((row) => [row.id, row]))
  const ofLike = new Map(like.registers.map((row) => [row.id, row]))
  const added = new Set(configuration.added.map(({ id }) => id))
  const changes = new Map(configuration.changed.map((row) => [row.id, row]))
  const depending = dependingFields(configuration.features)
  const listed = registersOf(like, configuration).filter(({ id }) => added.has(id) || base.has(id))
  const touched = [...new Set([...changes.keys(), ...depending.keys()])]
  return {
    ...configuration,
    removed: configuration.removed.filter((id) => base.has(id)),
    added: listed.flatMap((row, index) =>
      added.has(row.id) && !base.has(row.id) ? [{ ...addition(row, vectors), index }] : [],
    ),
    changed: touched.flatMap((id) => {
      const [own, before] = [base.get(id), ofLike.get(id)]
      if (own === undefined) return []
      const { mask: _ofVm, ...row } = own
      // The register is not one of those whose rules `like` shows.
      if (before === undefined) return [{ ...row, ...notTried(row, everyNibble(id)) }]
      return [changed(own, before, changes.get(id) ?? before, depending.get(id) ?? 0n)]
    }),
  }
}

/** Fields that KVM shows only to vCPUs with a feature, with what the CPU has (`arch/arm64/kvm/sys_regs.c:__kvm_read_sanitised_id_reg`). */
const featureFields: Readonly<Partial<Record<VcpuFeature, readonly string[]>>> = {
  'pmu-v3': ['ID_AA64DFR0_EL1.PMUVer', 'ID_DFR0_EL1.PerfMon'],
  sve: registerFields(encodeRegister('ID_AA64ZFR0_EL1')).map(({ name }) => `ID_AA64ZFR0_EL1.${name}`),
  'ptrauth-address': ['ID_AA64ISAR1_EL1.APA', 'ID_AA64ISAR1_EL1.API', 'ID_AA64ISAR2_EL1.APA3'],
  'ptrauth-generic': ['ID_AA64ISAR1_EL1.GPA', 'ID_AA64ISAR1_EL1.GPI', 'ID_AA64ISAR2_EL1.GPA3'],
}

/** The bits of those fields, by register. */
function dependingFields(features: readonly VcpuFeature[]): Map<string, bigint> {
  const bits = new Map<string, bigint>()
  for (const path of features.flatMap((feature) => featureFields[feature] ?? [])) {
    const [register, field] = path.split('.')
    const id = encodeRegister(register!)
    bits.set(hex(id), (bits.get(hex(id)) ?? 0n) | fieldMask(registerField(id, field!)))
  }
  return bits
}

/** Without a value of its own and without a rule a register is the same on every CPU. */
function addition(row: ReportedRegister, { longest, lengths, open }: VectorLengths): ReportedRegister {
  const id = BigInt(row.id)
  if (id === SVE_VLS) return { ...row, value: hex(lengths), ...notTried(row, placesIn(open)) }
  if (decodeRegister(id).space === 'sve') return ofVectors(row, longest)
  if (row.write === undefined && row.value === '0x0') return row
  return { ...row, untried: everyNibble(row.id) }
}

/** KVM keeps of Z, P and FFR what the longest vectors hold: a predicate has a bit for each byte. */
function ofVectors({ write: _ofLike, ...row }: ReportedRegister, longest: number): ReportedRegister {
  const held = registerWidth(BigInt(row.id)) === LONGEST_VECTOR ? longest : longest / 8
  if (held >= registerWidth(BigInt(row.id))) return row
  return { ...row, write: { rule: 'bits', bits: hex((1n << BigInt(held)) - 1n) } }
}

/** Makes the change that a feature made on `like` to the imported register; `open` are the bits that depend on the CPU. */
function changed(
  own: ReportedRegister,
  before: ReportedRegister,
  after: ReportedRegister,
  open: bigint,
): ReportedRegister {
  const { mask: _ofVm, ...row } = own
  if (own.value === null || before.value === null || after.value === null) return row
  const [ownValue, oldValue, newValue] = [own, before, after].map(({ value }) => BigInt(value!))
  const [ownSets, oldSets, newSets] = [own, before, after].map(setsOf)
  const differs = (nibble: number) =>
    nibbleOf(oldValue!, nibble) !== nibbleOf(newValue!, nibble) || oldSets?.[nibble] !== newSets?.[nibble]
  const places = nibblePlaces.filter((_, nibble) => differs(nibble))
  // A field that shows something without the feature is not one that the feature shows.
  const depending = placesIn(open).filter((place) => (maskOf([place]) & ownValue!) === 0n)
  const mask = maskOf(places)
  const value = (ownValue! & ~mask) | (newValue! & mask)
  if (ownSets === undefined || oldSets === undefined || newSets === undefined) {
    // KVM ignores writes to AArch32 ID registers of a CPU without AArch32, whatever the feature.
    const uncertain = isIgnored(own.write) ? [...places, ...depending] : everyNibble(row.id)
    return { ...row, value: hex(value), ...notTried(row, uncertain) }
  }
  const sets = ownSets.map((set, nibble) => (differs(nibble) ? newSets[nibble]! : set))
  // That the SVE field is 1 is what was vouched for.
  const uncertain = BigInt(own.id) === ID_AA64PFR0_EL1 ? [] : places
  return {
    ...row,
    value: hex(value),
    write: withReplacements(nibblesRule(sets, value), own.write, after.write),
    ...notTried(row, [...uncertain, ...depending]),
  }
}

function maskOf(places: readonly string[]): bigint {
  return places.reduce((bits, place) => bits | (0xfn << BigInt(place.split(':')[1]!)), 0n)
}

function placesIn(mask: bigint): string[] {
  return nibblePlaces.filter((place) => (maskOf([place]) & mask) !== 0n)
}

/** These nibbles, and those of which the register's accepted values were unknown before. */
function notTried({ untried = [] }: ReportedRegister, more: readonly string[]): { untried?: string[] } {
  const all = nibblePlaces.filter((place) => untried.includes(place) || more.includes(place))
  return all.length > 0 ? { untried: all } : {}
}

function everyNibble(id: string): string[] {
  return nibblePlaces.slice(0, registerWidth(BigInt(id)) / 4)
}

function setsOf({ value, write }: ReportedRegister): NibbleSets | undefined {
  if (write?.rule === 'nibbles') return acceptedNibbles(write, BigInt(value!))
  if (write?.rule !== 'fixed') return undefined
  return nibblePlaces.map((_, nibble) => 1 << nibbleOf(BigInt(value!), nibble))
}

function withReplacements(rule: WriteRule, ...others: (WriteRule | undefined)[]): WriteRule {
  if (rule.rule !== 'nibbles') return rule
  const rules = others.filter((other) => other?.rule === 'nibbles')
  const replaced = rules.flatMap(({ storedAs }) => replacedNibbles(storedAs))
  const invalidAfterRun = rules.find((other) => other.invalidAfterRun)?.invalidAfterRun
  return {
    ...rule,
    ...(invalidAfterRun && { invalidAfterRun }),
    ...(replaced.length > 0 && { storedAs: namedReplacements(replaced) }),
  }
}

/**
 * Returns the features that `like` has on any CPU: KVM supports `has-el2-e2h0` where it supports no `has-el2`, and it then
 * changes nothing.
 */
export function independentFeatures(like: Report): VcpuFeature[] {
  const { supported } = like.traits.init
  return supported.includes('has-el2-e2h0') && !supported.includes('has-el2') ? ['has-el2-e2h0'] : []
}
