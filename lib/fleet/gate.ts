/** Answers for schedulers: whether a VM can go from one class to another, looked up in a fleet that was analysed before. */
import type { Finding } from '../migration/finding.js'
import type { UnknownFact } from '../migration/verdict.js'
import type { FleetDocument } from './document.js'
import { predictionOf } from './moves.js'

/** The entries of a fleet's document from which answers come. */
export type GateDocument = Pick<
  FleetDocument,
  'vmm' | 'classes' | 'left' | 'predictions' | 'moves' | 'obstacles'
>

/** The answer for one move. */
export interface GateMove {
  possible: boolean
  /** What stops it, and what its guest would notice: the gravest first. */
  findings: Finding[]
  /** What the answer depends on and the reports do not say. */
  unknown: readonly UnknownFact[]
}

/** A class, as the gate found it by one of its names. */
export interface GateClass {
  /** The 16 digits of the class. */
  digest: string
  hostCount: number
}

/** Classes that an error lists. */
const LISTED = 8

/**
 * The moves of a fleet, found by class. A class is named by its digits, by the first of them if no other class begins so, or by a host
 * in it. For a name that means no class or several, every method throws a RangeError that lists classes of the fleet.
 */
export class FleetGate {
  /** The rules that judged the moves. */
  readonly vmm: string
  readonly #document: GateDocument
  readonly #classes: ReadonlyMap<string, number>

  constructor(document: GateDocument) {
    this.vmm = document.vmm
    this.#document = document
    this.#classes = new Map(document.classes.map(({ digest }, index) => [digest, index]))
  }

  /** Returns the class of this name. */
  classOf(name: string): GateClass {
    const { digest, hostCount } = this.#document.classes[this.#indexOf(name)]!
    return { digest, hostCount }
  }

  /** Returns the prediction for a fresh VM of one class that goes to another, or to another host of its own class. */
  move(from: string, to: string): GateMove {
    const {
      possible,
      obstacles,
      unknown = [],
    } = predictionOf(this.#document, this.#indexOf(from), this.#indexOf(to))
    return { possible, findings: obstacles.map((index) => this.#document.obstacles[index]!), unknown }
  }

  /**
   * Returns the classes to which a VM of this one can go, those with most hosts first; its own is one of them unless such VMs cannot
   * move at all. Leaves out moves whose answer depends on facts that no report records: `move` lists these as `unknown`.
   */
  destinations(from: string): string[] {
    const source = this.#indexOf(from)
    return this.#classesTo((to) => canSurelyMove(this.#document, source, to))
  }

  /** Returns the classes whose VMs can come to this one, likewise. */
  sources(to: string): string[] {
    const destination = this.#indexOf(to)
    return this.#classesTo((from) => canSurelyMove(this.#document, from, destination))
  }

  #classesTo(isPossible: (index: number) => boolean): string[] {
    return this.#document.classes.filter((_, index) => isPossible(index)).map(({ digest }) => digest)
  }

  #indexOf(name: string): number {
    const exact = this.#classes.get(name)
    if (exact !== undefined) return exact
    const found = new Set(/^[0-9a-f]{1,15}$/.test(name) ? this.#beginningWith(name) : [])
    const host = this.#classOfHost(name)
    if (host >= 0) found.add(host)
    const [only] = found
    if (found.size === 1) return only!
    const shown = JSON.stringify(name)
    if (found.size > 1) {
      throw new RangeError(`${shown} means several classes: ${this.#listed([...found])}; give more digits`)
    }
    const { classes, left } = this.#document
    const others =
      left.classes === 0 ? '' : `; ${left.classes} classes with ${left.hostCount} hosts were not compared`
    throw new RangeError(
      `no such class or host ${shown}; this fleet has ${this.#listed([...classes.keys()])}${others}`,
    )
  }

  #beginningWith(digits: string): number[] {
    return [...this.#classes].filter(([digest]) => digest.startsWith(digits)).map(([, index]) => index)
  }

  /** Uses no index of all hosts: making one takes longer than a command that looks up one move may take. */
  #classOfHost(name: string): number {
    const { classes } = this.#document
    const found = classes.findIndex(({ names }) => isInOrdered(names, name))
    // Names are in alphabetical order, unless another program wrote them.
    return found < 0 ? classes.findIndex(({ names }) => names.includes(name)) : found
  }

  #listed(indices: readonly number[]): string {
    const shown = indices.slice(0, LISTED).map((index) => {
      const { digest, hostCount, cpu } = this.#document.classes[index]!
      return `${digest} (${cpu}, ${hostCount} ${hostCount === 1 ? 'host' : 'hosts'})`
    })
    const more = indices.length - shown.length
    return shown.join(', ') + (more > 0 ? ` and ${more} more` : '')
  }
}

/** Returns whether a VM can move from one class to another, and the answer depends on nothing unknown. */
export function canSurelyMove(document: GateDocument, from: number, to: number): boolean {
  const { possible, unknown } = predictionOf(document, from, to)
  return possible && unknown === undefined
}

function isInOrdered(names: readonly string[], name: string): boolean {
  let [from, to] = [0, names.length]
  while (from < to) {
    const middle = (from + to) >> 1
    if (names[middle]! < name) from = middle + 1
    else to = middle
  }
  return names[from] === name
}
