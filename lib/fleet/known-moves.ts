/** Predictions by what matters of source and destination, so that classes which differ in nothing else share them. */
import type { Compared } from './compared.js'
import { type Arrivals, Predictions } from './moves.js'
import type { Answer } from './predict.js'

/** The predictions for a fleet, as `predictMoves` returns them for `analyseFleet`. */
export interface PredictedMoves {
  readonly compared: Compared
  readonly known: KnownMoves
}

export class KnownMoves {
  readonly predictions = new Predictions()
  /** By destination, and by the number of a source: indices of predictions. */
  readonly #known = new Map<string, number[]>()
  readonly #numbers = new Map<string, number>()

  /** Returns the index of a prediction; undefined if it was not made yet. */
  get(source: string, destination: string): number | undefined {
    return this.#known.get(destination)?.[this.#numberOf(source)]
  }

  /** Adds an answer and returns the index of its prediction. */
  add(source: string, destination: string, answer: Answer): number {
    const index = this.predictions.add(answer)
    this.#of(destination)[this.#numberOf(source)] = index
    return index
  }

  addArrivals(destination: string, arrivals: Arrivals): void {
    const indices = this.predictions.addArrivals(arrivals)
    const known = this.#of(destination)
    for (const [source, index] of Object.entries(arrivals.sources)) {
      known[this.#numberOf(source)] = indices[index]!
    }
  }

  #of(destination: string): number[] {
    const known = this.#known.get(destination) ?? []
    this.#known.set(destination, known)
    return known
  }

  #numberOf(source: string): number {
    const known = this.#numbers.get(source) ?? this.#numbers.size
    this.#numbers.set(source, known)
    return known
  }
}
