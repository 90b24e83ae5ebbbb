/** What a thread that predicts moves starts with and receives; the main thread does the same work for small fleets. */
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { planRestore } from '../migration/verdict.js'
import type { CapturedRegister, State } from '../migration/state.js'
import type { VmmName } from '../migration/vmm/names.js'
import type { VmmRules, VmmVm } from '../migration/vmm/rules.js'
import type { Report } from '../report/report.js'
import { type Arrivals, Predictions } from './moves.js'
import { arrivalsAt, type MadeVm, type Maker } from './predict.js'

/** A VM for another thread. As objects, a thousand states would take long to copy. */
export interface PackedVm {
  vm: Omit<VmmVm, 'isUntried'>
  /** The state as JSON, compressed. */
  state: Uint8Array
}

/** What a thread starts with. */
export interface ThreadStart {
  vmm: VmmName
  features: Maker['features']
  elect: Maker['elect']
  sources: { source: string; packed: PackedVm }[]
}

/** The moves to one destination that are to be predicted. */
export interface Job {
  report: Report
  sources: string[]
}

export function pack({ vm: { isUntried: _ofDestinations, ...vm }, state }: MadeVm): PackedVm {
  return { vm, state: deflateRawSync(JSON.stringify(state), { level: 1 }) }
}

/** Returns what unpacks the VMs of a thread. States share the rows of registers they have in common. */
export function unpacker(rules: VmmRules): (packed: PackedVm) => MadeVm {
  const shared = new Map<string, CapturedRegister>()
  const share = (row: CapturedRegister): CapturedRegister => {
    const key = `${row.id} ${row.value}`
    const known = shared.get(key) ?? row
    shared.set(key, known)
    return known
  }
  return ({ vm, state: packed }) => {
    const state = JSON.parse(inflateRawSync(packed).toString()) as State
    for (const vcpu of state.vcpus) vcpu.registers = vcpu.registers.map(share)
    return { vm, state, plan: planRestore(rules) }
  }
}

/** Predicts the moves from several sources to one destination. */
export function predictArrivals(
  report: Report,
  sources: readonly { source: string; vm: MadeVm }[],
  maker: Maker,
): Arrivals {
  const judge = arrivalsAt(report, maker)
  const collected = new Predictions()
  const found = sources.map(({ source, vm }): [string, number] => [source, collected.add(judge(vm))])
  const { obstacles: findings, predictions } = collected
  return { findings, predictions, sources: Object.fromEntries(found) }
}
