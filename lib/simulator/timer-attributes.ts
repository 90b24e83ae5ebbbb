/** The interrupts of a vCPU's timers (`arch/arm64/kvm/arch_timer.c:kvm_arm_timer_set_attr`, `kvm_timer_enable`). */
import { errnos, featureWord } from '../uapi.js'
import { type AttributeGroup, readWord, writeWord } from './attributes.js'
import { claimInterrupt, isPrivateInterrupt } from './interrupts.js'
import type { VcpuState } from './state.js'

/** Attribute 0 is the interrupt of the virtual timer, 1 of the physical; 2 and 3 of the timers of a hypervisor in the guest. */
export const timerAttributes: AttributeGroup = {
  has: (vcpu, attribute) => (attribute < vcpu.timerInterrupts.length ? 0 : -errnos.ENXIO),
  get({ timerInterrupts }, attribute, data) {
    const interrupt = timerInterrupts[Number(attribute)]
    if (interrupt === undefined) return -errnos.ENXIO
    writeWord(data, 4, BigInt(interrupt))
    return 0
  },
  set(vcpu, attribute, data) {
    const { vm, timerInterrupts } = vcpu
    if (vm.gic === null) return -errnos.EINVAL
    if (data === null) return -errnos.EFAULT
    const interrupt = Number(readWord(data, 4))
    if (!isPrivateInterrupt(interrupt)) return -errnos.EINVAL
    if (isOfVm(vcpu) ? vm.timerInterruptsFixed : vcpu.timersEnabled) return -errnos.EBUSY
    if (attribute >= timerInterrupts.length) return -errnos.ENXIO
    const changed = timerInterrupts.with(Number(attribute), interrupt)
    for (const each of vm.vcpus.values()) each.timerInterrupts = changed
    vm.timerInterrupts = changed
    return 0
  },
}

/**
 * Makes the checks before a vCPU's first run, which KVM refuses if the timers cannot have their interrupts: returns 0 or `-errno`.
 */
export function enableTimers(vcpu: VcpuState): number {
  if (!vcpu.timersEnabled && vcpu.vm.gic !== null) {
    if (!claimInterrupts(vcpu)) return -errnos.EINVAL
    vcpu.vm.timerInterruptsFixed = true
    for (const interrupt of usedInterrupts(vcpu)) vcpu.interrupts[interrupt]!.ofTimer = true
  }
  vcpu.timersEnabled = true
  return 0
}

function usedInterrupts({ timerInterrupts, features }: VcpuState): readonly number[] {
  return timerInterrupts.slice(0, features & featureWord(['has-el2']) ? 4 : 2)
}

function claimInterrupts(vcpu: VcpuState): boolean {
  const used = usedInterrupts(vcpu)
  const areClaimed = used.every((interrupt, timer) => claimInterrupt(vcpu, interrupt, `timer ${timer}`) === 0)
  if (isOfVm(vcpu) || !areClaimed) return areClaimed
  return [...vcpu.vm.vcpus.values()].every(({ timerInterrupts }) =>
    timerInterrupts.every((interrupt, timer) => interrupt === used[timer]),
  )
}

function isOfVm({ vm }: VcpuState): boolean {
  return vm.host.traits.timers.scope === 'vm'
}
