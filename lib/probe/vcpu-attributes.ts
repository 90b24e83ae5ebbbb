/** Experiments on the attributes of a vCPU: its timers' interrupts, its PMU. */
import type { SystemFd, VcpuFd, VmFd } from '../backend.js'
import { functionIds } from '../hypercalls/index.js'
import { encodeRegister, hex, U64 } from '../registers/index.js'
import type { Traits } from '../report/report.js'
import {
  deviceTypes,
  errnos,
  KVM_ARM_VCPU_PMU_V3_CTRL,
  KVM_ARM_VCPU_PMU_V3_FILTER,
  KVM_ARM_VCPU_PMU_V3_INIT,
  KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS,
  KVM_ARM_VCPU_PMU_V3_SET_PMU,
  KVM_ARM_VCPU_TIMER_CTRL,
} from '../uapi.js'
import { BASE } from './configurations.js'
import { answerTo, onStub } from './guest-calls.js'
import { freeze, initialise, onVcpu, onVm, readRegister } from './rig.js'

const PMCR_EL0 = encodeRegister('PMCR_EL0')
/** PMCR_EL0.E: the counters count. */
const PMCR_ENABLE = 1n
const PMCCNTR_EL0 = encodeRegister('PMCCNTR_EL0')
const VIRTUAL_TIMER = 0n
/** A private interrupt that no timer uses by default. */
const OTHER_INTERRUPT = 20

export function probeTimers(kvm: SystemFd, type: bigint): Traits['timers'] {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      const interrupts: number[] = []
      for (let timer = 0n; ; timer++) {
        const interrupt = timerInterrupt(vcpu, timer)
        if (interrupt === undefined) return { interrupts, scope: scopeOfTimers(vm, vcpu) }
        interrupts.push(interrupt)
      }
    }),
  )
}

/** Returns what a vCPU has that was made after an interrupt was set; a timer's interrupt can be set if there is a GIC. */
function scopeOfTimers(vm: VmFd, vcpu: VcpuFd): Traits['timers']['scope'] {
  const gic = vm.createDevice(deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3, 0)
  if (typeof gic === 'number') return 'vm'
  try {
    vcpu.setDeviceAttr(KVM_ARM_VCPU_TIMER_CTRL, VIRTUAL_TIMER, bytes([OTHER_INTERRUPT]))
    return onVcpu(vm, 1, (later) =>
      timerInterrupt(later, VIRTUAL_TIMER) === OTHER_INTERRUPT ? 'vm' : 'vcpu',
    )
  } finally {
    gic.close()
  }
}

function timerInterrupt(vcpu: VcpuFd, timer: bigint): number | undefined {
  const data = new Uint32Array(1)
  const outcome = vcpu.getDeviceAttr(KVM_ARM_VCPU_TIMER_CTRL, timer, new Uint8Array(data.buffer))
  return outcome < 0 ? undefined : data[0]
}

/** Event numbers have at most 16 bits. */
const MOST_EVENT_BITS = 16
/** The ids to try: the kernel counts them up from 6 (`kernel/events/core.c:perf_pmu_register`). */
const PMU_IDS = Array.from({ length: 64 }, (_, id) => id)
/** PMCR_EL0.N has five bits. */
const COUNTERS = Array.from({ length: 32 }, (_, count) => 31 - count)

export function probePmu(kvm: SystemFd, type: bigint): NonNullable<Traits['pmu']> {
  return withPmus(kvm, type, ([vcpu]) => {
    const has = (attribute: bigint): boolean => vcpu.hasDeviceAttr(KVM_ARM_VCPU_PMU_V3_CTRL, attribute) === 0
    return {
      filter: has(KVM_ARM_VCPU_PMU_V3_FILTER) ? probeFilter(kvm, type) : null,
      ids: has(KVM_ARM_VCPU_PMU_V3_SET_PMU) ? probePmuIds(kvm, type) : null,
      counters: has(KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS)
        ? (COUNTERS.find((count) => set(vcpu, KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS, bytes([count])) === 0) ??
          0)
        : null,
      ...onStub(kvm, type, firstRunKeeps, [...BASE, 'pmu-v3']),
    }
  })
}

/** Asks for zeroed counters, without starting them, and runs guest code. */
function firstRunKeeps(vcpu: VcpuFd): { firstRunKeeps?: string } {
  set(vcpu, KVM_ARM_VCPU_PMU_V3_INIT, null)
  vcpu.setOneReg(PMCCNTR_EL0, 1n)
  vcpu.setOneReg(PMCR_EL0, U64 & ~PMCR_ENABLE)
  const written = readRegister(vcpu, PMCR_EL0)
  answerTo(vcpu, 'hvc', [BigInt(functionIds.SMCCC_VERSION)])
  const lost = written & ~readRegister(vcpu, PMCR_EL0)
  const isLeftAlone = lost === 0n && readRegister(vcpu, PMCCNTR_EL0) === 1n
  return isLeftAlone ? {} : { firstRunKeeps: hex(U64 & ~lost) }
}

function probeFilter(kvm: SystemFd, type: bigint): NonNullable<NonNullable<Traits['pmu']>['filter']> {
  return withPmus(kvm, type, ([first, second]) => {
    const bits = Array.from({ length: MOST_EVENT_BITS + 1 }, (_, below) => MOST_EVENT_BITS - below)
    const most = bits.find((count) => filterEvent(second, (1 << count) - 1) === 0)
    // An initialised PMU takes no filter at all, and a vCPU may not run before its PMU is initialised.
    set(first, KVM_ARM_VCPU_PMU_V3_INIT, null)
    freeze(first)
    return { events: most === undefined ? 0 : 1 << most, afterRun: filterEvent(second, 0) !== -errnos.EBUSY }
  })
}

/** Once a filter is set, no PMU can be chosen except the one the filter was made for. */
function probePmuIds(kvm: SystemFd, type: bigint): number[] {
  const ids = withPmus(kvm, type, ([vcpu]) => PMU_IDS.filter((id) => choosePmu(vcpu, id) === 0))
  const byDefault = withPmus(kvm, type, ([vcpu]) => {
    filterEvent(vcpu, 0)
    return ids.find((id) => choosePmu(vcpu, id) === 0)
  })
  return byDefault === undefined ? ids : [byDefault, ...ids.filter((id) => id !== byDefault)]
}

function choosePmu(vcpu: VcpuFd, id: number): number {
  return set(vcpu, KVM_ARM_VCPU_PMU_V3_SET_PMU, bytes([id]))
}

/** Requests that one event not be counted. */
function filterEvent(vcpu: VcpuFd, event: number): number {
  return set(vcpu, KVM_ARM_VCPU_PMU_V3_FILTER, bytes([event | (1 << 16), 1]))
}

function set(vcpu: VcpuFd, attribute: bigint, data: Uint8Array | null): number {
  return vcpu.setDeviceAttr(KVM_ARM_VCPU_PMU_V3_CTRL, attribute, data)
}

/** Runs an experiment on two vCPUs with a PMU, of a VM without a GIC. */
function withPmus<T>(kvm: SystemFd, type: bigint, experiment: (vcpus: [VcpuFd, VcpuFd]) => T): T {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (first) =>
      onVcpu(vm, 1, (second) => {
        for (const vcpu of [first, second]) initialise(vm, vcpu, [...BASE, 'pmu-v3'])
        return experiment([first, second])
      }),
    ),
  )
}

/** 32-bit words, as attributes hold them. */
function bytes(words: readonly number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(words).buffer)
}
