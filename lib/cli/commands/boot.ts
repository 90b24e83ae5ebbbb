import { Command, Option } from 'commander'
import { readBaseline } from '../../fleet/baseline/format.js'
import { bootMachine, type DiskOptions, type MachineEnd } from '../../machine/index.js'
import { CommandError, exitStatus } from '../exit.js'
import { note } from '../output.js'
import { connectTerminal } from '../terminal.js'
import { wholeNumber } from '../number.js'

/** As `lab run` and `timeout` have it. */
const timedOut = 124

interface Flags {
  kernel: string
  initrd?: string
  append: string
  smp: number
  memory: number
  disk: DiskOptions[]
  console: 'serial' | 'virtio'
  baseline?: string
  reboot: boolean
  timeout?: number
}

/** `kvm-arm64 boot`: boot Linux in a small machine on this host's KVM. */
export function bootCommand(): Command {
  return new Command('boot')
    .requiredOption('--kernel <file>', 'an arm64 Image; also packed with gzip, or as EFI zboot image')
    .option('--initrd <file>', 'the initial root')
    .addOption(
      new Option('--append <arguments>', "added to the kernel's command line").default('', 'nothing'),
    )
    .option('--smp <count>', 'number of vCPUs', wholeNumber(1, 126), 1)
    .option('--memory <MiB>', 'memory', wholeNumber(2, 1_000_000), 256)
    .addOption(
      new Option('--disk <file>', 'a disk, /dev/vda and so on (repeatable); FILE,readonly to protect it')
        .argParser(addDisk)
        .default([], 'none'),
    )
    .addOption(
      new Option('--console <device>', "the guest's console: ttyS0 or hvc0")
        .choices(['serial', 'virtio'])
        .default('serial'),
    )
    .option('--baseline <file>', 'configure the VM by a baseline, so that it can move to other hosts')
    .option('--no-reboot', 'end when the guest restarts')
    .option('--timeout <seconds>', 'end the machine after that time', wholeNumber(1, 1_000_000))
    .addHelpText(
      'after',
      `
The console is this terminal: every key goes to the guest, Ctrl-C too; Ctrl-]
ends the machine. From a pipe all input goes to the guest, and its end changes
nothing. The machine has a serial port, a source of random numbers and disks
(virtio-mmio), and no network. It is made for tests: see docs/machine.md.

Exit status: 0 when the guest switched off, when it restarted with --no-reboot
and after Ctrl-]; 1 when it crashed or did what KVM cannot continue from; 2 for
files that cannot be used; 3 without arm64 KVM; ${timedOut} when the time ran out.

Examples:
  kvm-arm64 boot --kernel Image --initrd initrd.cpio --append quiet
  kvm-arm64 boot --kernel Image --disk root.img --append root=/dev/vda --smp 2
  kvm-arm64 baseline a.json b.json --features psci-0.2 -o both.json
  kvm-arm64 boot --kernel Image --baseline both.json
  kvm-arm64 lab run --kernel 6.12 -- kvm-arm64 boot --kernel Image`,
    )
    .action(run)
}

async function run({ disk, timeout, baseline, ...options }: Flags): Promise<void> {
  if (options.memory % 2 !== 0) {
    throw new CommandError('--memory must be an even number of MiB', exitStatus.usage)
  }
  const elected = baseline === undefined ? {} : { baseline: readBaseline(baseline) }
  const machine = bootMachine({ ...options, ...elected, disks: disk })
  let isOver = false
  const timer =
    timeout === undefined
      ? undefined
      : setTimeout(() => ((isOver = true), void machine.close()), timeout * 1000)
  if (process.stdin.isTTY) note('Ctrl-] ends the machine')
  const disconnect = connectTerminal(machine.console, {
    input: process.stdin,
    output: process.stdout,
    quit: () => void machine.close(),
  })
  let end: MachineEnd
  try {
    end = await machine.ended
  } finally {
    clearTimeout(timer)
    disconnect()
  }
  if (isOver) throw new CommandError(`the machine did not end within ${timeout} s`, timedOut)
  if (end === 'crash') throw new CommandError('the guest reported that it crashed', exitStatus.negative)
}

function addDisk(text: string, before: DiskOptions[]): DiskOptions[] {
  const content = text.replace(/,readonly$/, '')
  return [...before, { content, readonly: content !== text }]
}
