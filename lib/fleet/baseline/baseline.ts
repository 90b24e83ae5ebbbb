/** The baseline of hosts: the features of its vCPUs, and everything that follows from them. */
import { encodeRegister, hex } from '../../registers/index.js'
import {
  guestRead,
  guestReadIds,
  type InterruptController,
  interruptControllers,
  interruptControllersOf,
} from '../../report/machine.js'
import { featureSupport, psciVersionsOf, registerValue, type Support } from '../../report/registers.js'
import { reportedFacts, unrecordedFacts } from '../../report/unrecorded.js'
import type { VcpuFeature } from '../../uapi.js'
import { Candidate, grouped, type NamedReport, unreconciledIn } from './candidate.js'
import type { Baseline, Unreconciled } from './format.js'
import { classesOf } from './reconcilable.js'
import {
  absences,
  commonVectorLengths,
  needsImplementationIds,
  settleRegisters,
  workaroundConflicts,
} from './registers.js'
import { commonPsciVersion, settleServices } from './services.js'

export interface BaselineOptions {
  /** Features for every vCPU. Default: those of PMU, SVE and pointer authentication that all hosts have and can reconcile. */
  features?: readonly VcpuFeature[]
}

const ID_AA64PFR0_EL1 = encodeRegister('ID_AA64PFR0_EL1')
const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
const SVE_VLS = encodeRegister('KVM_REG_ARM64_SVE_VLS')

/** Features that show the guest more, and are elected if all hosts have them. */
const additions: readonly (readonly VcpuFeature[])[] = [
  ['pmu-v3'],
  ['sve'],
  ['ptrauth-address', 'ptrauth-generic'],
]

/** A baseline without the groups of hosts that can be reconciled, which take long to find. */
export type CommonBaseline = Omit<Baseline, 'classes'>
type Settled = CommonBaseline

/**
 * Finds the greatest guest-visible configuration every host can provide, what cannot be reconciled, and which hosts can be
 * reconciled with each other. A VM configured by the baseline of such a class can be captured and restored between any two hosts of
 * the class, with every register the same.
 *
 * @throws RangeError where no host is given, two have one name, or one has no vCPU with `features`, or none with psci-0.2
 */
export function computeBaseline(hosts: readonly NamedReport[], { features }: BaselineOptions = {}): Baseline {
  const candidates = candidatesOf(hosts)
  return {
    ...settleBest(candidates, features),
    classes: classesOf(candidates, (group) => settleBest(group, features).unreconciled.length === 0),
  }
}

/**
 * As {@link computeBaseline}, without the groups of hosts that can be reconciled.
 * @throws RangeError as `computeBaseline`
 */
export function computeCommon(
  hosts: readonly NamedReport[],
  { features }: BaselineOptions = {},
): CommonBaseline {
  return settleBest(candidatesOf(hosts), features)
}

function candidatesOf(hosts: readonly NamedReport[]): Candidate[] {
  if (hosts.length === 0) throw new RangeError('a baseline needs at least one host')
  const names = new Set<string>()
  for (const { name } of hosts) {
    if (names.has(name)) throw new RangeError(`two hosts are called ${name}`)
    names.add(name)
  }
  return hosts.map((host) => new Candidate(host))
}

/** Uses the features requested, or else those that leave the fewest differences; among these, the most features. */
function settleBest(hosts: readonly Candidate[], asked: readonly VcpuFeature[] | undefined): Settled {
  if (asked !== undefined) {
    const features: VcpuFeature[] = [...new Set<VcpuFeature>(['psci-0.2', ...asked])]
    refuseLacking(hosts, features)
    return settle(hosts, features)
  }
  refuseLacking(hosts, ['psci-0.2'])
  let best: Settled | undefined
  for (const features of offers(hosts)) {
    const settled = settle(hosts, features)
    if (best === undefined || settled.unreconciled.length < best.unreconciled.length) best = settled
    if (best.unreconciled.length === 0) break
  }
  return { ...best!, withoutFeatures: leftOut(hosts, best!.features) }
}

function refuseLacking(hosts: readonly Candidate[], features: readonly VcpuFeature[]): void {
  const lacking = hosts.find((host) => !host.has(features))
  if (lacking === undefined) return
  const unknown = features.filter((feature) => featureSupport(lacking.report, feature) === 'unknown')
  if (unknown.length > 0) {
    throw new RangeError(`it is not known whether ${lacking.name} has ${unknown.join(', ')}`)
  }
  const noun = features.length === 1 ? 'feature' : 'features'
  throw new RangeError(`${lacking.name} has no vCPU with the ${noun} ${features.join(', ')}`)
}

/** Returns the sets of features that all hosts have, larger ones first. */
function offers(hosts: readonly Candidate[]): VcpuFeature[][] {
  const choices = Array.from({ length: 1 << additions.length }, (_, bits) =>
    additions.filter((_addition, index) => (bits >> index) & 1),
  )
  const sets = choices.map((chosen) => (['psci-0.2'] as VcpuFeature[]).concat(chosen.flat()))
  return sets
    .filter((features) => hosts.every((host) => host.has(features)))
    .toSorted((a, b) => b.length - a.length)
}

function leftOut(hosts: readonly Candidate[], features: readonly VcpuFeature[]): Settled['withoutFeatures'] {
  return additions.flat().flatMap((feature): Settled['withoutFeatures'] => {
    if (features.includes(feature)) return []
    const those = (support: Support) =>
      hosts.filter(({ report }) => featureSupport(report, feature) === support).map(({ name }) => name)
    const [having, lacking, unknown] = [those('yes'), those('no'), those('unknown')]
    if (having.length === 0) return []
    if (lacking.length > 0) return [{ feature, reason: 'lacking', hosts: lacking }]
    return [{ feature, reason: unknown.length > 0 ? 'unknown' : 'unreconciled', hosts: unknown }]
  })
}

function controllersOf({ report }: Candidate): InterruptController[] {
  return interruptControllersOf(report) ?? []
}

/** `common` is undefined if no report says which interrupt controllers its host can make. */
function commonInterruptControllers(hosts: readonly Candidate[]): {
  common: InterruptController[] | undefined
  conflicts: Unreconciled[]
} {
  const known = hosts.filter(({ report }) => interruptControllersOf(report) !== undefined)
  if (known.length === 0) return { common: undefined, conflicts: [] }
  const common = interruptControllers.filter((name) =>
    known.every((host) => controllersOf(host).includes(name)),
  )
  if (common.length > 0) return { common, conflicts: [] }
  const found = grouped(known, (host) => controllersOf(host).join(' ') || 'none')
  return {
    common,
    conflicts: [{ ...unreconciledIn('interrupt-controller', ID_AA64PFR0_EL1, ['GIC']), found }],
  }
}

/** What guests read from the CPU itself, unless a register of KVM's shows it on every host. */
function differentReads(hosts: readonly Candidate[]): Unreconciled[] {
  const recorded = hosts.filter(({ report }) => report.guestReads !== undefined)
  return guestReadIds.flatMap((id) => {
    if (hosts.every(({ report }) => registerValue(report, id) !== undefined)) return []
    const found = grouped(recorded, ({ report }) => hex(guestRead(report, id) ?? 0n))
    return found.length > 1 ? [{ ...unreconciledIn('guest-read', id, []), found }] : []
  })
}

function unrecordedOf(hosts: readonly Candidate[]): NonNullable<Settled['unknown']> {
  const facts = hosts.map(({ name, report }) => ({ name, unrecorded: unrecordedFacts(report) }))
  return reportedFacts.flatMap((fact) => {
    const without = facts.filter(({ unrecorded }) => unrecorded.includes(fact)).map(({ name }) => name)
    return without.length > 0 ? [{ fact, hosts: without }] : []
  })
}

function settle(hosts: readonly Candidate[], features: readonly VcpuFeature[]): Settled {
  const withImplementationIds = needsImplementationIds(hosts)
  const possible = hosts.map((host) => host.possible(features, withImplementationIds))
  const registers = settleRegisters(hosts, possible)
  const { bitmaps, conflicts } = settleServices(hosts)
  const psci = commonPsciVersion(hosts)
  const vectorLengths = features.includes('sve') ? commonVectorLengths(possible) : null
  const unreconciled = [
    ...absences(hosts, possible),
    ...registers.unreconciled,
    ...workaroundConflicts(hosts, registers.idRegisters),
    ...conflicts,
  ]
  if (psci === null) {
    unreconciled.push({
      ...unreconciledIn('psci', PSCI_VERSION, []),
      found: grouped(hosts, ({ report }) => psciVersionsOf(report).map(hex).join(' ')),
    })
  }
  if (features.includes('sve') && vectorLengths === null) {
    const lengths = new Map(hosts.map((host, index) => [host, hex(possible[index]!.get(SVE_VLS)!.initial!)]))
    const found = grouped(hosts, (host) => lengths.get(host)!)
    unreconciled.push({ ...unreconciledIn('vector-lengths', SVE_VLS, []), found })
  }
  const { common, conflicts: withoutController } = commonInterruptControllers(hosts)
  unreconciled.push(...differentReads(hosts), ...withoutController)
  const unknown = unrecordedOf(hosts)
  const ipaSizes = hosts.map(({ report }) => report.capabilities.KVM_CAP_ARM_VM_IPA_SIZE?.[1] ?? 0)
  return {
    format: 'kvm-arm64/baseline',
    version: 1,
    hosts: hosts.map(({ name }) => name),
    features: [...features],
    withoutFeatures: [],
    capabilities: withImplementationIds ? ['KVM_CAP_ARM_WRITABLE_IMP_ID_REGS'] : [],
    // Before Linux 4.20 there is no such capability, and the size is 40 bits.
    ipaSize: Math.min(...ipaSizes.map((size) => (size > 0 ? size : 40))),
    psciVersion: psci === null ? null : hex(psci),
    vectorLengths: vectorLengths === null ? null : hex(vectorLengths),
    bitmaps,
    idRegisters: registers.idRegisters,
    registers: registers.others,
    unreconciled,
    ...(common && { interruptControllers: common }),
    ...(unknown.length > 0 && { unknown }),
  }
}
