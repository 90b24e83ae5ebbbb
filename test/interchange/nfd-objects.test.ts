/**
 * Objects for Node Feature Discovery. The schemas say what its published CRDs require of them (nfd.k8s-sigs.io/v1alpha1,
 * deployment/base/nfd-crds/nfd-api-crds.yaml as of July 2026) and what Kubernetes requires of names and labels; nothing else is
 * accepted.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as v from 'valibot'
import { afterAll, describe, test } from 'vitest'
import { readFleet } from '../../lib/fleet/classes.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { nfdFeatures } from '../../lib/interchange/nfd.js'
import { nfdObjects } from '../../lib/interchange/nfd-objects.js'
import { classOf } from '../../lib/report/digest.js'

const labelValue = v.pipe(v.string(), v.regex(/^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/))
const labelName = v.pipe(
  v.string(),
  v.regex(/^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/),
)
const objectName = v.pipe(v.string(), v.maxLength(253), v.regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/))
const labels = v.record(labelName, labelValue)
const metadata = v.strictObject({
  name: objectName,
  namespace: v.literal('node-feature-discovery'),
  labels,
})
const attributes = v.record(v.string(), v.strictObject({ elements: v.record(v.string(), v.string()) }))
const apiVersion = v.literal('nfd.k8s-sigs.io/v1alpha1')
const nodeFeature = v.strictObject({
  apiVersion,
  kind: v.literal('NodeFeature'),
  metadata,
  spec: v.strictObject({ features: v.strictObject({ attributes }), labels }),
})
const nodeFeatureGroup = v.strictObject({
  apiVersion,
  kind: v.literal('NodeFeatureGroup'),
  metadata,
  spec: v.strictObject({
    featureGroupRules: v.array(
      v.strictObject({
        name: v.string(),
        matchFeatures: v.array(
          v.strictObject({
            feature: v.string(),
            matchExpressions: v.record(
              v.string(),
              v.strictObject({ op: v.literal('In'), value: v.pipe(v.array(v.string()), v.minLength(1)) }),
            ),
          }),
        ),
      }),
    ),
  }),
})
const list = v.strictObject({
  apiVersion: v.literal('v1'),
  kind: v.literal('List'),
  items: v.array(v.variant('kind', [nodeFeature, nodeFeatureGroup])),
})

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-nfd-objects-'))
afterAll(() => rmSync(folder, { recursive: true }))
const n1 = builtInReport('linux-6.12-neoverse-n1')
const max = builtInReport('linux-6.12-max')

/** Returns the objects for hosts with these names and reports, and what is not in them. */
function objectsOf(hosts: Record<string, unknown>, namespace?: string) {
  const file = join(folder, 'fleet.ndjson')
  const lines = Object.entries(hosts).map(([name, report]) => JSON.stringify({ name, report }))
  writeFileSync(file, `${lines.join('\n')}\n`)
  const { text, inexpressible } = nfdObjects(readFleet(file), namespace === undefined ? {} : { namespace })
  const { items } = v.parse(list, JSON.parse(text))
  return {
    nodes: items.filter((item) => item.kind === 'NodeFeature'),
    groups: items.filter((item) => item.kind === 'NodeFeatureGroup'),
    inexpressible,
  }
}

describe('nfdObjects', () => {
  test('has a NodeFeature for each host, with the labels and the features of a feature file', () => {
    const { nodes } = objectsOf({ 'node-1': n1, 'node-2.example.com': max })
    assert.deepEqual(
      nodes.map(({ metadata: { name, labels: of } }) => [name, of['nfd.node.kubernetes.io/node-name']]),
      [
        ['kvm-arm64-node-1', 'node-1'],
        ['kvm-arm64-node-2.example.com', 'node-2.example.com'],
      ],
    )
    const { spec } = nodes[0]!
    const lines = nfdFeatures(n1, { expires: new Date() }).text.split('\n')
    const entries = lines.flatMap((line, index) => {
      const [name, value] = line.split('=') as [string, string]
      return line === '' || line.startsWith('#')
        ? []
        : [{ name, value, isLabel: lines[index - 1] !== '# +no-label' }]
    })
    const expected = (some: typeof entries) =>
      Object.fromEntries(some.map(({ name, value }) => [name, value]))
    const shown = expected(entries.filter(({ isLabel }) => isLabel))
    assert.ok(Object.keys(shown).length > 10)
    assert.deepEqual(spec.labels, shown)
    assert.deepEqual(spec.features.attributes, {
      'local.label': { elements: shown },
      'local.feature': { elements: expected(entries) },
    })
  })

  test('has a NodeFeatureGroup for each class, which finds the label of its nodes', () => {
    const { nodes, groups } = objectsOf({ a: n1, b: max, c: n1 }, 'example.com')
    assert.deepEqual(
      groups.map(({ metadata: { name } }) => name),
      [classOf(n1), classOf(max)].toSorted().map((digest) => `kvm-arm64-class-${digest}`),
    )
    const found = groups.map(({ spec }) => {
      const { feature, matchExpressions } = spec.featureGroupRules[0]!.matchFeatures[0]!
      const [label, { value }] = Object.entries(matchExpressions)[0]!
      return nodes
        .filter((node) => value.includes(node.spec.features.attributes[feature]!.elements[label]!))
        .map(({ metadata: { name } }) => name)
        .join()
    })
    assert.deepEqual(found.toSorted(), ['kvm-arm64-a,kvm-arm64-c', 'kvm-arm64-b'])
  })

  test('says what answered on each host', () => {
    const simulated = { ...n1, origin: { kind: 'simulation', of: 'linux-6.12-neoverse-n1' } }
    const { nodes, groups } = objectsOf({ a: n1, b: simulated })
    assert.equal(groups.length, 1)
    assert.deepEqual(
      nodes.map(({ spec }) => spec.labels['kvm-arm64.io/origin']),
      ['kernel', 'simulation'],
    )
  })

  test('leaves out hosts whose names no node has, and says so', () => {
    const long = 'n'.repeat(64)
    const { nodes, groups, inexpressible } = objectsOf({ Node_1: n1, [long]: n1 })
    assert.deepEqual(nodes, [])
    assert.equal(groups.length, 1)
    for (const name of ['Node_1', long]) {
      assert.ok(inexpressible.some((what) => what.startsWith(`${name}: Kubernetes allows no node`)))
    }
  })

  test('leaves out hosts of whose class there is no report, but groups them', () => {
    const file = join(folder, 'rows.ndjson')
    const row = { name: 'a', class: '0123456789abcdef', release: '6.12', build: '#1' }
    writeFileSync(
      file,
      JSON.stringify({ ...row, origin: { kind: 'kernel' }, probedAt: '2026-01-01T00:00:00.000Z' }),
    )
    const { text, inexpressible } = nfdObjects(readFleet(file))
    const { items } = v.parse(list, JSON.parse(text))
    assert.deepEqual(
      items.map(({ metadata: { name } }) => name),
      ['kvm-arm64-class-0123456789abcdef'],
    )
    assert.match(inexpressible[0]!, /^a: there is no report of its class 0123456789abcdef/)
  })

  test("refuses Kubernetes' own namespace", () => {
    assert.throws(() => objectsOf({ a: n1 }, 'k8s.io'), RangeError)
  })
})
