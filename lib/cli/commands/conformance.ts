import { Command } from 'commander'
import {
  type CheckResult,
  conformance,
  junitXml,
  selectChecks,
  type Verdict,
} from '../../conformance/index.js'
import { CommandError, exitStatus } from '../exit.js'
import { hostOf, simulateOption } from '../host.js'
import {
  checkOutput,
  isStandardOutput,
  paint,
  print,
  printJson,
  refuseTwoDocuments,
  withProgress,
  writeOutput,
} from '../output.js'
import { wrapOnTerminal } from '../view/text.js'

interface Flags {
  simulate?: string
  only?: string
  junit?: string
  json?: boolean
}

/** `kvm-arm64 conformance`: check that KVM does what its documents promise. */
export function conformanceCommand(): Command {
  return new Command('conformance')
    .addOption(simulateOption())
    .option('--only <text>', 'run only checks whose name or group contains this text')
    .option('--junit <file>', 'also write the results as JUnit XML (- is standard output)')
    .option('--json', 'print every result with its promise and source as JSON')
    .addHelpText(
      'after',
      `
Each check uses VMs of its own. A check is "promised" if a document of the
kernel or of Arm, or an in-tree selftest, says what it expects, and "observed"
if all releases merely behave so. A kernel "deviates" if it does otherwise than
its own document, in a way that releases are known for; this is reported, and
is no failure. A check does not apply if the host lacks what it needs.

Exit status: 1 if a promised check fails, 3 if there is no arm64 KVM. In JUnit
XML all other checks that do not pass are skipped, with their verdict.

Examples:
  kvm-arm64 conformance                            check this machine's kernel
  kvm-arm64 conformance --junit results.xml        write results for a CI
  kvm-arm64 conformance --only "smccc filter"      run one group
  kvm-arm64 conformance --simulate linux-6.12-max  check a simulated host
  kvm-arm64 lab run --kernel 7.2 -- kvm-arm64 conformance
                                                   check a kernel under QEMU`,
    )
    .action(run)
}

function run({ simulate, only, junit, json }: Flags): void {
  const options = only === undefined ? {} : { only }
  if (selectChecks(options).length === 0) {
    throw new CommandError(`no check has "${only}" in its name or group`, exitStatus.usage)
  }
  refuseTwoDocuments('--junit', junit, json)
  checkOutput(junit)
  const { backend, label } = hostOf(simulate)
  const results = withProgress(`Checking ${label}`, (progress) =>
    conformance(backend, { ...options, progress }),
  )
  if (junit !== undefined) writeOutput(junit, junitXml(results, label))
  if (json) printJson(results)
  else if (!isStandardOutput(junit)) print(resultsText(label, results))
  if (results.some(isBroken)) process.exitCode = exitStatus.negative
}

function isBroken({ verdict, mark }: CheckResult): boolean {
  return verdict === 'fails' && mark === 'promised'
}

const colours = { passes: 'green', fails: 'red', deviates: 'yellow', 'not applicable': 'dim' } as const

function resultsText(host: string, results: readonly CheckResult[]): string {
  const lines = results.flatMap((result, index) =>
    result.group === results[index - 1]?.group
      ? [line(result)]
      : ['', paint('bold', result.group), line(result)],
  )
  return [paint('bold', host), ...lines, ...failures(results), '', summary(results)].join('\n')
}

function line({ verdict, mark, name, did }: CheckResult): string {
  const text = `${paint(colours[verdict], verdict.padEnd(14))}  ${mark}  ${name} ${paint('dim', `— ${did}`)}`
  return wrapOnTerminal(text, 2, 6)
}

function failures(results: readonly CheckResult[]): string[] {
  const failed = results.filter(({ verdict }) => verdict === 'fails')
  if (failed.length === 0) return []
  return [
    '',
    paint('bold', 'Failures'),
    ...failed.flatMap(({ name, mark, promise, source, did }) => [
      wrapOnTerminal(paint('red', name), 2, 4),
      wrapOnTerminal(`${mark}: ${promise}`, 4, 6),
      wrapOnTerminal(`source: ${source}`, 4, 6),
      wrapOnTerminal(`kernel: ${did}`, 4, 6),
    ]),
  ]
}

function summary(results: readonly CheckResult[]): string {
  const count = (wanted: Verdict): number => results.filter(({ verdict }) => verdict === wanted).length
  const broken = results.filter(isBroken).length
  const failed = count('fails') === 0 ? '0 fail' : `${count('fails')} fail (${broken} of them promised)`
  return [
    `  ${results.length} checks: ${count('passes')} pass`,
    failed,
    `${count('deviates')} deviate from their document`,
    `${count('not applicable')} do not apply.`,
  ].join(', ')
}
