/** The host that a command uses: this machine's KVM, or a simulated one. */
import { lstatSync } from 'node:fs'
import { Option } from 'commander'
import type { Backend } from '../backend.js'
import { probe } from '../probe/probe.js'
import { kernelBackend } from '../kernel/index.js'
import { openKvm } from '../kvm/index.js'
import { nearestNames } from '../registers/index.js'
import { readReport } from '../report/read.js'
import type { Report } from '../report/report.js'
import type { VcpuFeature } from '../uapi.js'
import { type BuiltInHost, builtInHosts, builtInReport, simulator } from '../hosts/index.js'
import { CommandError, exitStatus } from './exit.js'
import type { NamedReport } from '../fleet/baseline/candidate.js'
import { withProgress } from './output.js'

export interface Host {
  backend: Backend
  /** For readers. */
  label: string
  /** vCPU features of which its report does not say whether it has them; none for a machine. */
  unknownFeatures: readonly VcpuFeature[]
}

/**
 * Refuses features that the host's report leaves unknown: the simulation would refuse them, and that would prove nothing.
 * @throws CommandError with the status of a negative answer
 */
export function refuseUnknown(
  { label, unknownFeatures }: Pick<Host, 'label' | 'unknownFeatures'>,
  features: readonly VcpuFeature[],
): void {
  const asked = features.filter((feature) => unknownFeatures.includes(feature))
  if (asked.length === 0) return
  throw new CommandError(
    `${label}: its report does not say whether it has ${asked.join(', ')}; kvm-arm64 import --with ${asked.join(',')} vouches for that`,
    exitStatus.negative,
  )
}

export function simulateOption(): Option {
  return new Option(
    '--simulate <host>',
    "use a simulated host instead of this machine's KVM: a name of `kvm-arm64 hosts`, or a report",
  )
}

/** Returns the host that `--simulate` names; without it this machine, whose KVM is not opened yet. */
export function hostOf(simulate?: string): Host {
  if (simulate === undefined) {
    const label = `Linux ${kernelBackend.host.release}, this machine`
    return { backend: kernelBackend, label, unknownFeatures: [] }
  }
  const label = `${simulate}, simulated`
  const name = builtInHostOf(simulate)
  if (name !== undefined) return { backend: simulator(name), label, unknownFeatures: [] }
  const report = reportOf(simulate)
  return { backend: simulator(report), label, unknownFeatures: report.traits.init.unknown ?? [] }
}

/** The word for this machine in place of a host argument. */
export const THIS = 'this'

/** Returns the host an argument names, which may be this machine. */
export function hostNamed(name: string): Host {
  return hostOf(name === THIS ? undefined : name)
}

/** Returns the report of a host that an argument names; for this machine it probes now. */
export function probedReportOf(name: string): Report {
  if (name !== THIS) return reportOf(name)
  using kvm = openKvm(kernelBackend)
  return withProgress('Probing this machine', () => probe(kvm))
}

/**
 * Resolves an argument HOST|REPORT to a report: a built-in host by its name, or else a file, or else the only built-in host whose
 * name begins with the argument: `seed` means `seed-v6`.
 * @throws CommandError if it is none of these, or the beginning of several names
 * @throws FormatError for a file that is not a report
 */
export function reportOf(hostOrFile: string): Report {
  const builtIn = builtInHostOf(hostOrFile)
  if (builtIn !== undefined) return builtInReport(builtIn)
  if (isThere(hostOrFile)) return readReport(hostOrFile)
  const nearest = nearestNames(hostOrFile, builtInHosts())
  const hint =
    nearest.length === 0 ? 'kvm-arm64 hosts lists the hosts' : `did you mean ${nearest.join(', ')}?`
  throw new CommandError(`${hostOrFile}: no such report file or built-in host; ${hint}`, exitStatus.usage)
}

/** Resolves an argument HOSTS|REPORT: as `reportOf`, but the beginning of several names selects all these hosts. */
export function reportsOf(hostsOrFile: string): NamedReport[] {
  const names = builtInHostsOf(hostsOrFile)
  if (names.length === 0) return [{ name: hostsOrFile, report: reportOf(hostsOrFile) }]
  return names.map((name) => ({ name, report: builtInReport(name) }))
}

/** @throws CommandError for the beginning of several names */
function builtInHostOf(name: string): BuiltInHost | undefined {
  const found = builtInHostsOf(name)
  if (found.length < 2) return found[0]
  throw new CommandError(`${name} means several hosts: ${found.join(', ')}; name one`, exitStatus.usage)
}

/** Returns the built-in host of this name; else those whose names begin with it, up to a hyphen, unless it is a file. */
function builtInHostsOf(name: string): BuiltInHost[] {
  const hosts = builtInHosts()
  const exact = hosts.find((host) => host === name)
  if (exact !== undefined) return [exact]
  return isThere(name) ? [] : hosts.filter((host) => host.startsWith(`${name}-`))
}

/** True also for a file that cannot be examined, and for a dangling link: reading it reports the error. */
function isThere(file: string): boolean {
  try {
    return lstatSync(file, { throwIfNoEntry: false }) !== undefined
  } catch {
    return true
  }
}
