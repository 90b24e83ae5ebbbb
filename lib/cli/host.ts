import { existsSync } from 'node:fs'
import { InvalidArgumentError } from 'commander'
import { nearestNames } from '../registers/index.js'
import { readReport } from '../report/read.js'
import type { Report } from '../report/report.js'
import { builtInHosts, builtInReport } from '../simulator/index.js'
import { vcpuFeatures, type VcpuFeature } from '../uapi.js'
import { CommandError, exitStatus } from './exit.js'

/**
 * The report that an argument HOST|REPORT means: a built-in host by name, or else a file.
 * @throws CommandError where it is neither
 * @throws FormatError for a file that is no report
 */
export function reportOf(hostOrFile: string): Report {
  const hosts = builtInHosts()
  if (hosts.includes(hostOrFile)) return builtInReport(hostOrFile)
  if (existsSync(hostOrFile)) return readReport(hostOrFile)
  const nearest = nearestNames(hostOrFile, hosts)
  const hint =
    nearest.length === 0 ? 'kvm-arm64 hosts lists the hosts' : `did you mean ${nearest.join(', ')}?`
  throw new CommandError(
    `${hostOrFile}: no such report file, and no built-in host; ${hint}`,
    exitStatus.usage,
  )
}

/** Parses `--features`: names separated by commas. */
export function parseFeatures(list: string): VcpuFeature[] {
  const known = Object.keys(vcpuFeatures)
  const names = list.split(',').map((name) => name.trim())
  const unknown = names.find((name) => !known.includes(name))
  if (unknown !== undefined) {
    throw new InvalidArgumentError(`"${unknown}" is no vCPU feature: ${known.join(', ')}.`)
  }
  return names as VcpuFeature[]
}
