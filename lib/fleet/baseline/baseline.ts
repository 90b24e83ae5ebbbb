import { serviceBitmaps } from '../../hypercalls/index.js'
import {
  decodeRegister,
  encodeRegister,
  fieldMask,
  hex,
  implementationIds,
  registerField,
  U64,
} from '../../registers/index.js'
import { reportDigest } from '../../report/digest.js'
import { configurationOf } from '../../report/registers.js'
import type { Configuration, Report } from '../../report/report.js'
import type { VcpuFeature } from '../../uapi.js'
import { choose, intersect } from './choose.js'
import type { Baseline, BaselineBitmap, PinnedRegister, Unreconciled } from './format.js'
import {
  hasWritableImplementationIds,
  isPossible,
  type Possible,
  possibleValues,
  sixteen,
} from './possible.js'

/** A host by its report. */
export interface NamedReport {
  /** For people; unique among those compared. */
  name: string
  report: Report
}

export interface BaselineOptions {
  /** Features to give every vCPU. Default: of PMU, SVE and pointer authentication those that all hosts have and can reconcile. */
  features?: readonly VcpuFeature[]
}

const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
const SVE_VLS = encodeRegister('KVM_REG_ARM64_SVE_VLS')
const ID_AA64PFR1_EL1 = encodeRegister('ID_AA64PFR1_EL1')
const CLIDR_EL1 = encodeRegister('CLIDR_EL1')
const WORKAROUND_2 = encodeRegister('KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2')
const SSBS = fieldMask(registerField(ID_AA64PFR1_EL1, 'SSBS'))

/** Features that add to what a guest is shown, and are elected where all hosts have them. */
const additions: readonly (readonly VcpuFeature[])[] = [
  ['pmu-v3'],
  ['sve'],
  ['ptrauth-address', 'ptrauth-generic'],
]

type Settled = Omit<Baseline, 'classes'>

/**
 * The greatest guest-visible configuration every host can provide, what cannot be reconciled, and which hosts can be reconciled with
 * each other: a VM configured by the baseline of such a class is captured and restored between any two of them with every register
 * the same.
 *
 * @throws RangeError where no host is given, two have one name, or one has no vCPU with `features`, or none with psci-0.2
 */
export function baseline(hosts: readonly NamedReport[], { features }: BaselineOptions = {}): Baseline {
  const candidates = hosts.map((host) => new Candidate(host))
  if (candidates.length === 0) throw new RangeError('a baseline is of at least one host')
  const names = new Set<string>()
  for (const { name } of hosts) {
    if (names.has(name)) throw new RangeError(`two hosts are called ${name}`)
    names.add(name)
  }
  return { ...settleBest(candidates, features), classes: classesOf(candidates, features) }
}

/** A host and what it can be brought to, found out once for each set of features. */
class Candidate {
  readonly name: string
  readonly report: Report
  readonly #possible = new Map<string, Map<bigint, Possible>>()

  constructor({ name, report }: NamedReport) {
    this.name = name
    this.report = report
  }

  /** Whether the report tells of a vCPU with these features. */
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

/** With the features asked for, or with those that leave the least unreconciled, of such the most. */
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
  const noun = features.length === 1 ? 'feature' : 'features'
  throw new RangeError(`${lacking.name} has no vCPU with the ${noun} ${features.join(', ')}`)
}

/** Sets of features all hosts have, the larger first. */
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
  return additions.flat().flatMap((feature) => {
    if (features.includes(feature)) return []
    const lacking = hosts.filter(({ report }) => !report.traits.init.supported.includes(feature))
    if (lacking.length === hosts.length) return []
    const reason = lacking.length > 0 ? 'some hosts lack it' : 'with it more would stay unreconciled'
    return [{ feature, reason, hosts: lacking.map(({ name }) => name) }]
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
      ...registerOf('psci', PSCI_VERSION, []),
      found: grouped(hosts, ({ report }) => report.traits.psciVersions.join(' ')),
    })
  }
  if (features.includes('sve') && vectorLengths === null) {
    const lengths = new Map(hosts.map((host, index) => [host, hex(possible[index]!.get(SVE_VLS)!.initial!)]))
    const found = grouped(hosts, (host) => lengths.get(host)!)
    unreconciled.push({ ...registerOf('vector-lengths', SVE_VLS, []), found })
  }
  const ipaSizes = hosts.map(({ report }) => report.capabilities.KVM_CAP_ARM_VM_IPA_SIZE?.[1] ?? 0)
  return {
    format: 'kvm-arm64/baseline',
    version: 1,
    hosts: hosts.map(({ name }) => name),
    features: [...features],
    withoutFeatures: [],
    capabilities: withImplementationIds ? ['KVM_CAP_ARM_WRITABLE_IMP_ID_REGS'] : [],
    // Before Linux 4.20 there is no such capability, and 40 bits.
    ipaSize: Math.min(...ipaSizes.map((size) => (size > 0 ? size : 40))),
    psciVersion: psci === null ? null : hex(psci),
    vectorLengths: vectorLengths === null ? null : hex(vectorLengths),
    bitmaps,
    idRegisters: registers.idRegisters,
    registers: registers.others,
    unreconciled,
  }
}

/** Whether the hosts' own identity differs and every one lets a VM have another. */
function needsImplementationIds(hosts: readonly Candidate[]): boolean {
  if (!hosts.every(({ report }) => hasWritableImplementationIds(report))) return false
  return implementationIds.some((id) => {
    const values = new Set(hosts.map((host) => host.possible(['psci-0.2'], false).get(id)?.initial))
    return values.size > 1
  })
}

/** Registers of which some hosts have none: whatever saves them all finds no place to put them. */
function absences(
  hosts: readonly Candidate[],
  possible: readonly ReadonlyMap<bigint, Possible>[],
): Unreconciled[] {
  const ids = new Set(possible.flatMap((registers) => [...registers.keys()]))
  return [...ids].flatMap((id) => {
    if (possible.every((registers) => registers.has(id))) return []
    const having = new Map(hosts.map((host, index) => [host, possible[index]!.has(id)]))
    const found = grouped(hosts, (host) => (having.get(host) ? 'present' : 'absent'))
    return [{ ...registerOf('absent', id, []), found }]
  })
}

interface SettledRegisters {
  idRegisters: PinnedRegister[]
  others: PinnedRegister[]
  unreconciled: Unreconciled[]
}

/** Registers that every host has, but those of the firmware, of the timers and of the vector lengths. */
function settleRegisters(
  hosts: readonly Candidate[],
  possible: readonly ReadonlyMap<bigint, Possible>[],
): SettledRegisters {
  const settled: SettledRegisters = { idRegisters: [], others: [], unreconciled: [] }
  for (const { id, name, identifies } of possible[0]!.values()) {
    if (isSettledElsewhere(id)) continue
    const here = possible.map((registers) => registers.get(id))
    if (!here.every((register) => register !== undefined)) continue
    if (here.some(({ initial, ignored }) => initial === null || ignored)) continue
    const initial = here.map((register) => register.initial!)
    const nibbles = intersect(here.map((register) => register.nibbles ?? anything))
    // A value no host refuses moves with the VM.
    const isSame = new Set(initial).size === 1
    const moves = isSame || initial.every((value) => isPossible(nibbles, value))
    if (!identifies && moves) continue
    const { value, mask, conflicts } = isSame
      ? unchanged(initial[0]!)
      : choose({ id, initial, nibbles, ...(id === CLIDR_EL1 && { admits: cleansLike(initial) }) })
    const pinned = { id: hex(id), name, value: hex(value), mask: hex(mask) }
    if (mask !== 0n) (identifies ? settled.idRegisters : settled.others).push(pinned)
    if (conflicts.length > 0) {
      const values = new Map(hosts.map((host, index) => [host, hex(initial[index]!)]))
      const found = grouped(hosts, (host) => values.get(host)!)
      settled.unreconciled.push({ ...registerOf('value', id, conflicts), found })
    }
  }
  return settled
}

/**
 * CLIDR_EL1 may not say that no cache need be cleaned, which no field says alone, where CTR_EL0.IDC does not
 * (`arch/arm64/kvm/sys_regs.c:set_clidr`). A host of that sort shows it in what its fresh VM has.
 */
function cleansLike(initial: readonly bigint[]): (value: bigint) => boolean {
  return (value) => !needsNoCleaning(value) || initial.every(needsNoCleaning)
}

/** LoC is 0, or both LoUIS and LoUU are. */
function needsNoCleaning(clidr: bigint): boolean {
  return (clidr & (7n << 24n)) === 0n || (clidr & ((7n << 21n) | (7n << 27n))) === 0n
}

const anything = sixteen.map(() => 0xffff)

function unchanged(value: bigint): { value: bigint; mask: bigint; conflicts: string[] } {
  return { value, mask: U64, conflicts: [] }
}

function isSettledElsewhere(id: bigint): boolean {
  const { space } = decodeRegister(id)
  return space === 'firmware' || space === 'bitmap' || space === 'timer' || id === SVE_VLS
}

/**
 * The states of mitigations in which hosts differ: KVM remembers nothing that is written there. That of variant 4 depends, on some
 * hosts, on whether the VM has SSBS.
 */
function workaroundConflicts(
  hosts: readonly Candidate[],
  idRegisters: readonly PinnedRegister[],
): Unreconciled[] {
  const features = idRegisters.find(({ id }) => BigInt(id) === ID_AA64PFR1_EL1)
  const losesSsbs =
    features !== undefined &&
    (BigInt(features.mask) & SSBS) === SSBS &&
    (BigInt(features.value) & SSBS) === 0n
  const ids = new Set(hosts.flatMap(({ report }) => report.workarounds.map(({ id }) => id)))
  return [...ids].flatMap((id) => {
    const valueOn = ({ report }: Candidate): string => {
      const { workaround2WithoutSsbs } = report.traits
      if (BigInt(id) === WORKAROUND_2 && losesSsbs && workaround2WithoutSsbs !== null) {
        return workaround2WithoutSsbs.value
      }
      return report.workarounds.find((entry) => entry.id === id)?.value ?? 'absent'
    }
    const found = grouped(
      hosts.filter((host) => valueOn(host) !== 'absent'),
      valueOn,
    )
    return found.length > 1 ? [{ ...registerOf('value', BigInt(id), []), found }] : []
  })
}

/**
 * Services KVM answers are shown where every host can show them and must be shown where one cannot hide them; what only tells the guest of
 * calls that userspace answers stays as a fresh VM has it.
 */
function settleServices(hosts: readonly Candidate[]): {
  bitmaps: BaselineBitmap[]
  conflicts: Unreconciled[]
} {
  const bitmaps: BaselineBitmap[] = []
  const conflicts: Unreconciled[] = []
  const ids = new Set(hosts.flatMap(({ report }) => report.bitmaps.map(({ id }) => id)))
  const known = Object.values(serviceBitmaps)
  for (const { register, services } of known) {
    const entryOf = ({ report }: Candidate): Report['bitmaps'][number] | undefined =>
      report.bitmaps.find(({ id }) => BigInt(id) === register)
    const mask = hosts.reduce(
      (common, host) => common & BigInt(entryOf(host)?.mask ?? U64),
      ids.has(hex(register)) ? U64 : 0n,
    )
    let gated = 0n
    let offered = mask
    for (const { bit, name, gated: isGated } of services) {
      if (!isGated) continue
      gated |= 1n << BigInt(bit)
      const answers = grouped(hosts, (host) => {
        const entry = entryOf(host)
        if (entry !== undefined) return isSet(BigInt(entry.mask), bit) ? 'elective' : 'never'
        return host.report.traits.hypercalls.services.some((answered) => answered === name)
          ? 'always'
          : 'never'
      })
      const ways = new Set(answers.map(({ value }) => value))
      if (ways.has('never')) offered &= ~(1n << BigInt(bit))
      if (ways.has('always') && ways.has('never')) {
        conflicts.push({ ...registerOf('service', register, [name]), found: answers })
      }
    }
    if (!ids.has(hex(register))) continue
    const resets = hosts.reduce((bits, host) => bits & BigInt(entryOf(host)?.reset ?? U64), U64)
    bitmaps.push({
      id: hex(register),
      name: decodeRegister(register).name,
      value: hex((offered & gated) | (mask & resets & ~gated)),
      mask: hex(mask),
      absentOn: hosts.filter((host) => entryOf(host) === undefined).map(({ name }) => name),
    })
  }
  return { bitmaps, conflicts }
}

function isSet(bits: bigint, bit: number): boolean {
  return ((bits >> BigInt(bit)) & 1n) === 1n
}

function commonPsciVersion(hosts: readonly Candidate[]): bigint | null {
  const [first, ...others] = hosts.map(({ report }) => report.traits.psciVersions.map(BigInt))
  return first!
    .filter((version) => others.every((versions) => versions.includes(version)))
    .reduce<bigint | null>((best, version) => (best === null || version > best ? version : best), null)
}

/** KVM lets userspace take lengths away from the longest down, and none from between. */
function commonVectorLengths(possible: readonly ReadonlyMap<bigint, Possible>[]): bigint | null {
  const lengths = possible.map((registers) => registers.get(SVE_VLS)!.initial!)
  const [first] = lengths
  for (let bits = first!.toString(2).length; bits > 0; bits--) {
    const upTo = BigInt.asUintN(bits, first!)
    if (isSet(upTo, bits - 1) && lengths.every((value) => BigInt.asUintN(bits, value) === upTo)) return upTo
  }
  return null
}

/** Hosts in groups that can be reconciled. */
function classesOf(hosts: readonly Candidate[], features: readonly VcpuFeature[] | undefined): string[][] {
  // Equal hosts need no comparing, and are most of a fleet.
  const alike = new Map<string, Candidate[]>()
  for (const host of hosts) {
    const digest = reportDigest(host.report)
    const others = alike.get(digest)
    if (others === undefined) alike.set(digest, [host])
    else others.push(host)
  }
  const kinds = new Map([...alike.values()].map((equals) => [equals[0]!, equals]))
  return reconcilableGroups([...kinds.keys()], features)
    .map((group) => new Set(group.flatMap((host) => kinds.get(host)!)))
    .map((group) => hosts.filter((host) => group.has(host)).map(({ name }) => name))
    .toSorted((a, b) => b.length - a.length)
}

/** Each the largest group found among the hosts left. */
function reconcilableGroups(
  hosts: readonly Candidate[],
  features: readonly VcpuFeature[] | undefined,
): Candidate[][] {
  const known = new Map<string, boolean>()
  const areReconcilable = (group: readonly Candidate[]): boolean => {
    const key = group.map(({ name }) => name).join('\n')
    const answer = known.get(key) ?? settleBest(group, features).unreconciled.length === 0
    known.set(key, answer)
    return answer
  }
  const classes: Candidate[][] = []
  let left = [...hosts]
  while (left.length > 0) {
    let largest: Candidate[] = []
    for (const seed of left) {
      if (largest.includes(seed)) continue
      const group = [seed]
      for (const host of left) {
        if (group.includes(host)) continue
        const fitsEach = group.every((member) => areReconcilable([member, host].toSorted(byName)))
        if (fitsEach && areReconcilable([...group, host])) group.push(host)
      }
      if (group.length > largest.length) largest = group
    }
    classes.push(largest)
    left = left.filter((host) => !largest.includes(host))
  }
  return classes
}

function byName(a: Candidate, b: Candidate): number {
  return a.name < b.name ? -1 : 1
}

function registerOf(
  kind: Unreconciled['kind'],
  id: bigint,
  fields: readonly string[],
): Omit<Unreconciled, 'found'> {
  return { kind, id: hex(id), name: decodeRegister(id).name, fields: [...fields] }
}

/** Hosts by what they have. */
function grouped(
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
