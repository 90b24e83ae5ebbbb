import { statSync } from 'node:fs'
import { constants } from 'node:os'
import { isAbsolute, relative } from 'node:path'
import { Command, Option } from 'commander'
import {
  bootLab,
  fetchKernels,
  hasArm64Addon,
  howToBuildArm64Addon,
  inspectSetup,
  installPackages,
  type LabGic,
  labGics,
  LabError,
  type LabKernel,
  type LabPages,
  labPages,
  listKernels,
} from '../../lab/index.js'
import { CommandError, exitStatus } from '../exit.js'
import { interruptible } from '../interruptible.js'
import { note, print, printJson } from '../output.js'
import { table } from '../view/table.js'
import { wholeNumber } from '../number.js'

/** Exit statuses of `lab run` that belong to the lab itself, chosen as `timeout` and container runners choose theirs. */
const timedOut = 124
const labFailed = 125

/** `kvm-arm64 lab`: run real arm64 KVM on any machine. */
export function labCommand(): Command {
  const lab = new Command('lab').enablePositionalOptions().addHelpText(
    'after',
    `
Examples:
  kvm-arm64 lab setup
  kvm-arm64 lab kernels
  kvm-arm64 lab run --kernel 6.12 -- kvm-arm64 probe`,
  )
  lab.addCommand(runCommand())
  lab.addCommand(kernelsCommand())
  lab.addCommand(setupCommand())
  return lab
}

interface RunFlags {
  kernel: string
  image?: string
  pages?: LabPages
  qemu?: string
  cpu: string
  gic: LabGic
  mte?: boolean
  smp: number
  memory: number
  append: string
  timeout: number
  copy: string[]
}

function runCommand(): Command {
  return new Command('run')
    .description('run a command in a machine with arm64 KVM, with Node and this package inside')
    .argument('<command...>', 'the command and its arguments')
    .option('--kernel <kernel>', 'a Debian kernel: a series or a release of `lab kernels`', '6.12')
    .option('--image <file>', "a kernel image to boot instead of Debian's")
    .addOption(new Option('--pages <size>', "the kernel's page size").choices(labPages))
    .option('--qemu <version>', 'a QEMU of Debian, such as 11.1, instead of the installed one')
    .option('--cpu <model>', 'a CPU model of QEMU', 'neoverse-n1')
    .addOption(new Option('--gic <version>', 'interrupt controller').choices(labGics).default('3'))
    .option('--mte', 'give memory tags (MTE), on a CPU that has them')
    .option('--smp <count>', 'number of CPUs', wholeNumber(1, 512), 2)
    .option('--memory <MiB>', 'memory', wholeNumber(1, 1_000_000), 1024)
    .addOption(
      new Option('--append <arguments>', "added to the kernel's command line").default('', 'nothing'),
    )
    .option(
      '--timeout <seconds>',
      'stop the machine if boot and command take longer',
      wholeNumber(1, 1_000_000),
      600,
    )
    .addOption(
      new Option('--copy <path>', 'copy a file or directory into the machine (repeatable)')
        .argParser(append)
        .default([], 'none'),
    )
    .passThroughOptions()
    .addHelpText(
      'after',
      `
Inside, the command starts in /lab. A file or directory given with --copy keeps
its relative path if it lies below the current directory, and otherwise goes
under its own name. Files below the current directory that the command names as
arguments are copied too. There is no network; only stdout and stderr come back.

Exit status: the command's own (128 + n if signal n ended it, 127 if there is no
such command); ${timedOut} when the time ran out, ${labFailed} when the lab itself failed,
128 + n when signal n interrupted the lab.

The CPU "max" boots much faster as "max,pauth-impdef=on": only the algorithm of
pointer authentication differs. On "max", QEMU 7.2 sometimes breaks code that V8
compiled; "node --jitless" compiles none.

With --qemu 11.1, the lab fetches that QEMU through apt as it does kernels. It
offers neoverse-v1, neoverse-n2, cortex-a710, and a "max" on which guests may
have EL2 (--append kvm-arm.mode=nested).

Examples:
  kvm-arm64 lab run --kernel 6.12 -- node script.mjs
  kvm-arm64 lab run --qemu 11.1 --cpu neoverse-v1 -- kvm-arm64 probe
  kvm-arm64 lab run --append kvm-arm.mode=protected -- kvm-arm64 probe`,
    )
    .action(run)
}

async function run(command: string[], { kernel, image, timeout, copy, ...machine }: RunFlags): Promise<void> {
  if (!hasArm64Addon()) {
    note(`this package has no addon for arm64 Linux, so it cannot reach KVM inside; ${howToBuildArm64Addon}`)
  }
  const deadline = performance.now() + timeout * 1000
  const left = () => Math.max(1, (deadline - performance.now()) / 1000)
  // If the reader of our output leaves, the command line ends, and QEMU with it, as any program does.
  process.stdout.prependListener('error', () => (process.exitCode = 128 + constants.signals.SIGPIPE))
  await interruptible(async (signal) => {
    await using lab = await bootLab({
      ...machine,
      ...(image === undefined ? { kernel } : { image }),
      copy: [...copy, ...command.filter(namesFileBelow)],
      timeout,
      signal,
      ...progress(),
    })
    try {
      const streams = { stdin: process.stdin, stdout: process.stdout, stderr: process.stderr }
      const { status } = await lab.run(command, { ...streams, timeout: left() })
      process.exitCode = status
    } finally {
      // A terminal or pipe that is still open would keep the process waiting for input that nobody reads.
      process.stdin.destroy()
    }
  }).catch(labFault)
}

/** Keeps the lab's own failures distinct from the statuses of the command. */
function labFault(error: unknown): never {
  if (!(error instanceof LabError)) throw error
  const log = error.console && `\nThe last lines of its console:\n${error.console}`
  throw new CommandError(error.message + log, error.code === 'ERR_LAB_TIMEOUT' ? timedOut : labFailed)
}

function kernelsCommand(): Command {
  return new Command('kernels')
    .description('list the kernels that are cached or can be downloaded')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Examples:
  kvm-arm64 lab kernels
  kvm-arm64 lab kernels --json`,
    )
    .action(async ({ json }: { json?: boolean }) => {
      await interruptible(async (signal) => {
        const kernels = await listKernels({ signal, ...progress() })
        if (json) printJson(kernels)
        else print(kernelTable(kernels))
      })
    })
}

function kernelTable(kernels: LabKernel[]): string {
  return table(
    ['series', 'release', 'suite', ''],
    kernels.map(({ series, release, suite, cached }) => [series, release, suite, cached ? 'cached' : '']),
  )
}

function setupCommand(): Command {
  return new Command('setup')
    .description('install what the lab needs on this machine (with apt, as root or by sudo)')
    .addOption(
      new Option('--kernel <kernel>', 'also download this kernel and what it needs to boot (repeatable)')
        .argParser(append)
        .default([], 'none'),
    )
    .addHelpText(
      'after',
      `
Exit status: 2 for an unknown kernel; 3 if something is missing that this user
may not install: the command that installs it is then printed.

Examples:
  kvm-arm64 lab setup
  kvm-arm64 lab setup --kernel 6.12 --kernel 6.1`,
    )
    .action(async ({ kernel: kernels }: { kernel: string[] }) => {
      await interruptible(async (signal) => {
        const { missing, command, allowed } = await inspectSetup()
        if (command) {
          if (!allowed) {
            print(command)
            throw new CommandError(
              `missing: ${missing.join(', ')}; run the command above as root`,
              exitStatus.machine,
            )
          }
          const status = await installPackages(command)
          if (status !== 0) throw new LabError('ERR_LAB_TOOL', `installing failed (${status}): ${command}`)
        }
        await fetchKernels(kernels, { signal, ...progress() })
        note('the lab is ready')
      })
    })
}

/** Announces long work only on a terminal. */
function progress(): { progress?: (message: string) => void } {
  if (!process.stderr.isTTY) return {}
  return { progress: note }
}

function namesFileBelow(argument: string): boolean {
  if (isAbsolute(argument) || relative('.', argument).startsWith('..')) return false
  return statSync(argument, { throwIfNoEntry: false })?.isFile() ?? false
}

function append(path: string, before: string[]): string[] {
  return [...before, path]
}
