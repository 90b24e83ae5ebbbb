import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { functionIds } from '../../lib/hypercalls/index.js'
import { openKvm, STUB_ADDRESS, STUB_SLOT, type Vcpu, type Vm } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'
import type { VcpuFeature } from '../../lib/uapi.js'

function guest(
  host = 'linux-6.18-cortex-a57',
  features: readonly VcpuFeature[] = ['psci-0.2'],
): { vm: Vm; vcpu: Vcpu } {
  const vm = openKvm(simulator(host)).createVm()
  return { vm, vcpu: vm.createVcpu(0, { features }) }
}

describe('Vcpu.hypercall', () => {
  it('answers as the guest is answered', () => {
    const { vcpu } = guest()
    assert.deepEqual(vcpu.hypercall(functionIds.SMCCC_VERSION), { x: [0x10001n, 0n, 0n, 0n] })
    assert.deepEqual(vcpu.hypercall(functionIds.TRNG_FEATURES, [0xc400_0053n]), { x: [0n, 0n, 0n, 0n] })
    assert.deepEqual(vcpu.hypercall(functionIds.TRNG_FEATURES, [0x1_c400_0053n]).x[0], 0xffff_ffff_ffff_ffffn)
  })

  it('calls by either instruction', () => {
    const id = functionIds.SMCCC_ARCH_WORKAROUND_1
    assert.deepEqual(guest().vcpu.hypercall(id, [1n, 2n, 3n]).x, [0n, 0n, 2n, 3n])
    assert.deepEqual(guest().vcpu.hypercall(id, [1n, 2n, 3n], { conduit: 'smc' }).x.slice(1), [0n, 0n, 0n])
    const old = guest('linux-6.1-neoverse-n1').vcpu.hypercall(id, [1n, 2n, 3n], { conduit: 'smc' })
    assert.deepEqual(old.x, [0xffff_ffff_ffff_ffffn, 1n, 2n, 3n])
  })

  it('hears no more than what is elected', () => {
    const { vm, vcpu } = guest()
    vm.services.elect({ std: [], vendorHyp: ['ptp'] })
    assert.equal(vcpu.hypercall(functionIds.TRNG_VERSION).x[0], 0xffff_ffff_ffff_ffffn)
    assert.equal(vcpu.hypercall(functionIds.KVM_FEATURES).x[0], 0xffff_ffff_ffff_ffffn)
    assert.notEqual(vcpu.hypercall(functionIds.KVM_PTP).x[0], 0xffff_ffff_ffff_ffffn)
  })

  it('starts the VM, and leaves the guest’s registers as they were', () => {
    const { vm, vcpu } = guest()
    vcpu.registers.set('x3', 33n)
    vcpu.registers.set('x7', 77n)
    vcpu.registers.set('pc', 0x4000_0000n)
    assert.equal(vm.started, false)
    vcpu.hypercall(functionIds.TRNG_RND64, [192n])
    assert.equal(vm.started, true)
    assert.deepEqual(
      (['x0', 'x3', 'x7', 'pc'] as const).map((name) => vcpu.registers.get(name)),
      [0n, 33n, 77n, 0x4000_0000n],
    )
  })

  it('tells the exit of a call that does not come back', () => {
    const { vcpu } = guest()
    assert.deepEqual(vcpu.hypercall(0x8400_0008), {
      x: [0xffff_ffff_ffff_fffan, 0n, 0n, 0n],
      exit: { reason: 'system-event', event: 'shutdown', flags: 0n, data: [0n] },
    })
    assert.equal(vcpu.mpState, 'stopped')
    vcpu.mpState = 'runnable'
    const off = vcpu.hypercall(0x8400_0002, [], { timeout: 5 })
    assert.deepEqual(off, { x: [0n, 0n, 0n, 0n], exit: { reason: 'interrupted' } })
  })

  it('waits for an access of the guest that KVM has yet to finish', () => {
    const kvm = openKvm(simulator('linux-6.18-cortex-a57'))
    const vm = kvm.createVm()
    const vcpu = vm.createVcpu(0)
    const memory = kvm.createMemory(0x10000)
    memory.write(0, Uint8Array.of(0x22, 0, 0, 0xf9)) // str x2, [x1]
    vm.mapMemory(0, { address: 0x10000n, memory })
    vcpu.registers.set('pc', 0x10000n)
    vcpu.registers.set('x1', 0x9000000n)
    assert.equal(vcpu.runSync().reason, 'mmio')
    assert.throws(() => vcpu.hypercall(functionIds.SMCCC_VERSION), {
      code: 'EBUSY',
      message: /access of the last exit: respond\(\) to a read, then freeze\(\)/,
    })
    vcpu.freeze()
    assert.equal(vcpu.hypercall(functionIds.SMCCC_VERSION).x[0], 0x10001n)
    assert.equal(vcpu.hypercall(functionIds.SMCCC_VERSION).x[0], 0x10001n)
    assert.equal(vcpu.registers.get('pc'), 0x10004n)
  })

  it('is refused at EL0, where the instructions are undefined', () => {
    const { vm, vcpu } = guest()
    vcpu.registers.set('pstate', 0x3c0n)
    assert.throws(() => vcpu.hypercall(functionIds.SMCCC_VERSION), {
      code: 'EOPNOTSUPP',
      message: /above EL0/,
    })
    assert.equal(vm.started, false)
  })

  it('says so where the Kvm is closed that its memory would come from', () => {
    const kvm = openKvm(simulator('linux-6.18-cortex-a57'))
    const vcpu = kvm.createVm().createVcpu(0)
    kvm.close()
    assert.throws(() => vcpu.hypercall(functionIds.SMCCC_VERSION), {
      code: 'ERR_KVM_CLOSED',
      message: /The Kvm that made this VM is closed/,
    })
  })

  it('needs AArch64 state', () => {
    const { vcpu } = guest('linux-6.18-cortex-a57', ['psci-0.2', 'el1-32bit'])
    assert.throws(() => vcpu.hypercall(functionIds.SMCCC_VERSION), { code: 'EOPNOTSUPP', message: /AArch64/ })
  })

  it('says where it needs room', () => {
    const kvm = openKvm(simulator('linux-6.18-cortex-a57'))
    const vm = kvm.createVm()
    vm.mapMemory(0, { address: STUB_ADDRESS, memory: kvm.createMemory(0x10000) })
    const vcpu = vm.createVcpu(0)
    assert.throws(() => vcpu.hypercall(functionIds.SMCCC_VERSION), {
      code: 'EEXIST',
      message: new RegExp(`slot ${STUB_SLOT} and 64 KiB at guest address 0xf000000`),
    })
  })

  it('is refused while the vCPU runs', async () => {
    const { vcpu } = guest()
    const flight = vcpu.run()
    assert.throws(() => vcpu.hypercall(functionIds.SMCCC_VERSION), { code: 'EBUSY', message: /in flight/ })
    vcpu.kick()
    assert.deepEqual(await flight, { reason: 'interrupted' })
    assert.equal(vcpu.hypercall(functionIds.SMCCC_VERSION).x[0], 0x10001n)
  })

  it('passes on what KVM_RUN refuses', () => {
    const { vcpu } = guest('linux-6.18-cortex-a57', ['psci-0.2', 'pmu-v3'])
    assert.throws(() => vcpu.hypercall(functionIds.SMCCC_VERSION), { code: 'EINVAL', syscall: 'KVM_RUN' })
  })
})
