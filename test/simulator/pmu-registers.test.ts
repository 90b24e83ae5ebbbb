import assert from 'node:assert/strict'
import { test } from 'vitest'
import { builtInReport } from '../../lib/hosts/index.js'
import { mpStates } from '../../lib/uapi.js'
import { get, runOnce, set, start, vcpuOf, vmOf } from './fixture.js'

const withPmu = ['psci-0.2', 'pmu-v3'] as const

test('a VM’s PMUs may be left fewer counters, which then have no bit in any bitmap', () => {
  const vm = vmOf(builtInReport('linux-7.2-max'))
  const [vcpu, sibling] = [vcpuOf(vm, 0, withPmu), vcpuOf(vm, 1, withPmu)]
  const control = get(vcpu, 'PMCR_EL0') as bigint
  assert.equal((control >> 11n) & 0x1fn, 6n)
  set(vcpu, 'PMCNTENSET_EL0', 0x8000_003fn)
  assert.equal(set(vcpu, 'PMCR_EL0', 5n << 11n), 0)
  assert.equal(get(sibling, 'PMCR_EL0'), 5n << 11n)
  assert.equal(get(vcpu, 'PMCNTENSET_EL0'), 0x8000_001fn)
  set(vcpu, 'PMINTENSET_EL1', 0xffff_ffffn)
  assert.equal(get(vcpu, 'PMINTENSET_EL1'), 0x8000_001fn)
  // More than the host has are not had.
  assert.equal(set(vcpu, 'PMCR_EL0', 31n << 11n), 0)
  assert.equal(get(vcpu, 'PMCR_EL0'), 5n << 11n)
})

test('the first run fixes how many counters there are', () => {
  const { vcpu } = start(builtInReport('linux-7.2-max'), withPmu)
  vcpu.setDeviceAttr(0, 1n, null)
  assert.equal(runOnce(vcpu), 'EINTR')
  set(vcpu, 'PMCR_EL0', 2n << 11n)
  assert.equal(get(vcpu, 'PMCR_EL0'), 6n << 11n)
})

test('a kernel that keeps the number of counters lets every bit be set', () => {
  const { vcpu } = start(builtInReport('linux-6.1-max'), withPmu)
  set(vcpu, 'PMCR_EL0', 0n)
  set(vcpu, 'PMCNTENSET_EL0', 0x8000_003fn)
  assert.equal(get(vcpu, 'PMCNTENSET_EL0'), 0x8000_003fn)
})

test('event counters have 64 bits from PMUv3p5 on, and 32 in a VM that has an older PMU', () => {
  const { vcpu } = start(builtInReport('linux-7.2-max'), withPmu)
  set(vcpu, 'PMEVCNTR3_EL0', 0x1234_5678_9abcn)
  assert.equal(get(vcpu, 'PMEVCNTR3_EL0'), 0x1234_5678_9abcn)
  const features = get(vcpu, 'ID_AA64DFR0_EL1') as bigint
  assert.equal(set(vcpu, 'ID_AA64DFR0_EL1', (features & ~0xf00n) | 0x500n), 0)
  assert.equal(get(vcpu, 'PMEVCNTR3_EL0'), 0x5678_9abcn)
})

test('the first run that loads the PMU zeroes counters as PMCR_EL0 asks, and clears what asked for it', () => {
  const { vcpu } = start(builtInReport('linux-6.12-neoverse-n1'), withPmu)
  vcpu.setDeviceAttr(0, 1n, null)
  const names = ['PMCR_EL0', 'PMCCNTR_EL0', 'PMEVCNTR0_EL0'] as const
  const read = () => names.map((name) => get(vcpu, name))
  const write = (control: bigint) => {
    for (const name of names) set(vcpu, name, 7n)
    set(vcpu, 'PMCR_EL0', (6n << 11n) | control)
  }
  write(0xfen)
  assert.equal(runOnce(vcpu), 'EINTR')
  assert.deepEqual(read(), [0x30fen, 7n, 7n])
  vcpu.setMpState(mpStates.stopped)
  vcpu.runSync(1)
  assert.deepEqual(read(), [0x3078n, 0n, 0n])
  write(0xfen)
  vcpu.runSync(1)
  assert.deepEqual(read(), [0x30fen, 7n, 7n])
})

test('it zeroes only what is asked for', () => {
  for (const [control, cycles, events] of [
    [0n, 7n, 7n],
    [2n, 7n, 0n],
    [4n, 0n, 7n],
  ] as const) {
    const { vcpu } = start(builtInReport('linux-6.12-neoverse-n1'), withPmu)
    vcpu.setDeviceAttr(0, 1n, null)
    set(vcpu, 'PMCCNTR_EL0', 7n)
    set(vcpu, 'PMEVCNTR5_EL0', 7n)
    set(vcpu, 'PMCR_EL0', (6n << 11n) | control)
    vcpu.setMpState(mpStates.stopped)
    vcpu.runSync(1)
    assert.deepEqual([get(vcpu, 'PMCCNTR_EL0'), get(vcpu, 'PMEVCNTR5_EL0')], [cycles, events])
  }
})
