/** Answers for schedulers: whether a VM can go from one class to another, looked up in a fleet that was analysed before. */
import type { Finding } from '../migration/finding.js'
import type { UnknownFact } from '../migration/verdict.js'
import type { FleetDocument } from './document.js'
import { canMove, predictionOf } from './moves.js'

/** The answer for one move. */
export interface GateMove {
  possible: boolean
  /** What stops it, and what its guest would notice: the gravest first. */
  findings: Finding[]
  /** What the answer depends on and the reports do not say. */
  unknown: readonly UnknownFact[]
}

/** The moves of a fleet, found by class. */
export class FleetGate {
  /** The rules that judged the moves. */
  readonly vmm: string
  readonly #document: FleetDocument
  readonly #classes: ReadonlyMap<string, number>

  constructor(document: FleetDocument) {
    this.vmm = document.vmm
    this.#document = document
    this.#classes = new Map(document.classes.map(({ digest }, index) => [digest, index]))
  }

  /**
   * Returns the prediction for a fresh VM of one class that goes to another; undefined from a class to itself, which a fleet does
   * not predict.
   * @param from the 16 digits of a class, as `probe --digest` and labels show them
   * @throws RangeError for a class that the fleet does not have or did not compare
   */
  move(from: string, to: string): GateMove | undefined {
    const prediction = predictionOf(this.#document, this.#indexOf(from), this.#indexOf(to))
    if (prediction === undefined) return undefined
    const { possible, obstacles, unknown = [] } = prediction
    return { possible, findings: obstacles.map((index) => this.#document.obstacles[index]!), unknown }
  }

  /**
   * Returns the other classes to which a VM of this one can go, those with most hosts first. Includes moves whose answer depends on
   * facts that no report records: `move` lists these as `unknown`.
   * @throws RangeError as `move`
   */
  destinations(from: string): string[] {
    const source = this.#indexOf(from)
    return this.#document.classes
      .filter((_, to) => canMove(this.#document, source, to))
      .map(({ digest }) => digest)
  }

  #indexOf(digest: string): number {
    const index = this.#classes.get(digest)
    if (index !== undefined) return index
    throw new RangeError(
      `no such class ${JSON.stringify(digest)} among the ${this.#classes.size} of this fleet: probe the host and analyse the fleet again`,
    )
  }
}
