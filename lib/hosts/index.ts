import { readFileSync } from 'node:fs'
import { checkObject, invalidType } from '../arguments.js'
import type { Backend } from '../backend.js'
import type { RuntimeText } from '../literals.js'
import { packageRoot } from '../package-root.js'
import { nearestNames } from '../registers/nearest.js'
import type { Report } from '../report/report.js'
import { simulatorBackend } from '../simulator/backend.js'
import { SimulatorError } from '../simulator/errors.js'

/** The reports in `recorded/`: their file names without `.json`. */
const names = [
  'linux-5.10-cortex-a57',
  'linux-5.10-max',
  'linux-5.10-neoverse-n1',
  'linux-6.1-cortex-a57',
  'linux-6.1-max',
  'linux-6.1-neoverse-n1',
  'linux-6.12-a64fx',
  'linux-6.12-cortex-a57',
  'linux-6.12-cortex-a57-gicv2',
  'linux-6.12-max',
  'linux-6.12-max-qemu-11',
  'linux-6.12-neoverse-n1',
  'linux-6.12-neoverse-n2',
  'linux-6.12-neoverse-v1',
  'linux-6.18-cortex-a57',
  'linux-6.18-max',
  'linux-6.18-neoverse-n1',
  'linux-6.18-neoverse-n1-pkvm',
  'linux-7.2-a64fx',
  'linux-7.2-cortex-a57',
  'linux-7.2-max',
  'linux-7.2-max-qemu-11',
  'linux-7.2-neoverse-n1',
  'linux-7.2-neoverse-n2',
  'linux-7.2-neoverse-v1',
  'seed-v6',
] as const

/** Name of a host whose report is part of this package. */
export type BuiltInHost = (typeof names)[number]

/** Names of the hosts whose reports are part of this package: by kernel, then in alphabetical order. */
export function builtInHosts(): BuiltInHost[] {
  return [...names]
}

/**
 * Returns the report of a built-in host.
 * @throws SimulatorError `ERR_KVM_UNKNOWN_HOST` for a name that `builtInHosts()` does not list
 */
export function builtInReport<Given extends string>(name: BuiltInHost | RuntimeText<Given>): Report {
  if (!(names as readonly string[]).includes(name)) {
    const nearest = nearestNames(name, names)
    throw new SimulatorError(
      'ERR_KVM_UNKNOWN_HOST',
      `no such built-in host ${JSON.stringify(name)}; ` +
        (nearest.length > 0 ? `did you mean ${nearest.join(', ')}?` : `there are ${names.join(', ')}`),
    )
  }
  // Not checked against the schema: that would take longer than everything else here, and the tests check all reports once.
  return JSON.parse(readFileSync(new URL(`lib/hosts/recorded/${name}.json`, packageRoot), 'utf8')) as Report
}

/**
 * Makes a backend that simulates a host: a built-in one, given by name, or the host of a report that `readReport` has checked.
 * @throws SimulatorError `ERR_KVM_UNKNOWN_HOST` for a name that `builtInHosts()` does not list
 * @throws TypeError for anything but a name or a report
 *
 * @example
 * using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
 */
export function simulator<Given extends string>(host: BuiltInHost | RuntimeText<Given> | Report): Backend {
  if (typeof host === 'string') return simulatorBackend(builtInReport(host), host)
  checkObject(host, 'host', 'the name of a built-in host or a report')
  if (!isReport(host)) throw invalidType('host', 'the name of a built-in host or a report', host)
  return simulatorBackend(host)
}

function isReport(host: { readonly format?: string }): boolean {
  return host.format === 'kvm-arm64/report'
}
