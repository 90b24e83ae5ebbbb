/** What a verdict says of the machines on both sides, beside their registers. */
import assert from 'node:assert/strict'
import { test } from 'vitest'
import { simulator } from '../../lib/hosts/index.js'
import { openKvm } from '../../lib/kvm/index.js'
import { captureHost } from '../../lib/migration/capture.js'
import { machineOf } from '../../lib/migration/machine-facts.js'
import { checkState, type State } from '../../lib/migration/state.js'
import { type MoveVerdict, verdict } from '../../lib/migration/verdict.js'
import { vmmRules } from '../../lib/migration/vmm/names.js'
import type { Report } from '../../lib/report/report.js'
import { recordingBackend } from '../../lib/trace/index.js'
import { newHost, withoutMachine } from '../simulator/fixture.js'

function stateOf(report: Report): State {
  using kvm = openKvm(simulator(report))
  return captureHost(kvm)
}

function changed(change: (report: Report) => void): Report {
  const report = structuredClone(newHost)
  change(report)
  return report
}

function move(from: Report, to: Report, vmm: 'strict' | 'firecracker' = 'strict'): MoveVerdict {
  using kvm = openKvm(simulator(to))
  return verdict(stateOf(from), kvm, vmmRules(vmm))
}

function unknownOf({ unknown }: MoveVerdict): string[] {
  return unknown.filter((fact) => fact.includes('counter'))
}

function codesOf({ findings }: MoveVerdict): string[] {
  return findings.map(({ code, severity }) => `${code} ${severity}`)
}

const ofOneKind = changed(({ cpus }) => {
  cpus!.kinds.pop()
  cpus!.probed = 0
})

test('a state holds what its guest reads from the machine, and passes the reader', () => {
  const state = stateOf(newHost)
  assert.deepEqual(state.machine, {
    guestReads: newHost.guestReads,
    pageSize: 4096,
    ipaLimit: 44,
    cpuKinds: newHost.cpus!.kinds,
  })
  assert.deepEqual(checkState(JSON.parse(JSON.stringify(state)), 'state'), state)
  assert.deepEqual(stateOf(withoutMachine(newHost)).machine, { pageSize: 4096, ipaLimit: 44 })
})

test('reading the machine leaves no call in a trace', () => {
  const calls: unknown[] = []
  using kvm = openKvm(recordingBackend(simulator(newHost), (entry) => calls.push(entry)))
  assert.equal(machineOf(kvm).guestReads?.length, 4)
  assert.ok(!JSON.stringify(calls).includes('create_vm'), JSON.stringify(calls))
})

test('a host of several kinds of CPU is warned of on both sides, in a move to itself too', () => {
  const found = move(newHost, newHost)
  assert.equal(found.possible, true)
  assert.deepEqual(
    found.findings.map((finding) => finding.code === 'several-cpu-kinds' && [finding.on, finding.kinds]),
    ['source', 'destination'].map((on) => [
      on,
      ['Arm Cortex-A53 r0p4 (CPU 0-3)', 'Arm Neoverse N1 r0p1 (CPU 4,6-7)'],
    ]),
  )
  assert.deepEqual(move(ofOneKind, ofOneKind).findings, [])
})

test('another counter frequency breaks the guest, whoever moves it and wherever its state comes from', () => {
  const other = structuredClone(ofOneKind)
  other.guestReads![0]!.value = '0x3b9aca0'
  const found = move(ofOneKind, other)
  assert.deepEqual(
    found.findings.map(({ code, severity, stops }) => [code, severity, stops]),
    [['counter-frequency-changes', 'guest-broken', false]],
  )
  assert.equal(found.restores, true)
  assert.equal(found.possible, false)
})

test('another block size of DC ZVA breaks the guest', () => {
  const other = structuredClone(ofOneKind)
  other.guestReads![2]!.value = '0x5'
  const found = move(ofOneKind, other)
  assert.deepEqual(
    found.findings.map(({ code, register }) => [code, register?.name]),
    [['guest-read-differs', 'DCZID_EL0']],
  )
  assert.equal(found.possible, false)
})

test('larger pages and a smaller address space are noticed, and not the reverse', () => {
  const larger = structuredClone(ofOneKind)
  larger.vcpuMmapSize = 32768
  larger.capabilities.KVM_CAP_ARM_VM_IPA_SIZE = [42, 42]
  assert.deepEqual(codesOf(move(ofOneKind, larger)), [
    'page-size-larger notice',
    'address-space-smaller notice',
  ])
  assert.deepEqual(codesOf(move(larger, ofOneKind)), [])
})

test('what was not recorded of a machine is unknown, and compared with nothing', () => {
  const bare = withoutMachine(ofOneKind)
  const found = move(bare, ofOneKind, 'firecracker')
  assert.deepEqual(unknownOf(found), ['source-counter-frequency'])
  assert.deepEqual(found.findings, [])
  assert.deepEqual(unknownOf(move(ofOneKind, bare, 'firecracker')), ['destination-counter-frequency'])
  assert.deepEqual(unknownOf(move(bare, bare)), ['source-counter-frequency', 'destination-counter-frequency'])
})
