import { Command } from 'commander'
import { printable } from '../../../documents/printable.js'
import { openKvm } from '../../../kvm/index.js'
import { describeAnswers, describeCall, type Divergence, readTrace, replay } from '../../../trace/index.js'
import { exitStatus } from '../../exit.js'
import { hostOf, simulateOption } from '../../host.js'
import { print, withProgress } from '../../output.js'
import { wrapOnTerminal } from '../../view/text.js'

/** `kvm-arm64 trace replay`: check whether another KVM gives the same answers. */
export function replayCommand(): Command {
  return new Command('replay')
    .description('repeat the calls of a trace and list those whose outcomes differ')
    .argument('<trace>', 'a file written by `kvm-arm64 trace record -o`')
    .addOption(simulateOption())
    .addHelpText(
      'after',
      `
A trace may have any length. Values that depend on time or chance may differ. A
stub guest repeats the hypercalls that were made one by one (vcpu.hypercall; hvc
and smc in the trace). A trace does not hold the memory of guests: a vCPU that
runs any other code is interrupted after a millisecond.

Exit status: 1 if any outcome differs.

Examples:
  kvm-arm64 trace replay migrate.ndjson                  on this machine's KVM
  kvm-arm64 trace replay migrate.ndjson --simulate linux-6.1-max`,
    )
    .action(replayTrace)
}

function replayTrace(file: string, { simulate }: { simulate?: string }): void {
  const { backend } = hostOf(simulate)
  const { head, entries } = readTrace(file)
  using kvm = openKvm(backend)
  let divergences = 0
  const calls = withProgress(`Replaying ${file}`, () =>
    replay(entries, kvm.fd, (divergence) => {
      divergences++
      print(divergenceText(file, divergence))
    }),
  )
  print(`${calls} calls recorded on ${printable(head.host)}, ${divergences} outcomes differ`)
  if (divergences > 0) process.exitCode = exitStatus.negative
}

function divergenceText(file: string, { line, call, recorded, replayed }: Divergence): string {
  const [before, now] = describeAnswers(recorded, replayed)
  return [
    wrapOnTerminal(printable(`${file}:${line}: ${describeCall(call)}`), 0, 4),
    wrapOnTerminal(printable(`recorded: ${before}`), 2, 4),
    wrapOnTerminal(printable(`replayed: ${now}`), 2, 4),
  ].join('\n')
}
