import { join } from 'node:path'
import { Command, Option } from 'commander'
import { type FuzzFinding, fuzz, type Profile, profiles } from '../../../fuzz/index.js'
import { makeDirectories } from '../../../documents/directory.js'
import { printable } from '../../../documents/printable.js'
import { simulator } from '../../../hosts/index.js'
import { openKvm } from '../../../kvm/index.js'
import { probe } from '../../../probe/probe.js'
import { describeAnswers, describeCall, formatTrace } from '../../../trace/index.js'
import { exitStatus } from '../../exit.js'
import { hostOf, reportOf, simulateOption } from '../../host.js'
import { cannotWrite, note, print, withProgress, writeOutput } from '../../output.js'
import { wholeNumber } from '../../number.js'
import { wrapOnTerminal } from '../../view/text.js'

interface FuzzFlags {
  simulate?: string
  against?: string
  seed: number
  ops: number
  profile: Profile
  save?: string
}

/** `kvm-arm64 trace fuzz`: make generated calls on KVM and on a simulation. */
export function fuzzCommand(): Command {
  return new Command('fuzz')
    .description('invent calls and find those that KVM and its simulation answer differently')
    .addOption(simulateOption())
    .option('--against <host>', "compare with this simulated host, not with the host's own simulation")
    .option(
      '--seed <number>',
      'the same seed makes the same calls on the same host',
      wholeNumber(0, 0xffff_ffff),
      1,
    )
    .option('--ops <number>', 'how many calls to make', wholeNumber(1, 0xffff_ffff), 20_000)
    .addOption(
      new Option('--profile <profile>', 'what the calls are mostly about')
        .choices(profiles)
        .default('everything'),
    )
    .option('--save <directory>', 'write a trace there for each difference, of the calls that show it')
    .addHelpText(
      'after',
      `
The command probes the host first and simulates it from that report, unless
--against names another host. It makes its calls on VMs of its own; a stub guest
makes the hypercalls (hvc, smc). It shrinks each difference to the fewest calls
that show it.

Exit status: 1 if there is a difference.

Examples:
  kvm-arm64 trace fuzz --seed 7 --ops 100000    this machine's KVM against its
                                                simulation
  kvm-arm64 trace fuzz --simulate linux-6.1-max --against linux-6.12-max
  kvm-arm64 lab run --kernel 6.12 -- kvm-arm64 trace fuzz`,
    )
    .action(fuzzHost)
}

function fuzzHost({ simulate, against, seed, ops, profile, save }: FuzzFlags): void {
  const { backend } = hostOf(simulate)
  using kvm = openKvm(backend)
  const report = against === undefined ? withProgress('Probing', () => probe(kvm)) : reportOf(against)
  using other = openKvm(simulator(report))
  if (save !== undefined) makeDirectory(save)
  let count = 0
  for (const finding of fuzz(kvm.fd, other.fd, { seed, operations: ops, profile })) {
    count++
    print(findingText(finding))
    if (save !== undefined) {
      const file = join(save, `seed-${seed}-${count}.ndjson`)
      writeOutput(file, formatTrace({ host: backend.host.release }, finding.trace))
    }
  }
  print(`${ops} calls on ${printable(backend.host.release)} with seed ${seed}: ${count} kinds of difference`)
  if (count === 0) return
  if (save === undefined) note('--save DIR writes a trace for each difference, for kvm-arm64 trace replay')
  process.exitCode = exitStatus.negative
}

function findingText({ trace, other }: FuzzFinding): string {
  const { call, outcome } = trace.at(-1)!
  const [first, second] = describeAnswers(outcome, other)
  const steps = trace.slice(0, -1).map((entry) => wrapOnTerminal(describeCall(entry.call), 2, 4))
  return [
    wrapOnTerminal(describeCall(call), 0, 4),
    wrapOnTerminal(`${first} here, ${second} simulated, after:`, 2, 4),
    `${steps.join('\n')}\n`,
  ].join('\n')
}

function makeDirectory(directory: string): void {
  try {
    makeDirectories(directory)
  } catch (error) {
    throw cannotWrite(directory, error)
  }
}
