import { Command } from 'commander'
import type { Baseline } from '../../fleet/baseline/format.js'
import { baselineOfTemplate, TemplateError } from '../../interchange/baseline.js'
import { checkCpuTemplate } from '../../interchange/firecracker.js'
import { checkFingerprint, compareLists, type Fingerprint } from '../../interchange/fingerprint.js'
import { reasonUnlike, reportFromFingerprint, UnlikeHostError } from '../../interchange/fingerprint-report.js'
import { registerName } from '../../registers/index.js'
import { readJson } from '../../documents/document.js'
import { checkReport } from '../../report/read.js'
import { untriedFields } from '../../report/registers.js'
import type { Report } from '../../report/report.js'
import { formatDocument } from '../../documents/write.js'
import { builtInHosts, builtInReport } from '../../hosts/index.js'
import { CommandError, exitStatus } from '../exit.js'
import { reportOf } from '../host.js'
import { checkOutput, note, writeOutput } from '../output.js'

interface Flags {
  like?: string
  output?: string
}

/** `kvm-arm64 import`: convert output of Firecracker's tools into this package's formats. */
export function importCommand(): Command {
  return new Command('import')
    .argument('<file>', 'a fingerprint of cpu-template-helper, or a custom CPU template, of arm64')
    .option(
      '--like <host>',
      "host with a kernel like the fingerprint's: a name of `kvm-arm64 hosts`, or a report",
    )
    .option('-o, --output <file>', 'write to a file (- is standard output)')
    .addHelpText(
      'after',
      `
A fingerprint holds what a vCPU without optional features reads from its
registers. It does not say what a host accepts in writes, nor which vCPU
features and vector lengths it has. These come from the host --like, which must
have the same firmware registers; values that the hardware decides stay those of
the fingerprint. Without --like the hosts that would do are listed.

A template becomes a baseline; kvm-arm64 apply then shows which of its bits a
host refuses.

Examples:
  kvm-arm64 import fingerprint.json              list the hosts that would do
  kvm-arm64 import fingerprint.json --like linux-6.1-neoverse-n1 -o g2.json
  kvm-arm64 import template.json -o baseline.json`,
    )
    .action(run)
}

function run(file: string, { like, output }: Flags): void {
  checkOutput(output)
  const data = readJson(file, 'fingerprint or CPU template')
  const document = isTemplate(data) ? importTemplate(data, file, like) : importFingerprint(data, file, like)
  writeOutput(output, formatDocument(document))
}

function isTemplate(data: unknown): boolean {
  return (
    typeof data === 'object' &&
    data !== null &&
    ['kvm_capabilities', 'vcpu_features', 'reg_modifiers'].some((key) => key in data)
  )
}

function importTemplate(data: unknown, file: string, like: string | undefined): Baseline {
  if (like !== undefined) {
    throw new CommandError(`${file} is a CPU template, and --like is for fingerprints`, exitStatus.usage)
  }
  const { template, warnings } = checkCpuTemplate(data, file)
  for (const warning of warnings) note(`${file}: ${warning}`)
  try {
    return baselineOfTemplate(template, file)
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error
    throw new CommandError(`${file}: ${error.message}`, exitStatus.usage)
  }
}

function importFingerprint(data: unknown, file: string, like: string | undefined): Report {
  const fingerprint = checkFingerprint(data, file)
  if (like === undefined) {
    throw new CommandError(
      `${file}: name with --like a host with the same kernel; nearest first: ${alike(fingerprint).join(', ')}`,
      exitStatus.usage,
    )
  }
  try {
    const host = reportOf(like)
    const report = reportFromFingerprint(fingerprint, host, { sameKernel: sameKernel(host) })
    const offered = alike(fingerprint)
    const { missing, added } = compareLists(fingerprint, host)
    // The firmware registers alone could make another kernel look like this one.
    if (!offered.includes(like) && missing.length + added.length > 0) {
      const unlike = [
        ...missing.map((id) => `only ${like} has ${registerName(id)}`),
        ...added.map((id) => `${like} lacks ${registerName(id)}`),
      ]
      const more = unlike.length > 3 ? `, and ${unlike.length - 3} more` : ''
      note(
        `${like} may have another kernel than the fingerprint's host: ${unlike.slice(0, 3).join(', ')}${more}; nearest are: ${offered.join(', ')}`,
      )
    }
    note(`values are of ${file}; what may be written, and all else, is inferred from ${like}`)
    const unknown = untriedFields(report)
    if (unknown.length > 0) {
      note(`no host of that kernel shows which values these accept: ${unknown.join(', ')}`)
    }
    note('vCPU features and devices are not known')
    // The output must be readable again.
    return checkReport(report, file)
  } catch (error) {
    if (!(error instanceof UnlikeHostError)) throw error
    throw new CommandError(
      `${error.message}; nearest are: ${alike(fingerprint).join(', ')}`,
      exitStatus.usage,
    )
  }
}

/** Reports of built-in hosts that run the very kernel of this one. */
function sameKernel({ host }: Report): Report[] {
  return builtInHosts()
    .map((name) => builtInReport(name))
    .filter((other) => other.host.release === host.release && other.host.build === host.build)
}

/** Names of built-in hosts with the same firmware registers, those with the most similar register lists first. */
function alike(fingerprint: Fingerprint): string[] {
  return builtInHosts()
    .flatMap((name) => {
      const host = builtInReport(name)
      if (reasonUnlike(fingerprint, host) !== undefined) return []
      const { missing, added } = compareLists(fingerprint, host)
      return [{ name, distance: missing.length + added.length }]
    })
    .toSorted((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ name }) => name)
}
