import { Command, InvalidArgumentError, Option } from 'commander'
import { readState, type State } from '../../migration/state.js'
import { verdict } from '../../migration/verdict.js'
import type { JudgedMove, VerdictDocument } from '../../migration/verdict-document.js'
import { vmmNames, vmmRules } from '../../migration/vmm/names.js'
import type { VmmRules } from '../../migration/vmm/rules.js'
import { kernelBackend } from '../../kernel/index.js'
import { openKvm } from '../../kvm/index.js'
import { simulator } from '../../hosts/index.js'
import { CommandError, exitStatus } from '../exit.js'
import { hostNamed, probedReportOf, THIS } from '../host.js'
import { print, printJson } from '../output.js'
import { verdictText } from '../view/verdict.js'
import { freshState, type VmFlags, vmOptions } from '../vm.js'

interface Flags extends VmFlags {
  from?: string
  to: string
  state?: string
  vmm: VmmRules[]
  both?: boolean
  live?: boolean
  json?: boolean
}

/** `kvm-arm64 check`: whether a VM can move. */
export function checkCommand(): Command {
  const command = new Command('check')
    .description(
      'tell whether a VM can move from one host to another, what stops it, and what would have prevented that',
    )
    .option('--from <host>', 'where the VM is: a name of `kvm-arm64 hosts`, a report, or `this` machine')
    .requiredOption('--to <host>', 'where it is to go, likewise')
    .addOption(
      new Option(
        '--state <file>',
        'the state of the VM; without it, that of a VM as --from makes it',
      ).conflicts(['from', 'both', 'features', 'elect', 'psci']),
    )
    .addOption(
      new Option('--vmm <vmms>', `who moves it, separated by commas, or all: ${vmmNames().join(', ')}`)
        .argParser(parseVmms)
        .default([vmmRules('strict')], 'strict'),
    )
    .option('--both', 'also the way back, of a VM as --to makes it')
    .option('--live', 'restore on a VM of this machine’s real KVM, not of a simulated one; with --to this')
    .option('--json', 'print the verdicts as JSON')
  for (const option of vmOptions()) command.addOption(option)
  return command
    .addHelpText(
      'after',
      `
The state is restored on a VM of a simulation of the destination, by the very code that restores on real KVM, and the VM is closed
again. What is told is what was refused, what is missing, and what reads differently:

  refused                 the destination does not take the value
  missing at destination  it has no such register
  service lost            a hypercall service the guest may have discovered is gone
  reads differently       the destination takes the value and shows another
  silent default          the guest sees the destination's value, and no error says so
  notice                  different, and of no consequence

--features, --elect and --psci choose the VM that --from makes, and --both is about two such VMs: none of them goes with --state.

Exit status: 0 if the VM can move, by every VMM and every way asked for; 1 if not; 3 if there is no arm64 KVM for \`this\`.

Examples:
  kvm-arm64 check --from linux-7.2-max --to linux-6.1-max
  kvm-arm64 check --from a.json --to b.json --both
  kvm-arm64 check --from a.json --to b.json --elect pv-time --psci 1.0
  kvm-arm64 check --state vm.json --to this --live`,
    )
    .action(run)
}

function parseVmms(list: string): VmmRules[] {
  const names = list === 'all' ? vmmNames() : list.split(',').map((name) => name.trim())
  try {
    // One VMM may have several names.
    return [...new Map(names.map((name) => vmmRules(name)).map((rules) => [rules.name, rules])).values()]
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message)
  }
}

function run({ from, to, state: file, vmm, both, live, json, ...vm }: Flags): void {
  if (from === undefined && file === undefined) {
    throw new CommandError('--from or --state must say which VM is to move', exitStatus.usage)
  }
  if (live && to !== THIS) throw new CommandError('--live needs --to this', exitStatus.usage)
  const state = file === undefined ? freshState(hostNamed(from!), vm) : readState(file)
  const moves = judge(from ?? file!, to, state, vmm, live ?? false)
  if (both) moves.push(...judge(to, from!, freshState(hostNamed(to), vm), vmm, false))
  const document: VerdictDocument = { format: 'kvm-arm64/verdict', version: 1, moves }
  if (json) printJson(document)
  else print(verdictText(document))
  process.exitCode = moves.every(({ possible }) => possible) ? exitStatus.done : exitStatus.negative
}

function judge(
  from: string,
  to: string,
  state: State,
  vmms: readonly VmmRules[],
  live: boolean,
): JudgedMove[] {
  using kvm = openKvm(live ? kernelBackend : simulator(probedReportOf(to)))
  return vmms.map((rules) => ({
    from: { name: from },
    to: { name: to },
    restoredOn: live ? 'kernel' : 'simulation',
    ...verdict(state, kvm, rules),
  }))
}
