import { Command, InvalidArgumentError, Option } from 'commander'
import { asText } from '../../documents/entries.js'
import { readState, type State } from '../../migration/state.js'
import { verdict } from '../../migration/verdict.js'
import type { JudgedMove, MoveEnd, VerdictDocument } from '../../migration/verdict-document.js'
import { vmmNames, vmmRules } from '../../migration/vmm/names.js'
import type { VmmRules } from '../../migration/vmm/rules.js'
import { kernelBackend } from '../../kernel/index.js'
import { openKvm } from '../../kvm/index.js'
import { simulator } from '../../hosts/index.js'
import { CommandError, exitStatus } from '../exit.js'
import { hostNamed, probedReportOf, reportOf, THIS } from '../host.js'
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

/** `kvm-arm64 check`: check whether a VM can move. */
export function checkCommand(): Command {
  const command = new Command('check')
    .option('--from <host>', 'where the VM is: a name of `kvm-arm64 hosts`, a report, or `this` machine')
    .requiredOption('--to <host>', 'where it should go, likewise')
    .addOption(
      new Option(
        '--state <file>',
        'the state of the VM, as `capture` writes it; without it, the state of a fresh VM of --from',
      ).conflicts(['from', 'both', 'features', 'elect', 'psci']),
    )
    .addOption(
      new Option(
        '--vmm <vmms>',
        `the VMMs that move it, separated by commas, or all: ${vmmNames().join(', ')}`,
      )
        .argParser(parseVmms)
        .default([vmmRules('strict')], 'strict'),
    )
    .option('--both', 'check the way back as well, for a fresh VM of --to')
    .option('--live', 'restore on this machine’s real KVM, not on a simulation; needs --to this')
    .option('--json', 'print the verdict as JSON (kvm-arm64/verdict.schema.json)')
  for (const option of vmOptions()) command.addOption(option)
  return command
    .addHelpText(
      'after',
      `
check restores the state on a VM of a simulated destination, by the same code
that restores on real KVM, and closes the VM again. It reports what the
destination refuses, what it lacks, and what reads differently:

  refused                 the destination refuses the value
  missing at destination  the destination has no such register
  service lost            a hypercall service that the guest may have discovered
                          is gone
  reads differently       the destination accepts the value and shows another
  silent default          the guest sees the destination's value, and no error
                          reports it
  notice                  different, without consequence for the guest

docs/findings.md explains each code of the JSON. --features, --elect and --psci
describe the fresh VM of --from, and with --both that of --to; they do not go
with --state.

Exit status: 0 if every move that was asked for is possible; 1 if not; 3 if
there is no arm64 KVM for \`this\`.

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

function run({ from, to, state: file, vmm, both, live, json, ...vmFlags }: Flags): void {
  if (from === undefined && file === undefined) {
    throw new CommandError('--from or --state must say which VM is to move', exitStatus.usage)
  }
  if (live && to !== THIS) throw new CommandError('--live needs --to this', exitStatus.usage)
  const state = file === undefined ? freshState(hostNamed(from!), vmFlags) : readState(file)
  const source = file === undefined ? endOf(from!) : endOfState(file, state)
  const destination = endOf(to)
  const moves = judge({ from: source, to: destination, state, vmms: vmm, live: live ?? false })
  if (both) {
    const back = freshState(hostNamed(to), vmFlags)
    moves.push(...judge({ from: destination, to: source, state: back, vmms: vmm, live: false }))
  }
  const document: VerdictDocument = { format: 'kvm-arm64/verdict', version: 1, moves }
  if (json) printJson(document)
  else print(verdictText(document))
  process.exitCode = moves.every(({ possible }) => possible) ? exitStatus.done : exitStatus.negative
}

interface End extends MoveEnd {
  /** The host's name on the command line. */
  host: string
}

function endOf(host: string): End {
  return { host, name: asText(host), origin: host === THIS ? { kind: 'kernel' } : reportOf(host).origin }
}

function endOfState(file: string, { origin = { kind: 'unknown' } }: State): End {
  return { host: file, name: asText(file), origin }
}

interface Question {
  from: End
  to: End
  state: State
  vmms: readonly VmmRules[]
  live: boolean
}

function judge({ from, to, state, vmms, live }: Question): JudgedMove[] {
  using kvm = openKvm(live ? kernelBackend : simulator(probedReportOf(to.host)))
  return vmms.map((rules) => ({
    from: { name: from.name, origin: from.origin },
    to: { name: to.name, origin: to.origin },
    restoredOn: live ? 'kernel' : 'simulation',
    ...verdict(state, kvm, rules),
  }))
}
