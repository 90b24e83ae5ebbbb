import { errnos } from '../uapi.js'

/**
 * Outcomes of `KVM_RUN` that come after the freeze. EINTR does even when `immediate_exit` was set; the others are about what the
 * guest did: EFAULT and EHWPOISON about its memory, ENOSYS about an access outside of it without a syndrome. Every other errno
 * is given by the preparation before it.
 */
const entered: ReadonlySet<number> = new Set([
  -errnos.EINTR,
  -errnos.EFAULT,
  -errnos.EHWPOISON,
  -errnos.ENOSYS,
])

/** Whether a run got as far as the guest, by what `KVM_RUN` answered: 0 or `-errno`. */
export function hasEntered(outcome: number): boolean {
  return outcome >= 0 || entered.has(outcome)
}

/**
 * Whether a VM has started. KVM freezes the bitmap firmware registers, the feature ID registers and the SMCCC filter at the
 * first `KVM_RUN` of any vCPU (`arch/arm64/kvm/arm.c:kvm_arch_vcpu_run_pid_change`); the flag is the VM's and is
 * never cleared. KVM does not wait for configuration that is under way on other vCPUs: the review of the series that made the bitmap
 * registers ("KVM: arm64: Add support for hypercall services selection", version 6, patch 2) leaves that to userspace. So it is
 * watched here.
 *
 * Handles belong to one thread and configuration calls are synchronous, so every one already made has returned when a run
 * begins; what is left to guard is what comes after.
 */
export class FirstRun {
  #ran = false
  #inFlight = 0

  /** True from the moment a run begins, unless it turns out to have failed before it froze anything. */
  get started(): boolean {
    return this.#ran || this.#inFlight > 0
  }

  begin(): void {
    this.#inFlight++
  }

  /** `outcome` is what `KVM_RUN` answered: 0 or `-errno`. */
  end(outcome: number): void {
    this.#inFlight--
    if (hasEntered(outcome)) this.#ran = true
  }
}
