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
  readonly #indices: Map<string, number>

  /** Additions go to the end of this list. */
  constructor(list: Finding[]) {
    this.#list = list
    this.#indices = new Map(list.map((finding, index) => [JSON.stringify(finding), index]))
  }

  /** Returns the index of a finding, which it adds if it is new. */
  indexOf(finding: Finding): number {
    return indexIn(this.#list, this.#indices, JSON.stringify(finding), finding)
  }
}

/** Collects the answers for moves: each finding once, and each distinct prediction once. */
export class Predictions {
  readonly obstacles: Finding[] = []
  readonly predictions: Prediction[] = []
  readonly #obstacles = new Obstacles(this.obstacles)
  readonly #predictions = new Map<string, number>()

  /** Returns the index of the prediction. */
  add({ possible, findings, unknown }: Answer): number {
    return this.#indexOf({
      possible,
      obstacles: findings.map((finding) => this.#obstacles.indexOf(finding)),
      ...(unknown.length > 0 && { unknown }),
    })
  }

  #indexOf(prediction: Prediction): number {
    const { possible, obstacles, unknown } = prediction
    const key = `${possible} ${obstacles.join()} ${unknown?.join()}`
    return indexIn(this.predictions, this.#predictions, key, prediction)
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

function indexIn<T>(list: T[], indices: Map<string, number>, key: string, entry: T): number {
  const known = indices.get(key)
  if (known !== undefined) return known
  indices.set(key, list.length)
  return list.push(entry) - 1
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
