import { Command, Option } from 'commander'
import { computeBaseline } from '../../fleet/baseline/baseline.js'
import type { NamedReport } from '../../fleet/baseline/candidate.js'
import type { Baseline, Unreconciled } from '../../fleet/baseline/format.js'
import { meaningOf } from '../../registers/differing-fields.js'
import { decodePsciVersion, serviceBitmapOf, servicesInBitmap } from '../../hypercalls/index.js'
import { type Field, registerFields } from '../../registers/index.js'
import { printable } from '../../documents/printable.js'
import { formatDocument } from '../../documents/write.js'
import { factsOfReport } from '../../migration/vmm/facts.js'
import { vmmNames } from '../../migration/vmm/names.js'
import { type VmmRules, vmOn } from '../../migration/vmm/rules.js'
import type { VcpuFeature } from '../../uapi.js'
import { CommandError, exitStatus } from '../exit.js'
import { probedReportOf } from '../host.js'
import { checkOutput, isStandardOutput, paint, print, withProgress, writeOutput } from '../output.js'
import { properties, table } from '../view/table.js'
import { count } from '../view/text.js'
import { parseFeatures, parseVmm } from '../vm.js'

interface Flags {
  vmm?: VmmRules
  output?: string
  features?: VcpuFeature[]
  json?: boolean
}

/** `kvm-arm64 baseline`: find the greatest configuration that several hosts can all show a guest. */
export function baselineCommand(): Command {
  return new Command('baseline')
    .argument('<report...>', 'report files, names of `kvm-arm64 hosts`, or `this` for this machine')
    .option('-o, --output <file>', 'write the baseline to a file (- is standard output)')
    .option(
      '--features <features>',
      'vCPU features beside psci-0.2, separated by commas; without it, those of PMU, SVE and pointer authentication that all hosts share',
      parseFeatures,
    )
    .addOption(
      new Option(
        '--vmm <vmm>',
        `for VMs of this VMM, with the features they have on all hosts: ${vmmNames().join(', ')}`,
      )
        .argParser(parseVmm)
        .conflicts('features'),
    )
    .option('--json', 'print the baseline instead of a summary')
    .addHelpText(
      'after',
      `
A baseline holds the most that every host can provide, within what KVM accepts:
services, PSCI version, fields of the ID registers, SVE vector lengths and vCPU
features. What cannot be reconciled is listed with the hosts that cause it, and
so are the groups of hosts that can be reconciled. A VM that is configured by
the baseline of such a group (kvm-arm64 apply) can be restored on every host of
the group.

Exit status: 1 if something cannot be reconciled; the baseline is printed and
written nevertheless.

Examples:
  kvm-arm64 baseline a.json b.json -o fleet.json
  kvm-arm64 baseline linux-6.18-max linux-7.2-max --json`,
    )
    .action(run)
}

function run(reports: string[], { vmm, output, features: asked, json }: Flags): void {
  checkOutput(output)
  const sources = [...new Set(reports)]
  const hosts = withProgress('Reading reports', (progress) =>
    sources.map((name, index) => {
      const report = probedReportOf(name)
      progress(index + 1, sources.length)
      return { name, report }
    }),
  )
  const features = vmm === undefined ? asked : sharedFeatures(vmm, hosts)
  const found = withProgress(`Comparing ${count(hosts.length, 'host')}`, () => baselineOf(hosts, features))
  const text = formatDocument(found)
  if (output !== undefined) writeOutput(output, text)
  if (json && !isStandardOutput(output)) writeOutput(undefined, text)
  else if (!isStandardOutput(output)) print(summary(found))
  if (found.unreconciled.length > 0) process.exitCode = exitStatus.negative
}

/** Returns the features that the VMM's VM has on every host. */
function sharedFeatures(vmm: VmmRules, hosts: readonly NamedReport[]): VcpuFeature[] {
  const [first, ...others] = hosts.map(({ report }) => vmOn(vmm, factsOfReport(report)).features)
  return first!.filter((feature) => others.every((features) => features.includes(feature)))
}

function baselineOf(hosts: readonly NamedReport[], features: VcpuFeature[] | undefined): Baseline {
  try {
    return computeBaseline(hosts, features === undefined ? {} : { features })
  } catch (error) {
    if (error instanceof RangeError) throw new CommandError(error.message, exitStatus.negative)
    throw error
  }
}

function summary(found: Baseline): string {
  const { hosts, unreconciled, classes } = found
  const shared = unreconciled.length === 0
  return [
    paint('bold', `Baseline of ${count(hosts.length, 'host')}`),
    properties([
      ['vCPU features', found.features.join(' ')],
      ...found.withoutFeatures.map(({ feature, reason, hosts: lacking }): [string, string] => [
        `without ${feature}`,
        {
          lacking: `some hosts lack it: ${names(lacking)}`,
          unknown: `it is not known whether these have it: ${names(lacking)}`,
          unreconciled: 'more would stay unreconciled with it',
        }[reason],
      ]),
      ...optional('to enable', found.capabilities.join(' ')),
      ['PSCI', found.psciVersion === null ? 'none in common' : decodePsciVersion(BigInt(found.psciVersion))],
      ...optional('vector lengths', found.vectorLengths ?? ''),
      ['address space', `${found.ipaSize} bits`],
      ...optional('interrupt controllers', found.interruptControllers?.join(' ') ?? 'unknown'),
      ...optional('not known', unknownFacts(found)),
      ['ID registers', `${found.idRegisters.length}; others: ${found.registers.length}`],
    ]),
    ...(found.bitmaps.length === 0
      ? ['', '  None of these hosts has bitmap firmware registers: no service can be hidden.']
      : [
          '',
          table(
            ['register', 'value', 'services', 'without the register'],
            found.bitmaps.map(({ id, name, value, absentOn }) => [
              name,
              value,
              servicesInBitmap(serviceBitmapOf(BigInt(id))!.group, BigInt(value)).join(' ') || 'none',
              names(absentOn),
            ]),
          ),
        ]),
    '',
    shared
      ? paint(
          'green',
          `All reconciled${found.unknown === undefined ? '' : ', as far as known'}: a VM so configured goes from any of these hosts to any other.`,
        )
      : paint('bold', `Not reconciled: ${unreconciled.length}`),
    ...(shared ? [] : [table(['register', 'field', 'on hosts'], conflictRows(unreconciled))]),
    ...(shared
      ? []
      : [
          '',
          paint('bold', 'Can be reconciled among themselves'),
          ...classes.filter((group) => group.length > 1).map((group) => `  ${printable(group.join(' '))}`),
          `  each with itself alone: ${printable(classes.filter((group) => group.length === 1).join(' ')) || 'none'}`,
        ]),
  ].join('\n')
}

/** Facts that the same hosts do not record share one line. */
function unknownFacts({ unknown = [] }: Baseline): string {
  const byHosts = new Map<string, string[]>()
  for (const { fact, hosts } of unknown) {
    const key = names(hosts)
    byHosts.set(key, [...(byHosts.get(key) ?? []), fact.replaceAll('-', ' ')])
  }
  return [...byHosts].map(([hosts, facts]) => `${facts.join(', ')}: ${hosts}`).join('; ')
}

/** Registers that the same hosts lack share one row. */
function conflictRows(unreconciled: readonly Unreconciled[]): string[][] {
  const lists = new Map<string, string[]>()
  const rows: string[][] = []
  for (const { kind, id, name, fields, found } of unreconciled) {
    if (kind !== 'absent') {
      if (kind === 'value' && fields.length > 0) {
        for (const field of fields) rows.push([name, field, byField(BigInt(id), field, found)])
      } else {
        rows.push([
          name,
          fields.join(' '),
          found.map(({ value, hosts }) => `${value}: ${names(hosts)}`).join('; '),
        ])
      }
      continue
    }
    const lacking = `absent: ${names(found.find(({ value }) => value === 'absent')?.hosts ?? [])}`
    const list = lists.get(lacking)
    if (list === undefined) lists.set(lacking, [name])
    else list.push(name)
  }
  for (const [lacking, registers] of lists) {
    const more = registers.length > 1 ? ` and ${registers.length - 1} more` : ''
    rows.push([`${registers[0]}${more}`, '', lacking])
  }
  return rows
}

/** Lists which hosts have which value in a field, or in bits without a name, `7:4`. */
function byField(id: bigint, name: string, found: Unreconciled['found']): string {
  const field = registerFields(id).find((candidate) => candidate.name === name) ?? bitsNamed(name)
  const groups = new Map<string, string[]>()
  for (const { value, hosts } of found) {
    const content = meaningOf(field, BigInt(value))
    groups.set(content, [...(groups.get(content) ?? []), ...hosts])
  }
  return [...groups].map(([content, hosts]) => `${content}: ${names(hosts)}`).join('; ')
}

function bitsNamed(name: string): Field {
  const [last, first] = name.split(':').map(Number) as [number, number]
  return { name, lsb: first, width: last - first + 1, signed: false, meanings: new Map() }
}

function names(hosts: readonly string[]): string {
  const more = hosts.length > 4 ? ` and ${hosts.length - 4} more` : ''
  return `${hosts.slice(0, 4).join(' ')}${more}`
}

function optional(name: string, content: string): [string, string][] {
  return content === '' ? [] : [[name, content]]
}
