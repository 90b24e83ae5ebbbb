/** Fails an operation in one place after another, and says what is wrong with what becomes of it. */
import assert from 'node:assert/strict'
import { setImmediate } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import type { Backend } from '../../lib/backend.js'
import { KvmError } from '../../lib/kvm/index.js'
import type { ErrnoName } from '../../lib/uapi.js'
import { FailingBackend, plausibleErrnos } from './failing-backend.js'
import type { Operation } from './operations.js'

/** Errnos that say something about this moment on this machine and nothing about KVM: no answer may be made of them. */
const accidents: ReadonlySet<ErrnoName> = new Set(['ENOMEM', 'EMFILE', 'ENFILE', 'EFAULT'])

interface Outcome {
  error?: unknown
  result?: unknown
}

async function outcomeOf(perform: () => unknown): Promise<Outcome> {
  try {
    return { result: await perform() }
  } catch (error) {
    return { error }
  }
}

/** A `KvmError`, or another error with a code that its documentation names. */
function isDocumented(error: unknown): boolean {
  if (error instanceof KvmError) return true
  return (
    error instanceof Error && 'code' in error && /^(ERR_KVM_[A-Z_]+|E[A-Z0-9]+)$/.test(String(error.code))
  )
}

function describeError(error: unknown): string {
  return error instanceof Error
    ? `${error.name}: ${error.message}\n${error.stack?.split('\n')[2] ?? ''}`
    : String(error)
}

/** `count` numbers below `total`, evenly spread, the first and the last among them; all where there are no more; of one, the middle. */
function spread(total: number, count: number): number[] {
  if (count === 1) return [total >> 1]
  if (total <= count) return Array.from({ length: total }, (_, index) => index)
  return Array.from({ length: count }, (_, index) => Math.round((index * (total - 1)) / (count - 1)))
}

export interface Problem {
  place: number
  method: string
  errno: ErrnoName
  what: string
}

/**
 * Performs the operation once for each place and errno.
 * @param all every errno that is plausible in a place, not one of them in turn
 * @param isBroken whether two results without an error differ in a way that hides an accident; the default compares them whole
 */
export async function failEveryPlace(
  target: () => Backend,
  { perform }: Operation,
  { samples, all }: { samples: number; all: boolean },
  reports: (faulty: unknown, sound: unknown) => boolean = isDeepStrictEqual,
): Promise<{ tried: number; problems: Problem[] }> {
  const sound = new FailingBackend(target())
  const expected = await perform(sound)
  assert.deepEqual(sound.left, [], 'handles are left open by an operation that does not fail')
  const problems: Problem[] = []
  let tried = 0
  const rejections: unknown[] = []
  const onRejection = (reason: unknown): number => rejections.push(reason)
  process.on('unhandledRejection', onRejection)
  try {
    for (const [turn, place] of spread(sound.methods.length, samples).entries()) {
      const method = sound.methods[place]!
      const plausible = plausibleErrnos(method)
      for (const errno of all ? plausible : [plausible[turn % plausible.length]!]) {
        tried++
        const backend = new FailingBackend(target(), place, errno)
        const { error, result } = await outcomeOf(() => perform(backend))
        await setImmediate()
        const note = (what: string): number => problems.push({ place, method, errno, what })
        if (error !== undefined && !isDocumented(error)) note(`throws ${describeError(error)}`)
        if (error === undefined && accidents.has(errno) && !reports(result, expected)) {
          note('passes over the accident with another result')
        }
        if (backend.left.length > 0) note(`leaves ${backend.left.join(', ')}`)
        if (backend.unsettled > 0) note('leaves a run')
        if (rejections.length > 0) note(`rejects: ${describeError(rejections.pop())}`)
      }
    }
  } finally {
    process.off('unhandledRejection', onRejection)
  }
  return { tried, problems }
}
