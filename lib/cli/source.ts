/** The VM that `capture` writes down and `check` moves where there is no state: one as a host makes it. */
import { Option } from 'commander'
import { captureHost, type CaptureHostOptions } from '../compat/capture.js'
import { probe } from '../compat/probe.js'
import type { State } from '../compat/state.js'
import { type PsciVersion, psciVersions } from '../hypercalls/index.js'
import { kernelBackend } from '../kernel/index.js'
import { type Election, type Kvm, KvmError, openKvm } from '../kvm/index.js'
import type { Report } from '../report/report.js'
import { simulator } from '../simulator/index.js'
import type { VcpuFeature } from '../uapi.js'
import { parseElection } from './election.js'
import { CommandError, exitStatus } from './exit.js'
import { parseFeatures, reportOf } from './host.js'
import { withProgress } from './output.js'

/** The word for this machine's own KVM where a host is asked for. */
export const THIS = 'this'

export interface VmFlags {
  features: VcpuFeature[]
  elect?: Election
  psci?: Exclude<PsciVersion, '0.1'>
}

/** Options that choose what the VM is made with. */
export function vmOptions(): Option[] {
  return [
    new Option('--features <list>', 'vCPU features of the VM, separated by commas')
      .argParser(parseFeatures)
      .default(['psci-0.2'], 'psci-0.2'),
    new Option('--elect <list>', 'services its guest may discover, separated by commas, or none').argParser(
      parseElection,
    ),
    new Option(
      '--psci <version>',
      'version of PSCI its guest is told; without it, the newest of the host',
    ).choices(psciVersions.filter((version) => version !== '0.1')),
  ]
}

/** KVM of a host, `this` or simulated. */
export function openHost(host: string): Kvm {
  return openKvm(host === THIS ? kernelBackend : simulator(reportOf(host)))
}

/** The report of a host; of `this` it is made now. */
export function probedReportOf(host: string): Report {
  if (host !== THIS) return reportOf(host)
  using kvm = openKvm(kernelBackend)
  return withProgress('Probing this machine', () => probe(kvm))
}

/**
 * The state of a VM as the host makes it.
 * @throws CommandError with the status of a negative answer where the host cannot make such a VM
 */
export function freshState(host: string, { features, elect, psci }: VmFlags, vcpus = 1): State {
  using kvm = openHost(host)
  const options: CaptureHostOptions = {
    features,
    vcpus,
    ...(elect && { services: elect }),
    ...(psci && { psci }),
  }
  try {
    return captureHost(kvm, options)
  } catch (error) {
    const isNegative = error instanceof RangeError || (error instanceof KvmError && error.code === 'EINVAL')
    if (!isNegative) throw error
    throw new CommandError(`${host}: ${error.message}`, exitStatus.negative)
  }
}
