import assert from 'node:assert/strict'
import { it } from 'vitest'
import { openKvm, type Vcpu, type Vm } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'

function guest(host = 'linux-6.12-neoverse-n1' as const): { vm: Vm; vcpu: Vcpu } {
  const vm = openKvm(simulator(host)).createVm()
  return { vm, vcpu: vm.createVcpu(0) }
}

it('sets both counters back by the offset, after which writes to them change nothing', () => {
  const { vm, vcpu } = guest()
  vm.setCounterOffset(0n)
  const [virtual, physical] = ['KVM_REG_ARM_TIMER_CNT', 'KVM_REG_ARM_PTIMER_CNT'] as const
  const before = vcpu.registers.get(virtual)
  vm.setCounterOffset(1n << 62n)
  for (const counter of [virtual, physical]) {
    vcpu.registers.set(counter, 5n)
    const ahead = BigInt.asUintN(64, vcpu.registers.get(counter) + (1n << 62n)) - before
    assert.ok(ahead >= 0n && ahead < 1n << 40n, `${counter} is ${ahead} ticks ahead`)
  }
})

it('says what to do where the kernel has none, and while a vCPU runs', async () => {
  const vm = openKvm(simulator('linux-6.1-neoverse-n1')).createVm()
  assert.throws(() => vm.setCounterOffset(0n), { code: 'EINVAL', message: /6\.4.*KVM_REG_ARM_TIMER_CNT/ })
  const { vm: other, vcpu } = guest()
  const flight = vcpu.run()
  assert.throws(() => other.setCounterOffset(0n), { code: 'EBUSY', message: /vCPU 0 of this VM runs/ })
  vcpu.kick()
  await flight
  other.setCounterOffset(0n)
  other.close()
  assert.throws(() => other.setCounterOffset(0n), { code: 'ERR_KVM_CLOSED' })
})
