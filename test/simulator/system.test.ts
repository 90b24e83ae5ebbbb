import assert from 'node:assert/strict'
import { test } from 'vitest'
import { simulatorBackend } from '../../lib/simulator/index.js'
import { capabilities } from '../../lib/uapi.js'
import {
  made,
  newHost,
  oldHost,
  runOnce,
  systemOf,
  outcomeName,
  vcpuOf,
  vmOf,
  withCapabilities,
  withoutMachine,
} from './fixture.js'
import { withRows } from '../report/rows.js'

test('the backend names itself and the recorded host', () => {
  const backend = simulatorBackend(oldHost)
  assert.equal(backend.name, 'simulator')
  assert.deepEqual(backend.host, { release: 'old', build: 'fixture' })
})

test('/dev/kvm has API version 12 and the recorded mapping size', () => {
  const kvm = systemOf(oldHost)
  assert.equal(kvm.getApiVersion(), 12)
  assert.equal(kvm.getVcpuMmapSize(), 8192)
})

test('a capability is answered as recorded on each descriptor, an unknown one with 0', () => {
  const kvm = systemOf(oldHost)
  const vm = made(kvm.createVm(0n))
  assert.equal(outcomeName(kvm.checkExtension(capabilities.KVM_CAP_MSI_DEVID)), 'EINVAL')
  assert.equal(kvm.checkExtension(195), 0)
  assert.equal(vm.checkExtension(195), 0x30003)
  assert.equal(vm.checkExtension(capabilities.KVM_CAP_MSI_DEVID), 1)
  assert.equal(kvm.checkExtension(9999), 0)
  assert.equal(vm.checkExtension(9999), 0)
})

const vmTypes: [type: bigint, limit: number, outcome: 'made' | 'EINVAL'][] = [
  [0n, 44, 'made'],
  [32n, 44, 'made'],
  [44n, 44, 'made'],
  [31n, 44, 'EINVAL'],
  [45n, 44, 'EINVAL'],
  [0x100n, 44, 'EINVAL'],
  [1n << 63n, 44, 'EINVAL'],
  [0n, 36, 'EINVAL'],
  [36n, 36, 'made'],
  [0n, 0, 'made'],
  [41n, 0, 'EINVAL'],
]
for (const [type, limit, outcome] of vmTypes) {
  test(`a VM of type ${type} on a host of ${limit} address bits: ${outcome}`, () => {
    const report = withCapabilities(withoutMachine(oldHost), { KVM_CAP_ARM_VM_IPA_SIZE: [limit, limit] })
    const kvm = systemOf(report)
    const vm = kvm.createVm(type)
    assert.equal(typeof vm === 'number' ? outcomeName(vm) : 'made', outcome)
  })
}

test('a vCPU id is used once, even after its handle is closed, and is below KVM_CAP_MAX_VCPUS', () => {
  const vm = vmOf(oldHost)
  made(vm.createVcpu(3)).close()
  assert.equal(outcomeName(vm.createVcpu(3)), 'EEXIST')
  assert.equal(outcomeName(vm.createVcpu(512)), 'EINVAL')
  made(vm.createVcpu(511))
})

test('a VM takes KVM_CAP_MAX_VCPUS vCPUs and no more', () => {
  const vm = vmOf(withCapabilities(oldHost, { KVM_CAP_MAX_VCPUS: [2, 2] }))
  made(vm.createVcpu(0))
  made(vm.createVcpu(1))
  assert.equal(outcomeName(vm.createVcpu(1)), 'EINVAL')
})

test('the preferred target comes without features', () => {
  const init = new Uint32Array(9).fill(7)
  assert.equal(vmOf(newHost).getPreferredTarget(init), 0)
  assert.deepEqual([...init], [5, 0, 0, 0, 0, 0, 0, 0, 7])
})

test('writable masks stand at op1 × 64 + CRm × 8 + op2, with op1 3 in the place of 2', () => {
  const masks = new BigUint64Array(192).fill(1n)
  assert.equal(vmOf(newHost).getRegWritableMasks(0, masks), 0)
  const found = [...masks.entries()].filter(([, mask]) => mask !== 0n)
  assert.deepEqual(found, [
    [0, 0xffffffffn],
    [32, 0xff0000000f00000fn],
    [65, 0x7fffffffffffn],
    [129, 0x300fc00fn],
  ])
})

test('a mask of something that is no system register has no place', () => {
  const report = withRows(newHost, ({ mask: _none, ...row }) =>
    row.name === 'x0' ? { ...row, mask: '0x1' } : row,
  )
  const masks = new BigUint64Array(192)
  assert.equal(vmOf(report).getRegWritableMasks(0, masks), 0)
  assert.ok(masks.every((mask) => mask === 0n))
})

test('writable masks are EINVAL on a kernel without them and for another range', () => {
  assert.equal(outcomeName(vmOf(oldHost).getRegWritableMasks(0, new BigUint64Array(192))), 'EINVAL')
  assert.equal(outcomeName(vmOf(newHost).getRegWritableMasks(1, new BigUint64Array(192))), 'EINVAL')
})

test('arguments no kernel can be handed are thrown back', () => {
  const kvm = systemOf(newHost)
  const vm = made(kvm.createVm(0n))
  const vcpu = vcpuOf(vm, 0)
  const range = { name: 'RangeError', code: 'ERR_OUT_OF_RANGE' }
  const type = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' }
  const calls: [call: () => unknown, expected: typeof range][] = [
    [() => kvm.createVm(1n << 64n), range],
    [() => kvm.createVm(0 as never), type],
    [() => kvm.checkExtension(-1), range],
    [() => kvm.checkExtension(1.5), range],
    [() => kvm.checkExtension('1' as never), type],
    [() => kvm.createMemory(-1), range],
    [() => kvm.createMemory('1' as never), type],
    [() => vm.getPreferredTarget(new Uint32Array(7)), range],
    [() => vm.getPreferredTarget([] as never), type],
    [() => vm.enableCap(1, 0, [0n, 0n, 0n, 0n, 0n]), range],
    [() => vcpu.init(5, [0, 0, 0, 0, 0, 0, 0, 0]), range],
    [() => vcpu.getOneReg(-1n), range],
    [() => vcpu.getOneReg(1 as never), type],
    [() => vcpu.getOneReg(0x6090_0000_0010_0000n), range],
    [() => vcpu.setOneReg(0x6020_0000_0010_00d4n, 1n << 32n), range],
    [() => vcpu.setOneReg(0x6030_0000_0010_0000n, -1n), range],
    [() => vcpu.setOneReg(0x6030_0000_0010_0000n, 1 as never), type],
    [() => vcpu.getRegList(new BigUint64Array([1n])), range],
    [() => vcpu.runSync(-1), range],
    [() => vcpu.getRegs(new BigUint64Array(1), new BigUint64Array(2), new Int32Array(1)), range],
    [() => vcpu.getRegs(new BigUint64Array(1), new BigUint64Array(1), new Int32Array(2)), range],
  ]
  for (const [call, expected] of calls) assert.throws(call, expected, call.toString())
})

test('after close every method answers EBADF, and close may be repeated', async () => {
  const kvm = systemOf(newHost)
  const memory = made(kvm.createMemory(4096))
  const vm = made(kvm.createVm(0n))
  const vcpu = vcpuOf(vm, 0)
  const gic = made(vm.createDevice(7, 0))
  for (const handle of [kvm, memory, vm, vcpu, gic, kvm, memory, vm, vcpu, gic]) handle.close()
  const id = 0x6030_0000_0010_0000n
  const bytes = new Uint8Array(64)
  const outcomes = [
    kvm.getApiVersion(),
    kvm.checkExtension(0),
    kvm.getVcpuMmapSize(),
    kvm.createVm(0n),
    kvm.createMemory(4096),
    memory.read(0, bytes),
    memory.write(0, bytes),
    vm.checkExtension(0),
    vm.enableCap(0, 0, []),
    vm.createVcpu(1),
    vm.getPreferredTarget(new Uint32Array(8)),
    vm.getRegWritableMasks(0, new BigUint64Array(192)),
    vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory: null, offset: 0, size: 0 }),
    vm.createDevice(7, 0),
    vm.hasDeviceAttr(0, 0n),
    vm.getDeviceAttr(0, 0n, bytes),
    vm.setDeviceAttr(0, 0n, bytes),
    vcpu.init(5, [4]),
    vcpu.finalize(4),
    vcpu.getRegList(new BigUint64Array(1)),
    vcpu.getOneReg(id),
    vcpu.setOneReg(id, 0n),
    vcpu.getOneRegAtNull(id),
    vcpu.setOneRegAtNull(id),
    vcpu.getMpState(),
    vcpu.setMpState(0),
    vcpu.getVcpuEvents(bytes),
    vcpu.setVcpuEvents(bytes),
    vcpu.hasDeviceAttr(0, 0n),
    vcpu.getDeviceAttr(0, 0n, bytes),
    vcpu.setDeviceAttr(0, 0n, bytes),
    vcpu.runSync(0),
    await vcpu.run(),
    gic.hasDeviceAttr(0, 2n),
    gic.getDeviceAttr(0, 2n, bytes),
    gic.setDeviceAttr(0, 2n, bytes),
  ]
  for (const [index, outcome] of outcomes.entries())
    assert.equal(outcomeName(outcome), 'EBADF', `call ${index}`)
  vcpu.kick()
  assert.equal(vcpu.runPage.byteLength, 0)
  assert.equal(memory.buffer?.byteLength, 0)
})

test('a vCPU outlives the handle of its VM', () => {
  const vm = vmOf(oldHost)
  const vcpu = vcpuOf(vm, 0)
  vm.close()
  assert.equal(runOnce(vcpu), 'EINTR')
})
