import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { openKvm, type Vcpu, type Vm } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'

const WFI = 0xd503_207f
const STORE = 0xf900_0022 // str x2, [x1]
const MEMORY = 0x8000_0000n
const DEVICE = 0x900_0000n

/** A vCPU that waits for an interrupt and then writes to a device. */
function waiting(): { vm: Vm; vcpu: Vcpu } {
  const kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
  const vm = kvm.createVm()
  const memory = kvm.createMemory(0x1_0000)
  memory.write(0, new Uint8Array(Uint32Array.of(WFI, STORE).buffer))
  vm.mapMemory(0, { address: MEMORY, memory })
  const vcpu = vm.createVcpu(0)
  vcpu.registers.set('pc', MEMORY)
  vcpu.registers.set('x1', DEVICE)
  return { vm, vcpu }
}

function withGic(init = true): { vm: Vm; vcpu: Vcpu } {
  const vm = openKvm(simulator('linux-6.12-neoverse-n1')).createVm()
  const vcpu = vm.createVcpu(0)
  const { attributes } = vm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3')
  attributes.set(3, 0n, new Uint8Array(Uint32Array.of(64).buffer))
  if (init) attributes.set(4, 0n)
  return { vm, vcpu }
}

describe('setIrq()', () => {
  it('wakes a vCPU that waits, while it runs', async () => {
    const { vcpu } = waiting()
    const flight = vcpu.run()
    vcpu.setIrq('irq', true)
    const exit = await flight
    assert.equal(exit.reason, 'mmio')
  })

  it('keeps a lowered input from waking a vCPU', async () => {
    const { vcpu } = waiting()
    vcpu.setIrq('fiq', true)
    vcpu.setIrq('fiq', false)
    const exit = vcpu.runSync({ timeout: 2 })
    assert.equal(exit.reason, 'interrupted')
  })

  it('raises shared and private interrupts of the GIC', () => {
    const { vm, vcpu } = withGic()
    for (const level of [true, false]) {
      vm.setIrq(32, level)
      vm.setIrq(63, level)
      vcpu.setIrq(16, level)
      vcpu.setIrq(31, level)
    }
  })

  it('says which call would have been right', () => {
    const { vm, vcpu } = withGic()
    assert.throws(() => vm.setIrq(31, true), { name: 'RangeError', message: /vcpu\.setIrq\(\)/ })
    assert.throws(() => vm.setIrq(1020, true), RangeError)
    assert.throws(() => vcpu.setIrq(32, true), { name: 'RangeError', message: /vm\.setIrq\(\)/ })
    assert.throws(() => vcpu.setIrq(15, true), RangeError)
    assert.throws(() => vcpu.setIrq('nmi' as never, true), { name: 'RangeError', message: /irq, fiq/ })
    assert.throws(() => vm.setIrq(40, 1 as never), TypeError)
  })

  it('says why the kernel refused', () => {
    const initialised = withGic()
    assert.throws(() => initialised.vm.setIrq(64, true), { code: 'EINVAL', message: /no interrupt 64/ })
    assert.throws(() => initialised.vcpu.setIrq('irq', true), { code: 'ENXIO', message: /The VM has a GIC/ })
    const early = withGic(false)
    assert.throws(() => early.vm.setIrq(32, true), { code: 'EBUSY', message: /CTRL_INIT/ })
    const without = waiting()
    assert.throws(() => without.vm.setIrq(32, true), { code: 'ENXIO', message: /no GIC/ })
    assert.throws(() => without.vcpu.setIrq(20, true), { code: 'ENXIO', vcpu: 0 })
    without.vm.close()
    assert.throws(() => without.vm.setIrq(32, true), { code: 'ERR_KVM_CLOSED' })
    assert.throws(() => without.vcpu.setIrq('irq', true), { code: 'ERR_KVM_CLOSED' })
  })

  it('counts the vCPUs of old kernels in the order of their creation', () => {
    const vm = openKvm(simulator('linux-6.1-neoverse-n1')).createVm()
    const third = vm.createVcpu(2)
    assert.throws(() => third.setIrq('irq', true), { code: 'EINVAL', message: /order of their creation/ })
  })
})
