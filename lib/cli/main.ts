#!/usr/bin/env node
import { exitStatus } from './exit.js'
import { note } from './output.js'

/** If the reader of our output leaves early, as `head` does, that is not an error. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit()
  note(`standard output cannot be written (${error.code})`)
  process.exit(exitStatus.usage)
})

/** A message that cannot be printed does not change the command's result. */
process.stderr.on('error', () => undefined)

const words = process.argv.slice(2)
// Schedulers start this for each move: loading the other commands, and Commander, would take longer than the answer.
if (isGateCall(words)) (await import('./commands/check/gate.js')).answerGate(words.slice(1))
else await (await import('./run.js')).run(words)

/** Returns whether these words are `check` with an option of the gate, and without one for help. */
function isGateCall([command, ...options]: readonly string[]): boolean {
  if (command !== 'check' || options.includes('--help') || options.includes('-h')) return false
  return options.some((word) => /^--(class|fleet)(=|$)/.test(word))
}
