import type { SystemFd } from '../backend.js'
import {
  answer,
  type Call,
  isSameOutcome,
  type Outcome,
  Player,
  type TraceAnswer,
  type TraceEntry,
} from '../trace/index.js'

/** A difference between two backends, which answer the last call differently. */
export interface FuzzFinding {
  /** With the outcomes of the first backend. */
  readonly trace: readonly TraceEntry[]
  /** The answer of the second backend to the last call. */
  readonly other: TraceAnswer
}

/** Two backends that get the same calls. */
export class Pair {
  readonly #first: Player
  readonly #second: Player

  constructor(first: SystemFd, second: SystemFd) {
    this.#first = new Player(first)
    this.#second = new Player(second)
  }

  perform(call: Call): { mine: Outcome; other: TraceAnswer } {
    return { mine: this.#first.perform(call), other: answer(this.#second, call) }
  }

  /** Makes calls, starting without a VM, up to the first that is answered differently. */
  play(calls: readonly Call[]): FuzzFinding | null {
    this.reset()
    const trace: TraceEntry[] = []
    for (const call of calls) {
      const { mine, other } = this.perform(call)
      trace.push({ call, outcome: mine })
      if (!isSameOutcome(call, mine, other)) return { trace, other }
    }
    return null
  }

  reset(): void {
    this.#first.reset()
    this.#second.reset()
  }
}

/** Returns the kind of a finding; findings of one kind most likely have one cause. */
export function kindOf({ trace, other }: FuzzFinding): string {
  const { call, outcome } = trace.at(-1)!
  const about = 'id' in call ? call.id : 'group' in call ? `${call.group} ${call.attr}` : ''
  return [call.op, about, 'addr' in call ? call.addr : '', resultOf(outcome), resultOf(other)].join(' ')
}

/** Returns the errno or fault, or else the names of the results. */
function resultOf({ errno, fault, ...results }: TraceAnswer): string {
  return errno ?? fault ?? Object.keys(results).join()
}
