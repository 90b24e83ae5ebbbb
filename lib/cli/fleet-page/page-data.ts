/** Turns documents into the data of a page: words for findings, and each kind of move once. */
import type { FleetDocument } from '../../fleet/document.js'
import { boundClasses, type Prediction } from '../../fleet/moves.js'
import { codeRow, type Finding } from '../../migration/finding.js'
import { isObstacle } from '../../migration/obstacle.js'
import type { JudgedMove, VerdictDocument } from '../../migration/verdict-document.js'
import { findingSubject, findingWords, severityWords } from '../../migration/words.js'
import { originText } from '../../report/origin.js'
import { classOrigins, classPsci, divideSubject } from '../view/fleet.js'
import { vmmText } from '../view/verdict.js'
import {
  ANOTHER_CPU,
  type FleetData,
  type HostClass,
  type Judgement,
  type Matrix,
  type Obstacle,
  type PairData,
  type Pattern,
  type VmmView,
} from './model/data.js'
import { blockOrder } from './model/order.js'

/** A fleet under one VMM. */
export interface JudgedFleet {
  /** VMs as the VMM makes them. */
  asIs: FleetDocument
  /** VMs made by the baseline of the fleet; absent if there is none. */
  elected?: FleetDocument
  /** How to elect it; or why there is none. */
  election: string
}

export function fleetData(judged: readonly JudgedFleet[]): FleetData {
  const { asIs: first } = judged[0]!
  const classes = new Map<string, HostClass>()
  for (const { asIs } of judged) {
    for (const one of asIs.classes) {
      const { digest, hostCount, cpu, releases, first: where, names } = one
      if (classes.has(digest)) continue
      const words = { psci: classPsci(one), answeredBy: classOrigins(one) }
      classes.set(digest, { digest, hostCount, cpu, releases, first: where, names, ...words })
    }
  }
  const all = [...classes.values()].toSorted((a, b) => b.hostCount - a.hostCount)
  const places = new Map(all.map(({ digest }, place) => [digest, place]))
  const collected = { obstacles: new Collected<Obstacle>(), patterns: new Collected<Pattern>() }
  const views = judged.map((one) => vmmView(one, all, places, collected))
  return {
    kind: 'fleet',
    hostCount: first.hostCount,
    faulty: first.faulty,
    left: first.left,
    classes: all,
    obstacles: collected.obstacles.all,
    patterns: collected.patterns.all,
    vmms: views,
  }
}

interface CollectedWords {
  obstacles: Collected<Obstacle>
  patterns: Collected<Pattern>
}

function vmmView(
  { asIs, elected, election }: JudgedFleet,
  classes: readonly HostClass[],
  places: ReadonlyMap<string, number>,
  collected: CollectedWords,
): VmmView {
  const at = asIs.classes.map(({ digest }) => places.get(digest)!)
  const judgement = judgementOf(asIs, classes.length, places, collected)
  const { patterns } = collected
  const canMove = (from: number, to: number): boolean => {
    const pattern = judgement.moves[from]![to]!
    return pattern >= 0 && patterns.all[pattern]!.possible
  }
  return {
    vmm: asIs.vmm,
    asIs: judgement,
    ...(elected && { elected: judgementOf(elected, classes.length, places, collected) }),
    election,
    order: blockOrder(
      classes.map(({ hostCount }) => hostCount),
      canMove,
      classes.map(({ cpu }) => cpu),
    ),
    divides: asIs.divides.map((divide) => ({
      subject: divideSubject(divide),
      pairs: divide.pairs.map(([one, other]) => [at[one]!, at[other]!]),
      hostCount: divide.hostCount,
    })),
    upgrades: asIs.upgrades.map(({ class: index, upgrade, opens, closes }) => ({
      class: at[index]!,
      upgrade,
      opens: opens.map(({ direction, class: other }) => ({ direction, class: at[other]! })),
      closes: closes.map(({ direction, class: other }) => ({ direction, class: at[other]! })),
    })),
  }
}

function judgementOf(
  { vmm, classes, predictions, moves, obstacles, groups }: FleetDocument,
  size: number,
  places: ReadonlyMap<string, number>,
  collected: CollectedWords,
): Judgement {
  const at = classes.map(({ digest }) => places.get(digest)!)
  const words = obstacles.map((finding) => collected.obstacles.indexOf(obstacleOf(finding, vmm)))
  const matrix: Matrix = Array.from({ length: size }, () => Array.from({ length: size }, () => -1))
  const patterns = predictions.map((prediction) => collected.patterns.indexOf(patternOf(prediction, words)))
  for (const [from, row] of moves.entries()) {
    for (const [to, index] of row.entries()) {
      if (from !== to) matrix[at[from]!]![at[to]!] = patterns[index]!
    }
  }
  return {
    moves: matrix,
    groups: groups.map((group) => ({ ...group, classes: group.classes.map((index) => at[index]!) })),
    bound: [...boundClasses({ predictions, moves })].map((index) => at[index]!),
  }
}

function patternOf({ possible, obstacles, unknown = [] }: Prediction, words: readonly number[]): Pattern {
  return {
    possible,
    obstacles: obstacles.map((index) => words[index]!),
    unknown: unknown.map((fact) => fact.replaceAll('-', ' ')),
  }
}

/** Returns the data of a page about one pair of hosts. */
export function pairData({ moves }: VerdictDocument): PairData {
  const obstacles = new Collected<Obstacle>()
  return {
    kind: 'pair',
    moves: moves.map((move) => ({
      from: move.from.name,
      to: move.to.name,
      vmm: move.vmm,
      possible: move.possible,
      obstacles: move.findings.map((finding) => obstacles.indexOf(obstacleOf(finding, move.vmm))),
      unknown: move.unknown.map((fact) => fact.replaceAll('-', ' ')),
      notes: notesOf(move),
    })),
    obstacles: obstacles.all,
  }
}

function notesOf(move: JudgedMove): string[] {
  const { from, to, restoredOn, registers } = move
  return [
    vmmText(move),
    `${registers.same} of ${registers.total} registers unchanged`,
    `answered by: ${originText(from)} → ${originText(to)}`,
    restoredOn === 'kernel'
      ? 'restored on the destination’s KVM'
      : 'predicted on a simulation of the destination',
  ]
}

function obstacleOf(finding: Finding, vmm: string): Obstacle {
  const { code, severity, register } = finding
  const isWhole = register === undefined || codeRow(code).isListed
  return {
    // Unlike `stops` of a finding, which says only that the restore fails.
    stops: isObstacle(finding),
    severity: severityWords(severity),
    cause: code === 'cpu-identity' ? ANOTHER_CPU : isWhole ? code.replaceAll('-', ' ') : register.name,
    subject: findingSubject(finding),
    ...findingWords(finding, vmm),
  }
}

/** Keeps each of equal entries once. */
class Collected<T extends object> {
  readonly all: T[] = []
  readonly #indices = new Map<string, number>()

  indexOf(entry: T): number {
    const key = JSON.stringify(entry)
    const known = this.#indices.get(key)
    if (known !== undefined) return known
    this.#indices.set(key, this.all.length)
    return this.all.push(entry) - 1
  }
}
