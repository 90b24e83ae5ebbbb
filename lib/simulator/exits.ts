/** Exits in the form the guest's run leaves them in `struct kvm_run`. */
import { exitReasons, kvmRun } from '../uapi.js'
import type { MmioWrite } from './mmio.js'
import type { VcpuState } from './state.js'

/** What a vCPU does after a hypercall: it continues, it waits, or `KVM_RUN` returns with this exit in `kvm_run`. */
export type Continuation = 'on' | 'wait' | RawExit

/** `kvm_run.exit_reason` and the content of its union, as 64-bit words by offset into the page. */
export interface RawExit {
  reason: number
  words: readonly (readonly [offset: number, value: bigint])[]
}

/** `kvm_run.system_event`, with `ndata` if the kernel has it. The first data word holds the flags. */
export function systemEvent(vcpu: VcpuState, event: number, data: readonly bigint[]): RawExit {
  const hasCount = vcpu.vm.host.capability('KVM_CAP_SYSTEM_EVENT_DATA') > 0
  const count = hasCount ? BigInt(data.length) : 0n
  return {
    reason: exitReasons.KVM_EXIT_SYSTEM_EVENT,
    words: [
      // The same 64-bit word holds ndata behind the type.
      [kvmRun.system_event.type, (count << 32n) | BigInt(event)],
      [kvmRun.system_event.data, data[0] ?? 0n],
    ],
  }
}

/** Writes an exit to `kvm_run`. */
export function recordExit(runPage: ArrayBuffer, { reason, words }: RawExit): void {
  const page = new DataView(runPage)
  page.setUint32(kvmRun.exit_reason, reason, true)
  for (const [offset, word] of words) page.setBigUint64(offset, word, true)
}

/** Returns the write to a device that the guest made; null for another exit. */
export function mmioWriteOf({ reason, words }: RawExit): MmioWrite | null {
  if (reason !== exitReasons.KVM_EXIT_MMIO) return null
  const at = new Map(words)
  const size = BigInt.asUintN(32, at.get(kvmRun.mmio.len)!)
  return { address: at.get(kvmRun.mmio.phys_addr)!, size, data: at.get(kvmRun.mmio.data)! }
}

/** Returns whether `kvm_run` still says that a run ended with an access to a device. */
export function isMmioExit(runPage: ArrayBuffer): boolean {
  return new DataView(runPage).getUint32(kvmRun.exit_reason, true) === exitReasons.KVM_EXIT_MMIO
}

/** Writes what a run interrupted by a signal leaves in `kvm_run`. */
export function recordInterrupt(runPage: ArrayBuffer): void {
  new DataView(runPage).setUint32(kvmRun.exit_reason, exitReasons.KVM_EXIT_INTR, true)
}
