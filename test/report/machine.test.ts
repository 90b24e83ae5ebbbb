import assert from 'node:assert/strict'
import { test } from 'vitest'
import { computeBaseline } from '../../lib/fleet/baseline/baseline.js'
import type { Baseline } from '../../lib/fleet/baseline/format.js'
import { nfdFeatures } from '../../lib/interchange/nfd.js'
import { prometheusMetrics } from '../../lib/interchange/prometheus.js'
import { reportDigest } from '../../lib/report/digest.js'
import { diffReports } from '../../lib/report/diff.js'
import {
  capabilityAnswers,
  CNTFRQ_EL0,
  guestRead,
  guestReadIds,
  hasMte,
  interruptControllersOf,
  ipaLimitOf,
  isProtectedKvm,
  pageSizeOf,
} from '../../lib/report/machine.js'
import { asRanges, isInRanges } from '../../lib/report/ranges.js'
import { checkReport } from '../../lib/report/read.js'
import type { Report } from '../../lib/report/report.js'
import { newHost, oldHost, withoutMachine } from '../simulator/fixture.js'

const bare = withoutMachine(oldHost)

function changed(change: (report: Report) => void, base = oldHost): Report {
  const report = structuredClone(base)
  change(report)
  return report
}

test('lists are written and read as Linux writes them', () => {
  assert.equal(asRanges([]), '')
  assert.equal(asRanges([0, 1, 2, 3, 8, 10, 11]), '0-3,8,10-11')
  for (const number of [0, 3, 8, 10]) assert.ok(isInRanges('0-3,8,10-11', number))
  for (const number of [4, 9, 12]) assert.ok(!isInRanges('0-3,8,10-11', number))
})

test('a fact that was recorded is returned, and one that was not is undefined', () => {
  assert.equal(guestRead(oldHost, CNTFRQ_EL0), 1_000_000_000n)
  assert.equal(guestRead(bare, CNTFRQ_EL0), undefined)
  assert.equal(isProtectedKvm(oldHost), false)
  assert.equal(isProtectedKvm(changed(({ vmTypes }) => (vmTypes!.ipaSizes = '0-64,127'))), true)
  assert.equal(isProtectedKvm(bare), undefined)
  assert.deepEqual(interruptControllersOf(oldHost), ['gic-v3', 'gic-v3-its'])
  assert.equal(interruptControllersOf(changed(({ traits }) => delete traits.devices)), undefined)
  assert.equal(pageSizeOf(oldHost), 4096)
  assert.equal(pageSizeOf({ ...oldHost, vcpuMmapSize: 32768 }), 16384)
  assert.equal(pageSizeOf({ ...oldHost, origin: { kind: 'fingerprint', like: 'x' } }), undefined)
  assert.equal(ipaLimitOf(oldHost), 44)
  assert.equal(hasMte(oldHost), false)
  assert.equal(hasMte(changed(({ capabilities }) => delete capabilities.KVM_CAP_ARM_MTE)), undefined)
})

test('a capability that has got a name since is found under its number', () => {
  const report = changed((one) => {
    delete one.capabilities.KVM_CAP_IRQCHIP
    one.otherCapabilities!['0'] = [1, 2]
  })
  assert.deepEqual(capabilityAnswers(report, 0), [1, 2])
  assert.deepEqual(capabilityAnswers(report, 162), [1, 1])
  assert.deepEqual(capabilityAnswers(report, 163), [0, 0])
  assert.equal(capabilityAnswers(bare, 162), undefined)
})

const wrong: [what: string, change: (report: Report) => void, path: string][] = [
  ['a capability number of five digits', (report) => (report.otherCapabilities!['10000'] = [1, 1]), '10000'],
  ['a probed kind that is not listed', (report) => (report.cpus!.probed = 2), '$.cpus.probed'],
  ['CPUs that are no list', (report) => (report.cpus!.kinds[0]!.cpus = '0-'), '$.cpus.kinds[0].cpus'],
  [
    'a read wider than 64 bits',
    (report) => (report.guestReads![0]!.value = `0x1${'0'.repeat(16)}`),
    'guestReads',
  ],
  ['a register read twice', (report) => report.guestReads!.push(report.guestReads![0]!), '$.guestReads[4]'],
]
for (const [what, change, path] of wrong) {
  test(`a report with ${what} is refused`, () => {
    assert.throws(
      () => checkReport(changed(change), 'report'),
      (error: Error) => error.message.includes(path),
    )
  })
}

test('a digest ignores the numbers of CPUs, and nothing else of the machine', () => {
  const digest = reportDigest(oldHost)
  assert.equal(reportDigest(changed(({ cpus }) => (cpus!.kinds[0]!.cpus = '0-2'))), digest)
  for (const change of [
    ({ cpus }: Report) => (cpus!.probed = 0),
    ({ cpus }: Report) => (cpus!.kinds[0]!.midr = '0x1'),
    ({ guestReads }: Report) => (guestReads![0]!.value = '0x1'),
    ({ vmTypes }: Report) => (vmTypes!.ipaSizes = '0'),
    ({ otherCapabilities }: Report) => (otherCapabilities!['300'] = [1, 1]),
  ]) {
    assert.notEqual(reportDigest(changed(change)), digest)
  }
})

test('a difference of machines is listed, and what one report does not record is unknown', () => {
  const other = changed((report) => {
    report.guestReads![0]!.value = '0x3b9aca0'
    report.otherCapabilities = { '162': [1, 1] }
    report.vmTypes!.ipaSizes = '0-64,127'
    report.cpus!.kinds.pop()
    report.cpus!.probed = 0
    report.traits.devices = ['KVM_DEV_TYPE_ARM_VGIC_V2']
  })
  assert.deepEqual(diffReports(oldHost, other), [
    { kind: 'capability', name: '195', a: '196611', b: '0' },
    { kind: 'machine', name: 'interrupt controllers', a: 'gic-v3 gic-v3-its', b: 'gic-v2' },
    { kind: 'machine', name: 'IPA sizes', a: '0,32-44', b: '0-64,127' },
    { kind: 'machine', name: 'pKVM', a: 'no', b: 'yes' },
    {
      kind: 'machine',
      name: 'CPU kinds',
      a: 'Arm Cortex-A53 r0p4 (CPU 0-3), Arm Neoverse N1 r0p1 (CPU 4,6-7)',
      b: 'Arm Cortex-A53 r0p4',
    },
    { kind: 'guest-read', name: 'CNTFRQ_EL0', a: '0x3b9aca00', b: '0x3b9aca0' },
  ])
  assert.deepEqual(
    diffReports(oldHost, bare)
      // The fixtures hold few of the capabilities that have a name.
      .filter(({ name }) => !name.startsWith('KVM_CAP_'))
      .map(({ name, b }) => [name, b]),
    [
      ['162', 'unknown'],
      ['195', 'unknown'],
      ['IPA sizes', 'unknown'],
      ['pKVM', 'unknown'],
      ['protected VMs', 'unknown'],
      ['CPU kinds', 'unknown'],
      ['CNTFRQ_EL0', 'unknown'],
      ['CTR_EL0', 'unknown'],
      ['DCZID_EL0', 'unknown'],
    ],
  )
})

test('labels and metrics show the machine, and nothing that was not recorded', () => {
  const expires = new Date('2026-12-01T00:00:00Z')
  const labels = nfdFeatures(oldHost, { expires }).text
  for (const line of [
    'kvm-arm64.io/counter-frequency=1000000000',
    'kvm-arm64.io/interrupt-controller.gic-v3=true',
    'kvm-arm64.io/page-size=4096',
    'kvm-arm64.io/ipa-bits=44',
    'kvm-arm64.io/mte=false',
    'kvm-arm64.io/pkvm=false',
    'kvm-arm64.io/cpu-kinds=2',
    'kvm-arm64.io/guest-read.DCZID_EL0=0x4',
  ]) {
    assert.ok(labels.split('\n').includes(line), line)
  }
  const metrics = prometheusMetrics(oldHost).text
  for (const line of [
    'kvm_arm64_counter_frequency_hertz 1000000000',
    'kvm_arm64_interrupt_controller{type="gic-v3"} 1',
    'kvm_arm64_capability{capability="195"} 196611',
    'kvm_arm64_guest_read_info{register="DCZID_EL0",value="0x4"} 1',
  ]) {
    assert.ok(metrics.split('\n').includes(line), line)
  }
  for (const text of [nfdFeatures(bare, { expires }).text, prometheusMetrics(bare).text]) {
    assert.doesNotMatch(text, /counter.frequency|guest.read|pkvm|protected_kvm|cpu.kinds/)
  }
})

function classOf(report: Report): string | undefined {
  return /\/class=(\w+)/.exec(nfdFeatures(report, { expires: new Date() }).text)![1]
}

test('hosts with the same registers and another counter frequency are of two classes', () => {
  const other = changed(({ guestReads }) => (guestReads![0]!.value = '0x1'))
  assert.notEqual(classOf(oldHost), classOf(other))
  assert.equal(classOf(oldHost), classOf(changed(({ cpus }) => (cpus!.kinds[0]!.cpus = '0'))))
})

test('a baseline does not reconcile what guests read from the CPU', () => {
  const other = changed((report) => {
    report.guestReads![0]!.value = '0x3b9aca0'
    report.guestReads![2]!.value = '0x10'
  }, newHost)
  const found = computeBaseline([
    { name: 'a', report: newHost },
    { name: 'b', report: other },
    { name: 'c', report: withoutMachine(newHost) },
  ])
  assert.deepEqual(
    found.unreconciled.map(({ kind, name, found: values }) => [kind, name, values.map(({ value }) => value)]),
    [
      ['guest-read', 'CNTFRQ_EL0', ['0x3b9aca00', '0x3b9aca0']],
      ['guest-read', 'DCZID_EL0', ['0x4', '0x10']],
    ],
  )
  assert.deepEqual(
    found.unknown,
    ['guest-reads', 'vm-types', 'other-capabilities', 'cpu-kinds'].map((fact) => ({ fact, hosts: ['c'] })),
  )
  assert.equal(guestReadIds.length, 4)
})

function baselineOf(...reports: Report[]): Baseline {
  return computeBaseline(reports.map((report, index) => ({ name: `host${index}`, report })))
}

test('a baseline names the interrupt controllers every host can make, and does not reconcile hosts without one in common', () => {
  const withV2 = changed(
    ({ traits }) => (traits.devices = ['KVM_DEV_TYPE_ARM_VGIC_V2', 'KVM_DEV_TYPE_ARM_VGIC_V3']),
  )
  const onlyV2 = changed(({ traits }) => (traits.devices = ['KVM_DEV_TYPE_ARM_VGIC_V2']))
  const unknown = changed(({ traits }) => delete traits.devices)
  assert.deepEqual(baselineOf(oldHost, withV2, unknown).interruptControllers, ['gic-v3'])
  assert.deepEqual(baselineOf(oldHost, withV2, unknown).unreconciled, [])
  assert.equal(baselineOf(unknown).interruptControllers, undefined)
  const { interruptControllers, unreconciled, classes } = baselineOf(oldHost, onlyV2)
  assert.deepEqual(interruptControllers, [])
  assert.deepEqual(
    unreconciled.map(({ kind, name, fields, found }) => [
      kind,
      name,
      fields,
      found.map(({ value }) => value),
    ]),
    [['interrupt-controller', 'ID_AA64PFR0_EL1', ['GIC'], ['gic-v3 gic-v3-its', 'gic-v2']]],
  )
  assert.deepEqual(classes, [['host0'], ['host1']])
})
