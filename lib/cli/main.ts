#!/usr/bin/env node
import { CommanderError } from 'commander'
import { CommandError, exitStatus, messageOf, statusOf } from './exit.js'
import { note } from './output.js'
import { isCommand, program } from './program.js'

/** The reader of our output may leave early, as `head` does: nothing is wrong then. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit()
  note(`standard output cannot be written (${error.code})`)
  process.exit(exitStatus.usage)
})

/** A message that cannot be told changes nothing of what the command did. */
process.stderr.on('error', () => undefined)

/** Unless the command that runs is found to have no `--simulate`. */
let hasSimulate = true

try {
  const [first, second] = process.argv.slice(2).filter((word) => !word.startsWith('-'))
  // Commander answers with its own help where there is no such command.
  const topic = first === 'help' && second !== 'help' ? second : undefined
  if (topic !== undefined && !isCommand(topic)) {
    throw new CommandError(`unknown command '${topic}'; kvm-arm64 --help lists them`, exitStatus.usage)
  }
  const named = topic ?? first
  const root = await program(named !== undefined && isCommand(named) ? [named] : [])
  root.hook('preAction', (_, { options }) => {
    hasSimulate = options.some(({ long }) => long === '--simulate')
  })
  await root.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has told already, and calls everything 1.
    process.exitCode = error.exitCode === 0 ? exitStatus.done : exitStatus.usage
  } else {
    const stack = error instanceof Error ? error.stack : undefined
    note(process.env.KVM_ARM64_DEBUG && stack !== undefined ? stack : messageOf(error, hasSimulate))
    process.exitCode = statusOf(error)
  }
}
