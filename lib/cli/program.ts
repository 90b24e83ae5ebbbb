/** The tree of commands; the command line, completion and the man page are made from it. */
import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import { printableLines } from '../documents/printable.js'
import { packageRoot } from '../package-root.js'
import { exitStatus } from './exit.js'
import { paint } from './output.js'

const help = `
Examples:
  kvm-arm64 probe                 show what this host's KVM offers its guests
                                  (those of a simulated host if there is no KVM)
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
  130 and 143 after Ctrl-C and SIGTERM; "lab run": the status of its command.

Environment:
  NO_COLOR               print no colours on a terminal
  FORCE_COLOR            print colours in a pipe too
  KVM_ARM64_DEBUG        print the stack of an error
  KVM_ARM64_LAB_MIRROR   Debian mirror that "lab" uses instead of this machine's
                         (http://…/debian)
  XDG_CACHE_HOME         where "lab" keeps kernels, and "fleet" predictions,
                         instead of ~/.cache`

interface CommandRow {
  readonly description: string
  /** Makes the command without its description. */
  readonly load: () => Promise<Command>
}

/** In the order of the help, which lists them without loading any: loading would take several times as long. */
const commands: Readonly<Record<string, CommandRow>> = {
  probe: {
    description:
      "report everything this host's arm64 KVM offers: registers, values, firmware bitmaps, behaviour",
    load: async () => (await import('./commands/probe.js')).probeCommand(),
  },
  show: {
    description: 'show a report, or a simulated host that comes with this package',
    load: async () => (await import('./commands/show.js')).showCommand(),
  },
  decode: {
    description: 'explain register ids, names and hypercall function ids',
    load: async () => (await import('./commands/decode.js')).decodeCommand(),
  },
  hosts: {
    description: 'list the simulated hosts that come with this package, recorded from real kernels',
    load: async () => (await import('./commands/hosts.js')).hostsCommand(),
  },
  baseline: {
    description: 'compute the most capable guest configuration that all given hosts can provide',
    load: async () => (await import('./commands/baseline.js')).baselineCommand(),
  },
  apply: {
    description:
      "write a baseline to a fresh VM on this machine's KVM, read it back, and list every bit refused",
    load: async () => (await import('./commands/apply.js')).applyCommand(),
  },
  fleet: {
    description:
      'read the reports of a fleet: which hosts are alike, which can exchange VMs, and what keeps the others apart',
    load: async () => (await import('./commands/fleet.js')).fleetCommand(),
  },
  collect: {
    description: 'write the files with which Ansible, Slurm, Prometheus or Kubernetes collects a fleet',
    load: async () => (await import('./commands/collect.js')).collectCommand(),
  },
  trace: {
    description: 'record, replay and invent sequences of KVM calls',
    load: async () => (await import('./commands/trace.js')).traceCommand(),
  },
  capture: {
    description: 'save the state of a VM as this host makes it, for `kvm-arm64 check`',
    load: async () => (await import('./commands/capture.js')).captureCommand(),
  },
  check: {
    description:
      'check whether a VM can move from one host to another, what stops it, and what would have prevented that',
    load: async () => (await import('./commands/check.js')).checkCommand(),
  },
  diff: {
    description: 'list what differs between two hosts, by field, without a verdict',
    load: async () => (await import('./commands/diff.js')).diffCommand(),
  },
  census: {
    description: 'run a small guest that makes every known hypercall, and list those that work',
    load: async () => (await import('./commands/census.js')).censusCommand(),
  },
  conformance: {
    description: 'check that KVM does what its documents promise and its in-tree selftests assert',
    load: async () => (await import('./commands/conformance.js')).conformanceCommand(),
  },
  export: {
    description: 'write files of other tools: CPU templates, options, labels, metrics',
    load: async () => (await import('./commands/export.js')).exportCommand(),
  },
  import: {
    description: 'convert a Firecracker fingerprint to a report, or a CPU template to a baseline',
    load: async () => (await import('./commands/import.js')).importCommand(),
  },
  boot: {
    description: "boot Linux in a small machine on this host's arm64 KVM",
    load: async () => (await import('./commands/boot.js')).bootCommand(),
  },
  lab: {
    description: 'boot a real arm64 kernel with KVM under QEMU, on any machine',
    load: async () => (await import('./commands/lab.js')).labCommand(),
  },
  doctor: {
    description: 'report what this machine can do: use KVM, load the addon, run the lab',
    load: async () => (await import('./commands/doctor.js')).doctorCommand(),
  },
  completion: {
    description: 'print a script with which a shell completes commands, options and values',
    load: async () => (await import('./commands/completion.js')).completionCommand(commandLine),
  },
}

export function isCommand(name: string): boolean {
  return Object.hasOwn(commands, name)
}

/** Returns the command line with all its commands. */
export function commandLine(): Promise<Command> {
  return program(Object.keys(commands))
}

/** Returns the command line; commands that are not `loaded` have only a name and a description. */
export async function program(loaded: readonly string[]): Promise<Command> {
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
  for (const [name, { description, load }] of Object.entries(commands)) {
    const command = loaded.includes(name) ? await load() : new Command(name)
    root.addCommand(command.description(description))
  }
  unite(root)
  return root
}

/** Makes every command, at any depth, end by an exception and format its messages alike. */
function unite(command: Command): void {
  command
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => write(printableLines(text.replace(/^error: /, 'kvm-arm64: '))),
    })
    .configureHelp({ styleTitle: (title) => paint('bold', title) })
  command.commands.forEach(unite)
}
