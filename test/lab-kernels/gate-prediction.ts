/** What the gate says that a census finds, for a comparison with what it found. */
import {
  functionOf,
  gateOf,
  psci01Functions,
  psciFunctions,
  type PsciVersion,
  psciVersions,
  serviceBitmapOf,
  serviceBitmaps,
  servicesInBitmap,
  workarounds,
} from '../../lib/hypercalls/index.js'
import type { Election, Kvm } from '../../lib/kvm/index.js'
import type { CensusCall } from '../../lib/probe/census.js'

export interface Situation {
  psci: PsciVersion
  /** What the bitmap registers hold, by id: those that this host has. */
  bitmaps: ReadonlyMap<bigint, bigint>
}

/** Functions of PSCI that KVM answers, by both ids, and the version they came with. 0.1's are its own. */
const answered = new Map<number, PsciVersion>(
  [...psciFunctions, ...psci01Functions]
    .filter(({ kvm }) => kvm)
    .flatMap(({ id, id64, since }) =>
      [id, ...(id64 === undefined ? [] : [id64])].map((each) => [each, since]),
    ),
)

/** SYSTEM_SUSPEND answers only once userspace has enabled a capability. */
const optional = new Set(['PSCI_SYSTEM_SUSPEND', 'PSCI_SYSTEM_SUSPEND_64'])

/** Whether the guest must find something (true), must not (false), or may (undefined). */
export function prediction(call: CensusCall, { psci, bitmaps }: Situation): boolean | undefined {
  const { functionId, conduit } = call
  const gate = gateOf(functionId, psci)
  if (typeof gate === 'object') {
    const value = bitmaps.get(gate.register)
    const { group } = serviceBitmapOf(gate.register)!
    if (value === undefined || servicesInBitmap(group, value).includes(gate.service.name)) return undefined
    return false
  }
  if (gate === 'denied') {
    // KVM answers the workarounds before its gate.
    const isWorkaround = workarounds.some((workaround) => workaround.functionId === functionId)
    return isWorkaround && conduit === 'hvc' ? undefined : false
  }
  const since = answered.get(functionId)
  const name = functionOf(functionId)?.name
  if (name?.startsWith('SMCCC_') || name === 'PSCI_FEATURES' || optional.has(name ?? '')) return undefined
  if (since === undefined || psciVersions.indexOf(psci) < psciVersions.indexOf(since)) return false
  // Old kernels answer no smc.
  return conduit === 'hvc' ? true : undefined
}

/** What the bitmap registers of a host hold under an election. */
export function bitmapsOf(kvm: Kvm, services: Election): Map<bigint, bigint> {
  using vm = kvm.createVm()
  const { registers } = vm.createVcpu(0)
  vm.services.elect(services)
  const listed = new Set(registers.list())
  const ids = Object.values(serviceBitmaps).map(({ register }) => register)
  return new Map(ids.filter((id) => listed.has(id)).map((id) => [id, registers.get(id)]))
}
