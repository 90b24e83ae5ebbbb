/** Interrupts of a GIC by number, and their owners (`arch/arm64/kvm/vgic/vgic.c:kvm_vgic_set_owner`). */
import { cpuInputs, errnos, irqTypes, unpackIrq } from '../uapi.js'
import { vcpuWithAffinity } from './affinity.js'
import type { Interrupt } from './gic-interrupts.js'
import type { VcpuState, VmState } from './state.js'

const FIRST_PRIVATE = 16
/** Interrupts below this number belong to each vCPU. */
export const FIRST_SHARED = 32
const LAST_SHARED = 1019

export function isPrivateInterrupt(interrupt: number): boolean {
  return interrupt >= FIRST_PRIVATE && interrupt < FIRST_SHARED
}

/** Returns whether a GIC could have it; the VM's own GIC may have fewer. */
export function isSharedInterrupt(interrupt: number): boolean {
  return interrupt >= FIRST_SHARED && interrupt <= LAST_SHARED
}

/** Returns whether the VM's GIC has it, as a private interrupt of each vCPU or a shared one. */
export function hasInterrupt({ gic }: VmState, interrupt: number): boolean {
  return isPrivateInterrupt(interrupt) || (interrupt >= FIRST_SHARED && interrupt < FIRST_SHARED + gic!.spis)
}

/**
 * Assigns an interrupt of the VM's initialised GIC to one source for good: returns 0 or `-errno`.
 * @param source of the vCPU
 */
export function claimInterrupt(vcpu: VcpuState, interrupt: number, source: string): number {
  if (!hasInterrupt(vcpu.vm, interrupt)) return -errnos.EINVAL
  const owners = isPrivateInterrupt(interrupt) ? vcpu.interruptOwners : vcpu.vm.gic!.interruptOwners
  const owner = `${source} of vCPU ${vcpu.id}`
  const known = owners.get(interrupt) ?? owner
  owners.set(interrupt, known)
  return known === owner ? 0 : -errnos.EEXIST
}

/**
 * `KVM_IRQ_LINE` (`arch/arm64/kvm/arm.c:kvm_vm_ioctl_irq_line`): returns 0 or `-errno`. KVM ignores an interrupt that belongs to a
 * timer or the PMU.
 */
export function setLine(vm: VmState, irq: number, level: boolean): number {
  const { type, vcpu: which, number } = unpackIrq(irq)
  if (!Object.values<number>(irqTypes).includes(type)) return -errnos.EINVAL
  if ((type === irqTypes.cpu) !== (vm.gic === null)) return -errnos.ENXIO
  if (vm.gic !== null && !vm.gic.initialised && vm.host.traits.irqLineChecksInitFirst) return -errnos.EBUSY
  if (type === irqTypes.spi) {
    if (number < FIRST_SHARED) return -errnos.EINVAL
  } else {
    const vcpu = vcpuOf(vm, which)
    if (vcpu === undefined) return -errnos.EINVAL
    if (type === irqTypes.cpu) return setInput(vcpu, number, level)
    if (!isPrivateInterrupt(number)) return -errnos.EINVAL
  }
  if (!vm.gic!.initialised) return -errnos.EBUSY
  if (!hasInterrupt(vm, number)) return -errnos.EINVAL
  const vcpu = type === irqTypes.ppi ? vcpuOf(vm, which) : undefined
  const { interruptOwners } = vcpu ?? vm.gic!
  const interrupt = vcpu === undefined ? vm.gic!.shared[number - FIRST_SHARED] : vcpu.interrupts[number]
  if (!interruptOwners.has(number)) raise(vm, interrupt!, level)
  return 0
}

function vcpuOf(vm: VmState, which: number): VcpuState | undefined {
  return vm.host.traits.irqLineByIndex ? [...vm.vcpus.values()][which] : vm.vcpus.get(which)
}

/** Raises and lowers a shared interrupt of an initialised GIC, as an event does (`arch/arm64/kvm/vgic/vgic-irqfd.c`). */
export function pulse(vm: VmState, pin: number): void {
  const interrupt = vm.gic?.shared[pin]
  if (interrupt === undefined || vm.gic!.interruptOwners.has(FIRST_SHARED + pin)) return
  raise(vm, interrupt, true)
  raise(vm, interrupt, false)
}

/** A rising edge latches an interrupt that is edge-triggered; any other follows its line. */
function raise(vm: VmState, interrupt: Interrupt, level: boolean): void {
  if (!interrupt.edge) interrupt.line = level
  else if (level) interrupt.latched = true
  if (!level) return
  for (const vcpu of vm.vcpus.values()) if (hasPendingInterrupt(vcpu)) vcpu.wake?.()
}

/** Returns whether an interrupt of the GIC ends the vCPU's wait (`vgic.c:kvm_vgic_vcpu_pending_irq`). */
export function hasPendingInterrupt(vcpu: VcpuState): boolean {
  const { gic } = vcpu.vm
  if (gic === null || !gic.enabled) return false
  const isDue = ({ enabled, active, pending, priority }: Interrupt): boolean =>
    enabled && pending && !active && BigInt(priority) < vcpu.cpuInterface.priorityMask
  return (
    vcpu.interrupts.some(isDue) ||
    gic.shared.some(
      (interrupt) => isDue(interrupt) && vcpuWithAffinity(vcpu.vm, BigInt(interrupt.route)) === vcpu,
    )
  )
}

function setInput(vcpu: VcpuState, input: number, level: boolean): number {
  if (input > cpuInputs.fiq) return -errnos.EINVAL
  if (!level) vcpu.raisedInputs.delete(input)
  else if (!vcpu.raisedInputs.has(input)) {
    vcpu.raisedInputs.add(input)
    vcpu.wake?.()
  }
  return 0
}
