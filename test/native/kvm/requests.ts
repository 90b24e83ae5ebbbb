import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { GuestMemoryFd } from '../../../lib/backend.js'
import {
  capabilities,
  deviceTypes,
  errnos,
  exitReasons,
  GUEST_DEBUG_WORDS,
  irqTypes,
  KVM_API_VERSION,
  KVM_ARM_FEATURE_ID_RANGE_SIZE,
  KVM_ARM_NUM_TARGETS,
  KVM_ARM_VM_SMCCC_CTRL,
  KVM_ARM_VM_SMCCC_FILTER,
  KVM_CREATE_DEVICE_TEST,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
  KVM_GUESTDBG_ENABLE,
  KVM_GUESTDBG_USE_HW,
  KVM_IOEVENTFD_FLAG_DATAMATCH,
  KVM_IOEVENTFD_FLAG_DEASSIGN,
  KVM_MEM_LOG_DIRTY_PAGES,
  KVM_MSI_VALID_DEVID,
  KVM_VCPU_EVENTS_SIZE,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  mpStates,
  packGsiRoutes,
  packIrq,
  routeTypes,
  vcpuFeatures,
} from '../../../lib/uapi.js'
import { readStatsLayout } from '../../../lib/kvm/stats.js'
import { arm64Handles, opened, pc, preferredTarget, type Handles, x } from '../handles.js'

describe('A request', () => {
  let handles: Handles & { memory: GuestMemoryFd }
  before(() => {
    handles = arm64Handles()
  })
  after(() => handles.close())

  it('to /dev/kvm is answered', () => {
    const { system } = handles
    assert.equal(system.getApiVersion(), KVM_API_VERSION)
    assert.equal(system.checkExtension(capabilities.KVM_CAP_ONE_REG), 1)
    assert.equal(system.checkExtension(0xfffff), 0)
    assert.ok(system.getVcpuMmapSize() >= 4096)
    assert.equal(system.createVm(7n), -errnos.EINVAL)
    assert.equal(system.createVm(1n << 63n), -errnos.EINVAL)
    const small = opened(system.createVm(36n))
    small.close()
  })

  it('to a VM is answered', () => {
    const { vm } = handles
    assert.equal(vm.checkExtension(capabilities.KVM_CAP_IMMEDIATE_EXIT), 1)
    assert.ok(preferredTarget(vm) < KVM_ARM_NUM_TARGETS)
    assert.equal(vm.enableCap(capabilities.KVM_CAP_ARM_NISV_TO_USER, 0, []), 0)
    assert.equal(vm.enableCap(capabilities.KVM_CAP_ARM_NISV_TO_USER, 1, []), -errnos.EINVAL)
    assert.equal(vm.enableCap(0xfffff, 0, [1n, 2n, 3n, 4n]), -errnos.EINVAL)
    const irq = packIrq({ type: irqTypes.cpu, vcpu: 0, number: 0 })
    assert.equal(vm.irqLine(irq, 1), 0)
    assert.equal(vm.irqLine(irq, 0), 0)
    assert.equal(vm.irqLine(irq + 2, 1), -errnos.EINVAL)
    assert.equal(vm.irqLine(packIrq({ type: irqTypes.spi, vcpu: 0, number: 32 }), 1), -errnos.ENXIO)
    const hasOffset = vm.checkExtension(capabilities.KVM_CAP_COUNTER_OFFSET) > 0
    assert.equal(vm.setCounterOffset(0n, 0n), hasOffset ? 0 : -errnos.EINVAL)
    assert.equal(vm.setCounterOffset(0n, 1n), -errnos.EINVAL)
    assert.equal(vm.signalMsi(0x809_0040n, 3, KVM_MSI_VALID_DEVID, 8), -errnos.EINVAL)
    const route = { gsi: 4095, type: routeTypes.irqchip, flags: 0, words: [0, 987] }
    assert.equal(vm.setGsiRouting(0, packGsiRoutes([route])), 0)
    assert.equal(vm.setGsiRouting(1, packGsiRoutes([route])), -errnos.EINVAL)
    assert.equal(vm.setGsiRouting(0, packGsiRoutes([{ ...route, words: [0, 988] }])), -errnos.EINVAL)
    assert.equal(vm.createVcpu(0), -errnos.EEXIST)
    assert.equal(vm.createVcpu(0xffff), -errnos.EINVAL)
  })

  it('to debug the guest is answered', () => {
    const { vcpu } = handles
    const registers = new BigUint64Array(GUEST_DEBUG_WORDS)
    assert.equal(vcpu.setGuestDebug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW, registers), 0)
    assert.equal(vcpu.setGuestDebug(KVM_GUESTDBG_ENABLE | 4, registers), -errnos.EINVAL)
    assert.equal(vcpu.setGuestDebug(0, registers), 0)
  })

  it('for events is answered', () => {
    const { system, vm } = handles
    const event = opened(system.createEvent())
    assert.equal(vm.ioEventFd(event, 0x9000000n, 3, 0, 0n), -errnos.EINVAL)
    assert.equal(vm.ioEventFd(event, 0x9000000n, 4, KVM_IOEVENTFD_FLAG_DATAMATCH, 7n), 0)
    assert.equal(vm.ioEventFd(event, 0x9000000n, 4, 0, 0n), -errnos.EEXIST)
    const remove = KVM_IOEVENTFD_FLAG_DEASSIGN | KVM_IOEVENTFD_FLAG_DATAMATCH
    assert.equal(vm.ioEventFd(event, 0x9000000n, 4, remove, 8n), -errnos.ENOENT)
    assert.equal(vm.ioEventFd(event, 0x9000000n, 4, remove, 7n), 0)
    assert.equal(vm.irqFd(event, 0, 0, null), -errnos.EAGAIN)
    assert.equal(vm.irqFd(event, 0, 4, null), -errnos.EINVAL)
    event.close()
  })

  it('for coalesced writes is answered', () => {
    const guest = arm64Handles([...Array.from({ length: 8 }, () => 0xb9000022), 0xb9000062])
    const { vm, vcpu } = guest
    const words = new BigUint64Array(3 * 4)
    assert.equal(vm.registerCoalescedMmio(0x9000000n, 16, 0), 0)
    assert.equal(vm.registerCoalescedMmio(0x9000000n, 16, 2), -errnos.EINVAL)
    assert.equal(vcpu.takeCoalesced(words), 0)
    for (const [n, value] of [
      [1, 0x9000004n],
      [2, 0x1_2345_6789n],
      [3, 0xa000000n],
    ] as const) {
      assert.equal(vcpu.setOneReg(x(n), value), 0)
    }
    assert.equal(vcpu.runSync(5000), 0)
    assert.equal(vcpu.takeCoalesced(words), 4)
    assert.deepEqual([...words.subarray(0, 3)], [4n, 0x9000004n, 0x2345_6789n])
    assert.equal(vcpu.takeCoalesced(words.subarray(0, 10)), 3)
    assert.equal(vcpu.takeCoalesced(words), 1)
    assert.equal(vcpu.takeCoalesced(words), 0)
    // The indexes are at the beginning of the ring's page.
    const ring = new Uint32Array(vcpu.runPage, vcpu.runPage.byteLength / 2)
    const [first] = ring
    ring[0] = 0xffff_ffff
    assert.equal(vcpu.takeCoalesced(words), -errnos.EINVAL)
    ring[0] = first!
    assert.equal(vm.unregisterCoalescedMmio(0x9000004n, 1, 0), 0)
    guest.close()
    assert.equal(vcpu.takeCoalesced(words), -errnos.EBADF)
  })

  it('for a dirty ring is answered where there are any', () => {
    const { system } = handles
    assert.equal(handles.vcpu.takeDirty(new BigUint64Array(2)), -errnos.ENXIO)
    assert.equal(handles.vm.resetDirtyRings(), -errnos.EINVAL)
    const ring = capabilities.KVM_CAP_DIRTY_LOG_RING_ACQ_REL
    const vm = opened(system.createVm(0n))
    const hasRing = system.checkExtension(ring) > 0
    assert.equal(vm.enableCap(ring, 0, [0x1_0000n]), hasRing ? 0 : -errnos.EINVAL)
    assert.equal(vm.enableCap(ring, 0, [0x1_0000n]), -errnos.EINVAL)
    const vcpu = opened(vm.createVcpu(0))
    const entries = new BigUint64Array(4)
    assert.equal(vcpu.takeDirty(entries), hasRing ? 0 : -errnos.ENXIO)
    assert.equal(vm.resetDirtyRings(), hasRing ? 0 : -errnos.EINVAL)
    if (hasRing) writePages({ system, vm, vcpu }, entries)
    vcpu.close()
    assert.equal(vcpu.takeDirty(entries), -errnos.EBADF)
    vm.close()
    assert.equal(vm.resetDirtyRings(), -errnos.EBADF)
  })

  it('for statistics is answered where there are any', () => {
    const { system, vm, vcpu } = handles
    const hasThem = system.checkExtension(capabilities.KVM_CAP_BINARY_STATS_FD) > 0
    for (const { stats, count } of [
      { stats: vm.getStatsFd(), count: 2 },
      { stats: vcpu.getStatsFd(), count: 16 },
    ]) {
      if (!hasThem) {
        assert.equal(stats, -errnos.EINVAL)
        continue
      }
      const layout = readStatsLayout(opened(stats))
      assert.ok(layout !== null && typeof layout !== 'number')
      assert.ok(layout.descriptors.length >= count)
      assert.match(layout.id, new RegExp(`^kvm-${process.pid}(/vcpu-0)?$`))
      const numbers = new Uint8Array(layout.dataSize + 8)
      assert.equal(opened(stats).read(layout.dataOffset, numbers), layout.dataSize)
      assert.equal(opened(stats).read(layout.dataOffset + layout.dataSize, numbers), 0)
      opened(stats).close()
      assert.equal(opened(stats).read(0, numbers), -errnos.EBADF)
    }
  })

  it('for writable masks is answered where there are any', () => {
    const { system, vm } = handles
    const masks = new BigUint64Array(KVM_ARM_FEATURE_ID_RANGE_SIZE)
    const ranges = system.checkExtension(capabilities.KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES)
    assert.equal(vm.getRegWritableMasks(0, masks), ranges > 0 ? 0 : -errnos.EINVAL)
    assert.equal(
      masks.some((mask) => mask !== 0n),
      ranges > 0,
    )
    assert.equal(vm.getRegWritableMasks(1, masks), -errnos.EINVAL)
  })

  it('to initialise a vCPU is answered, by as many words as were given', () => {
    const { vm } = handles
    const vcpu = opened(vm.createVcpu(2))
    const target = preferredTarget(vm)
    assert.equal(vcpu.init(0xffffffff, []), -errnos.EINVAL)
    assert.equal(vcpu.init(target, [(1 << 31) >>> 0]), -errnos.ENOENT)
    assert.equal(vcpu.init(target, [1 << vcpuFeatures['psci-0.2'], 0, 0, 0, 0, 0, 0]), 0)
    assert.equal(vcpu.finalize(3), -errnos.EINVAL)
    vcpu.close()
  })

  it('for the multiprocessor state is answered and sticks', () => {
    const { vcpu } = handles
    assert.equal(vcpu.getMpState(), mpStates.runnable)
    assert.equal(vcpu.setMpState(mpStates.stopped), 0)
    assert.equal(vcpu.getMpState(), mpStates.stopped)
    assert.equal(vcpu.setMpState(mpStates.runnable), 0)
    assert.equal(vcpu.setMpState(77), -errnos.EINVAL)
  })

  it('for pending events is answered', () => {
    const { vcpu } = handles
    const events = new Uint8Array(KVM_VCPU_EVENTS_SIZE + 8).fill(0xff)
    assert.equal(vcpu.getVcpuEvents(events), 0)
    assert.equal(events[0], 0)
    assert.deepEqual([...events.subarray(KVM_VCPU_EVENTS_SIZE)], Array(8).fill(0xff))
    // serror_pending
    events[0] = 1
    assert.equal(vcpu.setVcpuEvents(events.subarray(0, KVM_VCPU_EVENTS_SIZE)), 0)
    events[0] = 0
    assert.equal(vcpu.getVcpuEvents(events), 0)
    assert.equal(events[0], 1)
  })

  it('for a device is answered, and its attributes are read and written', () => {
    const { system } = handles
    const vm = opened(system.createVm(0n))
    const type = deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3
    assert.equal(vm.createDevice(type, KVM_CREATE_DEVICE_TEST), 0)
    assert.equal(vm.createDevice(0x7777, KVM_CREATE_DEVICE_TEST), -errnos.ENODEV)
    assert.equal(vm.createDevice(0x7777, 0), -errnos.ENODEV)
    const device = opened(vm.createDevice(type, 0))
    assert.equal(device.hasDeviceAttr(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST), 0)
    assert.equal(device.hasDeviceAttr(0x7777, 0n), -errnos.ENXIO)

    const address = new BigUint64Array([0x8000000n])
    const bytes = new Uint8Array(address.buffer)
    assert.equal(
      device.setDeviceAttr(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, null),
      -errnos.EFAULT,
    )
    assert.equal(device.setDeviceAttr(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, bytes), 0)
    assert.equal(
      device.setDeviceAttr(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, bytes),
      -errnos.EEXIST,
    )
    address[0] = 0n
    assert.equal(device.getDeviceAttr(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, bytes), 0)
    assert.equal(address[0], 0x8000000n)

    const short = new Uint8Array(4)
    const guarded = short.subarray(0, 2)
    assert.equal(device.setDeviceAttr(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0n, Uint8Array.of(96, 0, 0, 0)), 0)
    assert.equal(device.getDeviceAttr(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0n, guarded), 0)
    assert.deepEqual([...short], [96, 0, 0, 0])
    device.close()
    device.close()
    assert.equal(device.hasDeviceAttr(KVM_DEV_ARM_VGIC_GRP_ADDR, 0n), -errnos.EBADF)
    assert.equal(device.getDeviceAttr(KVM_DEV_ARM_VGIC_GRP_ADDR, 0n, bytes), -errnos.EBADF)
    assert.equal(device.setDeviceAttr(KVM_DEV_ARM_VGIC_GRP_ADDR, 0n, bytes), -errnos.EBADF)
    vm.close()
  })

  it('for attributes of a VM and of a vCPU is answered', () => {
    const { vm, vcpu } = handles
    const filter = vm.hasDeviceAttr(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER)
    // struct kvm_smccc_filter: base, number of functions, action, padding that must be zero.
    const deny = new Uint8Array(Uint32Array.of(0xc6000000, 1, 1, 0, 0, 0).buffer)
    if (filter === 0) {
      assert.equal(vm.setDeviceAttr(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, deny), 0)
      assert.equal(vm.setDeviceAttr(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, deny), -errnos.EEXIST)
      assert.equal(vm.setDeviceAttr(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, null), -errnos.EFAULT)
    } else {
      assert.ok(filter < 0)
      assert.ok(vm.setDeviceAttr(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, deny) < 0)
    }
    assert.ok(vm.getDeviceAttr(0x7777, 0n, new Uint8Array(8)) < 0)

    const timer = 1
    assert.equal(vcpu.hasDeviceAttr(timer, 0n), 0)
    const irq = new Uint8Array(4)
    assert.equal(vcpu.getDeviceAttr(timer, 0n, irq), 0)
    assert.equal(irq[0], 27)
    assert.equal(vcpu.hasDeviceAttr(0x7777, 0n), -errnos.ENXIO)
  })
})

/** More than twice as many pages as the ring has entries, so that it begins again at its start. */
function writePages({ system, vm, vcpu }: Omit<Handles, 'close'>, entries: BigUint64Array): void {
  const [code, logged, pages] = [0x10000n, 0x4000_0000n, 2 * 4096 + 100]
  const memory = opened(system.createMemory(0x10000))
  const { pageSize } = memory
  const written = opened(system.createMemory(pages * pageSize))
  // str x1, [x1]; add x1, x1, x2; b .-8
  memory.write(0, new Uint8Array(Uint32Array.of(0xf900_0021, 0x8b02_0021, 0x17ff_fffe).buffer))
  const region = { flags: 0, offset: 0 }
  assert.equal(vm.setUserMemoryRegion({ ...region, slot: 0, address: code, memory, size: 0x10000 }), 0)
  const log = { ...region, slot: 3, flags: KVM_MEM_LOG_DIRTY_PAGES, address: logged }
  assert.equal(vm.setUserMemoryRegion({ ...log, memory: written, size: written.size }), 0)
  assert.equal(vcpu.init(preferredTarget(vm), [1 << vcpuFeatures['psci-0.2']]), 0)
  for (const [register, value] of [
    [pc, code],
    [x(1), logged],
    [x(2), BigInt(pageSize)],
  ] as const) {
    assert.equal(vcpu.setOneReg(register, value), 0)
  }
  let page = 0n
  for (;;) {
    assert.equal(vcpu.runSync(0), 0)
    const reason = new DataView(vcpu.runPage).getUint32(8, true)
    for (let taken = vcpu.takeDirty(entries); taken > 0; taken = vcpu.takeDirty(entries)) {
      assert.deepEqual([...entries.subarray(0, 2)], [3n, page])
      // The guest is stopped before it has written to the last page, which is then logged twice.
      page += BigInt(taken)
    }
    if (reason === exitReasons.KVM_EXIT_MMIO) break
    assert.equal(reason, exitReasons.KVM_EXIT_DIRTY_RING_FULL)
    assert.equal(vm.resetDirtyRings(), 4096 - 64)
    page--
  }
  assert.equal(page, BigInt(pages))
  memory.close()
  written.close()
}
