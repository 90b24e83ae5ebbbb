/** Run once before the tests, so that no two of them install at the same time. */
import { ensurePrograms, programs } from './debian.js'

await ensurePrograms(programs)
