/** What an operator wants to know first: how many hosts can take VMs, what stops most of the others, and what to do about it. */
import {
  ANOTHER_CPU,
  type FleetData,
  type HostClass,
  type Judgement,
  type Matrix,
  type Obstacle,
  type Pattern,
  type Upgrade,
  type VmmView,
} from './data.js'
import { isDoubtful, stopping } from './kinds.js'

/** Calls back for each pattern of a matrix with the number of ordered pairs of hosts that have it. */
function hostPairs(
  classes: readonly HostClass[],
  moves: Matrix,
  each: (pattern: number, pairs: number) => void,
): void {
  for (const [from, row] of moves.entries()) {
    for (const [to, pattern] of row.entries()) {
      if (pattern >= 0) each(pattern, classes[from]!.hostCount * classes[to]!.hostCount)
    }
  }
}

/** How far VMs can go. */
export interface Reach {
  /** Ordered pairs of hosts between which a VM can move, those within a class included; and all pairs. */
  possible: number
  pairs: number
  /** Those of the possible pairs whose answer depends on what a report does not say. */
  doubtful: number
  /** The number of other hosts a VM can move to, averaged over all hosts. */
  mean: number
  /** The number of other hosts. */
  others: number
  /** Hosts in the largest group with free movement. */
  largestGroup: number
}

export function reach(data: FleetData, { moves, groups, bound }: Judgement): Reach {
  const { classes, patterns } = data
  const within = classes.map(({ hostCount }, index) => (bound.includes(index) ? 1 : hostCount))
  const hostCount = classes.reduce((sum, one) => sum + one.hostCount, 0)
  let possible = classes.reduce((sum, one, index) => sum + one.hostCount * (within[index]! - 1), 0)
  let doubtful = 0
  hostPairs(classes, moves, (pattern, pairs) => {
    if (patterns[pattern]!.possible) possible += pairs
    if (isDoubtful(patterns[pattern])) doubtful += pairs
  })
  return {
    possible,
    doubtful,
    pairs: hostCount * (hostCount - 1),
    mean: hostCount === 0 ? 0 : possible / hostCount,
    others: Math.max(hostCount - 1, 0),
    largestGroup: groups[0]?.hostCount ?? Math.max(0, ...within),
  }
}

/** One origin of obstacles. */
export interface Cause {
  cause: string
  /** Its part of the stopped pairs of hosts, 0 to 1: those it stops, alone or with others. */
  share: number
  /** Pairs that it alone stops. */
  alone: number
  /** The part of the stopped pairs that this cause and those before it explain completely. */
  explained: number
  /** What prevents the most frequent obstacle of it. */
  remedy: string
}

/** Returns what stops moves, the most frequent cause first. Between different CPUs, the CPU is the only cause counted. */
export function causes({ classes, obstacles, patterns }: FleetData, moves: Matrix): Cause[] {
  const weights = new Map<number, number>()
  hostPairs(classes, moves, (pattern, pairs) => {
    if (!patterns[pattern]!.possible) weights.set(pattern, (weights.get(pattern) ?? 0) + pairs)
  })
  const total = [...weights.values()].reduce((sum, pairs) => sum + pairs, 0)
  const found = new Map<string, { pairs: number; alone: number; byObstacle: Map<number, number> }>()
  const stopped: { causes: Set<string>; pairs: number }[] = []
  for (const [index, pairs] of weights) {
    const pattern = patterns[index]!
    const { causes: each } = stopping(pattern, obstacles)
    const these = each.has(ANOTHER_CPU) ? new Set([ANOTHER_CPU]) : each
    stopped.push({ causes: these, pairs })
    for (const cause of these) {
      const known = found.get(cause) ?? { pairs: 0, alone: 0, byObstacle: new Map<number, number>() }
      known.pairs += pairs
      if (each.size === 1) known.alone += pairs
      for (const obstacle of pattern.obstacles) {
        const { cause: other, stops } = obstacles[obstacle]!
        if (stops && other === cause)
          known.byObstacle.set(obstacle, (known.byObstacle.get(obstacle) ?? 0) + pairs)
      }
      found.set(cause, known)
    }
  }
  const before = new Set<string>()
  return [...found]
    .toSorted(
      ([a, one], [b, other]) => other.pairs - one.pairs || other.alone - one.alone || (a < b ? -1 : 1),
    )
    .map(([cause, { pairs, alone, byObstacle }]) => {
      before.add(cause)
      const explained = stopped
        .filter((one) => [...one.causes].every((each) => before.has(each)))
        .reduce((sum, one) => sum + one.pairs, 0)
      return {
        cause,
        share: pairs / total,
        alone,
        explained: explained / total,
        remedy: mostFrequent(byObstacle, obstacles).remedy,
      }
    })
}

function mostFrequent(pairs: ReadonlyMap<number, number>, obstacles: readonly Obstacle[]): Obstacle {
  const [first] = [...pairs].toSorted(([, one], [, other]) => other - one)
  return obstacles[first![0]]!
}

/** Something an operator can do. */
export interface Step {
  kind: 'elect' | 'upgrade' | 'remove'
  title: string
  how: string
  /** Ordered pairs of hosts between which VMs can move afterwards, and cannot now. */
  gain: number
  /** The cause it removes. */
  cause?: string
}

/** Returns what to do, the step that opens most first. Steps are judged one by one: two may open the same moves. */
export function steps(data: FleetData, view: VmmView): Step[] {
  const found: Step[] = []
  if (view.elected !== undefined) {
    const gain = reach(data, view.elected).possible - reach(data, view.asIs).possible
    found.push({ kind: 'elect', title: 'Elect the baseline of the fleet', how: view.election, gain })
  }
  const upgrades = new Map<string, { gain: number; classes: number[] }>()
  for (const upgrade of view.upgrades) {
    const known = upgrades.get(upgrade.upgrade) ?? { gain: 0, classes: [] }
    const gain = gainOf(data.classes, upgrade)
    if (gain <= 0) continue
    known.gain += gain
    known.classes.push(upgrade.class)
    upgrades.set(upgrade.upgrade, known)
  }
  for (const [upgrade, { gain, classes }] of upgrades) {
    const list = classes.map((index) => index + 1).join(', ')
    found.push({
      kind: 'upgrade',
      title: `Give hosts the kernel of ${upgrade}`,
      how: `${classes.length === 1 ? 'class' : 'each of the classes'} ${list}`,
      gain,
    })
  }
  for (const { cause, alone, remedy } of causes(data, view.asIs.moves)) {
    if (alone > 0) found.push({ kind: 'remove', title: `Resolve: ${cause}`, how: remedy, gain: alone, cause })
  }
  return found.filter(({ gain }) => gain > 0).toSorted((a, b) => b.gain - a.gain)
}

function gainOf(classes: readonly HostClass[], { class: index, opens, closes }: Upgrade): number {
  const pairs = (moves: Upgrade['opens']) =>
    moves.reduce((sum, move) => sum + classes[index]!.hostCount * classes[move.class]!.hostCount, 0)
  return pairs(opens) - pairs(closes)
}

/** The number of other hosts to which VMs of a class can go, and from which VMs can come. */
export function neighbours(
  classes: readonly HostClass[],
  patterns: readonly Pattern[],
  { moves, bound }: Judgement,
  index: number,
): { to: number; from: number } {
  const own = bound.includes(index) ? 0 : classes[index]!.hostCount - 1
  const open = (pattern: number | undefined) =>
    pattern !== undefined && pattern >= 0 && patterns[pattern]!.possible
  let [to, from] = [own, own]
  for (const [other, { hostCount }] of classes.entries()) {
    if (open(moves[index]![other])) to += hostCount
    if (open(moves[other]![index])) from += hostCount
  }
  return { to, from }
}
