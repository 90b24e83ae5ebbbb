import { existsSync } from 'node:fs'
import { Command, InvalidArgumentError } from 'commander'
import type { Baseline } from '../../fleet/baseline/format.js'
import { checkFingerprint, compareLists, type Fingerprint } from '../../interchange/fingerprint.js'
import { reasonUnlike, reportFromFingerprint, UnlikeHostError } from '../../interchange/fingerprint-report.js'
import { featuresOfQmp } from '../../interchange/qmp.js'
import { type Vouched, VouchError } from '../../interchange/vouched-features.js'
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
import { listed, unrecordedText } from '../view/summary.js'
import { baselineIn, isCpuTemplate, parseFeatures } from '../vm.js'

interface Flags {
  like?: string
  with?: Vouched
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
    .option(
      '--with <features>',
      "vCPU features you know the fingerprint's host has, separated by commas: sve, pmu-v3, …; sve256 also names the longest vectors; or a file with QMP's reply to query-cpu-model-expansion there",
      parseVouched,
    )
    .option('-o, --output <file>', 'write to a file (- is standard output)')
    .addHelpText(
      'after',
      `
A fingerprint holds what a vCPU without optional features reads from its
registers. What the host accepts in writes is inferred from --like, which must
have the same firmware registers, and from the other built-in hosts of its
kernel; fields that none of them decides are listed. vCPU features and devices
are not known. --with vouches for features: their registers are those of --like,
and what the CPU decides in them is listed as not known. Without --like the
hosts that would do are listed.

A template becomes a baseline; kvm-arm64 apply then shows which of its bits a
host refuses.

Examples:
  kvm-arm64 import fingerprint.json              list the hosts that would do
  kvm-arm64 import fingerprint.json --like linux-6.1-neoverse-n1 -o g2.json
  kvm-arm64 import fingerprint.json --like linux-6.18-max --with sve256,pmu-v3
  kvm-arm64 import template.json -o baseline.json`,
    )
    .action(run)
}

function run(file: string, { like, with: vouched, output }: Flags): void {
  checkOutput(output)
  const data = readJson(file, 'fingerprint or CPU template')
  const document = isCpuTemplate(data)
    ? importTemplate(file, like, vouched)
    : importFingerprint(data, file, like, vouched)
  writeOutput(output, formatDocument(document))
}

function importTemplate(file: string, like: string | undefined, vouched: Vouched | undefined): Baseline {
  const option = (like !== undefined && '--like') || (vouched !== undefined && '--with')
  if (option) {
    throw new CommandError(`${file} is a CPU template, and ${option} is for fingerprints`, exitStatus.usage)
  }
  return baselineIn(file)
}

function importFingerprint(
  data: unknown,
  file: string,
  like: string | undefined,
  vouched: Vouched | undefined,
): Report {
  const fingerprint = checkFingerprint(data, file)
  if (like === undefined) {
    throw new CommandError(
      `${file}: name with --like a host with the same kernel; nearest first: ${alike(fingerprint).join(', ')}`,
      exitStatus.usage,
    )
  }
  try {
    const host = reportOf(like)
    const report = reportFromFingerprint(fingerprint, host, {
      sameKernel: sameKernel(host),
      ...(vouched && { vouched }),
    })
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
    note(`values come from ${file}; write rules and everything else are inferred from ${like}`)
    const unknown = untriedFields(report)
    if (unknown.length > 0) {
      note(`no host of that kernel shows which values these accept or hold: ${listed(unknown, 16)}`)
    }
    note(`not known either: ${unrecordedText(report, ['id-fields'])}`)
    // The output must be readable again.
    return checkReport(report, file)
  } catch (error) {
    if (error instanceof VouchError) throw new CommandError(`--with: ${error.message}`, exitStatus.usage)
    if (!(error instanceof UnlikeHostError)) throw error
    throw new CommandError(
      `${error.message}; nearest are: ${alike(fingerprint).join(', ')}`,
      exitStatus.usage,
    )
  }
}

/** Parses `--with`: a file with QMP's reply; or features, and `sve256` for the longest vectors. Pointer authentication has two features, never one alone. */
function parseVouched(list: string): Vouched {
  if (existsSync(list)) return featuresOfQmp(readJson(list, 'QMP reply'), list)
  const names = list.split(',').map((name) => name.trim())
  const lengths = names.flatMap((name) => (/^sve\d+$/.test(name) ? [Number(name.slice('sve'.length))] : []))
  const wrong = lengths.find((bits) => bits % 128 !== 0 || bits < 128 || bits > 2048)
  if (wrong !== undefined || lengths.length > 1) {
    throw new InvalidArgumentError('One of sve128, sve256, … sve2048 may name the longest vectors.')
  }
  const features = parseFeatures(names.map((name) => (/^sve\d+$/.test(name) ? 'sve' : name)).join(','))
  if (features.some((name) => name.startsWith('ptrauth-'))) {
    features.push('ptrauth-address', 'ptrauth-generic')
  }
  return {
    features: [...new Set(features)].filter((name) => name !== 'psci-0.2'),
    ...(lengths[0] !== undefined && { longestVector: lengths[0] }),
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
