/** The host a command asks: this machine's KVM, or a simulated one. */
import { lstatSync } from 'node:fs'
import { Option } from 'commander'
import type { Backend } from '../backend.js'
import { probe } from '../probe/probe.js'
import { kernelBackend } from '../kernel/index.js'
import { openKvm } from '../kvm/index.js'
import { nearestNames } from '../registers/index.js'
import { isFingerprint } from '../interchange/fingerprint.js'
import { FormatError, readJson } from '../documents/document.js'
import { checkReport } from '../report/read.js'
import type { Report } from '../report/report.js'
import { builtInHosts, builtInReport, simulator } from '../hosts/index.js'
import { CommandError, exitStatus } from './exit.js'
import { withProgress } from './output.js'

export interface Host {
  backend: Backend
  /** For readers. */
  label: string
}

export function simulateOption(): Option {
  return new Option(
    '--simulate <host>',
    "ask a simulated host, not this machine's KVM: a name of `kvm-arm64 hosts`, or a report",
  )
}

/** The host `--simulate` names; without it this machine, whose KVM is not opened yet. */
export function hostOf(simulate?: string): Host {
  return simulate === undefined
    ? { backend: kernelBackend, label: `Linux ${kernelBackend.host.release}, this machine` }
    : { backend: simulatorOf(simulate), label: `${simulate}, simulated` }
}

function simulatorOf(hostOrFile: string): Backend {
  return simulator(builtInHosts().some((name) => name === hostOrFile) ? hostOrFile : reportOf(hostOrFile))
}

/** The word for this machine where an argument is a host. */
export const THIS = 'this'

/** The host an argument names, this machine included. */
export function hostNamed(name: string): Host {
  return hostOf(name === THIS ? undefined : name)
}

/** The report of a host that an argument names; of this machine it is made now. */
export function probedReportOf(name: string): Report {
  if (name !== THIS) return reportOf(name)
  using kvm = openKvm(kernelBackend)
  return withProgress('Probing this machine', () => probe(kvm))
}

/**
 * The report that an argument HOST|REPORT means: a built-in host by name, or else a file.
 * @throws CommandError where it is neither
 * @throws FormatError for a file that is no report
 */
export function reportOf(hostOrFile: string): Report {
  const hosts = builtInHosts()
  if (hosts.some((name) => name === hostOrFile)) return builtInReport(hostOrFile)
  if (isThere(hostOrFile)) return reportIn(hostOrFile)
  const nearest = nearestNames(hostOrFile, hosts)
  const hint =
    nearest.length === 0 ? 'kvm-arm64 hosts lists the hosts' : `did you mean ${nearest.join(', ')}?`
  throw new CommandError(
    `${hostOrFile}: no such report file, and no built-in host; ${hint}`,
    exitStatus.usage,
  )
}

/** Also where it cannot be looked at, or is a link to nothing: whoever reads it says so. */
function isThere(file: string): boolean {
  try {
    return lstatSync(file, { throwIfNoEntry: false }) !== undefined
  } catch {
    return true
  }
}

function reportIn(file: string): Report {
  const data = readJson(file, 'report')
  if (!isFingerprint(data)) return checkReport(data, file)
  throw new FormatError(
    file,
    '$',
    'is not a report but a fingerprint of cpu-template-helper; kvm-arm64 import makes a report of it',
  )
}
