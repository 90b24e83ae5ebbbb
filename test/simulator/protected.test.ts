import assert from 'node:assert/strict'
import { test } from 'vitest'
import { made, newHost, runOnce, vcpuOf, vmOf } from './fixture.js'

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
