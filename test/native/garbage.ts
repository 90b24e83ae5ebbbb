/** Collects garbage on request. */
import { setImmediate } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

/** Collects garbage, and lets finalizers run, until `done`; false when it is not after many rounds. */
export async function collectUntil(done: () => boolean): Promise<boolean> {
  for (let round = 0; round < 20; round++) {
    // On a turn of its own: what a WeakRef has given out lives until the end of that turn.
    await setImmediate()
    gc()
    await setImmediate()
    if (done()) return true
  }
  return false
}
