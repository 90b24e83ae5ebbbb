/** Look-ups in a report: which registers a vCPU has, and their values. */
import {
  decodeRegister,
  encodeRegister,
  fieldMask,
  hex,
  registerFields,
  registerWidth,
} from '../registers/index.js'
import type { DeviceType, VcpuFeature } from '../uapi.js'
import type { Configuration, Refusal, Report, ReportedRegister } from './report.js'
import { acceptedValues, settableBits } from './write-rule.js'

/** Features that change neither the list nor the value of any register but `PSCI_VERSION`. */
const WITHOUT_REGISTERS: ReadonlySet<VcpuFeature> = new Set<VcpuFeature>(['power-off', 'psci-0.2'])

/** Whether a host has something; `unknown` if its report does not say so, as that of a fingerprint. */
export type Support = 'yes' | 'no' | 'unknown'

/** Returns whether a host supports a vCPU feature. */
export function featureSupport({ traits }: Report, name: VcpuFeature): Support {
  if (traits.init.supported.includes(name)) return 'yes'
  return traits.init.unknown?.includes(name) ? 'unknown' : 'no'
}

/** Returns whether a host can create devices of a type. */
export function deviceSupport({ traits: { devices } }: Report, type: DeviceType): Support {
  if (devices === undefined) return 'unknown'
  return devices.includes(type) ? 'yes' : 'no'
}

/**
 * Returns what the report does not know of the values that registers accept (`untried`), each as a field, `ID_AA64PFR0_EL1.EL3`, or as
 * bits that no field describes; a register of which nothing is known comes by its name alone.
 */
export function untriedFields({ registers, configurations }: Report): string[] {
  const others = configurations.filter((configuration) => 'added' in configuration)
  const changed = others.flatMap((configuration) => configuration.changed)
  const added = others.flatMap((configuration) => configuration.added)
  const all = [...registers, ...changed, ...added].flatMap(({ id: text, name, untried = [] }) => {
    const id = BigInt(text)
    if (4 * untried.length >= registerWidth(id)) return [name]
    const fields = registerFields(id)
    return untried.flatMap((place) => {
      const mask = 0xfn << BigInt(place.split(':')[1]!)
      const named = fields.filter((field) => (fieldMask(field) & mask) !== 0n)
      return named.length === 0 ? [`${name} bits ${place}`] : named.map((field) => `${name}.${field.name}`)
    })
  })
  return [...new Set(all)]
}

/**
 * Returns a test for values of registers: whether one differs from the host's own in bits of which it is not known what the host
 * accepts (`untried`).
 */
export function untriedValues({ registers, configurations }: Report): (id: string, value: bigint) => boolean {
  const others = configurations.filter((configuration) => 'added' in configuration)
  const changed = others.flatMap((configuration) => configuration.changed)
  const added = others.flatMap((configuration) => configuration.added)
  const known = new Map<string, { value: bigint; mask: bigint }[]>()
  for (const { id, value, untried = [] } of [...registers, ...changed, ...added]) {
    if (untried.length === 0 || value === null) continue
    const mask = untried.reduce((bits, place) => bits | (0xfn << BigInt(place.split(':')[1]!)), 0n)
    known.set(id, [...(known.get(id) ?? []), { value: BigInt(value), mask }])
  }
  return (id, value) => known.get(id)?.some((host) => ((host.value ^ value) & host.mask) !== 0n) === true
}

/** Returns a register's value in the base configuration; undefined if the report lacks it, or it counts time. */
export function registerValue({ registers }: Report, id: bigint): bigint | undefined {
  const text = hex(id)
  const value = registers.find((register) => register.id === text)?.value
  return value === undefined || value === null ? undefined : BigInt(value)
}

/**
 * Returns what a report says about vCPUs with exactly these features; null for its base configuration, undefined if the report does
 * not record them.
 *
 * @param mte whether the VM has memory tagging
 */
export function configurationOf(
  { configurations }: Report,
  features: readonly VcpuFeature[],
  mte = false,
): Configuration | Refusal | null | undefined {
  const wanted = keyOf(features, mte)
  if (wanted === '') return null
  return configurations.find((one) => keyOf(one.features, one.mte ?? false) === wanted)
}

function keyOf(features: readonly VcpuFeature[], mte: boolean): string {
  const hasEl2 = features.includes('has-el2')
  const relevant = features
    .filter((feature) => !WITHOUT_REGISTERS.has(feature))
    // It shapes an EL2 that is not there.
    .filter((feature) => hasEl2 || feature !== 'has-el2-e2h0')
  return [...relevant, ...(mte ? ['mte'] : [])].toSorted().join()
}

/**
 * Returns the registers of a configuration of the report in `KVM_GET_REG_LIST`'s order: the base's list, with the removals,
 * additions and changes of the configuration; null means the base.
 */
export function registersOf(
  report: Report,
  configuration: Configuration | null,
): readonly ReportedRegister[] {
  if (configuration === null) return report.registers
  const removed = new Set(configuration.removed)
  const changed = new Map(configuration.changed.map((register) => [register.id, register]))
  const listed = report.registers
    .filter(({ id }) => !removed.has(id))
    .map((register): ReportedRegister => changed.get(register.id) ?? register)
  for (const { index, ...register } of configuration.added.toSorted((a, b) => a.index - b.index)) {
    listed.splice(index, 0, register)
  }
  return listed
}

interface Bitmap {
  id: string
  name: string
  /** The value in a fresh VM. */
  reset: bigint
  /** Bits that may be set. */
  mask: bigint
}

/** Returns the firmware's bitmap registers, in the list's order. */
export function bitmapsOf({ registers }: Report): Bitmap[] {
  return registers
    .filter(({ id }) => decodeRegister(BigInt(id)).space === 'bitmap')
    .map(({ id, name, value, write }) => ({
      id,
      name,
      reset: BigInt(value ?? 0),
      mask: settableBits(write),
    }))
}

interface Mitigation {
  id: string
  name: string
  value: bigint
  /** Values that `KVM_SET_ONE_REG` accepts without storing them. */
  accepts: readonly bigint[]
  /** The state once ID_AA64PFR1_EL1.SSBS was cleared, if it differs. */
  withoutSsbs: { value: bigint; accepts: readonly bigint[] } | undefined
}

/** Returns the firmware's registers of mitigations, in the list's order. */
export function mitigationsOf({ registers }: Report): Mitigation[] {
  return registers.flatMap(({ id, name, value, write }) => {
    if (write?.rule !== 'checked') return []
    const withoutSsbs = write.withoutSsbs && {
      value: BigInt(write.withoutSsbs.value),
      accepts: write.withoutSsbs.accepts.map(BigInt),
    }
    return [{ id, name, value: BigInt(value ?? 0), accepts: write.accepts.map(BigInt), withoutSsbs }]
  })
}

const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')

/** Returns the values `PSCI_VERSION` accepts on a vCPU with `psci-0.2`. */
export function psciVersionsOf({ registers }: Report): readonly bigint[] {
  const text = hex(PSCI_VERSION)
  return acceptedValues(registers.find(({ id }) => id === text)?.write) ?? []
}
