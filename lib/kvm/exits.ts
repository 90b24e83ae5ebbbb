import { exitReasons, systemEvents } from '../uapi.js'

/** Why `KVM_RUN` came back: `struct kvm_run`, told apart by `reason`. Addresses and data are unsigned. */
export type Exit =
  /** The guest touched memory outside every slot. A read (`write` false) is answered with `Vcpu.respond`. `size` is 1, 2, 4 or 8 bytes. */
  | { reason: 'mmio'; address: bigint; size: number; write: boolean; data: bigint }
  /** PSCI asked for the machine to stop, restart or sleep. `flags` is `KVM_SYSTEM_EVENT_*_FLAG_*`. */
  | { reason: 'system-event'; event: SystemEvent; flags: bigint; data: readonly bigint[] }
  /** A call the SMCCC filter forwards. Arguments and results are x0… of the vCPU; pc is past the instruction. */
  | { reason: 'hypercall'; functionId: number; conduit: 'hvc' | 'smc' }
  /** KVM gave up. */
  | { reason: 'internal-error'; suberror: number; data: readonly bigint[] }
  /** A data abort without syndrome, where `KVM_CAP_ARM_NISV_TO_USER` is enabled. `esrIss` is ESR_EL2.ISS. */
  | { reason: 'nisv'; esrIss: bigint; address: bigint }
  /** Guest memory that could not be provided, `size` bytes at `address`. */
  | { reason: 'memory-fault'; flags: bigint; address: bigint; size: bigint }
  | { reason: 'fail-entry'; hardwareReason: bigint; cpu: number }
  /** A debug exception, where guest debugging is on. `esr` is ESR_EL2. */
  | { reason: 'debug'; esr: bigint; address: bigint }
  /** A synchronous external abort, where `KVM_CAP_ARM_SEA_TO_USER` is enabled. */
  | { reason: 'sea'; flags: bigint; esr: bigint; virtualAddress: bigint; physicalAddress: bigint }
  /** `KVM_RUN` answered `EINTR`: `kick()`, a timeout, `immediate_exit` or a signal. */
  | { reason: 'interrupted' }
  /** A reason this library does not know; the page is `Vcpu.runPage`. */
  | { reason: 'unknown'; exitReason: number }

/** `KVM_SYSTEM_EVENT_*`; a number this library does not know is given as such. */
export type SystemEvent = keyof typeof systemEvents | number

/** `struct kvm_run.immediate_exit`, one byte: `KVM_RUN` returns `EINTR` at once when it is not 0. */
export const IMMEDIATE_EXIT_OFFSET = 1

/** `struct kvm_run.mmio.data`, eight bytes. */
export const MMIO_DATA_OFFSET = 40

const events = new Map<number, SystemEvent>(
  Object.entries(systemEvents).map(([name, number]) => [number, name as keyof typeof systemEvents]),
)

/** Reads the exit from a `kvm_run` page (`include/uapi/linux/kvm.h:struct kvm_run`; the union starts at byte 32). */
export function decodeExit(run: DataView): Exit {
  const u32 = (offset: number): number => run.getUint32(offset, true)
  const u64 = (offset: number): bigint => run.getBigUint64(offset, true)
  const words = (count: number): bigint[] =>
    Array.from({ length: Math.min(count, 16) }, (_, index) => u64(40 + 8 * index))
  const exitReason = u32(8)
  switch (exitReason) {
    case exitReasons.KVM_EXIT_MMIO: {
      const size = u32(48)
      // A read's data is what was there before: not the guest's.
      const write = run.getUint8(52) !== 0
      return {
        reason: 'mmio',
        address: u64(32),
        size,
        write,
        data: write ? BigInt.asUintN(8 * size, u64(MMIO_DATA_OFFSET)) : 0n,
      }
    }
    case exitReasons.KVM_EXIT_SYSTEM_EVENT:
      // Before 5.19 there is no count at byte 36, only the flags at byte 40.
      return {
        reason: 'system-event',
        event: events.get(u32(32)) ?? u32(32),
        flags: u64(40),
        data: words(u32(36)),
      }
    case exitReasons.KVM_EXIT_HYPERCALL:
      return {
        reason: 'hypercall',
        functionId: Number(BigInt.asUintN(32, u64(32))),
        conduit: (u64(96) & 1n) === 1n ? 'smc' : 'hvc',
      }
    case exitReasons.KVM_EXIT_INTERNAL_ERROR:
      return { reason: 'internal-error', suberror: u32(32), data: words(u32(36)) }
    case exitReasons.KVM_EXIT_ARM_NISV:
      return { reason: 'nisv', esrIss: u64(32), address: u64(40) }
    case exitReasons.KVM_EXIT_MEMORY_FAULT:
      return { reason: 'memory-fault', flags: u64(32), address: u64(40), size: u64(48) }
    case exitReasons.KVM_EXIT_FAIL_ENTRY:
      return { reason: 'fail-entry', hardwareReason: u64(32), cpu: u32(40) }
    case exitReasons.KVM_EXIT_DEBUG:
      return { reason: 'debug', esr: BigInt(u32(32)) | (BigInt(u32(36)) << 32n), address: u64(40) }
    case exitReasons.KVM_EXIT_ARM_SEA:
      return {
        reason: 'sea',
        flags: u64(32),
        esr: u64(40),
        virtualAddress: u64(48),
        physicalAddress: u64(56),
      }
    case exitReasons.KVM_EXIT_INTR:
      return { reason: 'interrupted' }
    default:
      return { reason: 'unknown', exitReason }
  }
}
