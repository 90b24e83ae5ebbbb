/** Captures what a state holds of a VM besides its vCPUs' registers. */
import type { Attributes } from '../kvm/attributes.js'
import { KvmError, type Vcpu, type Vm } from '../kvm/index.js'
import { hex } from '../registers/index.js'
import {
  deviceTypes,
  KVM_ARM_VCPU_PMU_V3_CTRL,
  KVM_ARM_VCPU_PMU_V3_FILTER,
  KVM_ARM_VCPU_PMU_V3_INIT,
  KVM_ARM_VCPU_PMU_V3_IRQ,
  KVM_ARM_VCPU_PMU_V3_SET_PMU,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION,
} from '../uapi.js'
import type { GicState, NotCarried, PmuSetting } from './device-state.js'
import { isInitialised, readDistributor, readVcpuGic } from './gic-registers.js'
import type { State, VcpuCapture } from './state.js'

type VmDevices = Required<Pick<State['vm'], 'gic' | 'counterOffset' | 'memory' | 'notCarried'>>
type VcpuDevices = Required<Pick<VcpuCapture, 'gic' | 'timers' | 'pmu' | 'stolenTime'>>

/** The attributes of a VM's GICv3; undefined if it has none. */
export function gicOf(vm: Vm): Attributes | undefined {
  return vm.devices.find(({ type }) => type === deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3)?.attributes
}

/** @throws KvmError */
export function captureVmDevices(vm: Vm): VmDevices {
  const gic = gicOf(vm)
  const { counterOffset } = vm
  return {
    gic: gic === undefined ? null : captureGic(vm, gic),
    counterOffset: counterOffset === null ? null : hex(counterOffset),
    memory: vm.memorySlots.map(({ slot, address, size, readonly }) => ({
      slot,
      address: hex(address),
      size,
      readonly,
    })),
    notCarried: notCarried(vm),
  }
}

/**
 * Captures a GICv3 without the vCPUs' parts of it.
 * @throws KvmError `EBUSY` while a vCPU runs, `ERR_KVM_CLOSED`
 */
export function captureGic(vm: Vm, gic: Attributes): GicState {
  const [first] = vm.vcpus
  const irqs = Number(readWord(gic.get(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0n, 4)))
  const initialised = first !== undefined && isInitialised(gic)
  return {
    version: 3,
    distributor: addressOf(gic, KVM_VGIC_V3_ADDR_TYPE_DIST),
    redistributors: redistributorsOf(gic),
    irqs,
    initialised,
    ...(initialised ? readDistributor(gic, irqs, first) : { registers: [], lines: [] }),
  }
}

/** What KVM returns for an address that was not set. */
const NO_ADDRESS = (1n << 64n) - 1n

function addressOf(gic: Attributes, type: bigint): string | null {
  const address = readWord(gic.get(KVM_DEV_ARM_VGIC_GRP_ADDR, type, 8))
  return address === NO_ADDRESS ? null : hex(address)
}

/** Bits 51:16 of a region are its address, 63:52 its room. */
const REGION_ADDRESS = 0x000f_ffff_ffff_0000n

function redistributorsOf(gic: Attributes): GicState['redistributors'] {
  const regions: GicState['redistributors'] = []
  for (;;) {
    const region = regionAt(gic, regions.length)
    if (region === undefined) break
    regions.push({ address: hex(region & REGION_ADDRESS), count: Number(region >> 52n) })
  }
  if (regions.length > 0) return regions
  // Not every host that has the one region for all can list it.
  const address = addressOf(gic, KVM_VGIC_V3_ADDR_TYPE_REDIST)
  return address === null ? [] : [{ address, count: 0 }]
}

function regionAt(gic: Attributes, index: number): bigint | undefined {
  try {
    const input = new Uint8Array(BigUint64Array.of(BigInt(index)).buffer)
    return readWord(gic.get(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, 8, input))
  } catch (error) {
    if (error instanceof KvmError && ['ENOENT', 'ENXIO'].includes(error.code)) return undefined
    throw error
  }
}

const carried: ReadonlySet<number> = new Set([deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3])

function notCarried(vm: Vm): NotCarried[] {
  const found = new Set<NotCarried>()
  for (const { type } of vm.devices) {
    if (carried.has(type)) continue
    if (type === deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V2) found.add('gic-v2')
    else found.add(type === deviceTypes.KVM_DEV_TYPE_ARM_VGIC_ITS ? 'its' : 'other-device')
  }
  const isNested = vm.vcpus.some(({ features }) => features.includes('has-el2'))
  if (isNested && gicOf(vm) !== undefined) found.add('gic-el2')
  if (vm.enabledCapabilities.includes('KVM_CAP_ARM_MTE')) found.add('mte-tags')
  return [...found]
}

/** @throws KvmError */
export function captureVcpuDevices(vm: Vm, vcpu: Vcpu): VcpuDevices {
  const gic = gicOf(vm)
  return {
    gic: gic !== undefined && isInitialised(gic) ? readVcpuGic(gic, vcpu) : null,
    timers: timersOf(vcpu),
    pmu: pmuOf(vcpu),
    stolenTime: stolenTimeOf(vcpu),
  }
}

function timersOf({ timers }: Vcpu): VcpuDevices['timers'] {
  const found: VcpuDevices['timers'] = {}
  for (const name of ['virtual', 'physical', 'hypervisorVirtual', 'hypervisorPhysical'] as const) {
    const intid = unlessAbsent(() => timers.irq(name))
    if (intid !== undefined) found[name] = intid
  }
  return found
}

function stolenTimeOf({ stolenTime }: Vcpu): string | null {
  const address = unlessAbsent(() => stolenTime.address)
  return address === undefined ? null : hex(address)
}

function unlessAbsent<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof KvmError && error.code === 'ENXIO') return undefined
    throw error
  }
}

function pmuOf({ attributes }: Vcpu): PmuSetting[] {
  return attributes.written
    .filter(({ group }) => group === KVM_ARM_VCPU_PMU_V3_CTRL)
    .map(({ attribute, data }): PmuSetting => {
      if (attribute === KVM_ARM_VCPU_PMU_V3_INIT) return { set: 'init' }
      const view = new DataView(data!.buffer, data!.byteOffset)
      if (attribute === KVM_ARM_VCPU_PMU_V3_FILTER) {
        const action = view.getUint8(4) === 0 ? 'allow' : 'deny'
        return { set: 'filter', base: view.getUint16(0, true), count: view.getUint16(2, true), action }
      }
      const number = view.getUint32(0, true)
      if (attribute === KVM_ARM_VCPU_PMU_V3_IRQ) return { set: 'irq', intid: number }
      return attribute === KVM_ARM_VCPU_PMU_V3_SET_PMU
        ? { set: 'pmu', id: number }
        : { set: 'counters', count: number }
    })
}

function readWord(data: Uint8Array): bigint {
  const view = new DataView(data.buffer, data.byteOffset)
  return data.length === 8 ? view.getBigUint64(0, true) : BigInt(view.getUint32(0, true))
}
