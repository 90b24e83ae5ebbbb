import assert from 'node:assert/strict'
import { test } from 'vitest'
import type { VcpuFd } from '../../lib/backend.js'
import { functionIdOf, functionIds } from '../../lib/hypercalls/index.js'
import { hasPendingSError, pendSError } from '../../lib/probe/rig.js'
import { cpuInputs, irqTypes } from '../../lib/uapi.js'
import { made, newHost, runOnce, vcpuOf, vmOf } from './fixture.js'
import { call, guestOf } from './guest.js'

const host = { ...newHost, vmTypes: { ipaSizes: '0-64,127' } }

test('with pKVM, a vCPU that comes after the first run of its VM cannot run', () => {
  const vm = vmOf(host)
  const [first, second] = [vcpuOf(vm, 0), vcpuOf(vm, 1)]
  assert.equal(runOnce(first), 'EINTR')
  const late = vcpuOf(vm, 2)
  assert.equal(runOnce(late), 'EINVAL')
  assert.equal(runOnce(late), 'EINVAL')
  assert.equal(runOnce(second), 'EINTR')
})

test('with pKVM, a first run that is refused for other reasons leaves room for more vCPUs', () => {
  const vm = vmOf(host)
  const first = made(vm.createVcpu(0))
  assert.equal(runOnce(first), 'ENOEXEC')
  const second = vcpuOf(vm, 1)
  assert.equal(runOnce(second), 'EINTR')
})

test('without it, a late vCPU runs', () => {
  const vm = vmOf(newHost)
  assert.equal(runOnce(vcpuOf(vm, 0)), 'EINTR')
  assert.equal(runOnce(vcpuOf(vm, 1)), 'EINTR')
})

for (const sErrorDropped of [true, undefined] as const) {
  test(`a pending SError is ${sErrorDropped ? 'dropped' : 'kept'} when guest code runs that masks it`, () => {
    const { vcpus } = guestOf({ ...newHost, traits: { ...newHost.traits, sErrorDropped } })
    const [vcpu] = vcpus as [VcpuFd]
    pendSError(vcpu)
    assert.equal(runOnce(vcpu), 'EINTR')
    assert.ok(hasPendingSError(vcpu))
    call(vcpu, 'hvc', BigInt(functionIds.SMCCC_VERSION))
    assert.equal(hasPendingSError(vcpu), sErrorDropped === undefined)
  })
}

for (const sErrorDropped of [true, undefined] as const) {
  test(`a raised input ${sErrorDropped ? 'wakes no guest' : 'wakes a guest'} that waits without a GIC`, () => {
    const { vm, vcpus } = guestOf({ ...newHost, traits: { ...newHost.traits, sErrorDropped } })
    const input = (irqTypes.cpu << 24) | cpuInputs.irq
    assert.equal(vm.irqLine(input, 1), 0)
    const answer = call(vcpus[0]!, 'hvc', BigInt(functionIdOf('PSCI_CPU_SUSPEND_64')))
    assert.match(answer, sErrorDropped ? /^EINTR/ : /^0 /)
  })
}
