import type { DeviceFd, EventFd, MemoryRegion, StatsFd, VcpuFd, VmFd } from '../backend.js'
import {
  deviceTypes,
  errnos,
  KVM_ARM_FEATURE_ID_RANGE_SIZE,
  KVM_ARM_VM_SMCCC_CTRL,
  KVM_ARM_VM_SMCCC_FILTER,
  KVM_CREATE_DEVICE_TEST,
  GSI_ROUTE_WORDS,
  MTE_GRANULE,
  unpackGsiRoutes,
} from '../uapi.js'
import {
  checkArray,
  checkObject,
  checkSize,
  checkUint32,
  checkUint64,
  invalidType,
  outOfRange,
} from '../arguments.js'
import { checkVmExtension, enableCapability } from './capabilities.js'
import { clearDirtyLog, getDirtyLog } from './dirty-log.js'
import { resetDirtyRings } from './dirty-ring.js'
import { SimulatorError } from './errors.js'
import { setIoEvent, setIrqEvent } from './event-connections.js'
import { SimulatedEvent } from './event.js'
import { SimulatedGic } from './gic.js'
import { setLine } from './interrupts.js'
import { setGsiRouting, signalMsi } from './message-interrupts.js'
import { copyMteTags } from './memory-tags.js'
import { setMemoryRegion } from './memory-slots.js'
import { setSmcccFilter } from './smccc-filter.js'
import { Gic, VcpuState, type VmState } from './state.js'
import { vmStats } from './stats.js'
import { SimulatedVcpu } from './vcpu.js'

/** Words of `struct kvm_vcpu_init`. */
const VCPU_INIT_WORDS = 8

/** A simulated VM. Its vCPUs and devices outlive its handle, as they do with a VM of the kernel. */
export class SimulatedVm implements VmFd {
  readonly #state: VmState
  #closed = false

  constructor(state: VmState) {
    this.#state = state
  }

  checkExtension(capability: number): number {
    checkUint32(capability, 'capability')
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : checkVmExtension(this.#state, capability)
  }

  enableCap(capability: number, flags: number, args: readonly bigint[]): number {
    checkUint32(capability, 'capability')
    checkUint32(flags, 'flags')
    if (args.length > 4) throw outOfRange('args', 'at most 4 elements long')
    for (const argument of args) checkUint64(argument, 'args')
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : enableCapability(this.#state, capability, flags, args)
  }

  createVcpu(id: number): VcpuFd | number {
    checkUint32(id, 'id')
    const barrier = this.#barrier()
    if (barrier < 0) return barrier
    const { vcpus, host, gic } = this.#state
    const most = host.maxVcpus
    if (id >= most || vcpus.size >= most) return -errnos.EINVAL
    if (gic?.initialised) return -errnos.EBUSY
    // KVM has made a vCPU before it finds that the id is in use.
    this.#state.affinityTable = null
    if (vcpus.has(id)) return -errnos.EEXIST
    const vcpu = new VcpuState(this.#state, id)
    vcpus.set(id, vcpu)
    return new SimulatedVcpu(vcpu)
  }

  getPreferredTarget(init: Uint32Array): number {
    checkArray(init, Uint32Array, VCPU_INIT_WORDS, 'init')
    const barrier = this.#barrier()
    if (barrier < 0) return barrier
    init.fill(0, 0, VCPU_INIT_WORDS)
    init[0] = this.#state.host.report.preferredTarget
    return 0
  }

  getRegWritableMasks(range: number, masks: BigUint64Array): number {
    checkUint32(range, 'range')
    checkArray(masks, BigUint64Array, KVM_ARM_FEATURE_ID_RANGE_SIZE, 'masks')
    const barrier = this.#barrier()
    if (barrier < 0) return barrier
    const { writableMasks } = this.#state.host
    if (writableMasks === null || range !== 0) return -errnos.EINVAL
    masks.fill(0n, 0, KVM_ARM_FEATURE_ID_RANGE_SIZE)
    for (const [index, mask] of writableMasks) masks[index] = mask
    return 0
  }

  setUserMemoryRegion(region: MemoryRegion): number {
    checkObject(region, 'region')
    const { slot, flags, address, offset, size } = region
    checkUint32(slot, 'slot')
    checkUint32(flags, 'flags')
    checkUint64(address, 'address')
    checkSize(offset, 'offset')
    checkSize(size, 'size')
    const barrier = this.#barrier()
    if (barrier < 0) return barrier
    return setMemoryRegion(this.#state, region)
  }

  /** @throws SimulatorError `ERR_KVM_SIMULATOR_NO_DEVICE` for a type that the host has and the simulator lacks */
  createDevice(type: number, flags: number): DeviceFd | number {
    checkUint32(type, 'type')
    checkUint32(flags, 'flags')
    const barrier = this.#barrier()
    if (barrier < 0) return barrier
    const { host, vcpus } = this.#state
    const device = host.traits.devices?.find((known) => deviceTypes[known] === type)
    if (device === undefined) return -errnos.ENODEV
    if (flags & KVM_CREATE_DEVICE_TEST) return 0
    if (device !== 'KVM_DEV_TYPE_ARM_VGIC_V3') {
      const message = `This host can create ${device}, and the simulator has no device but KVM_DEV_TYPE_ARM_VGIC_V3.`
      throw new SimulatorError('ERR_KVM_SIMULATOR_NO_DEVICE', message)
    }
    if (this.#state.gic !== null) return -errnos.EEXIST
    if ([...vcpus.values()].some(({ hasRun }) => hasRun)) return -errnos.EBUSY
    const gic = new Gic(host)
    this.#state.gic = gic
    this.#state.overrideIdRegisters(host.traits.changedByVgic)
    return new SimulatedGic(this.#state, gic)
  }

  getDirtyLog(slot: number, bitmap: BigUint64Array): number {
    checkUint32(slot, 'slot')
    checkArray(bitmap, BigUint64Array, 0, 'bitmap')
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : getDirtyLog(this.#state, slot, bitmap)
  }

  clearDirtyLog(slot: number, firstPage: number, pages: number, bitmap: BigUint64Array): number {
    checkUint32(slot, 'slot')
    checkSize(firstPage, 'firstPage')
    checkUint32(pages, 'pages')
    checkArray(bitmap, BigUint64Array, 0, 'bitmap')
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : clearDirtyLog(this.#state, slot, firstPage, pages, bitmap)
  }

  setCounterOffset(offset: bigint, reserved: bigint): number {
    checkUint64(offset, 'offset')
    checkUint64(reserved, 'reserved')
    const barrier = this.#barrier()
    if (barrier < 0) return barrier
    // Kernels without the ioctl refuse it in the same words as a reserved word that is not 0.
    if (this.#state.host.capability('KVM_CAP_COUNTER_OFFSET') <= 0 || reserved !== 0n) return -errnos.EINVAL
    if ([...this.#state.vcpus.values()].some(({ wake }) => wake !== null)) return -errnos.EBUSY
    this.#state.counterOffset = offset
    return 0
  }

  setConstant(address: bigint, size: number, value: bigint): number {
    checkUint64(address, 'address')
    checkSize(size, 'size')
    checkUint64(value, 'value')
    return this.#closed ? -errnos.EBADF : this.#state.mmio.setConstant(address, size)
  }

  removeConstant(address: bigint): number {
    checkUint64(address, 'address')
    return this.#closed ? -errnos.EBADF : this.#state.mmio.removeConstant(address)
  }

  addPosted(address: bigint, size: number, number: number): number {
    checkUint64(address, 'address')
    checkSize(size, 'size')
    checkUint32(number, 'number')
    return this.#closed ? -errnos.EBADF : this.#state.mmio.addPosted(address, size, number)
  }

  removePosted(address: bigint): number {
    checkUint64(address, 'address')
    return this.#closed ? -errnos.EBADF : this.#state.mmio.removePosted(address)
  }

  takePosted(entries: BigUint64Array): number {
    checkArray(entries, BigUint64Array, 3, 'entries')
    return this.#state.mmio.take(entries)
  }

  irqLine(irq: number, level: number): number {
    checkUint32(irq, 'irq')
    checkUint32(level, 'level')
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : setLine(this.#state, irq, level !== 0)
  }

  signalMsi(address: bigint, data: number, flags: number, deviceId: number): number {
    checkUint64(address, 'address')
    checkUint32(data, 'data')
    checkUint32(flags, 'flags')
    checkUint32(deviceId, 'deviceId')
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : signalMsi(this.#state, flags)
  }

  setGsiRouting(flags: number, routes: Uint32Array): number {
    checkUint32(flags, 'flags')
    checkArray(routes, Uint32Array, 0, 'routes')
    if (routes.length % GSI_ROUTE_WORDS !== 0) throw outOfRange('routes', 'whole routes of 12 words')
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : setGsiRouting(this.#state, flags, unpackGsiRoutes(routes))
  }

  ioEventFd(event: EventFd, address: bigint, size: number, flags: number, datamatch: bigint): number {
    checkEvent(event, 'event')
    checkUint64(address, 'address')
    checkUint32(size, 'size')
    checkUint32(flags, 'flags')
    checkUint64(datamatch, 'datamatch')
    const barrier = event.closed ? -errnos.EBADF : this.#barrier()
    return barrier < 0 ? barrier : setIoEvent(this.#state, event, { address, size, flags, datamatch })
  }

  irqFd(event: EventFd, gsi: number, flags: number, resampled: EventFd | null): number {
    checkEvent(event, 'event')
    checkUint32(gsi, 'gsi')
    checkUint32(flags, 'flags')
    if (resampled !== null) checkEvent(resampled, 'resampled')
    const barrier = event.closed ? -errnos.EBADF : this.#barrier()
    if (barrier < 0) return barrier
    return setIrqEvent(this.#state, { event, gsi }, flags, resampled?.closed === false ? resampled : null)
  }

  registerCoalescedMmio(address: bigint, size: number, pio: number): number {
    const barrier = this.#zoneBarrier(address, size, pio)
    return barrier < 0 ? barrier : this.#state.coalesced.register(address, size, pio)
  }

  unregisterCoalescedMmio(address: bigint, size: number, pio: number): number {
    const barrier = this.#zoneBarrier(address, size, pio)
    return barrier < 0 ? barrier : this.#state.coalesced.unregister(address, size, pio)
  }

  #zoneBarrier(address: bigint, size: number, pio: number): number {
    checkUint64(address, 'address')
    checkUint32(size, 'size')
    checkUint32(pio, 'pio')
    return this.#barrier()
  }

  copyMteTags(address: bigint, length: number, tags: Uint8Array, flags: number): number {
    checkUint64(address, 'address')
    checkSize(length, 'length')
    checkArray(tags, Uint8Array, Math.floor(length / MTE_GRANULE), 'tags')
    checkUint32(flags, 'flags')
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : copyMteTags(this.#state, address, BigInt(length), flags)
  }

  resetDirtyRings(): number {
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : resetDirtyRings(this.#state)
  }

  getStatsFd(): StatsFd | number {
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : vmStats(this.#state)
  }

  hasDeviceAttr(group: number, attribute: bigint): number {
    return this.#attributeBarrier(group, attribute)
  }

  getDeviceAttr(group: number, attribute: bigint, _data: Uint8Array): number {
    // KVM has no VM attribute that can be read.
    const barrier = this.#attributeBarrier(group, attribute)
    return barrier < 0 && barrier !== -errnos.ENXIO ? barrier : -errnos.EINVAL
  }

  setDeviceAttr(group: number, attribute: bigint, data: Uint8Array | null): number {
    const barrier = this.#attributeBarrier(group, attribute)
    if (barrier < 0) return barrier
    const { emptyRangeAtZero } = this.#state.host.traits.smcccFilter!
    return setSmcccFilter(this.#state, data, errnos[emptyRangeAtZero])
  }

  close(): void {
    this.#closed = true
  }

  #barrier(): number {
    if (this.#closed) return -errnos.EBADF
    return this.#state.dead ? -errnos.EIO : 0
  }

  /** Returns 0 for the SMCCC filter, the only attribute that exists. Kernels without it lack the ioctl on VMs too. */
  #attributeBarrier(group: number, attribute: bigint): number {
    checkUint32(group, 'group')
    checkUint64(attribute, 'attribute')
    const barrier = this.#barrier()
    if (barrier < 0) return barrier
    if (this.#state.host.traits.smcccFilter === null) return -errnos.EINVAL
    const isFilter = group === KVM_ARM_VM_SMCCC_CTRL && attribute === KVM_ARM_VM_SMCCC_FILTER
    return isFilter ? 0 : -errnos.ENXIO
  }
}

function checkEvent(value: unknown, name: string): asserts value is SimulatedEvent {
  if (!(value instanceof SimulatedEvent)) throw invalidType(name, 'an event made by createEvent()', value)
}
