import type { SystemFd } from '../backend.js'
import type { Call, Outcome, TraceEntry } from '../trace/index.js'
import { CallGenerator, type Profile } from './generate.js'
import { Player } from '../trace/player.js'
import { Random } from './random.js'
import { answer, type TraceAnswer, isSameOutcome } from '../trace/replay.js'

export interface FuzzOptions {
  /** 32 bits: the same seed against the same host makes the same calls. */
  seed: number
  /** How many calls to make. */
  operations: number
  /** Which calls are invented. Default: `everything`. */
  profile?: Profile
}

/** A difference between two backends, with the fewest calls found to show it. The last of them is the one answered differently. */
export interface FuzzFinding {
  /** With the outcomes of the first backend. */
  trace: readonly TraceEntry[]
  /** What the second backend answered to the last call. */
  other: TraceAnswer
}

/** Calls on the same VMs before everything is closed and begun anew. */
const LONGEST_SESSION = 300
const SHORTEST_SESSION = 40

/**
 * Puts the same invented calls to two backends and shrinks every difference between their answers to the fewest calls that show it. After
 * a difference all VMs are made anew, since from then on the backends are in different states. A difference of a kind already found is
 * passed over. The calls are made while the next finding is waited for: whoever stops iterating stops them.
 */
export function* fuzz(first: SystemFd, second: SystemFd, options: FuzzOptions): Generator<FuzzFinding> {
  const { seed, operations, profile = 'everything' } = options
  const random = new Random(seed)
  const generator = new CallGenerator(random, profile)
  const pair = new Pair(first, second)
  const found = new Set<string>()
  let session: TraceEntry[] = []
  let left = 0
  for (let made = 0; made < operations; made++) {
    if (left-- <= 0) {
      left = SHORTEST_SESSION + random.below(LONGEST_SESSION - SHORTEST_SESSION)
      pair.reset()
      generator.restart()
      session = []
    }
    const call = generator.call()
    const { mine, other } = pair.perform(call)
    session.push({ call, outcome: mine })
    if (isSameOutcome(call, mine, other)) {
      generator.learn(call, mine)
      continue
    }
    const kind = kindOf(call, mine, other)
    if (!found.has(kind)) yield shrink(pair, { trace: session, other }, kind)
    found.add(kind)
    left = 0
  }
  pair.reset()
}

/** Two backends that are asked the same. */
class Pair {
  readonly #first: Player
  readonly #second: Player

  constructor(first: SystemFd, second: SystemFd) {
    this.#first = new Player(first)
    this.#second = new Player(second)
  }

  perform(call: Call): { mine: Outcome; other: TraceAnswer } {
    return { mine: this.#first.perform(call), other: answer(this.#second, call) }
  }

  /** Makes calls on no VM yet, up to the first that is answered differently. */
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

/** Findings of one kind have one cause, most likely. */
function kindOf(call: Call, mine: Outcome, other: TraceAnswer): string {
  const about = 'id' in call ? call.id : 'group' in call ? `${call.group} ${call.attr}` : ''
  return [call.op, about, 'addr' in call ? call.addr : '', told(mine), told(other)].join(' ')
}

/** Leaves out calls, ever fewer at once, as long as a difference of the same kind remains (Zeller's ddmin). */
function shrink(pair: Pair, found: FuzzFinding, kind: string): FuzzFinding {
  const again = (calls: readonly Call[]): FuzzFinding | null => {
    const finding = pair.play(calls)
    const last = finding?.trace.at(-1)
    return last !== undefined && kindOf(last.call, last.outcome, finding!.other) === kind ? finding : null
  }
  const callsOf = ({ trace }: FuzzFinding): Call[] => trace.map(({ call }) => call)
  // What does not show again depended on time, and is told as it was found.
  const repeated = again(callsOf(found))
  if (repeated === null) return found
  let best: FuzzFinding = repeated
  for (let size = best.trace.length >> 1; size >= 1; size >>= 1) {
    for (let start: number = best.trace.length - 1 - size; start >= 0; start -= size) {
      best = again(callsOf(best).toSpliced(start, size)) ?? best
    }
  }
  return best
}

function told({ errno, fault, ...results }: TraceAnswer): string {
  return errno ?? fault ?? Object.keys(results).join()
}
