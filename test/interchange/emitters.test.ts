import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import {
  type GuestConfiguration,
  guestConfiguration,
  vectorLengthsOf,
} from '../../lib/interchange/configuration.js'
import { kubevirtSelectors } from '../../lib/interchange/kubevirt.js'
import { isLabelValue, nfdFeatures } from '../../lib/interchange/nfd.js'
import { prometheusMetrics } from '../../lib/interchange/prometheus.js'
import { qemuCpuOption } from '../../lib/interchange/qemu.js'
import { openKvm } from '../../lib/kvm/index.js'
import type { Report } from '../../lib/report/report.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import type { VcpuFeature } from '../../lib/uapi.js'
import { withRows } from '../report/rows.js'

function configuration(host: string, features: VcpuFeature[] = ['psci-0.2']): GuestConfiguration {
  using kvm = openKvm(simulator(host))
  return guestConfiguration(kvm, features)
}

describe('the option -cpu of QEMU', () => {
  const cases: [host: string, features: VcpuFeature[], version: '10.0' | '11.1', text: string][] = [
    ['linux-6.1-neoverse-n1', ['psci-0.2'], '10.0', '-cpu host,pmu=off,sve=off,pauth=off\n'],
    [
      'linux-6.1-neoverse-n1',
      ['psci-0.2', 'pmu-v3'],
      '11.1',
      '-cpu host,pmu=on,sve=off,pauth=off,kvm-psci-version=1.1\n',
    ],
    [
      'linux-7.2-max',
      ['psci-0.2', 'sve', 'ptrauth-address', 'ptrauth-generic'],
      '11.1',
      '-cpu host,pmu=off,sve=on,sve2048=on,pauth=on,kvm-psci-version=1.3\n',
    ],
    [
      'linux-6.12-cortex-a57',
      ['psci-0.2', 'el1-32bit'],
      '10.0',
      '-cpu host,pmu=off,aarch64=off,sve=off,pauth=off\n',
    ],
  ]
  for (const [host, features, version, text] of cases) {
    test(`of QEMU ${version} for ${host} with ${features.join(', ')}`, () => {
      assert.equal(qemuCpuOption(configuration(host, features), version).text, text)
    })
  }

  test('says what QEMU cannot be told', () => {
    const offered = configuration('linux-6.12-neoverse-n1')
    const elected = { ...offered, bitmaps: offered.bitmaps.map((bitmap) => ({ ...bitmap, value: 0n })) }
    const { text, inexpressible } = qemuCpuOption(elected, '10.0')
    assert.match(text, /kvm-steal-time=off/)
    const told = inexpressible.join('\n')
    assert.match(told, /PSCI 1\.1: QEMU 10\.0 shows the newest/)
    assert.match(told, /KVM_REG_ARM_VENDOR_HYP_BMAP 0x0: .*by default \(0x3\)/)
    assert.match(told, /ID registers/)
    assert.doesNotMatch(qemuCpuOption(offered, '11.1').inexpressible.join('\n'), /BMAP|PSCI/)
  })

  test('vector lengths are told from their bits', () => {
    assert.deepEqual(vectorLengthsOf(0b1011n), [128, 256, 512])
  })
})

/** As `parseFeatureFile` of Node Feature Discovery's source `local` does. */
function readFeatureFile(
  text: string,
  now: Date,
): { features: Map<string, string>; labels: Map<string, string> } {
  const features = new Map<string, string>()
  const labels = new Map<string, string>()
  let expiry = now
  let skipLabel = false
  for (const line of text.split('\n').map((each) => each.trim())) {
    if (line === '') continue
    if (line.startsWith('#')) {
      if (!line.startsWith('# +')) continue
      const [key, value] = line.slice(3).split('=')
      if (key === 'expiry-time') {
        assert.match(value!, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
        expiry = new Date(value!)
      } else if (key === 'no-label') skipLabel = true
      else assert.fail(`unknown directive ${line}`)
      continue
    }
    if (expiry < now) continue
    const [key, value = 'true'] = line.split('=')
    features.set(key!, value)
    if (!skipLabel) labels.set(key!, value)
    skipLabel = false
  }
  return { features, labels }
}

describe('a feature file for Node Feature Discovery', () => {
  const now = new Date('2026-11-22T12:00:00.5Z')
  const expires = new Date(now.getTime() + 3_600_000)
  const report = builtInReport('linux-6.12-max')

  test('labels what schedulers choose by, and has the ID registers as features only', () => {
    const { labels, features } = readFeatureFile(nfdFeatures(report, { expires }).text, now)
    assert.equal(labels.get('kvm-arm64.io/psci'), '1.1')
    assert.equal(labels.get('kvm-arm64.io/VENDOR_HYP_BMAP'), '0x3')
    assert.equal(labels.get('kvm-arm64.io/vcpu-feature.sve'), 'true')
    assert.match(labels.get('kvm-arm64.io/class')!, /^[0-9a-f]{16}$/)
    assert.ok(!labels.has('kvm-arm64.io/ID_AA64PFR0_EL1'))
    const pfr0 = report.registers.find(({ name }) => name === 'ID_AA64PFR0_EL1')!.value
    assert.equal(features.get('kvm-arm64.io/ID_AA64PFR0_EL1'), pfr0)
  })

  test('says nothing any more once it has expired', () => {
    const { text } = nfdFeatures(report, { expires })
    const later = new Date(expires.getTime() + 1000)
    assert.deepEqual(readFeatureFile(text, later), { features: new Map(), labels: new Map() })
  })

  test('every name and value is one Kubernetes takes', () => {
    const { labels, features } = readFeatureFile(nfdFeatures(report, { expires }).text, now)
    for (const [key, value] of [...labels, ...features]) {
      const [namespace, name] = key.split('/')
      assert.equal(namespace, 'kvm-arm64.io')
      assert.match(name!, /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/)
      assert.ok(isLabelValue(value), value)
    }
    for (const bad of ['a'.repeat(64), '-a', 'a_', 'a b', 'ä']) assert.ok(!isLabelValue(bad), bad)
  })

  test('a kernel’s name cannot bring in lines of its own', () => {
    const hostile = { ...report, host: { ...report.host, release: '6.1\n# +expiry-time=9999' } }
    assert.match(nfdFeatures(hostile, { expires }).text.split('\n')[0]!, /6\.1\?\?/)
  })

  test('a file that would be ignored for its size is refused', () => {
    const registers = Array.from({ length: 900 }, (_, index) => ({
      id: `0x${(0x603000000013c020n + BigInt(index % 32)).toString(16)}`,
      name: 'ID_AA64PFR0_EL1_'.padEnd(60, 'x'),
      value: '0xffffffffffffffff',
    }))
    assert.throws(
      () => nfdFeatures({ ...report, registers }, { expires }),
      /ignores files of more than 65536/,
    )
  })

  const namespaces: [name: string, problem: RegExp][] = [
    ['Example.com', /no DNS name/],
    ['a..b', /no DNS name/],
    ['-a.io', /no DNS name/],
    ['x\n# +no-label', /no DNS name/],
    ['kubernetes.io', /Kubernetes' own/],
    ['node.k8s.io', /Kubernetes' own/],
  ]
  for (const [namespace, problem] of namespaces) {
    test(`labels do not begin with ${JSON.stringify(namespace)}`, () => {
      assert.throws(() => nfdFeatures(report, { expires, namespace }), problem)
    })
  }
})

function classOf(report: Report): string {
  return /class=(\w+)/.exec(nfdFeatures(report, { expires: new Date() }).text)![1]!
}

describe('the class', () => {
  const report = builtInReport('linux-6.12-neoverse-n1')

  test('is the same for two probes of one host, and for equal hosts of other names', () => {
    const other = { ...report, probedAt: '2020-01-01T00:00:00Z', host: { release: 'x', build: 'y' } }
    assert.equal(classOf(other), classOf(report))
  })

  test('differs with a value, with what may be written, and with a trait', () => {
    const [first, ...rest] = report.registers
    const others = [
      { ...report, registers: [{ ...first!, value: '0x1' }, ...rest] },
      withRows(report, (row) =>
        row.name === 'ID_AA64PFR0_EL1' ? { ...row, write: { rule: 'fixed', errno: 'EINVAL' } } : row,
      ),
      { ...report, traits: { ...report.traits, devices: [] } },
    ]
    for (const other of others) assert.notEqual(classOf(other), classOf(report))
  })
})

describe('selectors for KubeVirt', () => {
  const old = builtInReport('linux-6.1-max')
  const later = builtInReport('linux-6.12-max')

  test('of one class have an affinity, a selector for a migration, and the opt-in vendor label', () => {
    const { text } = kubevirtSelectors([old, { ...old, probedAt: '2020-01-01T00:00:00Z' }])
    const documents = text.split('---\n')
    assert.equal(documents.length, 3)
    const name = /values: \['([0-9a-f]{16})'\]/.exec(documents[0]!)![1]
    assert.match(documents[1]!, new RegExp(`addedNodeSelector:\n  kvm-arm64.io/class: '${name}'`))
    assert.match(documents[2]!, new RegExp(`cpu-vendor.node.kubevirt.io/kvm-arm64-${name}: 'true'`))
    assert.ok(isLabelValue(`kvm-arm64-${name}`))
  })

  test('of several classes allow each of them, and tell that moves between them are to be checked', () => {
    const { text, inexpressible } = kubevirtSelectors([later, old], { namespace: 'example.com' })
    assert.match(
      text,
      /key: example\.com\/class\n +operator: In\n +values: \['[0-9a-f]{16}', '[0-9a-f]{16}'\]/,
    )
    assert.doesNotMatch(text, /addedNodeSelector|cpu-vendor/)
    assert.match(inexpressible.join('\n'), /between the 2 classes/)
  })
})

describe('metrics for Prometheus', () => {
  const report = builtInReport('linux-6.12-max')
  const { text } = prometheusMetrics(report)

  test('are text that the textfile collector reads', () => {
    assert.ok(text.endsWith('\n'))
    const types = new Set<string>()
    const samples = new Set<string>()
    for (const line of text.trimEnd().split('\n')) {
      const comment = /^# (HELP|TYPE) ([a-z_0-9]+) (.+)$/.exec(line)
      if (comment) {
        if (comment[1] === 'TYPE') {
          assert.ok(!types.has(comment[2]!), `${line} twice`)
          types.add(comment[2]!)
          assert.equal(comment[3], 'gauge')
        }
        continue
      }
      const sample = /^([a-z_0-9]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+\})? (-?[0-9.]+)$/.exec(line)
      assert.ok(sample, line)
      assert.ok(types.has(sample[1]!), line)
      assert.ok(!samples.has(sample[1]! + (sample[2] ?? '')), `${line} twice`)
      samples.add(sample[1]! + (sample[2] ?? ''))
    }
  })

  test('tell the value of an ID register whole', () => {
    const { value } = report.registers.find(({ name }) => name === 'ID_AA64PFR0_EL1')!
    assert.ok(text.includes(`kvm_arm64_id_register_info{register="ID_AA64PFR0_EL1",value="${value}"} 1\n`))
  })

  test('escape what a label may not hold', () => {
    const hostile = { ...report, host: { ...report.host, release: 'a"b\\c\nd' } }
    assert.match(prometheusMetrics(hostile).text, /release="a\\"b\\\\c\\nd"/)
  })
})
