/** The tree of commands, from which the command line runs and completion and man page are made. */
import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import { printableLines } from '../documents/printable.js'
import { packageRoot } from '../package-root.js'
import { exitStatus } from './exit.js'
import { paint } from './output.js'

const help = `
Examples:
  kvm-arm64 probe                 show what this host's KVM offers its guests
                                  (without arm64 KVM, of a simulated host)
  kvm-arm64 probe -o host.json    write a report of it
  kvm-arm64 show host.json --register ID_AA64PFR0_EL1
  kvm-arm64 decode 0x6030000000160000
  kvm-arm64 check --from host.json --to other.json
                                  whether a VM can move, and what stops it
  kvm-arm64 lab run --kernel 6.12 -- kvm-arm64 probe
                                  the same on a real arm64 kernel, anywhere

Exit status:
  ${exitStatus.done}   done
  ${exitStatus.negative}   the answer is no: the VM cannot move, the host has no such register
  ${exitStatus.usage}   wrong arguments, or a file that cannot be read, parsed or written
  ${exitStatus.machine}   this machine cannot do it: no arm64 KVM, no permission, a program
      is not installed
  ${exitStatus.fault}  a fault in kvm-arm64
  130 and 143 after Ctrl-C and SIGTERM; "lab run" exits as the command it ran.

Environment:
  NO_COLOR               print no colours on a terminal
  FORCE_COLOR            print colours in a pipe too
  KVM_ARM64_DEBUG        print the stack of an error
  KVM_ARM64_LAB_MIRROR   Debian mirror that "lab" uses instead of this machine's
                         (http://…/debian)
  XDG_CACHE_HOME         where "lab" keeps kernels, instead of ~/.cache`

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
  doctor: async () => (await import('./commands/doctor.js')).doctorCommand(),
  completion: async () => (await import('./commands/completion.js')).completionCommand(() => program()),
}

export function isCommand(name: string): boolean {
  return Object.hasOwn(commands, name)
}

/**
 * The command line.
 * @param only load this command alone: loading the others would more than double the time to start
 */
export async function program(only?: string): Promise<Command> {
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
  for (const name of only === undefined ? Object.keys(commands) : [only]) {
    root.addCommand(await commands[name]!())
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
