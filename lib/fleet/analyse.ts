/** Predicts who can move where in a fleet: restores a fresh VM's state of each class on a simulation of every other. */
import { KvmError, openKvm } from '../kvm/index.js'
import { encodeRegister } from '../registers/index.js'
import { FormatError } from '../documents/document.js'
import { reportDigest } from '../report/digest.js'
import { registerValue } from '../report/registers.js'
import type { Report } from '../report/report.js'
import { simulator } from '../hosts/index.js'
import type { NamedReport } from './baseline/candidate.js'
import { captureHost } from '../migration/capture.js'
import type { State } from '../migration/state.js'
import type { Finding, FindingCode, RegisterFinding } from '../migration/finding.js'
import { verdict } from '../migration/verdict.js'
import { strict, type VmmRules } from '../migration/vmm/rules.js'
import { groupsOf } from './groups.js'
import type { Fleet, HostClass } from './classes.js'

/** From one class to another. */
export interface Move {
  possible: boolean
  /** Indices into `obstacles` of the analysis, the gravest first. */
  obstacles: number[]
}

/** The only difference that prevents two classes from exchanging VMs: a register, or else what the destination refuses. */
export type Divide = ({ register: RegisterFinding['register'] } | { code: FindingCode }) & {
  pairs: [one: number, other: number][]
  /** Hosts of all classes in these pairs. */
  hosts: number
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
  left: { classes: number; hosts: number }
  /** `moves[from][to]`; null from a class to itself. */
  moves: (Move | null)[][]
  /** What stops moves, or what a guest would notice: each finding once, even if many moves have it. */
  obstacles: Finding[]
  /** Groups with free movement inside, those with most hosts first: at most 20. */
  groups: { classes: number[]; hosts: number }[]
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
  { rules = strict, whatIf = [], progress }: AnalyseOptions = {},
): FleetAnalysis {
  const { classes, states, rest, errors } = simulated(all)
  const ledger = new Ledger()
  const moves: (Move | null)[][] = classes.map(() => [])
  // Ordered by destination, so that only one simulation at a time is in memory.
  for (const [to, destination] of classes.entries()) {
    const judge = arrivalsAt(destination.report(), rules, ledger)
    for (const [from, state] of states.entries()) moves[from]![to] = from === to ? null : judge(state)
    progress?.(to + 1, classes.length)
  }
  return {
    vmm: rules.name,
    classes,
    left: { classes: rest.length, hosts: rest.reduce((sum, { hosts }) => sum + hosts, 0) },
    moves,
    obstacles: ledger.obstacles,
    groups: groupsOf(
      classes.map(({ hosts }) => hosts),
      (one, other) => moves[one]![other]!.possible && moves[other]![one]!.possible,
    ).slice(0, MAX_GROUPS),
    divides: dividesOf(classes, moves, ledger.obstacles),
    upgrades: whatIf.flatMap((host) => upgradesTo(host, classes, states, moves, rules, ledger)),
    errors,
  }
}

/** Returns the first classes that can be compared, with a fresh VM's state of each. */
function simulated(all: readonly HostClass[]): {
  classes: HostClass[]
  states: State[]
  rest: readonly HostClass[]
  errors: FleetAnalysis['errors']
} {
  const classes: HostClass[] = []
  const states: State[] = []
  const errors: FleetAnalysis['errors'] = []
  for (const [index, one] of all.entries()) {
    if (classes.length === MAX_COMPARED) return { classes, states, rest: all.slice(index), errors }
    try {
      states.push(defaultState(one.report(), one.first))
      classes.push(one)
    } catch (error) {
      if (!(error instanceof FormatError)) throw error
      errors.push({ class: one, error })
    }
  }
  return { classes, states, rest: [], errors }
}

/** @throws FormatError if the report is complete but describes a host that cannot exist */
function defaultState(report: Report, source: string): State {
  using kvm = openKvm(simulator(report))
  try {
    return captureHost(kvm)
  } catch (error) {
    if (!(error instanceof KvmError)) throw error
    throw new FormatError(
      source,
      '$',
      `describes a host on which no VM with a vCPU of psci-0.2 can be created (${error.message})`,
    )
  }
}

/** Judges every move to one host. */
function arrivalsAt(report: Report, rules: VmmRules, ledger: Ledger): (state: State) => Move {
  const kvm = openKvm(simulator(report))
  return (state) => {
    const { possible, findings } = verdict(state, kvm, rules)
    return {
      possible,
      obstacles: findings
        .filter(({ severity, stops }) => stops || severity !== 'notice')
        .map((finding) => ledger.indexOf(finding)),
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
      const hosts = [...new Set(pairs.flat())].reduce((sum, index) => sum + classes[index]!.hosts, 0)
      return register === undefined ? { code, pairs, hosts } : { register, pairs, hosts }
    })
    .toSorted((a, b) => b.hosts - a.hosts)
}

function upgradesTo(
  { name, report }: NamedReport,
  classes: readonly HostClass[],
  states: readonly State[],
  moves: FleetAnalysis['moves'],
  rules: VmmRules,
  ledger: Ledger,
): Upgrade[] {
  const digest = reportDigest(report)
  const midr = registerValue(report, MIDR_EL1)
  const state = defaultState(report, name)
  const judge = arrivalsAt(report, rules, ledger)
  const upgraded = classes.flatMap((one, index) =>
    registerValue(one.report(), MIDR_EL1) === midr && !digest.startsWith(one.digest) ? [index] : [],
  )
  if (upgraded.length === 0) return []
  const after = classes.map((one, index) => ({
    to: arrivalsAt(one.report(), rules, ledger)(state),
    from: judge(states[index]!),
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
