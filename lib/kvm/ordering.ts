import { errnos } from '../uapi.js'

/**
 * Outcomes of `KVM_RUN` that come after the freeze. EINTR does, even with `immediate_exit` set. The others result from what the
 * guest did: EFAULT and EHWPOISON from a memory access, ENOSYS from an access outside memory without a syndrome. Every other errno
 * comes from the preparation before the freeze.
 */
const entered: ReadonlySet<number> = new Set([
  -errnos.EINTR,
  -errnos.EFAULT,
  -errnos.EHWPOISON,
  -errnos.ENOSYS,
])

/** Returns whether a run reached the guest. `outcome` is the result of `KVM_RUN`: 0 or `-errno`. */
export function hasEntered(outcome: number): boolean {
  return outcome >= 0 || entered.has(outcome)
}

/**
 * Tracks whether a VM has started. KVM freezes the bitmap firmware registers, the feature ID registers and the SMCCC filter at the
 * first `KVM_RUN` of any vCPU (`arch/arm64/kvm/arm.c:kvm_arch_vcpu_run_pid_change`); the flag belongs to the VM and is never
 * cleared. KVM does not wait for configuration that is in progress on other vCPUs: the review of the series that introduced the
 * bitmap registers ("KVM: arm64: Add support for hypercall services selection", version 6, patch 2) leaves that to userspace. So
 * this class tracks it.
 *
 * Handles belong to one thread and configuration calls are synchronous, so every earlier call has returned when a run begins. Only
 * later calls need a guard.
 */
export class FirstRun {
  #ran = false
  #inFlight = 0

  /** True from the moment a run begins; reset if that run fails before it froze anything. */
  get started(): boolean {
    return this.#ran || this.#inFlight > 0
  }

  begin(): void {
    this.#inFlight++
  }

  /** `outcome` is the result of `KVM_RUN`: 0 or `-errno`. */
  end(outcome: number): void {
    this.#inFlight--
    if (hasEntered(outcome)) this.#ran = true
  }
}
