/** The options that describe a VM, and the VM that `capture` writes and `check` moves. */
import { InvalidArgumentError, Option } from 'commander'
import { captureHost, type CaptureHostOptions } from '../migration/capture.js'
import type { State } from '../migration/state.js'
import { type PsciVersion, type ServiceGroup, serviceBitmaps } from '../hypercalls/index.js'
import {
  acceptedPsciVersions,
  type ElectablePsciVersion,
  electablePsciVersions,
} from '../probe/psci-version.js'
import { type Election, type Kvm, KvmError, openKvm } from '../kvm/index.js'
import { vcpuFeatures, type VcpuFeature } from '../uapi.js'
import { CommandError, exitStatus } from './exit.js'
import type { Host } from './host.js'

export interface VmFlags {
  features: VcpuFeature[]
  elect?: Election
  psci?: ElectablePsciVersion
}

export function vmOptions(): Option[] {
  return [
    new Option('--features <features>', 'vCPU features of the VM beside psci-0.2, separated by commas')
      .argParser(parseFeatures)
      .default(['psci-0.2'], 'psci-0.2'),
    new Option(
      '--elect <services>',
      'services that its guest may discover, separated by commas, or none',
    ).argParser(parseElection),
    new Option(
      '--psci <version>',
      'version of PSCI of its guest; without it, the newest that the host has',
    ).choices(electablePsciVersions),
  ]
}

/**
 * Returns the state of a VM as the host makes it.
 * @throws CommandError with the status of a negative answer if the host cannot make such a VM
 */
export function freshState({ backend, label }: Host, { features, elect, psci }: VmFlags, vcpus = 1): State {
  using kvm = openKvm(backend)
  const options: CaptureHostOptions = {
    features,
    vcpus,
    ...(elect && { elect }),
    ...(psci && { psci }),
  }
  try {
    return captureHost(kvm, options)
  } catch (error) {
    throw refusalOf(error, kvm, label, psci)
  }
}

/**
 * Returns the negative answer for a host that cannot make a VM with these options; returns any other error unchanged.
 * @param psci the version that was requested
 */
export function refusalOf(error: unknown, kvm: Kvm, label: string, psci: PsciVersion | undefined): unknown {
  const isRefusal =
    error instanceof RangeError || (error instanceof KvmError && ['EINVAL', 'ENOENT'].includes(error.code))
  if (!isRefusal) return error
  const isVersion = error instanceof KvmError && error.register?.name === 'KVM_REG_ARM_PSCI_VERSION'
  const problem = isVersion
    ? `--psci ${psci} is not accepted; accepted: ${versionsOf(kvm).join(', ')}`
    : error.message
  return new CommandError(`${label}: ${problem}`, exitStatus.negative)
}

function versionsOf(kvm: Kvm): PsciVersion[] {
  using vm = kvm.createVm()
  return acceptedPsciVersions(vm.createVcpu(0, { features: ['psci-0.2'] }))
}

/** Parses `--features`: names separated by commas. Adds psci-0.2, without which a vCPU has PSCI 0.1 and which every VMM sets. */
export function parseFeatures(list: string): VcpuFeature[] {
  const known = Object.keys(vcpuFeatures)
  const names = list.split(',').map((name) => name.trim())
  const unknown = names.find((name) => !known.includes(name))
  if (unknown !== undefined) {
    throw new InvalidArgumentError(`Unknown vCPU feature "${unknown}"; known: ${known.join(', ')}.`)
  }
  return [...new Set<VcpuFeature>(['psci-0.2', ...(names as VcpuFeature[])])]
}

/** Parses `--elect`: names of services of any register; every register is then set from this list. */
export function parseElection(list: string): Election {
  const names = list === 'none' ? [] : list.split(',').map((name) => name.trim())
  const groups = Object.keys(serviceBitmaps) as ServiceGroup[]
  const unknown = names.find((name) => !groups.some((group) => namesIn(group).includes(name)))
  if (unknown !== undefined) {
    throw new InvalidArgumentError(
      `Unknown service "${unknown}"; known: ${groups.flatMap(namesIn).join(', ')}, or none.`,
    )
  }
  return Object.fromEntries(
    groups.map((group) => [group, names.filter((name) => namesIn(group).includes(name))]),
  )
}

function namesIn(group: ServiceGroup): string[] {
  return serviceBitmaps[group].services.map(({ name }) => name)
}
