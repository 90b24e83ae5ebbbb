import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { openKvm, type Vcpu, type Vm } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'
import type { VcpuFeature } from '../../lib/uapi.js'

function guest(features: readonly VcpuFeature[] = ['psci-0.2', 'pmu-v3']): { vm: Vm; vcpu: Vcpu } {
  const kvm = openKvm(simulator('linux-6.18-max'))
  const vm = kvm.createVm()
  vm.mapMemory(0, { address: 0x4000_0000n, memory: kvm.createMemory(0x1_0000) })
  return { vm, vcpu: vm.createVcpu(0, { features }) }
}

const gic = { version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n } as const

describe('vcpu.timers', () => {
  it('reads and sets the interrupts of all vCPUs, until the first run', () => {
    const { vm, vcpu } = guest(['psci-0.2'])
    const second = vm.createVcpu(1)
    assert.deepEqual([vcpu.timers.irq('virtual'), vcpu.timers.irq('physical')], [27, 30])
    assert.throws(() => vcpu.timers.setIrq('virtual', 20), { code: 'EINVAL' })
    vm.createGic(gic)
    vcpu.timers.setIrq('virtual', 20)
    assert.equal(second.timers.irq('virtual'), 20)
    assert.throws(() => vcpu.timers.setIrq('physical', 32), { code: 'EINVAL' })
    vcpu.freeze()
    assert.throws(() => vcpu.timers.setIrq('virtual', 21), { code: 'EBUSY' })
    assert.throws(() => vcpu.timers.irq('other' as never), {
      name: 'RangeError',
      message: /virtual, physical/,
    })
  })
})

describe('vcpu.pmu', () => {
  it('is set up and initialised once', () => {
    const { vm, vcpu } = guest()
    vm.createGic(gic)
    assert.equal(vcpu.pmu.irq, undefined)
    vcpu.pmu.filter({ base: 0x10, count: 1, action: 'deny' })
    vcpu.pmu.setIrq(23)
    assert.equal(vcpu.pmu.irq, 23)
    vcpu.pmu.init()
    assert.throws(() => vcpu.pmu.init(), { code: 'EBUSY' })
    vcpu.freeze()
  })

  it('passes on what KVM refuses, and checks numbers', () => {
    const { vcpu } = guest()
    assert.throws(() => vcpu.pmu.irq, { code: 'EINVAL' })
    assert.throws(() => vcpu.pmu.setPmu(99), { code: 'ENXIO' })
    assert.throws(() => vcpu.pmu.setCounters(99), { code: 'EINVAL' })
    assert.throws(() => vcpu.pmu.filter({ base: 0x1_0000, count: 1, action: 'deny' }), RangeError)
    assert.throws(() => vcpu.pmu.filter({ base: 0, count: 1, action: 'handle' as never }), RangeError)
    assert.throws(() => guest(['psci-0.2']).vcpu.pmu.init(), { code: 'ENODEV' })
  })
})

describe('vcpu.stolenTime', () => {
  it('is set once, to memory of the guest', () => {
    const { vcpu } = guest()
    assert.equal(vcpu.stolenTime.address, undefined)
    assert.throws(() => vcpu.stolenTime.setAddress(0x4000_0001n), { code: 'EINVAL' })
    assert.throws(() => vcpu.stolenTime.setAddress(0x5000_0000n), { code: 'EINVAL' })
    vcpu.stolenTime.setAddress(0x4000_0040n)
    assert.equal(vcpu.stolenTime.address, 0x4000_0040n)
    assert.throws(() => vcpu.stolenTime.setAddress(0x4000_0000n), { code: 'EEXIST' })
  })
})
