/** `KVM_{HAS,GET,SET}_DEVICE_ATTR` on a vCPU: PMU, timers, stolen time (`Documentation/virt/kvm/devices/vcpu.rst`). */
import {
  errnos,
  KVM_ARM_VCPU_PMU_V3_CTRL,
  KVM_ARM_VCPU_PMU_V3_INIT,
  KVM_ARM_VCPU_PMU_V3_IRQ,
  KVM_ARM_VCPU_PVTIME_CTRL,
  KVM_ARM_VCPU_PVTIME_IPA,
  KVM_ARM_VCPU_TIMER_CTRL,
} from '../uapi.js'
import { NO_ADDRESS, readWord, writeWord } from './attributes.js'
import { featureBit } from './features.js'
import { isWritableMemory } from './memory.js'
import type { VcpuState } from './state.js'

interface AttributeGroup {
  has(vcpu: VcpuState, attribute: bigint): number
  get(vcpu: VcpuState, attribute: bigint, data: Uint8Array): number
  set(vcpu: VcpuState, attribute: bigint, data: Uint8Array | null): number
}

const FIRST_PRIVATE = 16n
const FIRST_SHARED = 32n
const LAST_SHARED = 1019n

function isPrivateInterrupt(interrupt: bigint): boolean {
  return interrupt >= FIRST_PRIVATE && interrupt < FIRST_SHARED
}

const pmu: AttributeGroup = {
  has(vcpu, attribute) {
    const isKnown = attribute === KVM_ARM_VCPU_PMU_V3_IRQ || attribute === KVM_ARM_VCPU_PMU_V3_INIT
    return isKnown && hasPmu(vcpu) ? 0 : -errnos.ENXIO
  },
  get(vcpu, attribute, data) {
    if (attribute !== KVM_ARM_VCPU_PMU_V3_IRQ) return -errnos.ENXIO
    if (vcpu.vm.gic === null) return -errnos.EINVAL
    if (!hasPmu(vcpu)) return -errnos.ENODEV
    if (vcpu.pmuInterrupt === null) return -errnos.ENXIO
    writeWord(data, 4, BigInt(vcpu.pmuInterrupt))
    return 0
  },
  set(vcpu, attribute, data) {
    if (!hasPmu(vcpu)) return -errnos.ENODEV
    if (vcpu.pmuInitialised) return -errnos.EBUSY
    switch (attribute) {
      case KVM_ARM_VCPU_PMU_V3_IRQ:
        return setPmuInterrupt(vcpu, data)
      case KVM_ARM_VCPU_PMU_V3_INIT:
        return initialisePmu(vcpu)
      default:
        return -errnos.ENXIO
    }
  },
}

/** Where the features are the VM's, it has them as soon as one of its vCPUs is initialised. */
function hasPmu({ features, vm }: VcpuState): boolean {
  return ((vm.features ?? features) & featureBit('pmu-v3')) !== 0
}

function setPmuInterrupt(vcpu: VcpuState, data: Uint8Array | null): number {
  if (vcpu.vm.gic === null) return -errnos.EINVAL
  if (data === null) return -errnos.EFAULT
  const interrupt = readWord(data, 4)
  const isPrivate = isPrivateInterrupt(interrupt)
  if (!isPrivate && (interrupt < FIRST_SHARED || interrupt > LAST_SHARED)) return -errnos.EINVAL
  // A private interrupt has the same number on every vCPU, a shared one belongs to one vCPU.
  const others = [...vcpu.vm.vcpus.values()].map(({ pmuInterrupt }) => pmuInterrupt)
  const isFree = others.every((other) => other === null || (BigInt(other) === interrupt) === isPrivate)
  if (!isFree) return -errnos.EINVAL
  if (vcpu.pmuInterrupt !== null) return -errnos.EBUSY
  vcpu.pmuInterrupt = Number(interrupt)
  return 0
}

function initialisePmu(vcpu: VcpuState): number {
  const { gic } = vcpu.vm
  if (gic !== null) {
    if (!gic.initialised) return -errnos.ENODEV
    if (vcpu.pmuInterrupt === null) return -errnos.ENXIO
    // Only now it is known how many there are.
    if (BigInt(vcpu.pmuInterrupt) >= FIRST_SHARED + BigInt(gic.spis)) return -errnos.EINVAL
  }
  vcpu.pmuInitialised = true
  return 0
}

/** Attribute 0 is the interrupt of the virtual timer, 1 of the physical; both are the whole VM's. */
const timers: AttributeGroup = {
  has: (_vcpu, attribute) => (attribute <= 1n ? 0 : -errnos.ENXIO),
  get({ vm }, attribute, data) {
    const interrupt = vm.timerInterrupts[Number(attribute)]
    if (interrupt === undefined) return -errnos.ENXIO
    writeWord(data, 4, BigInt(interrupt))
    return 0
  },
  set({ vm }, attribute, data) {
    if (vm.gic === null) return -errnos.EINVAL
    if (data === null) return -errnos.EFAULT
    const interrupt = readWord(data, 4)
    if (!isPrivateInterrupt(interrupt)) return -errnos.EINVAL
    if (vm.timersEnabled) return -errnos.EBUSY
    if (attribute > 1n) return -errnos.ENXIO
    vm.timerInterrupts[Number(attribute)] = Number(interrupt)
    return 0
  },
}

/** Bytes a stolen-time structure is aligned to. */
const STOLEN_TIME_ALIGNMENT = 64n

const stolenTime: AttributeGroup = {
  has: (vcpu, attribute) => (hasStolenTime(vcpu, attribute) ? 0 : -errnos.ENXIO),
  get(vcpu, attribute, data) {
    if (!hasStolenTime(vcpu, attribute)) return -errnos.ENXIO
    writeWord(data, 8, vcpu.stolenTimeBase ?? NO_ADDRESS)
    return 0
  },
  set(vcpu, attribute, data) {
    if (!hasStolenTime(vcpu, attribute)) return -errnos.ENXIO
    if (data === null) return -errnos.EFAULT
    const address = readWord(data, 8)
    if (address % STOLEN_TIME_ALIGNMENT !== 0n) return -errnos.EINVAL
    if (vcpu.stolenTimeBase !== null) return -errnos.EEXIST
    if (!isWritableMemory(vcpu.vm, address)) return -errnos.EINVAL
    vcpu.stolenTimeBase = address
    return 0
  },
}

function hasStolenTime({ vm }: VcpuState, attribute: bigint): boolean {
  return attribute === KVM_ARM_VCPU_PVTIME_IPA && vm.host.capability('KVM_CAP_STEAL_TIME') > 0
}

const nothing: AttributeGroup = {
  has: () => -errnos.ENXIO,
  get: () => -errnos.ENXIO,
  set: () => -errnos.ENXIO,
}

const groups = new Map([
  [KVM_ARM_VCPU_PMU_V3_CTRL, pmu],
  [KVM_ARM_VCPU_TIMER_CTRL, timers],
  [KVM_ARM_VCPU_PVTIME_CTRL, stolenTime],
])

export function vcpuAttributes(group: number): AttributeGroup {
  return groups.get(group) ?? nothing
}
