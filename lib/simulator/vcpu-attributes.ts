/** `KVM_{HAS,GET,SET}_DEVICE_ATTR` on a vCPU: PMU, timers, stolen time (`Documentation/virt/kvm/devices/vcpu.rst`). */
import {
  errnos,
  KVM_ARM_VCPU_PMU_V3_CTRL,
  KVM_ARM_VCPU_PVTIME_CTRL,
  KVM_ARM_VCPU_PVTIME_IPA,
  KVM_ARM_VCPU_TIMER_CTRL,
} from '../uapi.js'
import { type AttributeGroup, NO_ADDRESS, readWord, writeWord } from './attributes.js'
import { isWritableMemory } from './memory-slots.js'
import { pmuAttributes } from './pmu-attributes.js'
import type { VcpuState } from './state.js'
import { timerAttributes } from './timer-attributes.js'

/** Alignment of a stolen-time structure, in bytes. */
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
  [KVM_ARM_VCPU_PMU_V3_CTRL, pmuAttributes],
  [KVM_ARM_VCPU_TIMER_CTRL, timerAttributes],
  [KVM_ARM_VCPU_PVTIME_CTRL, stolenTime],
])

export function vcpuAttributes(group: number): AttributeGroup {
  return groups.get(group) ?? nothing
}
