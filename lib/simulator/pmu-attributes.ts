/** `KVM_ARM_VCPU_PMU_V3_CTRL` (`arch/arm64/kvm/pmu-emul.c:kvm_arm_pmu_v3_set_attr`, `kvm_arm_pmu_v3_enable`). */
import {
  errnos,
  featureWord,
  KVM_ARM_VCPU_PMU_V3_FILTER,
  KVM_ARM_VCPU_PMU_V3_INIT,
  KVM_ARM_VCPU_PMU_V3_IRQ,
  KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS,
  KVM_ARM_VCPU_PMU_V3_SET_PMU,
  KVM_PMU_EVENT_DENY,
} from '../uapi.js'
import { type AttributeGroup, readWord, writeWord } from './attributes.js'
import { claimInterrupt, hasInterrupt, isPrivateInterrupt, isSharedInterrupt } from './interrupts.js'
import type { VcpuState, VmState } from './state.js'

/** Attributes with the function that sets each from its data; those the host's kernel lacks are absent. */
function settersOf({ host }: VmState): Map<bigint, (vcpu: VcpuState, data: Uint8Array | null) => number> {
  const { filter, ids, counters } = host.traits.pmu!
  const setters = new Map([
    [KVM_ARM_VCPU_PMU_V3_IRQ, setInterrupt],
    [KVM_ARM_VCPU_PMU_V3_INIT, initialise],
  ])
  if (filter !== null) setters.set(KVM_ARM_VCPU_PMU_V3_FILTER, setFilter)
  if (ids !== null) setters.set(KVM_ARM_VCPU_PMU_V3_SET_PMU, setPmu)
  if (counters !== null) setters.set(KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS, setCounters)
  return setters
}

export const pmuAttributes: AttributeGroup = {
  has: (vcpu, attribute) => (hasPmu(vcpu) && settersOf(vcpu.vm).has(attribute) ? 0 : -errnos.ENXIO),
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
    return settersOf(vcpu.vm).get(attribute)?.(vcpu, data) ?? -errnos.ENXIO
  },
}

/** Checks a PMU before a vCPU's first run: returns 0 or `-errno`. */
export function enablePmu(vcpu: VcpuState): number {
  const { vm, pmuInterrupt } = vcpu
  if (!hasPmu(vcpu)) return 0
  if (!vcpu.pmuInitialised) {
    const { runWithoutPmuInit } = vm.host.traits
    return runWithoutPmuInit === null ? 0 : -errnos[runWithoutPmuInit]
  }
  // The PMU may have been initialised before there was a GIC.
  const isConnected = vm.gic === null || (pmuInterrupt !== null && hasInterrupt(vm, pmuInterrupt))
  if (!isConnected) return -errnos.EINVAL
  vcpu.pmuReloadIsDue = true
  return 0
}

/** If the features belong to the VM, a vCPU has the PMU as soon as one of them is initialised. */
function hasPmu({ features, vm }: VcpuState): boolean {
  return vm.host.traits.pmu !== null && ((vm.features ?? features) & featureWord(['pmu-v3'])) !== 0
}

function setInterrupt(vcpu: VcpuState, data: Uint8Array | null): number {
  if (vcpu.vm.gic === null) return -errnos.EINVAL
  if (data === null) return -errnos.EFAULT
  const interrupt = Number(readWord(data, 4))
  const isPrivate = isPrivateInterrupt(interrupt)
  if (!isPrivate && !isSharedInterrupt(interrupt)) return -errnos.EINVAL
  // A private interrupt has the same number on every vCPU, a shared one belongs to one vCPU.
  const others = [...vcpu.vm.vcpus.values()].map(({ pmuInterrupt }) => pmuInterrupt)
  const isFree = others.every((other) => other === null || (other === interrupt) === isPrivate)
  if (!isFree) return -errnos.EINVAL
  if (vcpu.pmuInterrupt !== null) return -errnos.EBUSY
  vcpu.pmuInterrupt = interrupt
  return 0
}

function initialise(vcpu: VcpuState): number {
  const { gic } = vcpu.vm
  if (gic !== null) {
    if (!gic.initialised) return -errnos.ENODEV
    if (vcpu.pmuInterrupt === null) return -errnos.ENXIO
    const refusal = claimInterrupt(vcpu, vcpu.pmuInterrupt, 'PMU')
    if (refusal < 0) return refusal
  }
  vcpu.pmuInitialised = true
  return 0
}

/** `struct kvm_pmu_event_filter`: the first event and the number of events, 16 bits each, then whether they are counted. */
function setFilter({ vm }: VcpuState, data: Uint8Array | null): number {
  if (data === null) return -errnos.EFAULT
  const { events, afterRun } = vm.host.traits.pmu!.filter!
  const word = readWord(data, 8)
  const first = Number(word & 0xffffn)
  const count = Number((word >> 16n) & 0xffffn)
  const action = Number((word >> 32n) & 0xffn)
  if (first + count > events || action > KVM_PMU_EVENT_DENY) return -errnos.EINVAL
  if (vm.hasRun && !afterRun) return -errnos.EBUSY
  vm.hasEventFilter = true
  return 0
}

function setPmu({ vm }: VcpuState, data: Uint8Array | null): number {
  if (data === null) return -errnos.EFAULT
  const id = Number(readWord(data, 4))
  const [byDefault, ...others] = vm.host.traits.pmu!.ids!
  if (id !== byDefault && !others.includes(id)) return -errnos.ENXIO
  if (vm.hasRun || (vm.hasEventFilter && (vm.pmu ?? byDefault) !== id)) return -errnos.EBUSY
  vm.pmu = id
  vm.eventCounters = null
  return 0
}

function setCounters({ vm }: VcpuState, data: Uint8Array | null): number {
  if (data === null) return -errnos.EFAULT
  const count = Number(readWord(data, 4))
  if (count > vm.host.traits.pmu!.counters!) return -errnos.EINVAL
  vm.eventCounters = count
  return 0
}
