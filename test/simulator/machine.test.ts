/** What the simulator answers from the entries of a report that are about the machine, and what it refuses to guess. */
import assert from 'node:assert/strict'
import { test } from 'vitest'
import { mapStub, readFromGuest } from '../../lib/kvm/guest-call.js'
import { encodeRegister } from '../../lib/registers/index.js'
import type { Report } from '../../lib/report/report.js'
import { capabilities, KVM_VM_TYPE_ARM_PROTECTED } from '../../lib/uapi.js'
import {
  listOf,
  made,
  newHost,
  oldHost,
  systemOf,
  outcomeName,
  vcpuOf,
  withCapabilities,
  withoutMachine,
} from './fixture.js'

const NOT_RECORDED = { name: 'SimulatorError', code: 'ERR_KVM_SIMULATOR_NOT_RECORDED' }

function reads(report: Report): readonly bigint[] | number {
  const system = systemOf(report)
  const vm = made(system.createVm(0n))
  made(mapStub(system, vm))
  return readFromGuest(vcpuOf(vm, 0), (vcpu) => vcpu.runSync(1000))
}

test('a guest reads from the CPU what was recorded', () => {
  assert.deepEqual(reads(oldHost), [1_000_000_000n, 0x8444c004n, 0x4n, 0x410fd0c1n])
  assert.throws(() => reads(withoutMachine(oldHost)), NOT_RECORDED)
})

test('a guest reads the VM’s value of a register that userspace has changed', () => {
  const system = systemOf(newHost)
  const vm = made(system.createVm(0n))
  assert.equal(vm.enableCap(capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS, 0, []), 0)
  made(mapStub(system, vm))
  const vcpu = vcpuOf(vm, 0)
  assert.equal(outcomeName(vcpu.setOneReg(encodeRegister('MIDR_EL1'), 0x1234n)), 0)
  assert.equal(outcomeName(vcpu.setOneReg(encodeRegister('CTR_EL0'), 0x8444c003n)), 0)
  const found = readFromGuest(vcpu, (fd) => fd.runSync(1000))
  assert.deepEqual(found, [1_000_000_000n, 0x8444c003n, 0x4n, 0x1234n])
})

test('a capability without a name is answered as recorded, and not guessed', () => {
  const system = systemOf(oldHost)
  assert.equal(system.checkExtension(162), 1)
  assert.equal(system.checkExtension(163), 0)
  const old = systemOf(withoutMachine(oldHost))
  assert.throws(() => old.checkExtension(162), NOT_RECORDED)
  assert.equal(old.checkExtension(capabilities.KVM_CAP_ARM_SVE), 0)
})

test('pKVM ignores the size of the address space; whether it makes protected VMs was not tried', () => {
  const report = { ...oldHost, vmTypes: { ipaSizes: '0-64,127' } }
  const system = systemOf(report)
  for (const type of [0n, 1n, 0x7fn]) made(system.createVm(type))
  assert.equal(outcomeName(system.createVm(0x100n)), 'EINVAL')
  assert.throws(() => system.createVm(KVM_VM_TYPE_ARM_PROTECTED), NOT_RECORDED)
  assert.equal(outcomeName(systemOf(oldHost).createVm(KVM_VM_TYPE_ARM_PROTECTED)), 'EINVAL')
  assert.throws(() => systemOf(withoutMachine(oldHost)).createVm(KVM_VM_TYPE_ARM_PROTECTED), NOT_RECORDED)
})

test('a VM with memory tagging has the registers recorded for it, and no memory', () => {
  const tags = ['RGSR_EL1', 'GCR_EL1'].map((name, index) => {
    return { id: `0x${encodeRegister(name).toString(16)}`, name, value: '0x0', index: index + 1 }
  })
  const report = {
    ...withCapabilities(newHost, { KVM_CAP_ARM_MTE: [1, 1] }),
    configurations: [
      { features: ['psci-0.2' as const], mte: true as const, removed: [], added: tags, changed: [] },
    ],
  }
  const system = systemOf(report)
  const vm = made(system.createVm(0n))
  assert.equal(vm.enableCap(capabilities.KVM_CAP_ARM_MTE, 0, []), 0)
  const ids = listOf(vcpuOf(vm, 0))
  assert.deepEqual(
    ids.slice(1, 3),
    tags.map(({ id }) => BigInt(id)),
  )
  assert.equal(listOf(vcpuOf(made(system.createVm(0n)), 0)).length, ids.length - 2)
  assert.throws(() => mapStub(system, vm), NOT_RECORDED)
})
