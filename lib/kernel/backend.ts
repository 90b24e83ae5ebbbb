import { release, version } from 'node:os'
import type { Backend, SystemFd } from '../backend.js'
import { packageRoot } from '../package-root.js'
import { pinToLowest, readCpuKinds } from './cpus.js'
import { loadAddon } from './load-addon.js'

/** What the addon exports; its objects are the handles of `lib/backend.ts` themselves. */
interface Addon {
  open(): SystemFd | number
  /** `sched_getaffinity` of the calling thread: fills `mask`, one bit a CPU; returns 0 or `-errno`. */
  getAffinity(mask: Uint8Array): number
  /** `sched_setaffinity` of the calling thread; returns 0 or `-errno`. */
  setAffinity(mask: Uint8Array): number
}

let addon: Addon | undefined

/**
 * Real KVM: every call is an ioctl on `/dev/kvm` or a descriptor that came from it.
 *
 * The addon is loaded by the first `open()`, so that a program that only simulates runs where no addon exists. That call
 * throws an {@link AddonError} where it cannot be loaded.
 *
 * A `runSync(0)` blocks its thread until the guest exits: nothing in that environment runs meanwhile, and
 * `worker.terminate()` as well as the end of the process wait for it. Give it a timeout, or use `run()`, wherever the guest
 * may not exit by itself.
 */
export const kernelBackend: Backend = {
  name: 'kernel',
  host: { release: release(), build: version() },
  cpus: { kinds: () => readCpuKinds(), pin: () => pinToLowest(loaded()) },
  open: () => loaded().open(),
}

function loaded(): Addon {
  addon ??= loadAddon(packageRoot) as Addon
  return addon
}
