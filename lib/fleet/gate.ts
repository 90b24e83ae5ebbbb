/** Answers for schedulers: whether a VM can go from one class to another, looked up in a fleet that was analysed before. */
import type { Finding } from '../migration/finding.js'
import type { UnknownFact } from '../migration/verdict.js'
import type { FleetDocument } from './document.js'

/** The answer for one move. */
export interface GateMove {
  possible: boolean
  /** What stops it, and what its guest would notice: the gravest first. */
  findings: Finding[]
  /** What the answer depends on and the reports do not say. */
  unknown: readonly UnknownFact[]
}

/** The moves of a fleet, found by class. Making one takes time in proportion to the moves; a look-up does not. */
export class FleetGate {
  /** The rules that judged the moves. */
  readonly vmm: string
  readonly #document: FleetDocument
  readonly #classes: ReadonlyMap<string, number>
  /** By `from × number of classes + to`. */
  readonly #moves = new Map<number, FleetDocument['moves'][number]>()

  constructor(document: FleetDocument) {
    this.vmm = document.vmm
    this.#document = document
    this.#classes = new Map(document.classes.map(({ digest }, index) => [digest, index]))
    for (const move of document.moves) this.#moves.set(this.#key(move.from, move.to), move)
  }

  /**
   * Returns the prediction for a fresh VM of one class that goes to another; undefined from a class to itself, which a fleet does
   * not predict.
   * @param from the 16 digits of a class, as `probe --digest` and labels show them
   * @throws RangeError for a class that the fleet does not have or did not compare
   */
  move(from: string, to: string): GateMove | undefined {
    const move = this.#moves.get(this.#key(this.#indexOf(from), this.#indexOf(to)))
    if (move === undefined) return undefined
    const { possible, obstacles, unknown = [] } = move
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
      .filter((_, to) => this.#moves.get(this.#key(source, to))?.possible === true)
      .map(({ digest }) => digest)
  }

  #key(from: number, to: number): number {
    return from * this.#document.classes.length + to
  }

  #indexOf(digest: string): number {
    const index = this.#classes.get(digest)
    if (index !== undefined) return index
    throw new RangeError(
      `no such class ${JSON.stringify(digest)} among the ${this.#classes.size} of this fleet: probe the host and analyse the fleet again`,
    )
  }
}
