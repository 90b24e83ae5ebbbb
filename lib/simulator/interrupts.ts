/** Interrupts of a GIC by number, and their owners (`arch/arm64/kvm/vgic/vgic.c:kvm_vgic_set_owner`). */
import { cpuInputs, errnos, irqTypes, unpackIrq } from '../uapi.js'
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
 * `KVM_IRQ_LINE` (`arch/arm64/kvm/arm.c:kvm_vm_ioctl_irq_line`): returns 0 or `-errno`. A level at the GIC has no further effect,
 * since no register of it can enable an interrupt; KVM ignores one that belongs to a timer.
 */
export function setLine(vm: VmState, irq: number, level: boolean): number {
  const { type, vcpu: which, number } = unpackIrq(irq)
  if (!Object.values<number>(irqTypes).includes(type)) return -errnos.EINVAL
  if ((type === irqTypes.cpu) !== (vm.gic === null)) return -errnos.ENXIO
  if (vm.gic !== null && !vm.gic.initialised && vm.host.traits.irqLineChecksInitFirst) return -errnos.EBUSY
  if (type === irqTypes.spi) {
    if (number < FIRST_SHARED) return -errnos.EINVAL
  } else {
    const vcpu = vm.host.traits.irqLineByIndex ? [...vm.vcpus.values()][which] : vm.vcpus.get(which)
    if (vcpu === undefined) return -errnos.EINVAL
    if (type === irqTypes.cpu) return setInput(vcpu, number, level)
    if (!isPrivateInterrupt(number)) return -errnos.EINVAL
  }
  if (!vm.gic!.initialised) return -errnos.EBUSY
  return hasInterrupt(vm, number) ? 0 : -errnos.EINVAL
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
