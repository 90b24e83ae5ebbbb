import assert from 'node:assert/strict'
import { test } from 'vitest'
import { deviceTypes, KVM_DEV_ARM_VGIC_GRP_CTRL, exitReasons, mpStates } from '../../lib/uapi.js'
import {
  get,
  made,
  newHost,
  oldestHost,
  oldHost,
  runOnce,
  set,
  start,
  outcomeName,
  vcpuOf,
  vmOf,
  withTraits,
} from './fixture.js'

const GIC = 7
const x0 = 0x6030_0000_0010_0000n

function word64(value: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(value).buffer)
}

/** Whether the VM has run, as a register that freezes shows. */
function isFrozen(vcpu: Parameters<typeof set>[0]): boolean {
  return set(vcpu, 'STD_BMAP', 0n) === 'EBUSY'
}

test('immediate_exit ends a run before it starts, and it counts as one', async () => {
  const { vcpu } = start(oldHost)
  assert.equal(runOnce(vcpu), 'EINTR')
  assert.ok(isFrozen(vcpu))
  const other = start(oldHost).vcpu
  new Uint8Array(other.runPage)[1] = 1
  assert.equal(outcomeName(await other.run()), 'EINTR')
  assert.ok(isFrozen(other))
})

test('a run with a timeout waits that long', () => {
  const { vcpu } = start(oldHost)
  const begin = performance.now()
  assert.equal(outcomeName(vcpu.runSync(30)), 'EINTR')
  assert.ok(performance.now() - begin >= 29)
  assert.equal(new DataView(vcpu.runPage).getUint32(8, true), exitReasons.KVM_EXIT_INTR)
  assert.ok(isFrozen(vcpu))
})

test('a run that nothing would end is an error that says so, and it counts as one', () => {
  const { vcpu } = start(oldHost)
  assert.throws(() => vcpu.runSync(0), { code: 'ERR_KVM_SIMULATOR_NO_GUEST_CODE', message: /no guest code/ })
  assert.ok(isFrozen(vcpu))
})

test('a run in flight lasts until the kick, and only one can be', async () => {
  const { vm, vcpu } = start(oldHost)
  const sibling = vcpuOf(vm, 1)
  const flight = vcpu.run()
  assert.equal(outcomeName(await vcpu.run()), 'EBUSY')
  assert.equal(outcomeName(vcpu.runSync(5)), 'EBUSY')
  assert.equal(outcomeName(sibling.runSync(5)), 'EINTR')
  assert.equal(await Promise.race([flight, Promise.resolve('in flight')]), 'in flight')
  assert.ok(isFrozen(sibling))
  vcpu.kick()
  assert.equal(outcomeName(await flight), 'EINTR')
  vcpu.kick()
  assert.equal(outcomeName(vcpu.runSync(1)), 'EINTR')
})

test('a vCPU in flight answers EBUSY to everything but kick and close', async () => {
  const { vcpu } = start(oldHost)
  const bytes = new Uint8Array(64)
  const [ids, values, errnos] = [BigUint64Array.of(x0), new BigUint64Array(1), new Int32Array(1)]
  const requests: (() => bigint | number)[] = [
    () => vcpu.init(5, [4]),
    () => vcpu.finalize(4),
    () => vcpu.getRegList(new BigUint64Array(1)),
    () => vcpu.getOneReg(x0),
    () => vcpu.setOneReg(x0, 1n),
    () => vcpu.getOneRegAtNull(x0),
    () => vcpu.setOneRegAtNull(x0),
    () => vcpu.getRegs(ids, values, errnos),
    () => vcpu.setRegs(ids, values, errnos),
    () => vcpu.getMpState(),
    () => vcpu.setMpState(mpStates.runnable),
    () => vcpu.getVcpuEvents(bytes),
    () => vcpu.setVcpuEvents(bytes),
    () => vcpu.hasDeviceAttr(1, 0n),
    () => vcpu.getDeviceAttr(1, 0n, bytes),
    () => vcpu.setDeviceAttr(1, 0n, null),
  ]
  const flight = vcpu.run()
  for (const [index, request] of requests.entries())
    assert.equal(outcomeName(request()), 'EBUSY', `call ${index}`)
  vcpu.kick()
  assert.equal(outcomeName(await flight), 'EINTR')
  for (const [index, request] of requests.entries())
    assert.notEqual(outcomeName(request()), 'EBUSY', `call ${index}`)
})

test('a closed vCPU answers EBADF to a whole batch', () => {
  const { vcpu } = start(oldHost)
  vcpu.close()
  const [ids, values, errnos] = [BigUint64Array.of(x0), new BigUint64Array(1), new Int32Array(1)]
  assert.equal(outcomeName(vcpu.getRegs(ids, values, errnos)), 'EBADF')
  assert.equal(outcomeName(vcpu.setRegs(ids, values, errnos)), 'EBADF')
})

test('close ends a run in flight', async () => {
  const { vcpu } = start(oldHost)
  const flight = vcpu.run()
  vcpu.close()
  assert.equal(outcomeName(await flight), 'EINTR')
})

test('a vCPU with SVE does not run before the vector lengths are final, and freezes nothing', () => {
  const { vcpu } = start(newHost, ['psci-0.2', 'sve'])
  assert.equal(runOnce(vcpu), 'EPERM')
  assert.equal(set(vcpu, 'STD_BMAP', 0n), 0)
  vcpu.finalize(4)
  assert.equal(runOnce(vcpu), 'EINTR')
})

test('a vCPU whose PMU is not initialised does not run, and freezes nothing', () => {
  const { vcpu } = start(oldHost, ['psci-0.2', 'pmu-v3'])
  assert.equal(runOnce(vcpu), 'EINVAL')
  assert.equal(set(vcpu, 'STD_BMAP', 0n), 0)
  assert.equal(vcpu.setDeviceAttr(0, 1n, null), 0)
  assert.equal(runOnce(vcpu), 'EINTR')
})

test('it runs on a kernel that does not look', () => {
  assert.equal(runOnce(start(oldestHost, ['psci-0.2', 'pmu-v3']).vcpu), 'EINTR')
})

test('a VM whose GIC has no addresses dies of its first run: everything is EIO', async () => {
  const { vm, vcpu } = start(newHost)
  const gic = made(vm.createDevice(GIC, 0))
  assert.equal(runOnce(vcpu), 'ENXIO')
  const bytes = new Uint8Array(64)
  const outcomes = [
    vcpu.getOneReg(x0),
    vcpu.init(5, [4]),
    vcpu.getMpState(),
    vcpu.hasDeviceAttr(1, 0n),
    vcpu.runSync(0),
    await vcpu.run(),
    vm.checkExtension(0),
    vm.createVcpu(1),
    vm.createDevice(GIC, 0),
    vm.hasDeviceAttr(0, 0n),
    vm.getDeviceAttr(0, 0n, bytes),
    gic.setDeviceAttr(KVM_DEV_ARM_VGIC_GRP_CTRL, 0n, null),
  ]
  for (const [index, outcome] of outcomes.entries())
    assert.equal(outcomeName(outcome), 'EIO', `call ${index}`)
  vcpu.close()
  assert.equal(outcomeName(vcpu.getMpState()), 'EBADF')
})

test('a VM with an initialised GIC runs and keeps it in its ID registers', () => {
  const { vm, vcpu } = start(newHost)
  const gic = made(vm.createDevice(GIC, 0))
  assert.equal(gic.setDeviceAttr(0, 2n, word64(0x800_0000n)), 0)
  assert.equal(gic.setDeviceAttr(0, 3n, word64(0x80a_0000n)), 0)
  assert.equal(gic.setDeviceAttr(KVM_DEV_ARM_VGIC_GRP_CTRL, 0n, null), 0)
  assert.equal(runOnce(vcpu), 'EINTR')
  assert.equal(get(vcpu, 'ID_AA64PFR0_EL1'), 0x0100_0000_0100_0012n)
  assert.equal(outcomeName(vm.createVcpu(1)), 'EBUSY')
})

test('a GIC with addresses that is not initialised makes the run EBUSY', () => {
  const { vm, vcpu } = start(newHost)
  const gic = made(vm.createDevice(GIC, 0))
  gic.setDeviceAttr(0, 2n, word64(0x800_0000n))
  gic.setDeviceAttr(0, 3n, word64(0x80a_0000n))
  assert.equal(runOnce(vcpu), 'EBUSY')
  assert.equal(get(vcpu, 'x0'), 'EIO')
})

test('a kernel that lets the VM live counts the failed run', () => {
  const { vm, vcpu } = start(oldestHost)
  made(vm.createDevice(GIC, 0))
  assert.equal(runOnce(vcpu), 'ENXIO')
  assert.equal(get(vcpu, 'x0'), 0n)
  assert.equal(runOnce(vcpu), 'EINTR')
})

test('a GIC comes before the first run and once', () => {
  const { vm, vcpu } = start(newHost)
  assert.equal(outcomeName(vm.createDevice(GIC, 1)), 0)
  runOnce(vcpu)
  assert.equal(outcomeName(vm.createDevice(GIC, 0)), 'EBUSY')
  const other = vmOf(newHost)
  made(other.createDevice(GIC, 0))
  assert.equal(outcomeName(other.createDevice(GIC, 0)), 'EEXIST')
  assert.equal(outcomeName(other.createDevice(99, 0)), 'ENODEV')
  assert.equal(outcomeName(vmOf(withTraits(newHost, { devices: [] })).createDevice(GIC, 1)), 'ENODEV')
})

test('a first run refused over the GIC leaves an old VM a GIC to begin anew with', () => {
  const { vm, vcpu } = start(oldestHost)
  const gic = made(vm.createDevice(GIC, 0))
  gic.setDeviceAttr(0, 3n, word64(0x80a_0000n))
  gic.setDeviceAttr(3, 0n, new Uint8Array([64, 0, 0, 0]))
  gic.setDeviceAttr(KVM_DEV_ARM_VGIC_GRP_CTRL, 0n, null)
  assert.equal(outcomeName(vm.createVcpu(1) as number), 'EBUSY')
  assert.equal(runOnce(vcpu), 'ENXIO')
  made(vm.createVcpu(1))
  assert.equal(outcomeName(gic.setDeviceAttr(3, 0n, new Uint8Array([96, 0, 0, 0]))), 0)
  assert.equal(outcomeName(gic.setDeviceAttr(0, 3n, word64(0x80a_0000n))), 0)
})

test('vCPUs keep their redistributors when an old VM loses its GIC, and a new one has none', () => {
  const { vm, vcpu } = start(oldestHost)
  const gic = made(vm.createDevice(GIC, 0))
  gic.setDeviceAttr(0, 2n, word64(0x800_0000n))
  gic.setDeviceAttr(0, 3n, word64(0x80a_0000n))
  const second = vcpuOf(vm, 1)
  assert.equal(runOnce(vcpu), 'EBUSY')
  assert.equal(runOnce(second), 'EBUSY')
  assert.equal(runOnce(vcpuOf(vm, 2)), 'ENXIO')
})

test('a device that the host has and the simulator has not can be asked for, and is an error of the simulator’s', () => {
  const vm = vmOf(newHost)
  assert.equal(vm.createDevice(deviceTypes.KVM_DEV_TYPE_ARM_VGIC_ITS, 1), 0)
  assert.equal(outcomeName(vm.createDevice(deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V2, 0)), 'ENODEV')
  assert.throws(() => vm.createDevice(deviceTypes.KVM_DEV_TYPE_ARM_VGIC_ITS, 0), {
    code: 'ERR_KVM_SIMULATOR_NO_DEVICE',
    message: /KVM_DEV_TYPE_ARM_VGIC_ITS/,
  })
})

test('what guest code loads into the CPU comes back with the bits it keeps', () => {
  const { vcpu } = start(oldHost)
  assert.equal(set(vcpu, 'AFSR0_EL1', 0x5555n), 0)
  assert.equal(runOnce(vcpu), 'EINTR')
  assert.equal(get(vcpu, 'AFSR0_EL1'), 0x5555n)
})

test('a run that would have to wait loads it too where KVM loads before it looks', () => {
  for (const [by, kept] of [
    ['load', 0x55n],
    ['guest', 0x5555n],
  ] as const) {
    const lossyRegisters = oldHost.traits.lossyRegisters.map((register) => ({ ...register, by }))
    const { vcpu } = start(withTraits(oldHost, { lossyRegisters }))
    set(vcpu, 'AFSR0_EL1', 0x5555n)
    assert.equal(runOnce(vcpu), 'EINTR')
    assert.equal(get(vcpu, 'AFSR0_EL1'), 0x5555n)
    vcpu.setMpState(mpStates.stopped)
    assert.equal(outcomeName(vcpu.runSync(1)), 'EINTR')
    assert.equal(get(vcpu, 'AFSR0_EL1'), kept)
  }
})

test('a host whose KVM runs at EL2 loads it with every run', () => {
  const { vcpu } = start(newHost)
  assert.equal(set(vcpu, 'AFSR0_EL1', 0x5555n), 0)
  assert.equal(runOnce(vcpu), 'EINTR')
  assert.equal(get(vcpu, 'AFSR0_EL1'), 0n)
})
