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

interface Flags {
  simulate?: string
  only?: string
  junit?: string
  json?: boolean
}

/** `kvm-arm64 conformance`: whether KVM keeps what its documents promise. */
export function conformanceCommand(): Command {
  return new Command('conformance')
    .description('check whether KVM does what its documents promise and its in-tree selftests assert')
    .addOption(simulateOption())
    .option('--only <text>', 'run the checks whose name, or group, holds this text')
    .option('--junit <file>', 'write the results as JUnit XML too')
    .option('--json', 'print every result with its promise and source')
    .addHelpText(
      'after',
      `
Each check works on VMs of its own. What was promised has a document of the kernel or of Arm, or an in-tree selftest, behind
it; what was observed is how every release behaves. A kernel that does otherwise than its own document, in a way that releases
are known for, deviates: that is told, and is no failure. What a host has not does not apply, and it is told why.

Exit status: 1 if the kernel breaks a promise, 3 if there is no arm64 KVM. What was only observed elsewhere does not count,
and JUnit XML has it as skipped.

Examples:
  kvm-arm64 conformance                              of this machine's kernel
  kvm-arm64 conformance --junit results.xml          for a CI
  kvm-arm64 conformance --only "smccc filter"        one group
  kvm-arm64 conformance --simulate linux-6.12-max    of a simulated host
  kvm-arm64 lab run --kernel 7.2 -- kvm-arm64 conformance
                                                     of a real kernel under QEMU`,
    )
    .action(run)
}

function run({ simulate, only, junit, json }: Flags): void {
  const options = only === undefined ? {} : { only }
  if (selectChecks(options).length === 0) {
    throw new CommandError(`no check's name or group holds "${only}"`, exitStatus.usage)
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
  return `  ${paint(colours[verdict], verdict.padEnd(14))}  ${mark}  ${name} ${paint('dim', `— ${did}`)}`
}

function failures(results: readonly CheckResult[]): string[] {
  const failed = results.filter(({ verdict }) => verdict === 'fails')
  if (failed.length === 0) return []
  return [
    '',
    paint('bold', 'Failures'),
    ...failed.flatMap(({ name, mark, promise, source, did }) => [
      `  ${paint('red', name)}`,
      `    ${mark}: ${promise}`,
      `    source: ${source}`,
      `    kernel: ${did}`,
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
