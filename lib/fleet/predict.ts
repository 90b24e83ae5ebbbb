/** Predicts single moves: a fresh VM of one class, as a VMM makes it there, is restored on a simulation of another. */
import { FormatError } from '../documents/document.js'
import { simulator } from '../hosts/index.js'
import { KvmError, openKvm } from '../kvm/index.js'
import { capture, captureHost } from '../migration/capture.js'
import type { Finding } from '../migration/finding.js'
import type { State } from '../migration/state.js'
import { type UnknownFact, verdict } from '../migration/verdict.js'
import { factsOfReport } from '../migration/vmm/facts.js'
import { type VmmRules, type VmmVm, vmOn } from '../migration/vmm/rules.js'
import type { Report } from '../report/report.js'
import type { VcpuFeature } from '../uapi.js'
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
  try {
    if (maker.elect === undefined) return { vm, state: captureHost(kvm, { features: vm.features }) }
    using made = apply(kvm, { ...maker.elect, features: vm.features }).vm
    return { vm, state: capture(kvm, made) }
  } catch (error) {
    if (!(error instanceof KvmError)) throw error
    throw new FormatError(
      source,
      '$',
      `describes a host on which no VM with a vCPU of ${vm.features.join(', ')} can be created (${error.message})`,
    )
  }
}

/** Predicts every move to one host. */
export function arrivalsAt(report: Report, maker: Maker): (vm: MadeVm) => Answer {
  const { rules } = maker
  const kvm = openKvm(simulator(report))
  const destination = vmBy(maker, report)
  return ({ vm: source, state }) => {
    const { possible, findings, unknown } = verdict(state, kvm, rules, { source, destination })
    return {
      possible,
      findings: findings.filter(({ severity, stops }) => stops || severity !== 'notice'),
      unknown,
    }
  }
}
