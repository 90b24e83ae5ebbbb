import { kvmRun } from '../uapi.js'

/** Performs a `KVM_RUN` that executes no guest instruction: `kvm_run.immediate_exit` is set for it, and then what it was before. */
export function withImmediateExit<T>(runPage: ArrayBuffer, run: () => T): T {
  const page = new Uint8Array(runPage)
  const before = page[kvmRun.immediate_exit]!
  page[kvmRun.immediate_exit] = 1
  try {
    return run()
  } finally {
    // A vCPU that was closed by the run has no page any more.
    if (page.length > 0) page[kvmRun.immediate_exit] = before
  }
}
