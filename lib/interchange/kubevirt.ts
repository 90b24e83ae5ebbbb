/**
 * Where KubeVirt may run, and move, a VM on arm64: snippets of YAML that use the labels from `nfdFeatures`, since KubeVirt itself
 * adds no CPU labels to arm64 nodes (`pkg/virt-handler/node-labeller/arch_labeller.go` there).
 */
import type { Report } from '../report/report.js'
import type { Emitted } from './emitted.js'
import { labelNamespace, refuseNamespace } from './nfd.js'
import { nodeFacts } from './node-facts.js'

interface KubevirtOptions {
  /** As passed to `nfdFeatures`. Default `kvm-arm64.io`. */
  namespace?: string
}

/**
 * Returns YAML for a VM that may run on any of the hosts: a node affinity for its `spec.template.spec` and, if the hosts are of one
 * class, the `addedNodeSelector` of a migration.
 * @param reports at least one
 * @throws RangeError for a namespace that is not a DNS name
 */
export function kubevirtSelectors(
  reports: readonly Report[],
  { namespace = labelNamespace }: KubevirtOptions = {},
): Emitted {
  refuseNamespace(namespace)
  const classes = [...new Set(reports.map((report) => nodeFacts(report).hostClass))].toSorted()
  const lines = [
    '# For spec.template.spec of a VirtualMachine: nodes labelled by kvm-arm64 export --to nfd.',
    'affinity:',
    '  nodeAffinity:',
    '    requiredDuringSchedulingIgnoredDuringExecution:',
    '      nodeSelectorTerms:',
    '        - matchExpressions:',
    `            - key: ${namespace}/class`,
    '              operator: In',
    `              values: [${classes.map((name) => `'${name}'`).join(', ')}]`,
  ]
  const inexpressible = [
    'direction: a selector holds for every migration of the VM, there and back',
    'what is pinned in the guest: KubeVirt starts arm64 guests with host-passthrough',
  ]
  const [only] = classes
  if (classes.length === 1) {
    lines.push(
      '---',
      '# For spec of a VirtualMachineInstanceMigration.',
      'addedNodeSelector:',
      `  ${namespace}/class: '${only}'`,
      '---',
      '# Opt-in, for metadata.labels of the Node: migrations look for a node with the same vendor key as the first they find on the',
      '# source, so this keeps every VM within its class. It takes over a name meant for Intel and AMD; a node must have only one.',
      `cpu-vendor.node.kubevirt.io/kvm-arm64-${only}: 'true'`,
    )
  } else {
    inexpressible.push(
      `moves between the ${classes.length} classes: check each with kvm-arm64 check, or pin a baseline before the guest starts`,
    )
  }
  return { text: `${lines.join('\n')}\n`, inexpressible }
}
