/**
 * The moves of a fleet as a table. A thousand classes have a million moves, and most are predicted alike: each distinct prediction is
 * listed once, and the table refers to it by its index.
 */
import type { Finding } from '../migration/finding.js'
import type { UnknownFact } from '../migration/verdict.js'
import type { Answer } from './predict.js'

/** The prediction for moves from one class to another, or between hosts of one class. */
export interface Prediction {
  possible: boolean
  /** Indices into the obstacles of the fleet, the gravest first. */
  obstacles: number[]
  /** What the answer depends on and the reports do not say; absent if there is nothing. */
  unknown?: UnknownFact[]
}

export interface MoveTable {
  /** Each distinct prediction once, in the order in which the rows of `moves` first refer to it. */
  predictions: Prediction[]
  /** `moves[from][to]`: an index into `predictions`. */
  moves: number[][]
}

/** Returns the prediction for a move; from a class to itself, for one between two of its hosts. */
export function predictionOf({ predictions, moves }: MoveTable, from: number, to: number): Prediction {
  return predictions[moves[from]![to]!]!
}

/** Returns whether a VM of one class can move to another, or to another host of its own. */
export function canMove(table: MoveTable, from: number, to: number): boolean {
  return predictionOf(table, from, to).possible
}

/** Returns the indices of the classes whose VMs cannot even move to a host like their own. */
export function boundClasses(table: MoveTable): Set<number> {
  return new Set([...table.moves.keys()].filter((index) => !canMove(table, index, index)))
}

/** A list without repetition. Findings are equal if their JSON is. */
export class Obstacles {
  readonly #list: Finding[]
  /** Indices of those that may be equal, by what differs most. */
  readonly #alike = new Map<string, number[]>()

  /** Additions go to the end of this list. */
  constructor(list: Finding[]) {
    this.#list = list
    for (const [index, finding] of list.entries()) this.#alikeTo(finding).push(index)
  }

  /** Returns the index of a finding, which it adds if it is new. */
  indexOf(finding: Finding): number {
    const alike = this.#alikeTo(finding)
    const known = alike.find((index) => isEqualJson(this.#list[index], finding))
    if (known !== undefined) return known
    const index = this.#list.push(finding) - 1
    alike.push(index)
    return index
  }

  #alikeTo(finding: Finding): number[] {
    const { code, register, field } = finding
    const key =
      register === undefined
        ? code
        : `${code} ${register.id} ${field} ${finding.source} ${finding.destination}`
    const alike = this.#alike.get(key) ?? []
    this.#alike.set(key, alike)
    return alike
  }
}

/** Returns whether two values have the same JSON. Writing the JSON of both would take several times as long. */
function isEqualJson(one: unknown, other: unknown): boolean {
  if (one === other) return true
  if (one === null || other === null || typeof one !== 'object' || typeof other !== 'object') return false
  if (Array.isArray(one)) {
    const isList = Array.isArray(other) && one.length === other.length
    return isList && one.every((entry, place) => isEqualJson(entry, other[place]))
  }
  const [keys, otherKeys] = [Object.keys(one), Object.keys(other)]
  const [mine, theirs] = [one as Record<string, unknown>, other as Record<string, unknown>]
  return (
    !Array.isArray(other) &&
    keys.length === otherKeys.length &&
    // The order of entries counts, too.
    keys.every((key, place) => key === otherKeys[place] && isEqualJson(mine[key], theirs[key]))
  )
}

/**
 * Answers about one destination, as threads send them and the cache keeps them: each finding once, and each distinct prediction once
 * with indices into these findings.
 */
export interface Arrivals {
  findings: Finding[]
  predictions: Prediction[]
  /** By what matters of a source (`sourceKey`): an index into `predictions`. */
  sources: Record<string, number>
}

/** Collects the answers for moves: each finding once, and each distinct prediction once. */
export class Predictions {
  readonly obstacles: Finding[] = []
  readonly predictions: Prediction[] = []
  readonly #obstacles = new Obstacles(this.obstacles)
  /** By a hash: writing a million predictions, with dozens of obstacles each, as text would take a minute. */
  readonly #alike = new Map<number, number[]>()

  /** Returns the index of the prediction. */
  add({ possible, findings, unknown }: Answer): number {
    return this.#indexOf({
      possible,
      obstacles: findings.map((finding) => this.#obstacles.indexOf(finding)),
      ...(unknown.length > 0 && { unknown }),
    })
  }

  /** Returns the index of each prediction about one destination. */
  addArrivals({ findings, predictions }: Arrivals): number[] {
    const places = findings.map((finding) => this.#obstacles.indexOf(finding))
    return predictions.map((prediction) =>
      this.#indexOf({ ...prediction, obstacles: prediction.obstacles.map((index) => places[index]!) }),
    )
  }

  #indexOf(prediction: Prediction): number {
    const hash = hashOf(prediction)
    const alike = this.#alike.get(hash) ?? []
    this.#alike.set(hash, alike)
    const known = alike.find((index) => isEqualJson(this.predictions[index], prediction))
    if (known !== undefined) return known
    const index = this.predictions.push(prediction) - 1
    alike.push(index)
    return index
  }

  /**
   * Returns the table, and its obstacles, numbered by first use: the numbers depend on the moves alone, and not on the order in
   * which they were predicted.
   */
  table(moves: MoveTable['moves']): MoveTable & { obstacles: Finding[] } {
    const [predictions, obstacles] = [new Renumbered(this.predictions), new Renumbered(this.obstacles)]
    const renumbered = (prediction: Prediction): Prediction => ({
      ...prediction,
      obstacles: prediction.obstacles.map((index) => obstacles.of(index)),
    })
    const table = moves.map((row) => row.map((index) => predictions.of(index)))
    return { predictions: predictions.inOrder.map(renumbered), moves: table, obstacles: obstacles.inOrder }
  }
}

function hashOf({ possible, obstacles, unknown }: Prediction): number {
  let hash = possible ? 1 : 2
  for (const index of obstacles) hash = Math.imul(hash ^ index, 0x0100_0193)
  return hash ^ (unknown?.length ?? 0)
}

/** Numbers entries of a list anew, in the order in which they are asked for. */
class Renumbered<T> {
  readonly inOrder: T[] = []
  readonly #list: readonly T[]
  readonly #numbers = new Map<number, number>()

  constructor(list: readonly T[]) {
    this.#list = list
  }

  of(index: number): number {
    const known = this.#numbers.get(index)
    if (known !== undefined) return known
    this.#numbers.set(index, this.inOrder.length)
    return this.inOrder.push(this.#list[index]!) - 1
  }
}
