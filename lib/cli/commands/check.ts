import { Command, InvalidArgumentError, Option } from 'commander'
import { asText } from '../../documents/entries.js'
import { readState, type State } from '../../migration/state.js'
import { verdict } from '../../migration/verdict.js'
import type { JudgedMove, MoveEnd, VerdictDocument } from '../../migration/verdict-document.js'
import { factsOfKvm, factsOfReport } from '../../migration/vmm/facts.js'
import { type HostFacts, type VmmRules, type VmmVm, vmOn } from '../../migration/vmm/rules.js'
import { encodeRegister } from '../../registers/index.js'
import { kernelBackend } from '../../kernel/index.js'
import { type Kvm, openKvm } from '../../kvm/index.js'
import { simulator } from '../../hosts/index.js'
import type { VcpuFeature } from '../../uapi.js'
import { CommandError, exitStatus } from '../exit.js'
import { hostNamed, probedReportOf, refuseUnknown, THIS } from '../host.js'
import { verdictPage } from '../fleet-page/fleet-page.js'
import {
  checkOutput,
  isStandardOutput,
  print,
  printJson,
  refuseTwoDocuments,
  writeOutput,
} from '../output.js'
import { verdictText } from '../view/verdict.js'
import { chosenFeatures, freshState, parseFeatures, type VmFlags, vmmsOption, vmOptions } from '../vm.js'

interface Flags extends VmFlags {
  from?: string
  to: string
  featuresTo?: VcpuFeature[]
  state?: string[]
  dropRegisters?: bigint[]
  vmm: VmmRules[]
  both?: boolean
  live?: boolean
  html?: string
  json?: boolean
}

/** `kvm-arm64 check`: check whether a VM can move. */
export function checkCommand(): Command {
  const command = new Command('check')
    .option('--from <host>', 'where the VM is: a name of `kvm-arm64 hosts`, a report, or `this` machine')
    .requiredOption('--to <host>', 'where it should go, likewise')
    .addOption(
      new Option(
        '--state <files...>',
        'states of VMs, as `capture` writes them; without it, the state of a fresh VM of --from',
      ).conflicts(['from', 'both', 'features', 'elect', 'psci', 'baseline']),
    )
    .option(
      '--drop-registers <registers>',
      'remove registers from the state first, separated by commas: names or ids',
      parseRegisters,
    )
    .addOption(vmmsOption('the VMMs that move it'))
    .option('--both', 'check the way back as well, for a fresh VM of --to')
    .option('--live', 'restore on this machine’s real KVM, not on a simulation; needs --to this')
    .option('--html <file>', 'write a page with the reasons')
    .option('--json', 'print the verdict as JSON (kvm-arm64/verdict.schema.json)')
  for (const option of vmOptions()) command.addOption(option)
  command.addOption(
    new Option(
      '--features-to <features>',
      'vCPU features of the VM the VMM makes on the destination, likewise; without it, as --features',
    ).argParser(parseFeatures),
  )
  // For the help only: with one of these, main.ts runs check/gate.ts instead.
  command
    .option(
      '--class <class>',
      'with --fleet, given twice: where the VM is, and where it should go: a class, the first of its digits, or a host in it',
    )
    .option('--fleet <file>', 'look the move up in this file, as `fleet --json` prints it')
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
  guest broken            the restore succeeds, and the guest cannot go on
  reads differently       the destination accepts the value and shows another
  silent default          the guest sees the destination's value, and no error
                          reports it
  notice                  different, without consequence for the guest

docs/findings.md explains each code of the JSON.

The fresh VM of --from, and with --both that of --to, is as the VMM makes it on
that host; --features, --elect, --psci and --baseline change it. A VMM that
restores into a VM of its own, as QEMU does, gives that VM what the destination
has. What a report does not say is counted as unknown.

With --class twice and --fleet, check restores nothing: it looks the move up in
a fleet, which takes milliseconds. It then accepts --both and --json (the format
kvm-arm64/gate) and no other option. If the answer depends on facts that no
report records, it lists them.

Exit status: 0 if the move is possible, with --both also the way back, and with
several states or VMMs every move; 1 if not; 3 if there is no arm64 KVM for
\`this\`.

Examples:
  kvm-arm64 check --from linux-7.2-max --to linux-6.1-max
  kvm-arm64 check --from a.json --to b.json --both
  kvm-arm64 check --from a.json --to b.json --vmm all --html verdict.html
  kvm-arm64 check --from a.json --to b.json --elect pv-time --psci 1.0
  kvm-arm64 check --from a.json --to b.json --vmm qemu --features-to none
  kvm-arm64 check --from a.json --to b.json --baseline template.json
  kvm-arm64 check --state vm.json --to this --live
  kvm-arm64 check --class 3f2a --class node-17 --fleet fleet.json --both`,
    )
    .action(run)
}

function parseRegisters(list: string): bigint[] {
  try {
    return list.split(',').map((name) => encodeRegister(name.trim()))
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message)
  }
}

function run(flags: Flags): void {
  const {
    from,
    to,
    state: files = [],
    vmm,
    both,
    live,
    html,
    json,
    featuresTo,
    dropRegisters = [],
    ...vm
  } = flags
  refuseTwoDocuments('--html', html, json)
  checkOutput(html)
  if (from === undefined && files.length === 0) {
    throw new CommandError('name the VM to move with --from or --state', exitStatus.usage)
  }
  if (live && to !== THIS) throw new CommandError('--live needs --to this', exitStatus.usage)
  const fixed = featuresTo && vmm.find(({ restoresInto }) => restoresInto === 'saved')
  if (fixed) {
    throw new CommandError(
      `--features-to does not apply to ${fixed.name}, which restores with the features of the state`,
      exitStatus.usage,
    )
  }
  const chosen = chosenFeatures(vm)
  const features = { source: chosen, destination: featuresTo ?? chosen }
  using destination = new Place(to, live ?? false)
  const without = (state: State): State => withoutRegisters(state, dropRegisters)
  const moves: JudgedMove[] = files.flatMap((file) => {
    const state = readState(file)
    const { origin = { kind: 'unknown' } } = state
    const options = { end: { name: asText(file), origin }, features: features.destination }
    return vmm.map((rules) => destination.judge(without(state), rules, options))
  })
  if (from !== undefined) {
    using source = new Place(from, false)
    const judge = (one: Place, other: Place): JudgedMove[] =>
      vmm.map((rules) => {
        const made = vmOn(rules, one.facts, features.source)
        const state = without(freshState(hostNamed(one.name), { ...vm, features: made.features }))
        const options = { end: one.end, source: made, sourceKvm: one.kvm, features: features.destination }
        return other.judge(state, rules, options)
      })
    moves.push(...judge(source, destination))
    if (both) {
      using back = live ? new Place(to, false) : undefined
      moves.push(...judge(back ?? destination, source))
    }
  }
  const document: VerdictDocument = { format: 'kvm-arm64/verdict', version: 1, moves }
  if (json) printJson(document)
  else if (!isStandardOutput(html)) print(verdictText(document))
  if (html !== undefined) {
    const { from: start, to: end } = moves[0]!
    writeOutput(html, verdictPage(document, `${start.name} → ${end.name}`))
  }
  process.exitCode = moves.every(({ possible }) => possible) ? exitStatus.done : exitStatus.negative
}

function withoutRegisters(state: State, ids: readonly bigint[]): State {
  if (ids.length === 0) return state
  return {
    ...state,
    vcpus: state.vcpus.map((vcpu) => ({
      ...vcpu,
      registers: vcpu.registers.filter(({ id }) => !ids.includes(BigInt(id))),
    })),
  }
}

/** One end of a move. */
class Place {
  /** The host's name on the command line. */
  readonly name: string
  readonly end: MoveEnd
  readonly kvm: Kvm
  readonly facts: HostFacts
  readonly #live: boolean
  readonly #unknownFeatures: readonly VcpuFeature[]

  constructor(name: string, live: boolean) {
    this.name = name
    this.#live = live
    if (live) {
      this.kvm = openKvm(kernelBackend)
      this.facts = factsOfKvm(this.kvm)
      this.#unknownFeatures = []
      this.end = { name: asText(name), origin: { kind: 'kernel' } }
    } else {
      const report = probedReportOf(name)
      this.kvm = openKvm(simulator(report))
      this.facts = factsOfReport(report)
      this.#unknownFeatures = report.traits.init.unknown ?? []
      this.end = { name: asText(name), origin: name === THIS ? { kind: 'kernel' } : report.origin }
    }
  }

  /** Judges whether a VM can come here. */
  judge(state: State, rules: VmmRules, { end, features, source, sourceKvm }: Arrival): JudgedMove {
    const chosen = rules.restoresInto === 'own' ? features : state.vcpus[0]!.features
    refuseUnknown({ label: this.name, unknownFeatures: this.#unknownFeatures }, chosen ?? [])
    return {
      from: end,
      to: this.end,
      restoredOn: this.#live ? 'kernel' : 'simulation',
      ...verdict(state, this.kvm, rules, {
        destination: vmOn(rules, this.facts, features),
        ...(source && { source }),
        ...(sourceKvm && { sourceKvm }),
      }),
    }
  }

  [Symbol.dispose](): void {
    this.kvm.close()
  }
}

interface Arrival {
  end: MoveEnd
  /** Features of the VM made here, instead of the VMM's own. */
  features: VcpuFeature[] | undefined
  source?: VmmVm
  sourceKvm?: Kvm
}
