/**
 * vCPU features of an imported host that a person vouches for. The fingerprint holds no vCPU with them, so their registers are those
 * of a host of the same kernel, and what the CPU decides in them is marked as untried.
 */
import { encodeRegister, hex, registerWidth } from '../registers/index.js'
import { registersOf, registerValue } from '../report/registers.js'
import type { Configuration, Report, ReportedRegister } from '../report/report.js'
import {
  acceptedNibbles,
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
  const lengths = features.includes('sve') ? vectorLengths(imported, longestVector) : 0n
  const configurations = like.configurations
    .filter((configuration) => configuration.features.every((feature) => known.has(feature)))
    .map((configuration) =>
      'refused' in configuration ? configuration : translated(configuration, imported, like, lengths),
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

/** Returns the lengths up to the longest: all powers of two, which the architecture demands, and the longest itself. */
function vectorLengths(imported: Report, longest: number | undefined): bigint {
  const cpu = partOf(registerValue(imported, MIDR_EL1) ?? 0n)
  const bits = longest ?? longestVectors.get(cpu)
  if (bits === undefined) {
    throw new VouchError('the SVE vector lengths of this CPU are not known: name the longest, like sve256')
  }
  let lengths = 1n << BigInt(bits / 128 - 1)
  for (let length = 128; length < bits; length *= 2) lengths |= 1n << BigInt(length / 128 - 1)
  return lengths
}

function translated(
  configuration: Configuration,
  imported: Report,
  like: Report,
  lengths: bigint,
): Configuration {
  const base = new Map(imported.registers.map((row) => [row.id, row]))
  const ofLike = new Map(like.registers.map((row) => [row.id, row]))
  const added = new Set(configuration.added.map(({ id }) => id))
  const listed = registersOf(like, configuration).filter(({ id }) => added.has(id) || base.has(id))
  return {
    features: configuration.features,
    removed: configuration.removed.filter((id) => base.has(id)),
    added: listed.flatMap((row, index) =>
      added.has(row.id) && !base.has(row.id) ? [{ ...addition(row, lengths), index }] : [],
    ),
    changed: configuration.changed.flatMap((row) => {
      const own = base.get(row.id)
      return own === undefined ? [] : [changed(own, ofLike.get(row.id)!, row)]
    }),
  }
}

/** Without a value of its own and without a rule a register is the same on every CPU. */
function addition(row: ReportedRegister, lengths: bigint): ReportedRegister {
  const id = BigInt(row.id)
  if (id === SVE_VLS) return { ...row, value: hex(lengths) }
  if (row.write === undefined && row.value === '0x0') return row
  return { ...row, untried: nibblePlaces.slice(0, registerWidth(id) / 4) }
}

/** Makes the change that a feature made on `like` to the imported register. */
function changed(own: ReportedRegister, before: ReportedRegister, after: ReportedRegister): ReportedRegister {
  const { mask: _ofVm, ...row } = own
  if (own.value === null || before.value === null || after.value === null) return row
  const [ownValue, oldValue, newValue] = [own, before, after].map(({ value }) => BigInt(value!))
  const [ownSets, oldSets, newSets] = [own, before, after].map(setsOf)
  if (ownSets === undefined || oldSets === undefined || newSets === undefined) {
    return { ...row, value: after.value, ...(after.write && { write: after.write }) }
  }
  const differs = (nibble: number) =>
    nibbleOf(oldValue!, nibble) !== nibbleOf(newValue!, nibble) || oldSets[nibble] !== newSets[nibble]
  const places = nibblePlaces.filter((_, nibble) => differs(nibble))
  const mask = nibblePlaces.reduce(
    (bits, _, nibble) => (differs(nibble) ? bits | (0xfn << BigInt(4 * nibble)) : bits),
    0n,
  )
  const value = (ownValue! & ~mask) | (newValue! & mask)
  const sets = ownSets.map((set, nibble) => (differs(nibble) ? newSets[nibble]! : set))
  // That the SVE field is 1 is what was vouched for.
  const untried = new Set([...(own.untried ?? []), ...(BigInt(own.id) === ID_AA64PFR0_EL1 ? [] : places)])
  return {
    ...row,
    value: hex(value),
    write: withReplacements(nibblesRule(sets, value), own.write, after.write),
    ...(untried.size > 0 && { untried: nibblePlaces.filter((place) => untried.has(place)) }),
  }
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
