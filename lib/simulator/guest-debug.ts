/** `KVM_SET_GUEST_DEBUG` (`arch/arm64/kvm/guest.c:kvm_arch_vcpu_ioctl_set_guest_debug`), and the debug exceptions of a guest. */
import {
  debugClasses,
  errnos,
  exitReasons,
  guestDebugRegisters,
  KVM_GUESTDBG_ENABLE,
  KVM_GUESTDBG_SINGLESTEP,
  KVM_GUESTDBG_USE_HW,
  KVM_GUESTDBG_USE_SW_BP,
  kvmRun,
} from '../uapi.js'
import type { RawExit } from './exits.js'
import type { VcpuState } from './state.js'

const KNOWN = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW
const REGISTERS = 16
const ENABLED = 1n
/** ESR_ELx.IL: an instruction of 32 bits. */
const IL = 1n << 25n
/** Fault status: a debug exception. */
const DEBUG_STATUS = 0x22n
/** ISS of a step: ISV, the step was one of an instruction. */
const STEPPED = 1n << 24n
const WRITTEN = 1n << 6n

export function setGuestDebug(vcpu: VcpuState, control: number, registers: BigUint64Array): number {
  if ((control & ~KNOWN) !== 0) return -errnos.EINVAL
  if (control & KVM_GUESTDBG_USE_HW) vcpu.debugRegisters = registers.slice()
  vcpu.debugControl = control & KVM_GUESTDBG_ENABLE ? control : 0
  return 0
}

export function isStepped(vcpu: VcpuState): boolean {
  return (vcpu.debugControl & KVM_GUESTDBG_SINGLESTEP) !== 0
}

/** The exit after a step. */
export function stepExit(): RawExit {
  return debugExit(debugClasses.step, STEPPED | DEBUG_STATUS)
}

/** The exit of a `brk` of the guest; null if nobody debugs it. */
export function softwareBreakpoint({ debugControl }: VcpuState, comment: number): RawExit | null {
  return debugControl & KVM_GUESTDBG_USE_SW_BP ? debugExit(debugClasses.brk, BigInt(comment)) : null
}

/** The exit before an instruction with a breakpoint; null for another. */
export function breakpointAt(vcpu: VcpuState, pc: bigint): RawExit | null {
  const { dbg_bcr, dbg_bvr } = guestDebugRegisters
  const isHit = enabled(vcpu, dbg_bcr).some(({ place }) => vcpu.debugRegisters[dbg_bvr + place] === pc)
  return isHit ? debugExit(debugClasses.breakpoint, DEBUG_STATUS) : null
}

/** The exit before a store to a byte that is watched; null for another. */
export function watchpointAt(vcpu: VcpuState, address: bigint, size: number): RawExit | null {
  const { dbg_wcr, dbg_wvr } = guestDebugRegisters
  for (const { place, control } of enabled(vcpu, dbg_wcr)) {
    const base = vcpu.debugRegisters[dbg_wvr + place]!
    const isOfStores = (control & (1n << 4n)) !== 0n
    if (!isOfStores) continue
    for (let byte = 0n; byte < 8n; byte++) {
      const isSelected = (control & (1n << (5n + byte))) !== 0n
      if (isSelected && base + byte >= address && base + byte < address + BigInt(size)) {
        return debugExit(debugClasses.watchpoint, WRITTEN | DEBUG_STATUS, address)
      }
    }
  }
  return null
}

function enabled(
  { debugControl, debugRegisters }: VcpuState,
  first: number,
): { place: number; control: bigint }[] {
  if ((debugControl & KVM_GUESTDBG_USE_HW) === 0) return []
  return Array.from({ length: REGISTERS }, (_, place) => ({
    place,
    control: debugRegisters[first + place]!,
  })).filter(({ control }) => (control & ENABLED) !== 0n)
}

function debugExit(exceptionClass: number, iss: bigint, far = 0n): RawExit {
  const esr = (BigInt(exceptionClass) << 26n) | IL | iss
  return {
    reason: exitReasons.KVM_EXIT_DEBUG,
    words: [
      [kvmRun.debug.hsr, esr],
      [kvmRun.debug.far, far],
    ],
  }
}
