/** The scenarios of the series' cover and of its second patch, on its own semantics and on those of released kernels. */
import assert from 'node:assert/strict'
import { test } from 'vitest'
import { encodeRegister, registerName } from '../../lib/registers/index.js'
import { checkReport } from '../../lib/report/read.js'
import { seedV6 } from './seed-v6.js'
import {
  get,
  listOf,
  made,
  newHost,
  oldHost,
  runOnce,
  set,
  start,
  outcomeName,
  vcpuOf,
  vmOf,
} from '../simulator/fixture.js'

const seed = seedV6(oldHost)

for (const [name, report] of [
  ['the seed', seed],
  ['a released kernel', oldHost],
] as const) {
  test(`on ${name} a VMM discovers the services and elects a subset of them`, () => {
    const { vcpu } = start(report)
    const supported = get(vcpu, 'KVM_REG_ARM_STD_BMAP')
    assert.equal(supported, 1n)
    assert.equal(set(vcpu, 'KVM_REG_ARM_STD_BMAP', 0n), 0)
    assert.equal(get(vcpu, 'KVM_REG_ARM_STD_BMAP'), 0n)
  })

  test(`on ${name} a bit that stands for no service is EINVAL, before and after the start`, () => {
    const { vcpu } = start(report)
    assert.equal(set(vcpu, 'KVM_REG_ARM_STD_BMAP', 2n), 'EINVAL')
    runOnce(vcpu)
    assert.equal(set(vcpu, 'KVM_REG_ARM_STD_BMAP', 2n), 'EINVAL')
  })

  test(`on ${name} old userspace that ignores the registers keeps every service`, () => {
    const { vm, vcpu } = start(report)
    runOnce(vcpu)
    assert.equal(get(vcpu, 'KVM_REG_ARM_STD_BMAP'), 1n)
    assert.equal(get(vcpuOf(vm, 1), 'KVM_REG_ARM_STD_BMAP'), 1n)
  })

  test(`on ${name} another election is EBUSY once any vCPU has run`, () => {
    const { vm, vcpu } = start(report)
    const sibling = vcpuOf(vm, 1)
    runOnce(sibling)
    assert.equal(set(vcpu, 'KVM_REG_ARM_STD_BMAP', 0n), 'EBUSY')
    assert.equal(set(sibling, 'KVM_REG_ARM_STD_BMAP', 0n), 'EBUSY')
  })
}

test('the election already made, written again after the start, is EBUSY on the seed and no error since', () => {
  const outcomes = [seed, oldHost].map((report) => {
    const { vcpu } = start(report)
    runOnce(vcpu)
    return set(vcpu, 'KVM_REG_ARM_STD_BMAP', 1n)
  })
  assert.deepEqual(outcomes, ['EBUSY', 0])
})

test('the seed has one bitmap register, behind the workarounds; the patches after it add the others', () => {
  const { vcpu } = start(seed)
  const names = listOf(vcpu).map(registerName)
  const first = names.indexOf('KVM_REG_ARM_PSCI_VERSION')
  assert.deepEqual(names.slice(first, first + 6), [
    'KVM_REG_ARM_PSCI_VERSION',
    'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1',
    'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2',
    'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3',
    'KVM_REG_ARM_STD_BMAP',
    'KVM_REG_ARM_TIMER_CTL',
  ])
  assert.equal(names.length, listOf(start(oldHost).vcpu).length - 2)
  for (const name of ['KVM_REG_ARM_STD_HYP_BMAP', 'KVM_REG_ARM_VENDOR_HYP_BMAP']) {
    assert.equal(get(vcpu, name), 'ENOENT')
    assert.equal(set(vcpu, name, 0n), 'ENOENT')
  }
})

test('the seed reads a firmware register’s value before it looks at its width', () => {
  assert.equal(outcomeName(start(seed).vcpu.setOneRegAtNull(0x6020000000160000n)), 'EFAULT')
  assert.equal(outcomeName(start(oldHost).vcpu.setOneRegAtNull(0x6020000000160000n)), 'ENOENT')
})

test('the seed has no SMCCC filter, no system suspend and no PSCI after 1.1', () => {
  const derived = seedV6(newHost)
  const { vm, vcpu } = start(derived)
  assert.equal(outcomeName(vm.hasDeviceAttr(0, 0n)), 'EINVAL')
  assert.equal(outcomeName(vm.enableCap(216, 0, [])), 'EINVAL')
  assert.equal(set(vcpu, 'PSCI_VERSION', 0x10002n), 'EINVAL')
})

function withoutBitmaps(report: typeof newHost): string[] {
  const { vcpu } = start(report, ['psci-0.2', 'sve'])
  vcpu.finalize(4)
  return listOf(vcpu)
    .map(registerName)
    .filter((name) => !name.includes('BMAP'))
}

test('the seed follows 5.18-rc where its base, a stable kernel, holds later fixes', () => {
  const before = made(vmOf(seed).createVcpu(0))
  assert.equal(outcomeName(before.getVcpuEvents(new Uint8Array(64))), 0)
  assert.equal(outcomeName(made(vmOf(newHost).createVcpu(0)).getVcpuEvents(new Uint8Array(64))), 'ENOEXEC')

  const { vcpu } = start(seed)
  set(vcpu, 'x20', 1n << 32n)
  assert.equal(set(vcpu, 'pstate', 0x10n), 0)
  assert.equal(get(vcpu, 'x20'), 1n << 32n)
  assert.equal(set(vcpu, 'pstate', 0x6000_0010n), 0)
  assert.equal(get(vcpu, 'x20'), 0n)

  set(vcpu, 'TPIDR_EL0', 1n)
  assert.equal(outcomeName(vcpu.setOneRegAtNull(encodeRegister('TPIDR_EL0'))), 'EFAULT')
  assert.equal(get(vcpu, 'TPIDR_EL0'), 0n)
})

test('a first run with an unconfigured GICv3 leaves the seed’s VM alive', () => {
  const outcomes = [seed, oldHost].map((report) => {
    const { vm, vcpu } = start(report)
    made(vm.createDevice(7, 0))
    assert.equal(outcomeName(vcpu.runSync(1)), 'ENXIO')
    return outcomeName(vm.checkExtension(0))
  })
  assert.deepEqual(outcomes, [1, 'EIO'])
})

test('registers a feature adds keep their neighbours on the seed', () => {
  assert.deepEqual(withoutBitmaps(seedV6(newHost)), withoutBitmaps(newHost))
})

test('what the seed is derived from stays as it was, and what is derived is a report', () => {
  const before = structuredClone(oldHost)
  assert.deepEqual(checkReport(seedV6(oldHost), 'seed-v6'), seed)
  assert.deepEqual(oldHost, before)
  vmOf(seed).close()
})
