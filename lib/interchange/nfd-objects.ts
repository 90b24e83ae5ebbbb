/**
 * Objects of Kubernetes' Node Feature Discovery for a whole fleet (`docs/usage/custom-resources.md` and
 * `deployment/base/nfd-crds/nfd-api-crds.yaml` there), written from one place instead of a feature file on each node.
 */
import type { Fleet } from '../fleet/classes.js'
import type { HostRow } from '../fleet/summary.js'
import type { Report } from '../report/report.js'
import type { Emitted } from './emitted.js'
import { isDnsName, labelNamespace, type NodeLabels, nodeLabels, refuseNamespace } from './nfd.js'

const API_VERSION = 'nfd.k8s-sigs.io/v1alpha1'

/** Where nfd-master runs unless its installation says otherwise: it evaluates groups of its own namespace only. */
const NFD_NAMESPACE = 'node-feature-discovery'

/** A label names the node, and labels have at most this many characters. */
const MOST_NODE_NAME = 63

const managed = { 'app.kubernetes.io/managed-by': 'kvm-arm64' }

interface NfdObjectsOptions {
  /** DNS name in front of the labels. Default `kvm-arm64.io`. */
  namespace?: string
}

/**
 * Returns JSON for `kubectl apply`: a NodeFeature for each host, which requests the labels of `nfdFeatures`, and a NodeFeatureGroup
 * for each class, which lists all nodes that have the label of the class.
 * @param fleet hosts under the names of their nodes
 * @throws RangeError for a namespace that is not a DNS name
 */
export function nfdObjects(fleet: Fleet, { namespace = labelNamespace }: NfdObjectsOptions = {}): Emitted {
  refuseNamespace(namespace)
  const inexpressible: string[] = []
  const reports = new Map(fleet.classes.map((one) => [one.digest, one.hasReport ? one.report() : undefined]))
  const known = new Map<string, NodeLabels>()
  const labelsOf = (row: HostRow, report: Report): NodeLabels => {
    const key = `${row.class} ${row.origin.kind}`
    const labels = known.get(key) ?? nodeLabels({ ...report, origin: row.origin }, { namespace })
    known.set(key, labels)
    return labels
  }
  const nodes = fleet.hosts.flatMap((row) => {
    const report = reports.get(row.class)
    if (report === undefined) {
      inexpressible.push(`${row.name}: there is no report of its class ${row.class}`)
      return []
    }
    if (row.name.length > MOST_NODE_NAME || !isDnsName(row.name)) {
      inexpressible.push(`${row.name}: Kubernetes allows no node or no label of this name`)
      return []
    }
    return [nodeFeature(row.name, labelsOf(row, report))]
  })
  const groups = [...reports.keys()].toSorted().map((digest) => nodeFeatureGroup(digest, namespace))
  for (const labels of known.values()) inexpressible.push(...labels.inexpressible)
  inexpressible.push('when labels expire: nfd-gc removes a NodeFeature when its node is gone')
  const list = { apiVersion: 'v1', kind: 'List', items: [...nodes, ...groups] }
  return { text: `${JSON.stringify(list, null, 2)}\n`, inexpressible: [...new Set(inexpressible)] }
}

function nodeFeature(node: string, { labels, raw }: NodeLabels): object {
  return {
    apiVersion: API_VERSION,
    kind: 'NodeFeature',
    metadata: {
      name: `kvm-arm64-${node}`,
      namespace: NFD_NAMESPACE,
      labels: { 'nfd.node.kubernetes.io/node-name': node, ...managed },
    },
    spec: {
      // As nfd-worker names what it finds in a feature file, so that one rule fits both.
      features: {
        attributes: {
          'local.label': { elements: Object.fromEntries(labels) },
          'local.feature': { elements: Object.fromEntries([...labels, ...raw]) },
        },
      },
      labels: Object.fromEntries(labels),
    },
  }
}

function nodeFeatureGroup(digest: string, namespace: string): object {
  return {
    apiVersion: API_VERSION,
    kind: 'NodeFeatureGroup',
    metadata: { name: `kvm-arm64-class-${digest}`, namespace: NFD_NAMESPACE, labels: managed },
    spec: {
      featureGroupRules: [
        {
          name: `arm64 KVM hosts of class ${digest}`,
          matchFeatures: [
            {
              feature: 'local.label',
              matchExpressions: { [`${namespace}/class`]: { op: 'In', value: [digest] } },
            },
          ],
        },
      ],
    },
  }
}
