/** The baseline of a fleet as far as a VMM can elect it: what its VMs would be if every host made them alike. */
import { decodePsciVersion } from '../../hypercalls/index.js'
import { factsOfReport } from '../../migration/vmm/facts.js'
import { optionalFeatures, type VmmRules, vmOn } from '../../migration/vmm/rules.js'
import { longestVector } from '../../registers/sve.js'
import type { VcpuFeature } from '../../uapi.js'
import { type CommonBaseline, computeCommon } from './baseline.js'
import type { NamedReport } from './candidate.js'

/**
 * Computes the baseline of hosts and keeps what the VMM can set before the first run: everything if it writes registers or has CPU
 * templates; otherwise what its options choose, that is features, the PSCI version and vector lengths.
 *
 * @param features of the VMs instead of those that the VMM's VM has on each host
 * @throws RangeError if no host is given, two have one name, or one has no vCPU with the features that all have in common
 */
export function electBaseline(
  rules: VmmRules,
  hosts: readonly NamedReport[],
  features?: readonly VcpuFeature[],
): CommonBaseline {
  const own = hosts.map(({ report }) => vmOn(rules, factsOfReport(report), features).features)
  const shared = (own[0] ?? []).filter((feature) => own.every((of) => of.includes(feature)))
  const common = computeCommon(hosts, { features: shared })
  if (rules.pins !== 'none') return common
  const { psciVersion, vectorLengths } = common
  const choosesPsci =
    psciVersion !== null &&
    rules.option({ what: 'psci', version: decodePsciVersion(BigInt(psciVersion)) }) !== undefined
  const choosesVectors =
    vectorLengths !== null &&
    rules.option({ what: 'vectors', longest: longestVector(BigInt(vectorLengths)) }) !== undefined
  return {
    ...common,
    psciVersion: choosesPsci ? psciVersion : null,
    vectorLengths: choosesVectors ? vectorLengths : null,
    bitmaps: [],
    idRegisters: [],
    registers: [],
  }
}

/** Returns the features of a VM without those that the baseline leaves out and that the VMM can leave out. */
export function electedFeatures(
  rules: VmmRules,
  baseline: CommonBaseline,
  own: readonly VcpuFeature[],
): VcpuFeature[] {
  return own.filter((feature) => baseline.features.includes(feature) || !canLeaveOut(rules, feature))
}

function canLeaveOut(rules: VmmRules, feature: VcpuFeature): boolean {
  if (rules.pins !== 'none') return true
  const named = rules.wants.find((want) => optionalFeatures[want].includes(feature))
  return named !== undefined && rules.option({ what: 'without', feature: named }) !== undefined
}
