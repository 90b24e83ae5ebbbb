import { kvmRun } from '../uapi.js'

/**
 * Performs a `KVM_RUN` that executes no guest instruction: sets `kvm_run.immediate_exit` for it and restores the flag afterwards.
 */
export function withImmediateExit<T>(runPage: ArrayBuffer, run: () => T): T {
  const page = new Uint8Array(runPage)
  const before = page[kvmRun.immediate_exit]!
  page[kvmRun.immediate_exit] = 1
  try {
    return run()
  } finally {
    // A vCPU that was closed during the run no longer has a page.
    if (page.length > 0) page[kvmRun.immediate_exit] = before
  }
}
