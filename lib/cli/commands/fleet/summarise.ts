import { Command } from 'commander'
import { type Fleet, fleetSummary, readFleet, unreportedClasses } from '../../../fleet/classes.js'
import { summaryLines } from '../../../fleet/summary.js'
import { exitStatus } from '../../exit.js'
import { checkOutput, note, print, withProgress, writeLines } from '../../output.js'
import { count } from '../../view/text.js'

interface Flags {
  output?: string
}

/** `kvm-arm64 fleet summarise`: write a row for each host, and the body of each class once. */
export function summariseCommand(): Command {
  return new Command('summarise')
    .description('write a row for each host and the body of each class once, to be merged with other parts')
    .argument('<reports...>', 'as for `fleet`, and rows of `probe --digest`; every host must have a name')
    .option('-o, --output <file>', 'write the summary to a file instead of standard output')
    .addHelpText(
      'after',
      `
A summary has one JSON object on each line. Of a host that is there several
times, the newest report or row counts. stderr lists classes of which there is
no report yet, each with a host to get it from.

Exit status: 2 if any report could not be read; the others are in the summary.

Examples:
  kvm-arm64 fleet summarise reports/ -o part1.json
  kvm-arm64 fleet summarise rows.ndjson body.ndjson -o part2.json`,
    )
    .action((sources: string[], { output }: Flags) => run(sources, output))
}

/** `kvm-arm64 fleet merge`: merge summaries. */
export function mergeCommand(): Command {
  return new Command('merge')
    .description('merge summaries: in any order, in any grouping, any of them several times')
    .argument('<reports...>', 'files as `fleet summarise` and `fleet merge` write them')
    .option('-o, --output <file>', 'write the summary to a file instead of standard output')
    .addHelpText(
      'after',
      `
The result is the summary of all reports behind the parts, whatever the order:
the newest row of each host, and each class once. \`kvm-arm64 fleet\` reads it.

Exit status: 2 if any line could not be read; the others are in the summary.

Examples:
  kvm-arm64 fleet merge part1.json part2.json -o all.json
  kvm-arm64 fleet all.json --html page.html`,
    )
    .action((sources: string[], { output }: Flags) => run(sources, output))
}

/** `kvm-arm64 fleet missing`: list the hosts whose reports are needed. */
export function missingCommand(): Command {
  return new Command('missing')
    .description('print one host of each class of which no report was read, for a script that gets reports')
    .argument('<reports...>', 'as for `fleet`; - for rows on standard input')
    .addHelpText(
      'after',
      `
Prints one name on each line: for each class without a report, the host that was
probed last. Prints nothing if every class has a report.

Exit status: 2 if any line could not be read.

Examples:
  kvm-arm64 fleet missing rows.ndjson
  kvm-arm64 fleet missing all.json rows.ndjson | while read -r host; do
    ssh "$host" kvm-arm64 probe --json > "reports/$host.json"
  done`,
    )
    .action((sources: string[]) => {
      const fleet = withProgress(`Reading ${sources.join(' ')}`, () => readFleet(sources, { named: true }))
      noteErrors(fleet)
      for (const { host } of unreportedClasses(fleet)) print(host)
    })
}

function run(sources: readonly string[], output: string | undefined): void {
  checkOutput(output)
  const fleet = withProgress(`Reading ${sources.join(' ')}`, () => readFleet(sources, { named: true }))
  noteErrors(fleet)
  for (const { digest, hostCount, host } of unreportedClasses(fleet)) {
    const others = hostCount > 1 ? `; ${count(hostCount - 1, 'other host')} would do as well` : ''
    note(`no report of class ${digest}: get one with \`kvm-arm64 probe --json\` on ${host}${others}`)
  }
  writeLines(output, summaryLines(fleetSummary(fleet)))
}

/** Prints what could not be read, and sets the exit status for it. */
export function noteErrors({ errors, faulty }: Fleet): void {
  for (const { message } of errors) note(message)
  const others = faulty - errors.length
  if (others > 0) note(`and ${others} more that could not be read`)
  if (faulty > 0) process.exitCode = exitStatus.usage
}
