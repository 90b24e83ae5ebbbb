/** The options that describe a VM, and the VM that `capture` writes and `check` moves. */
import { InvalidArgumentError, Option } from 'commander'
import { parseDocumentJson, readText } from '../documents/document.js'
import { apply, refusedNames } from '../fleet/baseline/apply.js'
import { type Baseline, checkBaseline } from '../fleet/baseline/format.js'
import { baselineOfTemplate, TemplateError } from '../interchange/baseline.js'
import { checkCpuTemplate } from '../interchange/firecracker.js'
import { baselineOfQemuOption, isQemuOption, QemuOptionError } from '../interchange/qemu.js'
import { capture, captureHost, type CaptureHostOptions } from '../migration/capture.js'
import type { State } from '../migration/state.js'
import { vmmNames, vmmRules } from '../migration/vmm/names.js'
import type { VmmRules } from '../migration/vmm/rules.js'
import { type PsciVersion, type ServiceGroup, serviceBitmaps } from '../hypercalls/index.js'
import {
  acceptedPsciVersions,
  type ElectablePsciVersion,
  electablePsciVersions,
} from '../probe/psci-version.js'
import { type Election, type Kvm, KvmError, openKvm } from '../kvm/index.js'
import { vcpuFeatures, type VcpuFeature } from '../uapi.js'
import { CommandError, exitStatus } from './exit.js'
import { type Host, refuseUnknown } from './host.js'
import { note } from './output.js'

export interface VmFlags {
  /** Instead of those that the VMM's VM has by default. */
  features?: VcpuFeature[]
  /** A file that configures the VM. */
  baseline?: string
  elect?: Election
  psci?: ElectablePsciVersion
}

export function vmOptions(): Option[] {
  return [
    new Option(
      '--features <features>',
      'vCPU features of the VM beside psci-0.2, separated by commas, or none; without it, those the VMM uses on the host',
    ).argParser(parseFeatures),
    new Option(
      '--baseline <file>',
      'make the VM by a file: a baseline, a CPU template of Firecracker, or a -cpu option of QEMU',
    ).conflicts(['features', 'elect', 'psci']),
    new Option(
      '--elect <services>',
      'services that its guest may discover, separated by commas, or none',
    ).argParser(parseElection),
    new Option(
      '--psci <version>',
      'PSCI version of its guest; without it, the newest that the host has',
    ).choices(electablePsciVersions),
  ]
}

/** `--vmm`, of one VMM. */
export function vmmOption(description: string): Option {
  return new Option('--vmm <vmm>', `${description}: ${vmmNames().join(', ')}`)
    .argParser(parseVmm)
    .default(vmmRules('strict'), 'strict')
}

/** `--vmm`, of several VMMs. */
export function vmmsOption(description: string): Option {
  return new Option('--vmm <vmms>', `${description}, separated by commas, or all: ${vmmNames().join(', ')}`)
    .argParser(parseVmms)
    .default([vmmRules('strict')], 'strict')
}

function parseVmms(list: string): VmmRules[] {
  const names = list === 'all' ? vmmNames() : list.split(',').map((name) => name.trim())
  // One VMM may have several names.
  return [...new Map(names.map((name) => [parseVmm(name).name, parseVmm(name)])).values()]
}

/** Parses `--vmm` of one VMM. */
export function parseVmm(name: string): VmmRules {
  try {
    return vmmRules(name)
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message)
  }
}

/**
 * Returns the state of a VM as the host makes it.
 * @throws CommandError with the status of a negative answer if the host cannot make such a VM
 */
export function freshState(
  host: Host,
  { features, elect, psci, baseline: file }: VmFlags & { features: VcpuFeature[] },
  vcpus = 1,
): State {
  const { backend, label } = host
  const baseline = file === undefined ? undefined : baselineIn(file)
  refuseUnknown(host, baseline?.features ?? features)
  using kvm = openKvm(backend)
  if (baseline !== undefined) return configuredState(kvm, label, baseline, vcpus)
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

/** @throws CommandError if the host refuses something of the baseline */
function configuredState(kvm: Kvm, label: string, baseline: Baseline, vcpus: number): State {
  let applied
  try {
    applied = apply(kvm, baseline, { vcpus })
  } catch (error) {
    if (!(error instanceof KvmError)) throw error
    throw new CommandError(`${label}: ${error.message}`, exitStatus.negative)
  }
  using vm = applied.vm
  const refused = refusedNames(applied)
  if (refused.length > 0) {
    throw new CommandError(`${label} refuses ${refused.join(', ')} of the baseline`, exitStatus.negative)
  }
  return capture(kvm, vm)
}

/**
 * Reads the file of `--baseline`.
 * @throws CommandError for a template or an option that no baseline can express
 * @throws FormatError for a file that is none of these
 */
export function baselineIn(file: string): Baseline {
  const text = readText(file, 'baseline')
  if (isQemuOption(text)) {
    try {
      return baselineOfQemuOption(text, file)
    } catch (error) {
      if (!(error instanceof QemuOptionError)) throw error
      throw new CommandError(`${file}: ${error.message}`, exitStatus.usage)
    }
  }
  const data = parseDocumentJson(text, file, 'baseline')
  if (!isCpuTemplate(data)) return checkBaseline(data, file)
  const { template, warnings } = checkCpuTemplate(data, file)
  for (const warning of warnings) note(`${file}: ${warning}`)
  try {
    return baselineOfTemplate(template, file)
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error
    throw new CommandError(`${file}: ${error.message}`, exitStatus.usage)
  }
}

/** Returns whether data is meant as a CPU template of Firecracker. */
export function isCpuTemplate(data: unknown): boolean {
  return (
    typeof data === 'object' &&
    data !== null &&
    ['kvm_capabilities', 'vcpu_features', 'reg_modifiers'].some((key) => key in data)
  )
}

/** Returns the features of the VM that options describe; `rules` decide where they do not. */
export function chosenFeatures({ features, baseline }: VmFlags): VcpuFeature[] | undefined {
  return features ?? (baseline === undefined ? undefined : baselineIn(baseline).features)
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
  const names = list === 'none' ? [] : list.split(',').map((name) => name.trim())
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
