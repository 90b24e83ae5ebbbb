/** Predicts who can move where in a fleet: restores a fresh VM's state of each class on a simulation of every other. */
import { encodeRegister } from '../registers/index.js'
import type { FormatError } from '../documents/document.js'
import { reportDigest } from '../report/digest.js'
import { registerValue } from '../report/registers.js'
import type { CommonBaseline } from './baseline/baseline.js'
import type { NamedReport } from './baseline/candidate.js'
import type { Finding, FindingCode, RegisterFinding } from '../migration/finding.js'
import { strict, type VmmRules } from '../migration/vmm/rules.js'
import type { VcpuFeature } from '../uapi.js'
import { groupsOf } from './groups.js'
import type { Fleet, HostClass } from './classes.js'
import { compareClasses, type ComparedClass } from './compared.js'
import { KnownMoves, type PredictedMoves } from './known-moves.js'
import { boundClasses, canMove, type MoveTable, Obstacles, type Prediction, predictionOf } from './moves.js'
import { arrivalsAt, makeVm, type Maker } from './predict.js'

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

export interface FleetAnalysis extends MoveTable {
  /** The rules that judged the moves. */
  vmm: string
  /** The classes compared, those with most hosts first; moves and groups refer to them by index. */
  classes: HostClass[]
  /** Classes, and the hosts in them, that were not compared because there are too many. */
  left: { classes: number; hostCount: number }
  /** What stops moves, or what a guest would notice: each finding once, in the order in which predictions first refer to it. */
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
  /** What `predictMoves` returned for this fleet with the same options. Predictions that are missing are made. */
  predicted?: PredictedMoves
  /** Called after each class with the number of classes judged as a destination so far. */
  progress?: (done: number, of: number) => void
}

const MAX_GROUPS = 20
const MIDR_EL1 = encodeRegister('MIDR_EL1')

/** @throws FormatError for a host of `whatIf` that cannot be simulated */
export function analyseFleet(
  { classes: all }: Fleet,
  { rules = strict, features, elect, whatIf = [], predicted, progress }: AnalyseOptions = {},
): FleetAnalysis {
  const maker: Maker = { rules, features, elect }
  const { compared, known } = predicted ?? {
    compared: compareClasses(all, maker),
    known: new KnownMoves(),
  }
  const { rest, errors } = compared
  const classes = compared.classes.map(({ of }) => of)
  const indices: number[][] = classes.map(() => [])
  // Ordered by destination, so that only one simulation at a time is in memory.
  for (const [to, { of, destination }] of compared.classes.entries()) {
    let judge: ReturnType<typeof arrivalsAt> | undefined
    for (const [from, { source, vm }] of compared.classes.entries()) {
      const predict = (): number => {
        judge ??= arrivalsAt(of.report(), maker)
        return known.add(source, destination, judge(vm()))
      }
      indices[from]![to] = known.get(source, destination) ?? predict()
    }
    progress?.(to + 1, classes.length)
  }
  const table = known.predictions.table(indices)
  const bound = boundClasses(table)
  return {
    vmm: rules.name,
    classes,
    left: { classes: rest.length, hostCount: rest.reduce((sum, { hostCount }) => sum + hostCount, 0) },
    ...table,
    groups: groupsOf(
      classes.map(({ hostCount }) => hostCount),
      (one, other) => canMove(table, one, other) && canMove(table, other, one),
    )
      .filter((group) => group.hostCount > 1 && !group.classes.some((one) => bound.has(one)))
      .slice(0, MAX_GROUPS),
    divides: dividesOf(classes, table),
    upgrades: whatIf.flatMap((host) => upgradesTo(host, compared.classes, table, maker)),
    errors,
  }
}

/** Returns the pairs whose two directions together have one register as their only obstacle. */
function dividesOf(
  classes: readonly HostClass[],
  { predictions, moves, obstacles }: MoveTable & { obstacles: readonly Finding[] },
): Divide[] {
  const divides = new Map<string, { finding: Finding; pairs: Divide['pairs'] }>()
  /** By prediction: what stops it. */
  const stopping = predictions.map((prediction) => stoppingOf(prediction, obstacles))
  for (let one = 0; one < classes.length; one++) {
    for (let other = one + 1; other < classes.length; other++) {
      const [there, back] = [stopping[moves[one]![other]!]!, stopping[moves[other]![one]!]!]
      const { key, finding } = there.only ?? back.only ?? {}
      if (key === undefined || [there, back].some(({ count, only }) => count > 0 && only?.key !== key))
        continue
      const known = divides.get(key)
      if (known === undefined) divides.set(key, { finding: finding!, pairs: [[one, other]] })
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

/** What stops a move: the number of registers, or of codes where the finding is not about a register; the only one, if there is one. */
interface Stopping {
  count: number
  only?: { key: string; finding: Finding }
}

function stoppingOf({ obstacles: indices }: Prediction, obstacles: readonly Finding[]): Stopping {
  const found = new Map<string, Finding>()
  for (const index of indices) {
    const finding = obstacles[index]!
    const key = finding.register?.id ?? finding.code
    if (finding.stops && !found.has(key)) found.set(key, finding)
  }
  const [first] = found
  if (first === undefined || found.size > 1) return { count: found.size }
  const [key, finding] = first
  return { count: 1, only: { key, finding } }
}

/** Adds the obstacles of moves as they would be to those of the fleet. */
function upgradesTo(
  { name, report }: NamedReport,
  classes: readonly ComparedClass[],
  table: MoveTable & { obstacles: Finding[] },
  maker: Maker,
): Upgrade[] {
  const digest = reportDigest(report)
  const midr = registerValue(report, MIDR_EL1)
  const upgradedVm = makeVm(report, name, maker)
  const judge = arrivalsAt(report, maker)
  const obstacles = new Obstacles(table.obstacles)
  const upgraded = classes.flatMap(({ of }, index) =>
    registerValue(of.report(), MIDR_EL1) === midr && !digest.startsWith(of.digest) ? [index] : [],
  )
  if (upgraded.length === 0) return []
  const after = classes.map(({ of, vm }) => ({
    to: arrivalsAt(of.report(), maker)(upgradedVm),
    from: judge(vm()),
  }))
  return upgraded.map((index) => {
    const upgrade: Upgrade = { class: index, upgrade: name, opens: [], closes: [] }
    for (const other of classes.keys()) {
      if (other === index) continue
      for (const direction of ['to', 'from'] as const) {
        const [from, to] = direction === 'to' ? [index, other] : [other, index]
        const before = predictionOf(table, from, to)
        const { possible, findings } = after[other]![direction]
        if (possible === before.possible) continue
        const reasons = possible ? before.obstacles : findings.map((finding) => obstacles.indexOf(finding))
        const move = { direction, class: other, obstacles: reasons }
        ;(possible ? upgrade.opens : upgrade.closes).push(move)
      }
    }
    return upgrade
  })
}
