/** Interrupts of a GIC by number, and their owners (`arch/arm64/kvm/vgic/vgic.c:kvm_vgic_set_owner`). */
import { errnos } from '../uapi.js'
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
