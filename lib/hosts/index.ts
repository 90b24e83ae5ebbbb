import { readdirSync, readFileSync } from 'node:fs'
import type { Backend } from '../backend.js'
import { packageRoot } from '../package-root.js'
import type { Report } from '../report/report.js'
import { simulatorBackend } from '../simulator/backend.js'
import { SimulatorError } from '../simulator/errors.js'

const folder = new URL('lib/hosts/recorded/', packageRoot)
const SUFFIX = '.json'

/** Names of the hosts whose reports come with this package, in alphabetical order. */
export function builtInHosts(): string[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith(SUFFIX))
    .map((file) => file.slice(0, -SUFFIX.length))
    .toSorted()
}

/**
 * The report of a built-in host.
 * @throws SimulatorError `ERR_KVM_UNKNOWN_HOST` for a name that is none of `builtInHosts()`
 */
export function builtInReport(name: string): Report {
  const names = builtInHosts()
  if (!names.includes(name)) {
    throw new SimulatorError(
      'ERR_KVM_UNKNOWN_HOST',
      `No built-in host is called ${JSON.stringify(name)}. There are: ${names.join(', ') || 'none'}.`,
    )
  }
  // Not checked against the schema, which takes longer than all else here: the tests do that once for all.
  return JSON.parse(readFileSync(new URL(name + SUFFIX, folder), 'utf8')) as Report
}

/**
 * A simulated host: a built-in one by name, or that of a report.
 * @throws SimulatorError `ERR_KVM_UNKNOWN_HOST` for a name that is none of `builtInHosts()`
 */
export function simulator(host: string | Report): Backend {
  return typeof host === 'string' ? simulatorBackend(builtInReport(host), host) : simulatorBackend(host)
}
