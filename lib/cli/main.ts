#!/usr/bin/env node
import { CommanderError } from 'commander'
import { CommandError, exitStatus, messageOf, statusOf } from './exit.js'
import { note } from './output.js'
import { isCommand, program } from './program.js'

/** If the reader of our output leaves early, as `head` does, that is not an error. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit()
  note(`standard output cannot be written (${error.code})`)
  process.exit(exitStatus.usage)
})

/** A message that cannot be printed does not change the command's result. */
process.stderr.on('error', () => undefined)

/** True unless the command that runs has no `--simulate`. */
let hasSimulate = true

try {
  const [first, second] = process.argv.slice(2).filter((word) => !word.startsWith('-'))
  // Commander prints its own help if there is no such command.
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
    // Commander has already printed the error; its exit status is 1 for every error.
    process.exitCode = error.exitCode === 0 ? exitStatus.done : exitStatus.usage
  } else {
    const stack = error instanceof Error ? error.stack : undefined
    note(process.env.KVM_ARM64_DEBUG && stack !== undefined ? stack : messageOf(error, hasSimulate))
    process.exitCode = statusOf(error)
  }
}
