import type { SystemFd, VmFd } from '../backend.js'
import type { Kvm } from '../kvm/index.js'
import { checkKvm } from '../kvm/kvm.js'
import { check, kvmError } from '../kvm/errors.js'
import { featureIdAt, hex } from '../registers/index.js'
import { answeredBy } from '../report/origin.js'
import type { Report, ReportedRegister } from '../report/report.js'
import {
  capabilities,
  type Capability,
  errnos,
  KVM_ARM_FEATURE_ID_RANGE_SIZE,
  type VcpuFeature,
} from '../uapi.js'
import { census, type CensusCall, type CensusOptions } from './census.js'
import { BASE, probeConfiguration, probeRelative } from './configurations.js'
import { probeCpus, probeGuestReads, probeOtherCapabilities, probeVmTypes } from './machine.js'
import { onVm, smallestVmType } from './rig.js'
import { steady } from './steady.js'
import { probeFirmware, probeTraits, supportedFeatures } from './traits.js'

interface ProbeOptions {
  /** The value for `probedAt`. */
  now?: Date
  /** Whether the report includes a census of a fresh VM's guest. */
  census?: boolean
  /** Called after each call of the census. */
  progress?: CensusOptions['progress']
}

/**
 * Records everything that a host's KVM shows: what can be read, and what only experiments on scratch VMs can find out. The only
 * guest code it runs are hypercalls and reads of registers (`lib/kvm/guest-call.ts`). Meanwhile it keeps its thread on one CPU, as a
 * VM shows the CPU it runs on. Two probes of one host differ only in `probedAt`.
 *
 * @throws KvmError if the host cannot even make a VM and a vCPU
 */
export function probe(kvm: Kvm, options: ProbeOptions = {}): Report {
  checkKvm(kvm)
  const { cpus } = kvm.backend
  const pinned = cpus && check(cpus.pin(), { syscall: 'sched_setaffinity' })
  try {
    return probeHere(kvm, cpus && pinned && probeCpus(cpus, pinned.cpu), options)
  } finally {
    pinned?.release()
  }
}

function probeHere(
  kvm: Kvm,
  cpus: Report['cpus'],
  { now = new Date(), census: withCensus = false, progress }: ProbeOptions,
): Report {
  const fd = steady(kvm.fd)
  const type = smallestVmType(fd)
  const base = probeConfiguration(fd, type, { features: BASE, mte: false })
  if ('refused' in base) throw kvmError(-errnos[base.refused], { syscall: 'KVM_ARM_VCPU_INIT' })
  probeFirmware(fd, type, base)
  const masks = onVm(fd, type, probeWritableMasks)
  const supported = supportedFeatures(fd, type)
  const configurations = (mte: boolean) => (features: VcpuFeature[]) =>
    probeRelative(fd, type, { features: [...BASE, ...features], mte }, base)
  const sets = optionalFeatureSets(supported)
  const hasMte = fd.checkExtension(capabilities.KVM_CAP_ARM_MTE) > 0
  return {
    format: 'kvm-arm64/report',
    version: 2,
    probedAt: now.toISOString(),
    ...answeredBy(kvm.backend),
    capabilities: onVm(fd, type, (vm) => probeCapabilities(fd, vm)),
    otherCapabilities: onVm(fd, type, (vm) => probeOtherCapabilities(fd, vm)),
    vmTypes: probeVmTypes(fd),
    guestReads: probeGuestReads(fd, type),
    cpus,
    vcpuMmapSize: kvm.vcpuMmapSize,
    preferredTarget: onVm(fd, type, preferredTarget),
    registers: base.map((register) => withMask(register, masks.get(register.id))),
    configurations: [
      ...sets.map(configurations(false)),
      ...(hasMte ? [[], ...sets].map(configurations(true)) : []),
    ],
    traits: probeTraits(fd, type, supported, base),
    ...(withCensus && { census: discoveries(census(kvm, progress && { progress })) }),
  }
}

/** Returns the calls of a census that found something, in the report's form. */
export function discoveries(calls: readonly CensusCall[]): NonNullable<Report['census']> {
  return calls
    .filter(({ found }) => found)
    .map(({ conduit, functionId, name, argument, x, exit }) => ({
      conduit,
      functionId: hex(BigInt(functionId)),
      name,
      argument: hex(argument),
      x: x && (x.map(hex) as [string, string, string, string]),
      exit: exit && (exit.reason === 'system-event' ? `system-event ${exit.event}` : exit.reason),
    }))
}

function probeCapabilities(kvm: SystemFd, vm: VmFd): Report['capabilities'] {
  const names = Object.keys(capabilities) as Capability[]
  return Object.fromEntries(
    names.map((name) => [
      name,
      [kvm.checkExtension(capabilities[name]), vm.checkExtension(capabilities[name])],
    ]),
  )
}

function preferredTarget(vm: VmFd): number {
  const init = new Uint32Array(8)
  check(vm.getPreferredTarget(init), { syscall: 'KVM_ARM_PREFERRED_TARGET' })
  return init[0]!
}

/** Masks by register id; empty if the ioctl does not exist. */
function probeWritableMasks(vm: VmFd): Map<string, bigint> {
  const masks = new BigUint64Array(KVM_ARM_FEATURE_ID_RANGE_SIZE)
  if (vm.getRegWritableMasks(0, masks) < 0) return new Map()
  return new Map(Array.from(masks, (mask, index) => [hex(featureIdAt(index)), mask]))
}

function withMask({ write, ...register }: ReportedRegister, mask = 0n): ReportedRegister {
  return { ...register, ...(mask !== 0n && { mask: hex(mask) }), ...(write && { write }) }
}

/**
 * Every non-empty combination of optional features, with the two of pointer authentication always together, and
 * `has-el2-e2h0` only with the EL2 that it shapes.
 */
function optionalFeatureSets(supported: readonly VcpuFeature[]): VcpuFeature[][] {
  const units: VcpuFeature[][] = supported
    .filter((feature) => feature !== 'psci-0.2' && feature !== 'power-off' && feature !== 'ptrauth-generic')
    .map((feature) => (feature === 'ptrauth-address' ? ['ptrauth-address', 'ptrauth-generic'] : [feature]))
  const sets = Array.from({ length: 2 ** units.length - 1 }, (_, index) =>
    units.filter((_unit, bit) => ((index + 1) >> bit) & 1).flat(),
  )
  return sets.filter((features) => !features.includes('has-el2-e2h0') || features.includes('has-el2'))
}
