/**
 * The files that `kvm-arm64 collect --for kubernetes` writes. There is no kubelet here: the container's script runs as it is, the
 * script that collects runs with a stand-in for kubectl, and the manifest is read and compared with what both need.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { kvmArm64, main } from '../cli/run.js'
import { ensurePrograms } from '../debian.js'
import { type FleetHost, writeFleet } from './fleet.js'

interface Manifest {
  kind: string
  metadata: { name: string; namespace?: string }
  spec: {
    selector: { matchLabels: Record<string, string> }
    template: {
      metadata: { labels: Record<string, string> }
      spec: {
        containers: {
          image: string
          env: { name: string; valueFrom: unknown }[]
          volumeMounts: { name: string; mountPath: string }[]
        }[]
        volumes: { name: string; hostPath?: { path: string } }[]
      }
    }
  }
}

describe('Kubernetes', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-kubernetes-'))
  const at = (path: string) => join(folder, path)
  const command = `${process.execPath} ${main}`
  let nodes: FleetHost[]

  beforeAll(async () => {
    // It brings Python's reader of YAML.
    await ensurePrograms(['ansible-playbook'])
    const { status, error } = kvmArm64(['collect', '--for', 'kubernetes', at('collect')])
    assert.equal(status, 0, error)
    nodes = writeFleet(at('simulated'), 5, 3)
    for (const { name } of nodes) mkdirSync(at(`pods/${name}/features.d`), { recursive: true })
    mkdirSync(at('bin'))
    writeFileSync(at('bin/kubectl'), kubectl, { mode: 0o755 })
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  /** Lists the pods below PODS, prints the log of one, and runs a command in one, whose root is its folder there. */
  const kubectl = `#!/usr/bin/env bash
set -euo pipefail
case "$1 $*" in
  get*"jsonpath={range .items[*]}{.spec.nodeName}"*) for pod in "$PODS"/*; do echo "\${pod##*/} pod-\${pod##*/}"; done ;;
  "logs logs --namespace kvm-arm64 pod-"*) cat "$PODS/\${4#pod-}/log" ;;
  "exec exec --namespace kvm-arm64 pod-"*" -- cat /run/kvm-arm64/report.json") cat "$PODS/\${4#pod-}/report.json" ;;
  *) echo "kubectl: unexpected: $*" >&2; exit 1 ;;
esac
`

  /** Runs the container's script as on a node. */
  function probe({ name, report }: FleetHost, env: Record<string, string> = {}) {
    const result = spawnSync(at('collect/probe.sh'), {
      encoding: 'utf8',
      env: {
        ...process.env,
        NODE_NAME: name,
        KVM_ARM64: command,
        KVM_ARM64_INTERVAL: '0',
        KVM_ARM64_FEATURES: at(`pods/${name}/features.d`),
        KVM_ARM64_REPORT: at(`pods/${name}/report.json`),
        KVM_ARM64_SIMULATE: report,
        ...env,
      },
    })
    // As a container's log has both.
    writeFileSync(at(`pods/${name}/log`), result.stderr + result.stdout, { flag: 'a' })
    return result
  }

  function collect(result = 'result') {
    mkdirSync(at(result), { recursive: true })
    return spawnSync(at('collect/collect.sh'), {
      cwd: at(result),
      encoding: 'utf8',
      env: { ...process.env, KVM_ARM64: command, PATH: `${at('bin')}:${process.env.PATH}`, PODS: at('pods') },
    })
  }

  test('writes a feature file and prints a row on each node', () => {
    for (const node of nodes) {
      const { status, stdout, stderr } = probe(node)
      assert.equal(status, 0, stderr)
      assert.match(stdout, new RegExp(`^{"name":"${node.name}","class":"${node.class}",`))
      assert.deepEqual(readdirSync(at(`pods/${node.name}/features.d`)), ['kvm-arm64'])
      const features = readFileSync(at(`pods/${node.name}/features.d/kvm-arm64`), 'utf8')
      assert.match(features, new RegExp(`^kvm-arm64\\.io/class=${node.class}$`, 'm'))
      assert.match(features, /^kvm-arm64\.io\/origin=simulation$/m)
    }
  })

  test('ends where a probe fails, and leaves the feature file, which will expire', () => {
    const [node] = nodes as [FleetHost]
    const before = readFileSync(at(`pods/${node.name}/features.d/kvm-arm64`), 'utf8')
    assert.equal(probe(node, { KVM_ARM64_SIMULATE: 'no-such-host' }).status, 2)
    assert.equal(readFileSync(at(`pods/${node.name}/features.d/kvm-arm64`), 'utf8'), before)
    assert.notEqual(probe(node, { NODE_NAME: '' }).status, 0)
  })

  test('collects the rows of all pods and a report of each class, equal to one run over the reports', () => {
    const { status, stdout, stderr } = collect()
    assert.equal(status, 0, stderr)
    assert.match(stdout, /^5 hosts in 3 classes/m)
    mkdirSync(at('reports'))
    for (const { name } of nodes)
      writeFileSync(at(`reports/${name}.json`), readFileSync(at(`pods/${name}/report.json`)))
    const single = kvmArm64(['fleet', 'summarise', at('reports')])
    assert.equal(readFileSync(at('result/all.json'), 'utf8'), single.out)
    const { items } = JSON.parse(readFileSync(at('result/objects.json'), 'utf8')) as {
      items: { kind: string }[]
    }
    const count = (kind: string) => items.filter((item) => item.kind === kind).length
    assert.deepEqual([count('NodeFeature'), count('NodeFeatureGroup')], [5, 3])
  })

  test('writes the objects of other nodes if a class has no report', () => {
    const alike = nodes.filter((node) => node.class === nodes[0]!.class)
    for (const { name } of alike) renameSync(at(`pods/${name}/report.json`), at(`pods/${name}/hidden`))
    const { status, stderr } = collect('partly')
    for (const { name } of alike) renameSync(at(`pods/${name}/hidden`), at(`pods/${name}/report.json`))
    assert.equal(status, 1, stderr)
    assert.match(stderr, new RegExp(`holds no report of class ${nodes[0]!.class}`))
    const { items } = JSON.parse(readFileSync(at('partly/objects.json'), 'utf8')) as {
      items: { kind: string }[]
    }
    const features = items.filter(({ kind }) => kind === 'NodeFeature')
    assert.equal(features.length, nodes.length - alike.length)
  })

  test('asks for no report of a known class, and names a pod that printed no row', () => {
    writeFileSync(at(`pods/${nodes[0]!.name}/log`), 'kvm-arm64: no arm64 KVM here\n')
    for (const { name } of nodes) rmSync(at(`pods/${name}/report.json`))
    const before = readFileSync(at('result/all.json'), 'utf8')
    const { status, stderr } = collect()
    assert.equal(status, 1)
    assert.match(stderr, /node-01: pod pod-node-01 printed no row/)
    assert.equal(readFileSync(at('result/all.json'), 'utf8'), before)
  })

  test('has a manifest that gives the script what it needs', () => {
    const script = 'import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))'
    const file = at('collect/kvm-arm64.yaml')
    const out = execFileSync('/usr/bin/python3', ['-c', script, file], { encoding: 'utf8' })
    const [namespace, set] = JSON.parse(out) as [Manifest, Manifest]
    assert.deepEqual([namespace.kind, set.kind], ['Namespace', 'DaemonSet'])
    assert.equal(set.metadata.namespace, namespace.metadata.name)
    const { template, selector } = set.spec
    assert.deepEqual(template.metadata.labels, selector.matchLabels)
    const [container, ...others] = template.spec.containers
    assert.deepEqual(others, [])
    assert.deepEqual(container!.env, [
      { name: 'NODE_NAME', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
    ])
    const text = readFileSync(at('collect/probe.sh'), 'utf8')
    for (const { name, mountPath } of container!.volumeMounts) {
      assert.ok(text.includes(`:-${mountPath}`), mountPath)
      assert.ok(template.spec.volumes.some((volume) => volume.name === name))
    }
    // The directory that nfd-worker reads.
    assert.deepEqual(
      template.spec.volumes.map(({ hostPath }) => hostPath?.path),
      ['/etc/kubernetes/node-feature-discovery/features.d', undefined],
    )
  })
})
