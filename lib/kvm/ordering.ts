import { errnos } from '../uapi.js'

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
    // EINTR comes after the freeze even when `immediate_exit` was set, and EFAULT is a guest's memory fault. Every other
    // errno is given by the preparation before it.
    if (outcome >= 0 || outcome === -errnos.EINTR || outcome === -errnos.EFAULT) this.#ran = true
  }
}
