import { Command } from 'commander'
import { type Difference, differenceKinds, diffReports } from '../../report/diff.js'
import type { DiffDocument } from '../../report/diff-document.js'
import { asText } from '../../documents/entries.js'
import { printable } from '../../documents/printable.js'
import { probedReportOf } from '../host.js'
import { paint, print, printJson } from '../output.js'
import { originText } from '../../report/origin.js'
import { table } from '../view/table.js'
import { terminalColumns, wrap } from '../view/text.js'

/** `kvm-arm64 diff`: list the differences between two hosts. */
export function diffCommand(): Command {
  return new Command('diff')
    .argument('<a>', 'a name of `kvm-arm64 hosts`, a report, or `this` machine')
    .argument('<b>', 'likewise')
    .option('--json', 'print the differences as JSON (kvm-arm64/diff.schema.json)')
    .addHelpText(
      'after',
      `
Registers are those of a vCPU with psci-0.2 alone. AArch32 ID registers do not
count where a host has no AArch32. To find out whether a VM can move from one to
the other, use kvm-arm64 check.

Exit status: 0 also where they differ; 3 if there is no arm64 KVM for \`this\`.

Examples:
  kvm-arm64 diff linux-6.1-max linux-7.2-max
  kvm-arm64 diff host.json this --json`,
    )
    .action(run)
}

function run(a: string, b: string, { json }: { json?: boolean }): void {
  const [left, right] = [probedReportOf(a), probedReportOf(b)]
  const differences = diffReports(left, right)
  if (json) {
    const document: DiffDocument = {
      format: 'kvm-arm64/diff',
      version: 1,
      a: { name: asText(a), origin: left.origin },
      b: { name: asText(b), origin: right.origin },
      differences,
    }
    printJson(document)
    return
  }
  if (differences.length === 0) print(printable(`${a} and ${b} show the same`))
  else print(differencesText(differences, a, b))
  const answered = `answered by: ${originText(left)} (${a}), ${originText(right)} (${b})`
  print(`\n${wrap(printable(answered), 0, 2)}`)
}

/** One line for each difference, for grep. On a terminal the kinds are headings, which leaves the values more room. */
function differencesText(differences: readonly Difference[], a: string, b: string): string {
  if (terminalColumns() === undefined) {
    return table(
      ['what', 'name', 'field', a, b],
      differences.map((one) => [one.kind, one.name, one.field ?? '', valueText(one.a), valueText(one.b)]),
    )
  }
  const sections = differenceKinds.flatMap((kind) => {
    const rows = differences
      .filter((one) => one.kind === kind)
      .map(({ name, field, a: ofA, b: ofB }) => [
        field === undefined ? name : `${name}.${field}`,
        valueText(ofA),
        valueText(ofB),
      ])
    return rows.length === 0 ? [] : [`${paint('bold', kind)}\n${table(['', a, b], rows)}`]
  })
  return sections.join('\n\n')
}

function valueText(value: string | null): string {
  return value ?? 'no such register'
}
