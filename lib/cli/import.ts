import { Command } from 'commander'
import {
  checkFingerprint,
  compareLists,
  type Fingerprint,
  reportFromFingerprint,
  UnlikeHostError,
} from '../compat/interchange/fingerprint.js'
import { readJson } from '../report/document.js'
import { formatDocument } from '../report/write.js'
import { builtInHosts, builtInReport } from '../simulator/index.js'
import { CommandError, exitStatus } from './exit.js'
import { reportOf } from './host.js'
import { note, writeOutput } from './output.js'

interface Flags {
  like?: string
  output?: string
}

/** `kvm-arm64 import`: a report from what another tool wrote. */
export function importCommand(): Command {
  return new Command('import')
    .description("make a report of a fingerprint by Firecracker's cpu-template-helper")
    .argument('<fingerprint>', 'a file written by `cpu-template-helper fingerprint dump` on an arm64 host')
    .option('--like <host>', 'whose kernel behaves alike: a name of `kvm-arm64 hosts`, or a report')
    .option('-o, --output <file>', 'write the report to a file, whole or not at all')
    .addHelpText(
      'after',
      `
A fingerprint holds what a vCPU without optional features reads from its registers. It does not tell what a host lets be
written, nor vCPU features and vector lengths. These come from the host --like names, which must have the same firmware
registers; values that the hardware decides stay the fingerprint's. Without --like the hosts that would do are listed.

Examples:
  kvm-arm64 import fingerprint.json                             which hosts would do
  kvm-arm64 import fingerprint.json --like linux-6.1-neoverse-n1 -o graviton2.json`,
    )
    .action(run)
}

function run(file: string, { like, output }: Flags): void {
  const fingerprint = checkFingerprint(readJson(file, 'fingerprint'), file)
  if (like === undefined) {
    throw new CommandError(
      `${file}: say with --like which host's kernel behaves as this one's; nearest first: ${alike(fingerprint).join(', ')}`,
      exitStatus.usage,
    )
  }
  try {
    const report = reportFromFingerprint(fingerprint, reportOf(like))
    note(`values are of ${file}; what may be written, and all else, is taken from ${like}`)
    const text = formatDocument(report)
    if (output === undefined) process.stdout.write(text)
    else writeOutput(output, text)
  } catch (error) {
    if (!(error instanceof UnlikeHostError)) throw error
    throw new CommandError(
      `${error.message}; nearest are: ${alike(fingerprint).join(', ')}`,
      exitStatus.usage,
    )
  }
}

/** Names of built-in hosts with the same firmware registers, those with the most similar register lists first. */
function alike(fingerprint: Fingerprint): string[] {
  return builtInHosts()
    .flatMap((name) => {
      const host = builtInReport(name)
      try {
        reportFromFingerprint(fingerprint, host)
      } catch (error) {
        if (error instanceof UnlikeHostError) return []
        throw error
      }
      const { missing, added } = compareLists(fingerprint, host)
      return [{ name, distance: missing.length + added.length }]
    })
    .toSorted((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ name }) => name)
}
