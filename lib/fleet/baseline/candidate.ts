/** The hosts of a baseline. */
import { decodeRegister, hex } from '../../registers/index.js'
import { configurationOf } from '../../report/registers.js'
import type { Configuration, Report } from '../../report/report.js'
import type { VcpuFeature } from '../../uapi.js'
import type { Unreconciled } from './format.js'
import { type Possible, possibleValues } from './possible.js'

/** A host, described by its report. */
export interface NamedReport {
  /** For people; unique among those compared. */
  name: string
  report: Report
}

/** A host and the values it accepts, computed once for each set of features. */
export class Candidate {
  readonly name: string
  readonly report: Report
  readonly #possible = new Map<string, Map<bigint, Possible>>()

  constructor({ name, report }: NamedReport) {
    this.name = name
    this.report = report
  }

  /** Returns whether the report records a vCPU with these features. */
  has(features: readonly VcpuFeature[]): boolean {
    return (
      features.every((feature) => this.report.traits.init.supported.includes(feature)) &&
      this.#configuration(features) !== undefined
    )
  }

  possible(features: readonly VcpuFeature[], withImplementationIds: boolean): Map<bigint, Possible> {
    const key = `${features.join()} ${withImplementationIds}`
    const known = this.#possible.get(key)
    if (known !== undefined) return known
    const found = possibleValues(this.report, this.#configuration(features)!, { withImplementationIds })
    this.#possible.set(key, found)
    return found
  }

  #configuration(features: readonly VcpuFeature[]): Configuration | null | undefined {
    const found = configurationOf(this.report, features)
    return found && 'refused' in found ? undefined : found
  }
}

/** A difference that cannot be reconciled, before the hosts are grouped by what they have. */
export function unreconciledIn(
  kind: Unreconciled['kind'],
  id: bigint,
  fields: readonly string[],
): Omit<Unreconciled, 'found'> {
  return { kind, id: hex(id), name: decodeRegister(id).name, fields: [...fields] }
}

/** Groups hosts by what they have. */
export function grouped(
  hosts: readonly Candidate[],
  valueOf: (host: Candidate) => string,
): { value: string; hosts: string[] }[] {
  const groups = new Map<string, string[]>()
  for (const host of hosts) {
    const value = valueOf(host)
    const group = groups.get(value)
    if (group === undefined) groups.set(value, [host.name])
    else group.push(host.name)
  }
  return [...groups].map(([value, names]) => ({ value, hosts: names }))
}
