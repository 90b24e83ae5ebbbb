import type { Call } from '../trace/index.js'
import { type FuzzFinding, kindOf, type Pair } from './compare.js'

/** Removes calls, ever fewer at once, as long as a difference of the same kind remains (Zeller's ddmin). */
export function shrink(pair: Pair, found: FuzzFinding, kind: string): FuzzFinding {
  const again = (calls: readonly Call[]): FuzzFinding | null => {
    const finding = pair.play(calls)
    return finding !== null && kindOf(finding) === kind ? finding : null
  }
  // A difference that does not appear again depends on time, and stays as it was found.
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

function callsOf({ trace }: FuzzFinding): Call[] {
  return trace.map(({ call }) => call)
}
