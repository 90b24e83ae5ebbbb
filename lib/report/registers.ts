/** Look-ups in a report: which registers a vCPU has, and their values. */
import { hex } from '../registers/index.js'
import type { VcpuFeature } from '../uapi.js'
import type { Configuration, Refusal, Report, ReportedRegister } from './report.js'

/** Features that change neither the list nor the value of any register but `PSCI_VERSION`. */
const WITHOUT_REGISTERS: ReadonlySet<VcpuFeature> = new Set<VcpuFeature>(['power-off', 'psci-0.2'])

/** A register's value in the base configuration; undefined where the report lacks it, or it counts time. */
export function registerValue({ registers }: Report, id: bigint): bigint | undefined {
  const text = hex(id)
  const value = registers.find((register) => register.id === text)?.value
  return value === undefined || value === null ? undefined : BigInt(value)
}

/**
 * What a report says of vCPUs with exactly these features; null for its base configuration, undefined where nobody recorded one.
 */
export function configurationOf(
  { configurations }: Report,
  features: readonly VcpuFeature[],
): Configuration | Refusal | null | undefined {
  const wanted = keyOf(features)
  if (wanted === '') return null
  return configurations.find((configuration) => keyOf(configuration.features) === wanted)
}

function keyOf(features: readonly VcpuFeature[]): string {
  return features
    .filter((feature) => !WITHOUT_REGISTERS.has(feature))
    .toSorted()
    .join()
}

/**
 * The registers of a configuration of the report in `KVM_GET_REG_LIST`'s order: the base's list with what the configuration removes,
 * adds and changes; null is the base.
 */
export function registersOf(
  report: Report,
  configuration: Configuration | null,
): readonly ReportedRegister[] {
  if (configuration === null) return report.registers
  const removed = new Set(configuration.removed)
  const changed = new Map(configuration.changed.map(({ id, value }) => [id, value]))
  const listed = report.registers
    .filter(({ id }) => !removed.has(id))
    .map((register) => Object.assign({}, register, { value: changed.get(register.id) ?? register.value }))
  for (const { index, ...register } of configuration.added.toSorted((a, b) => a.index - b.index)) {
    listed.splice(index, 0, register)
  }
  return listed
}
