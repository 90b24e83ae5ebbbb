/**
 * Feature files of Kubernetes' Node Feature Discovery, source `local` (`docs/usage/customization-guide.md` there;
 * `source/local/local.go` decides what is accepted). Such a file belongs into `/etc/kubernetes/node-feature-discovery/features.d/`.
 */
import type { GateDocument } from '../fleet/gate.js'
import type { Report } from '../report/report.js'
import type { Emitted } from './emitted.js'
import { moveLabels } from './move-labels.js'
import { nodeFacts } from './node-facts.js'

/** Prefix of all labels, unless another is chosen. */
export const labelNamespace = 'kvm-arm64.io'

/** NFD ignores larger files entirely. */
const MOST_BYTES = 65_536

interface NfdOptions {
  /** DNS name in front of the labels. Default `kvm-arm64.io`. */
  namespace?: string
  /** When labels that have not been renewed expire. */
  expires: Date
  /**
   * Fleets that this host is in, each for another VMM: `moves-key.VMM` is the same on nodes that can exchange VMs both ways, and
   * `accepts.VMM.CLASS` is on nodes to which a VM of this class can go.
   */
  fleets?: readonly GateDocument[]
}

/** What a report says of a node, as labels. */
export interface NodeLabels {
  /** With prefix. */
  labels: readonly (readonly [name: string, value: string])[]
  /** For use in rules only. */
  raw: readonly (readonly [name: string, value: string])[]
  inexpressible: string[]
}

/**
 * Returns labels for the usual scheduling decisions, and raw features, for use in NodeFeatureRules, for everything else.
 * @throws RangeError for a namespace that is not a DNS name, and for a host that is not in a fleet
 */
export function nodeLabels(
  report: Report,
  { namespace = labelNamespace, fleets = [] }: Omit<NfdOptions, 'expires'> = {},
): NodeLabels {
  refuseNamespace(namespace)
  const facts = nodeFacts(report)
  const moves = fleets.map((fleet) => moveLabels(facts.hostClass, fleet))
  const labels: [name: string, value: string][] = [
    ['class', facts.hostClass],
    ['origin', facts.origin],
    ['psci', facts.psci],
    ['midr', facts.midr],
    ...facts.bitmaps.map(({ name, mask }): [string, string] => [name, mask]),
    ...facts.workarounds.map(({ name, value }): [string, string] => [name, value]),
    ...facts.vcpuFeatures
      .filter((feature) => feature !== 'power-off')
      .map((feature): [string, string] => [`vcpu-feature.${feature}`, 'true']),
    ...(facts.interruptControllers ?? []).map((type): [string, string] => [
      `interrupt-controller.${type}`,
      'true',
    ]),
    ...recorded('counter-frequency', facts.counterFrequency),
    ...recorded('page-size', facts.pageSize),
    ...recorded('ipa-bits', facts.ipaLimit),
    ...recorded('mte', facts.mte),
    ...recorded('pkvm', facts.protectedKvm),
    ...recorded('cpu-kinds', facts.cpuKinds),
    ...moves.flatMap(({ vmm, key, accepts }): [string, string][] => [
      ...(key === undefined ? [] : [[`moves-key.${vmm}`, key] as [string, string]]),
      ...accepts.map((digest): [string, string] => [`accepts.${vmm}.${digest}`, 'true']),
    ]),
  ]
  const raw = [
    ...facts.idRegisters.map(({ name, value }): [string, string] => [name, value]),
    ...facts.guestReads.map(({ name, value }): [string, string] => [`guest-read.${name}`, value]),
  ]
  const inexpressible: string[] = []
  const prefixed = ([name, value]: readonly [string, string]): (readonly [string, string])[] => {
    if (isLabelName(name) && isLabelValue(value)) return [[`${namespace}/${name}`, value]]
    inexpressible.push(`${name}=${value}: Kubernetes allows no such label`)
    return []
  }
  const shown = { labels: labels.flatMap(prefixed), raw: raw.flatMap(prefixed) }
  inexpressible.push(
    fleets.length === 0
      ? 'what may be written, register by register: labels tell which hosts are alike (class), not which moves are possible between others'
      : 'what may be written, register by register',
    ...moves.flatMap((of) => of.inexpressible),
  )
  return { ...shown, inexpressible }
}

function line([name, value]: readonly [string, string]): string {
  return `${name}=${value}`
}

/**
 * Returns the file for a node with this report.
 * @throws RangeError as `nodeLabels`, and for a file larger than NFD reads
 */
export function nfdFeatures(report: Report, { expires, ...options }: NfdOptions): Emitted {
  const { labels, raw, inexpressible } = nodeLabels(report, options)
  const text = `${[
    `# KVM of ${report.host.release.replaceAll(/[^\w.+~-]/g, '?')}, written by kvm-arm64`,
    `# +expiry-time=${expires.toISOString().replace(/\.\d+Z$/, 'Z')}`,
    ...labels.map(line),
    ...raw.flatMap((entry) => ['# +no-label', line(entry)]),
  ].join('\n')}\n`
  const size = Buffer.byteLength(text)
  if (size > MOST_BYTES) {
    throw new RangeError(
      `The feature file would have ${size} bytes, and Node Feature Discovery ignores files of more than ${MOST_BYTES}`,
    )
  }
  return { text, inexpressible }
}

/** Returns the label of a fact; none if it was not recorded. */
function recorded(name: string, value: bigint | number | boolean | undefined): [string, string][] {
  return value === undefined ? [] : [[name, String(value)]]
}

/** @throws RangeError for a text that Kubernetes does not accept as the prefix of a label */
export function refuseNamespace(namespace: string): void {
  if (!isDnsName(namespace))
    throw new RangeError(`${JSON.stringify(namespace)} is no DNS name in lower case, as labels begin with`)
  if (
    /(^|\.)(kubernetes|k8s)\.io$/.test(namespace) &&
    !/(^|\.)feature\.node\.kubernetes\.io$/.test(namespace)
  ) {
    throw new RangeError(`Node Feature Discovery makes no labels in ${namespace}, which is Kubernetes' own`)
  }
}

/** A name as Kubernetes accepts it for objects and in front of labels. */
export function isDnsName(name: string): boolean {
  return (
    name.length <= 253 && name.split('.').every((part) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(part))
  )
}

/** The part after the slash. */
function isLabelName(name: string): boolean {
  return name !== '' && isLabelValue(name)
}

export function isLabelValue(value: string): boolean {
  return value === '' || /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/.test(value)
}
