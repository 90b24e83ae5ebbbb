/** Predicts who can move where in a fleet: restores a fresh VM's state of each class on a simulation of every other. */
import { KvmError, openKvm } from '../kvm/index.js'
import { encodeRegister } from '../registers/index.js'
import { FormatError } from '../documents/document.js'
import { reportDigest } from '../report/digest.js'
import { registerValue } from '../report/registers.js'
import type { Report } from '../report/report.js'
import { simulator } from '../hosts/index.js'
import { apply } from './baseline/apply.js'
import type { CommonBaseline } from './baseline/baseline.js'
import type { NamedReport } from './baseline/candidate.js'
import { electedFeatures } from './baseline/elect.js'
import { capture, captureHost } from '../migration/capture.js'
import type { State } from '../migration/state.js'
import type { Finding, FindingCode, RegisterFinding } from '../migration/finding.js'
import { type UnknownFact, verdict } from '../migration/verdict.js'
import { factsOfReport } from '../migration/vmm/facts.js'
import { strict, type VmmRules, type VmmVm, vmOn } from '../migration/vmm/rules.js'
import type { VcpuFeature } from '../uapi.js'
import { boundClasses } from './bound.js'
import { groupsOf } from './groups.js'
import type { Fleet, HostClass } from './classes.js'

/** From one class to another. */
export interface Move {
  possible: boolean
  /** Indices into `obstacles` of the analysis, the gravest first. */
  obstacles: number[]
  /** What the answer depends on and the reports do not say; absent if there is nothing. */
  unknown?: UnknownFact[]
}

/** The only difference that prevents two classes from exchanging VMs: a register, or else what the destination refuses. */
export type Divide = ({ register: RegisterFinding['register'] } | { code: FindingCode }) & {
  pairs: [one: number, other: number][]
  /** Hosts of all classes in these pairs. */
  hostCount: number
}

/** The prediction for a class whose hosts get another kernel. */
export interface Upgrade {
  class: number
  /** The name of the report of a host with that kernel. */
  upgrade: string
  /** Moves that become possible, and moves that stop being possible. */
  opens: UpgradedMove[]
  closes: UpgradedMove[]
}

export interface UpgradedMove {
  /** `to` another class, or `from` it. */
  direction: 'to' | 'from'
  class: number
  obstacles: number[]
}

export interface FleetAnalysis {
  /** The rules that judged the moves. */
  vmm: string
  /** The classes compared, those with most hosts first; moves and groups refer to them by index. */
  classes: HostClass[]
  /** Classes, and the hosts in them, that were not compared because there are too many. */
  left: { classes: number; hostCount: number }
  /** `moves[from][to]`; null from a class to itself. */
  moves: (Move | null)[][]
  /** What stops moves, or what a guest would notice: each finding once, even if many moves have it. */
  obstacles: Finding[]
  /** Groups of two hosts or more with free movement inside, those with most hosts first: at most 20. */
  groups: { classes: number[]; hostCount: number }[]
  divides: Divide[]
  upgrades: Upgrade[]
  /**
   * Classes from whose report no VM can be simulated, with the reason, in the order of the fleet. No other entry refers to them.
   */
  errors: { class: HostClass; error: FormatError }[]
}

export interface AnalyseOptions {
  /** Default: `strict`. */
  rules?: VmmRules
  /** vCPU features of the VMs on both sides. Default: those of the VMM's VM on each host. */
  features?: readonly VcpuFeature[]
  /** Predicts the moves of VMs that are configured by this baseline, as `electBaseline` returns it for these rules. */
  elect?: CommonBaseline
  /** Hosts as they would be with another kernel: each class with the same MIDR_EL1 is tried with it. */
  whatIf?: readonly NamedReport[]
  /** Called after each class with the number of classes judged as a destination so far. */
  progress?: (done: number, of: number) => void
}

/** The limit on classes: each is compared with every other, which takes some milliseconds per pair. */
export const MAX_COMPARED = 200
const MAX_GROUPS = 20
const MIDR_EL1 = encodeRegister('MIDR_EL1')

/** @throws FormatError for a host of `whatIf` that cannot be simulated */
export function analyseFleet(
  { classes: all }: Fleet,
  { rules = strict, features, elect, whatIf = [], progress }: AnalyseOptions = {},
): FleetAnalysis {
  const maker: Maker = { rules, features, elect }
  const { classes, made, rest, errors } = simulated(all, maker)
  const ledger = new Ledger()
  const moves: (Move | null)[][] = classes.map(() => [])
  // Ordered by destination, so that only one simulation at a time is in memory.
  for (const [to, destination] of classes.entries()) {
    const judge = arrivalsAt(destination.report(), maker, ledger)
    for (const [from, vm] of made.entries()) moves[from]![to] = from === to ? null : judge(vm)
    progress?.(to + 1, classes.length)
  }
  const bound = boundClasses({
    moves: moves.flatMap((row, from) => row.flatMap((move) => (move === null ? [] : [{ from, ...move }]))),
    obstacles: ledger.obstacles,
  })
  return {
    vmm: rules.name,
    classes,
    left: { classes: rest.length, hostCount: rest.reduce((sum, { hostCount }) => sum + hostCount, 0) },
    moves,
    obstacles: ledger.obstacles,
    groups: groupsOf(
      classes.map(({ hostCount }) => hostCount),
      (one, other) => moves[one]![other]!.possible && moves[other]![one]!.possible,
    )
      .filter((group) => group.hostCount > 1 && !group.classes.some((one) => bound.has(one)))
      .slice(0, MAX_GROUPS),
    divides: dividesOf(classes, moves, ledger.obstacles),
    upgrades: whatIf.flatMap((host) => upgradesTo(host, classes, made, moves, maker, ledger)),
    errors,
  }
}

/** How VMs are made. */
interface Maker {
  rules: VmmRules
  /** Instead of the features the rules give. */
  features: readonly VcpuFeature[] | undefined
  elect: CommonBaseline | undefined
}

/** Returns the VM that is made on a host. */
function vmBy({ rules, features, elect }: Maker, report: Report): VmmVm {
  const facts = factsOfReport(report)
  const own = vmOn(rules, facts, features)
  return elect === undefined ? own : vmOn(rules, facts, electedFeatures(rules, elect, own.features))
}

/** A VM as the VMM makes it on a host, and its state before anything ran in it. */
interface MadeVm {
  vm: VmmVm
  state: State
}

/** Returns the first classes that can be compared, with a VM of each. */
function simulated(
  all: readonly HostClass[],
  maker: Maker,
): {
  classes: HostClass[]
  made: MadeVm[]
  rest: readonly HostClass[]
  errors: FleetAnalysis['errors']
} {
  const classes: HostClass[] = []
  const made: MadeVm[] = []
  const errors: FleetAnalysis['errors'] = []
  for (const [index, one] of all.entries()) {
    if (classes.length === MAX_COMPARED) return { classes, made, rest: all.slice(index), errors }
    try {
      made.push(makeVm(one.report(), one.first, maker))
      classes.push(one)
    } catch (error) {
      if (!(error instanceof FormatError)) throw error
      errors.push({ class: one, error })
    }
  }
  return { classes, made, rest: [], errors }
}

/** @throws FormatError if the host has no such VM: it lacks a feature, or cannot exist although its report is complete */
function makeVm(report: Report, source: string, maker: Maker): MadeVm {
  using kvm = openKvm(simulator(report))
  const vm = vmBy(maker, report)
  try {
    if (maker.elect === undefined) return { vm, state: captureHost(kvm, { features: vm.features }) }
    using made = apply(kvm, { ...maker.elect, features: vm.features }).vm
    return { vm, state: capture(kvm, made) }
  } catch (error) {
    if (!(error instanceof KvmError)) throw error
    throw new FormatError(
      source,
      '$',
      `describes a host on which no VM with a vCPU of ${vm.features.join(', ')} can be created (${error.message})`,
    )
  }
}

/** Judges every move to one host. */
function arrivalsAt(report: Report, maker: Maker, ledger: Ledger): (vm: MadeVm) => Move {
  const { rules } = maker
  const kvm = openKvm(simulator(report))
  const destination = vmBy(maker, report)
  return ({ vm: source, state }) => {
    const { possible, findings, unknown } = verdict(state, kvm, rules, { source, destination })
    return {
      possible,
      obstacles: findings
        .filter(({ severity, stops }) => stops || severity !== 'notice')
        .map((finding) => ledger.indexOf(finding)),
      ...(unknown.length > 0 && { unknown }),
    }
  }
}

/** Collects findings without repetition. */
class Ledger {
  readonly obstacles: Finding[] = []
  readonly #indices = new Map<string, number>()

  indexOf(finding: Finding): number {
    const key = JSON.stringify(finding)
    const known = this.#indices.get(key)
    if (known !== undefined) return known
    this.#indices.set(key, this.obstacles.length)
    return this.obstacles.push(finding) - 1
  }
}

/** Returns the pairs whose two directions together have one register as their only obstacle. */
function dividesOf(
  classes: readonly HostClass[],
  moves: FleetAnalysis['moves'],
  obstacles: readonly Finding[],
): Divide[] {
  const divides = new Map<string, { finding: Finding; pairs: Divide['pairs'] }>()
  for (let one = 0; one < classes.length; one++) {
    for (let other = one + 1; other < classes.length; other++) {
      const stopping = [moves[one]![other]!, moves[other]![one]!]
        .flatMap((move) => move.obstacles.map((index) => obstacles[index]!))
        .filter(({ stops }) => stops)
      const keys = new Set(stopping.map((finding) => finding.register?.id ?? finding.code))
      if (keys.size !== 1) continue
      const [key] = keys
      const known = divides.get(key!)
      if (known === undefined) divides.set(key!, { finding: stopping[0]!, pairs: [[one, other]] })
      else known.pairs.push([one, other])
    }
  }
  return [...divides.values()]
    .map(({ finding: { register, code }, pairs }): Divide => {
      const hostCount = [...new Set(pairs.flat())].reduce((sum, index) => sum + classes[index]!.hostCount, 0)
      return register === undefined ? { code, pairs, hostCount } : { register, pairs, hostCount }
    })
    .toSorted((a, b) => b.hostCount - a.hostCount)
}

function upgradesTo(
  { name, report }: NamedReport,
  classes: readonly HostClass[],
  made: readonly MadeVm[],
  moves: FleetAnalysis['moves'],
  maker: Maker,
  ledger: Ledger,
): Upgrade[] {
  const digest = reportDigest(report)
  const midr = registerValue(report, MIDR_EL1)
  const upgradedVm = makeVm(report, name, maker)
  const judge = arrivalsAt(report, maker, ledger)
  const upgraded = classes.flatMap((one, index) =>
    registerValue(one.report(), MIDR_EL1) === midr && !digest.startsWith(one.digest) ? [index] : [],
  )
  if (upgraded.length === 0) return []
  const after = classes.map((one, index) => ({
    to: arrivalsAt(one.report(), maker, ledger)(upgradedVm),
    from: judge(made[index]!),
  }))
  return upgraded.map((index) => {
    const upgrade: Upgrade = { class: index, upgrade: name, opens: [], closes: [] }
    for (const other of classes.keys()) {
      if (other === index) continue
      for (const direction of ['to', 'from'] as const) {
        const before = direction === 'to' ? moves[index]![other]! : moves[other]![index]!
        const { possible, obstacles } = after[other]![direction]
        if (possible === before.possible) continue
        const move = { direction, class: other, obstacles: possible ? before.obstacles : obstacles }
        ;(possible ? upgrade.opens : upgrade.closes).push(move)
      }
    }
    return upgrade
  })
}
