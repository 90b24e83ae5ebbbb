import assert from 'node:assert/strict'
import { test } from 'vitest'
import type { Report } from '../../lib/report/report.js'
import {
  get,
  newHost,
  oldestHost,
  oldHost,
  runOnce,
  set,
  start,
  vcpuOf,
  withTraits,
  type Outcome,
} from './fixture.js'

const writes: [host: 'old' | 'new', register: string, value: bigint, outcome: Outcome][] = [
  ['old', 'PSCI_VERSION', 0x2n, 0],
  ['old', 'PSCI_VERSION', 0x10001n, 0],
  ['old', 'PSCI_VERSION', 0x10002n, 'EINVAL'],
  ['new', 'PSCI_VERSION', 0x10003n, 0],
  ['old', 'PSCI_VERSION', 0x0n, 'EINVAL'],
  ['old', 'PSCI_VERSION', 0x1n, 'EINVAL'],
  ['old', 'PSCI_VERSION', 0x1_0001_0000n, 'EINVAL'],
  ['old', 'SMCCC_ARCH_WORKAROUND_1', 0n, 0],
  ['old', 'SMCCC_ARCH_WORKAROUND_1', 2n, 0],
  ['old', 'SMCCC_ARCH_WORKAROUND_1', 3n, 'EINVAL'],
  ['old', 'SMCCC_ARCH_WORKAROUND_1', 1n << 63n, 'EINVAL'],
  ['old', 'SMCCC_ARCH_WORKAROUND_2', 1n, 0],
  ['old', 'SMCCC_ARCH_WORKAROUND_2', 3n, 'EINVAL'],
  ['old', 'SMCCC_ARCH_WORKAROUND_3', 2n, 'EINVAL'],
  ['old', 'STD_BMAP', 0n, 0],
  ['old', 'STD_BMAP', 2n, 'EINVAL'],
  ['old', 'STD_BMAP', 1n << 32n, 'EINVAL'],
  ['old', 'STD_HYP_BMAP', 1n, 0],
  ['old', 'VENDOR_HYP_BMAP', 2n, 0],
  ['old', 'VENDOR_HYP_BMAP', 4n, 'EINVAL'],
  ['old', 'VENDOR_HYP_BMAP_2', 0n, 'ENOENT'],
  ['new', 'VENDOR_HYP_BMAP_2', 3n, 0],
  ['new', 'VENDOR_HYP_BMAP_2', 4n, 'EINVAL'],
]
for (const [host, register, value, outcome] of writes) {
  test(`${register} = 0x${value.toString(16)} on the ${host} host: ${outcome}`, () => {
    assert.equal(set(start(host === 'old' ? oldHost : newHost).vcpu, register, value), outcome)
  })
}

test('what is written to PSCI_VERSION and to a bitmap is read back on every vCPU, now or later made', () => {
  const { vm, vcpu } = start(newHost)
  const sibling = vcpuOf(vm, 1)
  set(vcpu, 'PSCI_VERSION', 0x10000n)
  set(vcpu, 'VENDOR_HYP_BMAP_2', 1n)
  for (const other of [vcpu, sibling, vcpuOf(vm, 2)]) {
    assert.equal(get(other, 'PSCI_VERSION'), 0x10000n)
    assert.equal(get(other, 'VENDOR_HYP_BMAP_2'), 1n)
  }
})

test('what is written to a bitmap stays with its VM', () => {
  const [one, other] = [start(oldHost).vcpu, start(oldHost).vcpu]
  set(one, 'STD_BMAP', 0n)
  assert.equal(get(other, 'STD_BMAP'), 1n)
})

test('what is written to a workaround is checked and forgotten', () => {
  const { vcpu } = start(oldHost)
  assert.equal(set(vcpu, 'SMCCC_ARCH_WORKAROUND_1', 0n), 0)
  assert.equal(get(vcpu, 'SMCCC_ARCH_WORKAROUND_1'), 2n)
})

test('a vCPU without psci-0.2 speaks PSCI 0.1, and takes nothing else', () => {
  const { vcpu } = start(newHost, [])
  assert.equal(get(vcpu, 'PSCI_VERSION'), 1n)
  assert.equal(set(vcpu, 'PSCI_VERSION', 0x10000n), 'EINVAL')
  assert.equal(set(vcpu, 'PSCI_VERSION', 1n), 0)
})

test('in a mixed VM a vCPU without psci-0.2 can make one with it speak PSCI 0.1', () => {
  const { vm, vcpu } = start(oldHost, ['psci-0.2'])
  const without = vcpuOf(vm, 1, [])
  assert.equal(set(vcpu, 'PSCI_VERSION', 0x10000n), 0)
  assert.equal(get(without, 'PSCI_VERSION'), 1n)
  assert.equal(set(without, 'PSCI_VERSION', 1n), 0)
  assert.equal(get(vcpu, 'PSCI_VERSION'), 1n)
  assert.equal(set(vcpu, 'PSCI_VERSION', 0x2n), 0)
  assert.equal(get(vcpu, 'PSCI_VERSION'), 0x2n)
})

test('WORKAROUND_2 follows the SSBS of the VM where the kernel has it so', () => {
  const { vm, vcpu } = start(newHost)
  const sibling = vcpuOf(vm, 1)
  assert.equal(set(vcpu, 'SMCCC_ARCH_WORKAROUND_2', 3n), 'EINVAL')
  assert.equal(set(vcpu, 'ID_AA64PFR1_EL1', 0x01n), 0)
  assert.equal(get(sibling, 'SMCCC_ARCH_WORKAROUND_2'), 3n)
  assert.equal(set(sibling, 'SMCCC_ARCH_WORKAROUND_2', 3n), 0)
  assert.equal(set(sibling, 'SMCCC_ARCH_WORKAROUND_2', 0x11n), 'EINVAL')
  assert.equal(set(vcpu, 'ID_AA64PFR1_EL1', 0x21n), 0)
  assert.equal(get(vcpu, 'SMCCC_ARCH_WORKAROUND_2'), 0n)
})

test('WORKAROUND_2 of a host without ID_AA64PFR1_EL1 is as recorded', () => {
  const registers = newHost.registers.filter(({ name }) => name !== 'ID_AA64PFR1_EL1')
  assert.equal(get(start({ ...newHost, registers }).vcpu, 'SMCCC_ARCH_WORKAROUND_2'), 0n)
})

type Rule = Report['traits']['bitmapAfterRun']
const afterRun: [rule: Rule, value: bigint, outcome: Outcome][] = [
  ['busy-if-changed', 3n, 0],
  ['busy-if-changed', 1n, 'EBUSY'],
  ['busy-if-changed', 4n, 'EINVAL'],
  ['busy', 3n, 'EBUSY'],
  ['busy', 1n, 'EBUSY'],
  ['busy', 4n, 'EINVAL'],
  ['unguarded', 1n, 0],
  ['unguarded', 4n, 'EINVAL'],
]
for (const [rule, value, outcome] of afterRun) {
  test(`after the run VENDOR_HYP_BMAP = ${value} instead of 3 is ${outcome} where writes are ${rule}`, () => {
    const { vcpu } = start(withTraits(oldHost, { bitmapAfterRun: rule }))
    assert.equal(runOnce(vcpu), 'EINTR')
    assert.equal(set(vcpu, 'VENDOR_HYP_BMAP', value), outcome)
  })
}

test('the run of one vCPU freezes the bitmaps of all, and nothing thaws them', () => {
  const { vm, vcpu } = start(oldHost)
  const sibling = vcpuOf(vm, 1)
  runOnce(sibling)
  assert.equal(set(vcpu, 'STD_BMAP', 0n), 'EBUSY')
  assert.equal(set(vcpuOf(vm, 2), 'STD_BMAP', 0n), 'EBUSY')
  vcpu.init(2, [4])
  sibling.init(2, [4])
  assert.equal(set(vcpu, 'STD_BMAP', 0n), 'EBUSY')
  assert.equal(set(start(oldHost).vcpu, 'STD_BMAP', 0n), 0)
})

test('PSCI_VERSION and the workarounds are as free after the run as before', () => {
  const { vcpu } = start(oldHost)
  runOnce(vcpu)
  assert.equal(set(vcpu, 'PSCI_VERSION', 0x10000n), 0)
  assert.equal(get(vcpu, 'PSCI_VERSION'), 0x10000n)
  assert.equal(set(vcpu, 'SMCCC_ARCH_WORKAROUND_1', 0n), 0)
})

test('a host without bitmap registers has none', () => {
  const { vcpu } = start(oldestHost)
  assert.equal(get(vcpu, 'STD_BMAP'), 'ENOENT')
  assert.equal(set(vcpu, 'STD_BMAP', 0n), 'ENOENT')
})
