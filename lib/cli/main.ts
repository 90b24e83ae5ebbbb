#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { printableLines } from '../documents/printable.js'
import { packageRoot } from '../package-root.js'
import { CommandError, exitStatus, statusOf } from './exit.js'
import { note, paint } from './output.js'

const help = `
Examples:
  kvm-arm64 probe                                   see what this host's KVM offers (a simulated one where it has none)
  kvm-arm64 probe -o host.json                      write it down
  kvm-arm64 show host.json --register ID_AA64PFR0_EL1
  kvm-arm64 decode 0x6030000000160000
  kvm-arm64 check --from host.json --to other.json  tell whether a VM can move, and what stops it
  kvm-arm64 lab run --kernel 6.12 -- kvm-arm64 probe
                                                    the same on a real arm64 kernel, on any machine

Exit status:
  ${exitStatus.done}   done
  ${exitStatus.negative}   the answer is no: the VM cannot move, the host has no such register
  ${exitStatus.usage}   wrong arguments, or a file that cannot be read, understood or written
  ${exitStatus.machine}   this machine cannot: no arm64 KVM, no permission, something is not installed
  ${exitStatus.fault}  a fault in kvm-arm64
  "lab run" ends with the status of the command it ran.

Environment:
  NO_COLOR               no colours, also on a terminal
  KVM_ARM64_DEBUG        show where an error comes from
  KVM_ARM64_LAB_MIRROR   the Debian mirror of "lab", in place of this machine's (http://…/debian)
  XDG_CACHE_HOME         where "lab" keeps kernels, in place of ~/.cache`

/** In the order of the help. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  probe: async () => (await import('./commands/probe.js')).probeCommand(),
  show: async () => (await import('./commands/show.js')).showCommand(),
  decode: async () => (await import('./commands/decode.js')).decodeCommand(),
  hosts: async () => (await import('./commands/hosts.js')).hostsCommand(),
  baseline: async () => (await import('./commands/baseline.js')).baselineCommand(),
  apply: async () => (await import('./commands/apply.js')).applyCommand(),
  fleet: async () => (await import('./commands/fleet.js')).fleetCommand(),
  trace: async () => (await import('./commands/trace.js')).traceCommand(),
  capture: async () => (await import('./commands/capture.js')).captureCommand(),
  check: async () => (await import('./commands/check.js')).checkCommand(),
  diff: async () => (await import('./commands/diff.js')).diffCommand(),
  census: async () => (await import('./commands/census.js')).censusCommand(),
  conformance: async () => (await import('./commands/conformance.js')).conformanceCommand(),
  export: async () => (await import('./commands/export.js')).exportCommand(),
  import: async () => (await import('./commands/import.js')).importCommand(),
  lab: async () => (await import('./commands/lab.js')).labCommand(),
}

async function program(): Promise<Command> {
  const { version } = JSON.parse(readFileSync(new URL('package.json', packageRoot), 'utf8')) as {
    version: string
  }
  const root = new Command('kvm-arm64')
    .description(
      'The arm64 KVM interface, real or simulated: what a host offers its guests, register by register.',
    )
    .version(version)
    .enablePositionalOptions()
    .addHelpText('after', help)
  // A command that is named is all that is loaded: the others would more than double the time to start.
  const named = Object.hasOwn(commands, process.argv[2] ?? '') ? [process.argv[2]!] : Object.keys(commands)
  for (const name of named) root.addCommand(await commands[name]!())
  // Commander answers it with its own help where there is no such command.
  const asked = process.argv[2] === 'help' ? process.argv[3] : undefined
  if (asked !== undefined && !asked.startsWith('-') && asked !== 'help' && !Object.hasOwn(commands, asked)) {
    throw new CommandError(`unknown command '${asked}'; kvm-arm64 --help lists them`, exitStatus.usage)
  }
  unite(root)
  return root
}

/** Every command, however deep, ends by an exception and speaks alike. */
function unite(command: Command): void {
  command
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => write(printableLines(text.replace(/^error: /, 'kvm-arm64: '))),
    })
    .configureHelp({ styleTitle: (title) => paint('bold', title) })
  command.commands.forEach(unite)
}

/** The reader of our output may leave early, as `head` does: nothing is wrong then. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit()
  note(`standard output cannot be written (${error.code})`)
  process.exit(exitStatus.usage)
})

/** A message that cannot be told changes nothing of what the command did. */
process.stderr.on('error', () => undefined)

try {
  await (await program()).parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has told already, and calls everything 1.
    process.exitCode = error.exitCode === 0 ? exitStatus.done : exitStatus.usage
  } else {
    const { message, stack } = error instanceof Error ? error : new Error(String(error))
    note(process.env.KVM_ARM64_DEBUG ? (stack ?? message) : message)
    process.exitCode = statusOf(error)
  }
}
