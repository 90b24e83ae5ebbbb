/** Runs a command of the command line. */
import { CommanderError } from 'commander'
import { CommandError, exitStatus } from './exit.js'
import { reportError } from './output.js'
import { isCommand, program } from './program.js'

/** Runs the command that these words are, and sets the exit status. */
export async function run(words: readonly string[]): Promise<void> {
  /** True unless the command that runs has no `--simulate`. */
  let hasSimulate = true
  try {
    const [first, second] = words.filter((word) => !word.startsWith('-'))
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
    await root.parseAsync(words, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) reportError(error, hasSimulate)
    // Commander has already printed the error; its exit status is 1 for every error.
    else process.exitCode = error.exitCode === 0 ? exitStatus.done : exitStatus.usage
  }
}
