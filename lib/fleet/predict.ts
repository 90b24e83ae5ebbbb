/** Predicts single moves: a fresh VM of one class, as a VMM makes it there, is restored on a simulation of another. */
import { FormatError } from '../documents/document.js'
import { simulator } from '../hosts/index.js'
import { KvmError, openKvm } from '../kvm/index.js'
import { capture, captureHost } from '../migration/capture.js'
import type { Finding } from '../migration/finding.js'
import type { RestorePlan } from '../migration/planned-writes.js'
import type { State } from '../migration/state.js'
import { planRestore, type UnknownFact, verdict } from '../migration/verdict.js'
import { factsOfReport } from '../migration/vmm/facts.js'
import { type VmmRules, type VmmVm, vmOn } from '../migration/vmm/rules.js'
import { timerCounters } from '../registers/index.js'
import { canonicalJson, commonText, sha256 } from '../report/digest.js'
import type { Report } from '../report/report.js'
import type { Capability, VcpuFeature } from '../uapi.js'
import { apply } from './baseline/apply.js'
import type { CommonBaseline } from './baseline/baseline.js'
import { electedFeatures } from './baseline/elect.js'

/** How VMs are made. */
export interface Maker {
  rules: VmmRules
  /** Instead of the features the rules give. */
  features: readonly VcpuFeature[] | undefined
  elect: CommonBaseline | undefined
}

/** A VM as the VMM makes it on a host, and its state before anything ran in it. */
export interface MadeVm {
  vm: VmmVm
  state: State
  plan: RestorePlan
}

/** The answer for one move. */
export interface Answer {
  possible: boolean
  /** What stops it, and what its guest would notice: the gravest first. */
  findings: Finding[]
  unknown: UnknownFact[]
}

/** Returns the VM that is made on a host. */
function vmBy({ rules, features, elect }: Maker, report: Report): VmmVm {
  const facts = factsOfReport(report)
  const own = vmOn(rules, facts, features)
  return elect === undefined ? own : vmOn(rules, facts, electedFeatures(rules, elect, own.features))
}

/** @throws FormatError if the host has no such VM: it lacks a feature, or cannot exist although its report is complete */
export function makeVm(report: Report, source: string, maker: Maker): MadeVm {
  using kvm = openKvm(simulator(report))
  const vm = vmBy(maker, report)
  const plan = planRestore(maker.rules)
  try {
    if (maker.elect === undefined) {
      return { vm, state: atTimeZero(captureHost(kvm, { features: vm.features })), plan }
    }
    using made = apply(kvm, { ...maker.elect, features: vm.features }).vm
    return { vm, state: atTimeZero(capture(kvm, made)), plan }
  } catch (error) {
    if (!(error instanceof KvmError)) throw error
    throw new FormatError(
      source,
      '$',
      `describes a host on which no VM with a vCPU of ${vm.features.join(', ')} can be created (${error.message})`,
    )
  }
}

/** Sets the counters to 0: how long a VM has existed decides nothing, and would make every state another. */
function atTimeZero(state: State): State {
  for (const register of state.vcpus.flatMap(({ registers }) => registers)) {
    if (timerCounters.has(BigInt(register.id))) register.value = '0x0'
  }
  return state
}

/** Predicts every move to one host. */
export function arrivalsAt(report: Report, maker: Maker): (vm: MadeVm) => Answer {
  const { rules } = maker
  const kvm = openKvm(simulator(report))
  const destination = vmBy(maker, report)
  return ({ vm: source, state, plan }) => {
    const { possible, findings, unknown } = verdict(state, kvm, rules, { source, destination, plan })
    return {
      possible,
      findings: findings.filter(({ severity, stops }) => stops || severity !== 'notice'),
      unknown,
    }
  }
}

/** Names what a VM brings along to any destination: VMs with the same name have the same answers. */
export function sourceKey({ vm, state }: MadeVm): string {
  const { capturedAt: _when, host: _build, origin: _who, ...content } = state
  const { isUntried: _ofDestinations, counterFrequency, ...made } = vm
  return keyOf({ content, made, counterFrequency: counterFrequency?.toString() })
}

/** Names what a destination decides by: hosts with the same name give the same answers. */
export function destinationKey(report: Report): string {
  return keyOf(commonText(decisive(report)))
}

/** 128 bits: unlike the digest of a class, nobody reads it. */
function keyOf(content: unknown): string {
  return sha256(canonicalJson(content)).slice(0, 32)
}

/**
 * Capabilities that no prediction looks at: those of debugging, dirty logs, statistics, memory of special kinds, and events. A test
 * watches predictions for accesses to them.
 */
export const idleCapabilities: ReadonlySet<Capability> = new Set([
  'KVM_CAP_MAX_VCPU_ID',
  'KVM_CAP_HALT_POLL',
  'KVM_CAP_BINARY_STATS_FD',
  'KVM_CAP_SET_GUEST_DEBUG',
  'KVM_CAP_GUEST_DEBUG_HW_BPS',
  'KVM_CAP_GUEST_DEBUG_HW_WPS',
  'KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2',
  'KVM_CAP_DIRTY_LOG_RING',
  'KVM_CAP_DIRTY_LOG_RING_ACQ_REL',
  'KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP',
  'KVM_CAP_MEMORY_FAULT_INFO',
  'KVM_CAP_MEMORY_ATTRIBUTES',
  'KVM_CAP_PRE_FAULT_MEMORY',
  'KVM_CAP_GUEST_MEMFD',
  'KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE',
  'KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES',
  'KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED',
  'KVM_CAP_IOEVENTFD',
  'KVM_CAP_IOEVENTFD_ANY_LENGTH',
  'KVM_CAP_IRQFD',
  'KVM_CAP_IRQ_ROUTING',
  'KVM_CAP_SIGNAL_MSI',
  'KVM_CAP_MSI_DEVID',
])

/** Traits that show only in a VM that runs, or in calls that no restore makes. Likewise. */
export const idleTraits: ReadonlySet<keyof Report['traits']> = new Set([
  'bitmapAfterRun',
  'idRegisterAfterRun',
  'sErrorWakes',
  'irqLineByIndex',
  'irqLineChecksInitFirst',
  'irqEventKeepsCount',
  'vgicAddressCheckedFirst',
])

/** A report without what no prediction looks at. */
function decisive(report: Report): Report {
  return {
    ...report,
    capabilities: without(report.capabilities, idleCapabilities),
    traits: without(report.traits, idleTraits),
  }
}

function without<T extends object>(record: T, left: ReadonlySet<string>): T {
  return Object.fromEntries(Object.entries(record).filter(([key]) => !left.has(key))) as T
}
