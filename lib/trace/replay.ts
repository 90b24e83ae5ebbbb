import type { SystemFd } from '../backend.js'
import { functionIds } from '../hypercalls/index.js'
import { TIMER_ISTATUS, timerControls, timerCounters } from '../registers/index.js'
import type { TraceEntry } from './format.js'
import type { Call } from './operations/index.js'
import type { Outcome } from './outcome.js'
import { Player } from './player.js'

/** An outcome, or the message of the error that a backend threw instead. */
export type TraceAnswer = Outcome & { fault?: string }

/** A call whose outcome differs from the trace. */
export interface Divergence {
  /** The line in the trace, from 1. */
  line: number
  call: Call
  recorded: Outcome
  replayed: TraceAnswer
}

/**
 * Makes a trace's calls on a backend and reports each whose outcome differs from the recorded one. Closes the handles made for it
 * at the end, but not `kvm`.
 * @returns the number of calls made
 */
export function replay(
  entries: Iterable<TraceEntry & { line: number }>,
  kvm: SystemFd,
  onDivergence: (divergence: Divergence) => void,
): number {
  const player = new Player(kvm)
  let calls = 0
  try {
    for (const { line, call, outcome } of entries) {
      const replayed = answer(player, call)
      calls++
      if (!isSameOutcome(call, outcome, replayed)) onDivergence({ line, call, recorded: outcome, replayed })
    }
  } finally {
    player.reset()
  }
  return calls
}

/** Returns the outcome of a call; an error thrown by the backend counts as an answer. */
export function answer(player: Player, call: Call): TraceAnswer {
  try {
    return player.perform(call)
  } catch (error) {
    return { fault: (error as Error).message }
  }
}

/** The encoding without the space: other spaces alias system registers on some kernels. */
const encodingsOf = (ids: Iterable<bigint>): ReadonlySet<bigint> =>
  new Set(Array.from(ids, (id) => id & 0xffffn))
const counters = encodingsOf(timerCounters)
const controls = encodingsOf(timerControls)

/**
 * Returns whether two answers to a call are equal. All values of a register that counts time are equal, and so are both states of a
 * timer that may have fired. Guest results that depend on time or chance are equal if both follow the call's rule.
 */
export function isSameOutcome(call: Call, a: TraceAnswer, b: TraceAnswer): boolean {
  if (call.op === 'get_one_reg') {
    if (a.value === b.value && a.errno === b.errno) return a.fault === b.fault
    if (a.value === undefined || b.value === undefined) return false
    const encoding = BigInt(call.id) & 0xffffn
    const changed = BigInt(a.value) ^ BigInt(b.value)
    return counters.has(encoding) || (controls.has(encoding) && changed === TIMER_ISTATUS)
  }
  if ((call.op === 'hvc' || call.op === 'smc') && a.x && b.x) {
    const keepsRule = ruleOf(call.args.map(BigInt))
    if (keepsRule?.(a.x.map(BigInt)) && keepsRule(b.x.map(BigInt))) return true
  }
  const keys = Object.keys(a) as (keyof TraceAnswer)[]
  return (
    keys.length === Object.keys(b).length &&
    keys.every((key) => a[key] === b[key] || JSON.stringify(a[key]) === JSON.stringify(b[key]))
  )
}

type Rule = (x: readonly bigint[]) => boolean

/** The common rule for x0 to x3 whenever a call that depends on time or chance succeeds. */
function ruleOf([functionId = 0n, argument = 0n]: readonly bigint[]): Rule | undefined {
  const bits = BigInt.asUintN(32, argument)
  switch (Number(BigInt.asUintN(32, functionId))) {
    case functionIds.KVM_PTP:
      return (x) => x.every((word) => word < 1n << 32n)
    case functionIds.TRNG_RND32:
      return drawn(bits, 32n)
    case functionIds.TRNG_RND64:
      return drawn(bits, 64n)
  }
  return undefined
}

/** Requires that x0 is SUCCESS and x1 to x3 hold that many bits, the highest register the lowest ones. */
function drawn(bits: bigint, width: bigint): Rule {
  return ([x0, ...words]) => {
    const all = words.reduce((sum, word) => (sum << width) | word, 0n)
    return x0 === 0n && words.every((word) => word < 1n << width) && all < 1n << bits
  }
}
