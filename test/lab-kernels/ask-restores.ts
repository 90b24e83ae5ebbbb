/** Runs inside a real kernel: restores the states given on standard input and prints what became of their registers. */
import { readFileSync } from 'node:fs'
import type { State } from '../../lib/migration/state.js'
import { kernelBackend } from '../../lib/kernel/index.js'
import { restoreAll } from './restores.js'

process.stdout.write(
  JSON.stringify(restoreAll(kernelBackend, JSON.parse(readFileSync(0, 'utf8')) as State[])),
)
