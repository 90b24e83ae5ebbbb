import { debugClasses, exitReasons, KVM_HYPERCALL_EXIT_SMC, kvmRun, systemEvents } from '../uapi.js'

/**
 * The exit of `KVM_RUN`, from `struct kvm_run`. `reason` discriminates the members of the union. Addresses and data are unsigned
 * 64-bit numbers.
 *
 * @example
 * const exit = vcpu.runSync({ timeout: 1000 })
 * if (exit.reason === 'mmio' && exit.write) console.log(exit.address, exit.data)
 */
export type Exit =
  /**
   * The guest accessed memory outside every slot. `size` is 1, 2, 4 or 8 bytes; `data` is what the guest wrote, 0n for a read.
   * Answer a read (`write` false) with `Vcpu.respond`.
   */
  | { reason: 'mmio'; address: bigint; size: number; write: boolean; data: bigint }
  /** The guest used PSCI to stop, restart or suspend the machine. `flags` is `KVM_SYSTEM_EVENT_*_FLAG_*`. */
  | { reason: 'system-event'; event: SystemEvent; flags: bigint; data: readonly bigint[] }
  /**
   * A call that the SMCCC filter forwards. Its arguments are in the vCPU's x0 and up, where userspace puts the results; pc is past
   * the instruction.
   */
  | { reason: 'hypercall'; functionId: number; conduit: 'hvc' | 'smc' }
  /** `KVM_EXIT_INTERNAL_ERROR`: KVM cannot go on with this guest. */
  | { reason: 'internal-error'; suberror: number; data: readonly bigint[] }
  /** A data abort without syndrome, where `KVM_CAP_ARM_NISV_TO_USER` is enabled. `esrIss` is ESR_EL2.ISS. */
  | { reason: 'nisv'; esrIss: bigint; address: bigint }
  /**
   * A load or store of 64 bytes at once (`LD64B`, `ST64B` and their like) outside every slot, by a guest whose
   * `ID_AA64ISAR1_EL1.LS64` is not 0. KVM moves neither data nor pc. `esrIss` is ESR_EL2 without its fault status.
   */
  | { reason: 'ldst64b'; esrIss: bigint; address: bigint }
  /**
   * The dirty ring of the vCPU is full (`Vm.enableDirtyRing`): the guest goes on once `Vcpu.takeDirtyPages` and `Vm.resetDirtyRings` have
   * made room.
   */
  | { reason: 'dirty-ring-full' }
  /** Guest memory that could not be provided, `size` bytes at `address`. */
  | { reason: 'memory-fault'; flags: bigint; address: bigint; size: bigint }
  /** `KVM_EXIT_FAIL_ENTRY`: the CPU refused to enter the guest. */
  | { reason: 'fail-entry'; hardwareReason: bigint; cpu: number }
  /**
   * A debug exception, where guest debugging is on (`Vcpu.setDebug`). `address` is the address that the guest accessed, for a
   * watchpoint alone; pc is that of the instruction, which was not executed, or after a step that of the next. `esr` is ESR_EL2.
   */
  | { reason: 'debug'; cause: DebugCause; esr: bigint; address: bigint }
  /** A synchronous external abort, where `KVM_CAP_ARM_SEA_TO_USER` is enabled. */
  | { reason: 'sea'; flags: bigint; esr: bigint; virtualAddress: bigint; physicalAddress: bigint }
  /**
   * `KVM_RUN` returned `EINTR`: `kick()`, a timeout, `immediate_exit` or a signal. After a timeout, `pcOutsideMemory` is the
   * guest's pc if it lies in no slot, which is why the guest executed nothing. It is absent while the guest's MMU is on.
   */
  | { reason: 'interrupted'; pcOutsideMemory?: bigint }
  /** A reason this library does not know; read the rest from `Vcpu.runPage`. */
  | { reason: 'unknown'; exitReason: number }

/** Exception class of a debug exception, by name, or its number. `brk` and `bkpt-aarch32` are instructions of the guest. */
export type DebugCause = keyof typeof debugClasses | number

const causes = new Map<number, DebugCause>(
  Object.entries(debugClasses).map(([name, number]) => [number, name as keyof typeof debugClasses]),
)

/** The name in `KVM_SYSTEM_EVENT_*`, or the number if this library does not know it. */
export type SystemEvent = keyof typeof systemEvents | number

const events = new Map<number, SystemEvent>(
  Object.entries(systemEvents).map(([name, number]) => [number, name as keyof typeof systemEvents]),
)

/** Reads the exit from a `kvm_run` page (`include/uapi/linux/kvm.h:struct kvm_run`). */
export function decodeExit(run: DataView): Exit {
  const u32 = (offset: number): number => run.getUint32(offset, true)
  const u64 = (offset: number): bigint => run.getBigUint64(offset, true)
  const words = (offset: number, count: number): bigint[] =>
    Array.from({ length: Math.min(count, 16) }, (_, index) => u64(offset + 8 * index))
  const exitReason = u32(kvmRun.exit_reason)
  switch (exitReason) {
    case exitReasons.KVM_EXIT_MMIO: {
      const { phys_addr, data, len, is_write } = kvmRun.mmio
      const size = u32(len)
      // For a read, the data field holds leftovers, not data of the guest.
      const write = run.getUint8(is_write) !== 0
      return {
        reason: 'mmio',
        address: u64(phys_addr),
        size,
        write,
        data: write ? BigInt.asUintN(8 * size, u64(data)) : 0n,
      }
    }
    case exitReasons.KVM_EXIT_SYSTEM_EVENT: {
      const { type, ndata, data } = kvmRun.system_event
      return {
        reason: 'system-event',
        event: events.get(u32(type)) ?? u32(type),
        flags: u64(data),
        data: words(data, u32(ndata)),
      }
    }
    case exitReasons.KVM_EXIT_HYPERCALL: {
      const { nr, flags } = kvmRun.hypercall
      return {
        reason: 'hypercall',
        functionId: Number(BigInt.asUintN(32, u64(nr))),
        conduit: (u64(flags) & KVM_HYPERCALL_EXIT_SMC) === 0n ? 'hvc' : 'smc',
      }
    }
    case exitReasons.KVM_EXIT_INTERNAL_ERROR: {
      const { suberror, ndata, data } = kvmRun.internal
      return { reason: 'internal-error', suberror: u32(suberror), data: words(data, u32(ndata)) }
    }
    case exitReasons.KVM_EXIT_ARM_NISV:
    case exitReasons.KVM_EXIT_ARM_LDST64B: {
      const { esr_iss, fault_ipa } = kvmRun.arm_nisv
      const reason = exitReason === exitReasons.KVM_EXIT_ARM_NISV ? 'nisv' : 'ldst64b'
      return { reason, esrIss: u64(esr_iss), address: u64(fault_ipa) }
    }
    case exitReasons.KVM_EXIT_DIRTY_RING_FULL:
      return { reason: 'dirty-ring-full' }
    case exitReasons.KVM_EXIT_MEMORY_FAULT: {
      const { flags, gpa, size } = kvmRun.memory_fault
      return { reason: 'memory-fault', flags: u64(flags), address: u64(gpa), size: u64(size) }
    }
    case exitReasons.KVM_EXIT_FAIL_ENTRY: {
      const { hardware_entry_failure_reason, cpu } = kvmRun.fail_entry
      return { reason: 'fail-entry', hardwareReason: u64(hardware_entry_failure_reason), cpu: u32(cpu) }
    }
    case exitReasons.KVM_EXIT_DEBUG: {
      const { hsr, hsr_high, far } = kvmRun.debug
      const [low, high] = [u32(hsr), u32(hsr_high)]
      const cause = causes.get(low >>> 26) ?? low >>> 26
      const address = cause === 'watchpoint' ? u64(far) : 0n
      return { reason: 'debug', cause, esr: BigInt(low) | (BigInt(high) << 32n), address }
    }
    case exitReasons.KVM_EXIT_ARM_SEA: {
      const { flags, esr, gva, gpa } = kvmRun.arm_sea
      return {
        reason: 'sea',
        flags: u64(flags),
        esr: u64(esr),
        virtualAddress: u64(gva),
        physicalAddress: u64(gpa),
      }
    }
    case exitReasons.KVM_EXIT_INTR:
      return { reason: 'interrupted' }
    default:
      return { reason: 'unknown', exitReason }
  }
}
