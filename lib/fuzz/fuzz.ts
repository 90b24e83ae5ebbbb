import type { SystemFd } from '../backend.js'
import { isSameOutcome, type TraceEntry } from '../trace/index.js'
import { type FuzzFinding, kindOf, Pair } from './compare.js'
import { CallGenerator, type Profile } from './generator.js'
import { Random } from './random.js'
import { shrink } from './shrink.js'

export interface FuzzOptions {
  /** 32 bits: the same seed against the same host makes the same calls. */
  seed: number
  /** How many calls to make. */
  operations: number
  /** Which calls are invented. Default: `everything`. */
  profile?: Profile
}

/** Calls on the same VMs before everything is closed and started again. */
const LONGEST_SESSION = 300
const SHORTEST_SESSION = 40

/**
 * Makes the same generated calls on two backends and shrinks every difference between their answers to the fewest calls that show
 * it. After a difference it makes new VMs, since the backends are then in different states. It skips differences of a kind already
 * found. It makes calls only while the caller waits for the next finding, so to stop iterating stops it.
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
    const finding = { trace: session, other }
    const kind = kindOf(finding)
    if (!found.has(kind)) yield shrink(pair, finding, kind)
    found.add(kind)
    left = 0
  }
  pair.reset()
}
