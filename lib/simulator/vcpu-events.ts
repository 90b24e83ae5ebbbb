/** `struct kvm_vcpu_events` (`arch/arm64/kvm/guest.c:__kvm_arm_vcpu_get_events`, `__kvm_arm_vcpu_set_events`). */
import { errnos } from '../uapi.js'
import { hasPendingInterrupt } from './interrupts.js'
import type { VcpuState } from './state.js'

/** Offsets of `exception`'s fields; its padding follows the first three, and the reserved words follow the syndrome. */
const SERROR_PENDING = 0
const SERROR_HAS_ESR = 1
const PAD = 3
const SERROR_ESR = 8
const RESERVED = 16

/** The syndrome KVM injects if none is given: ISV, an implementation's own syndrome, and no content. */
const UNTOLD_SYNDROME = 0x100_0000n
/** Bits of a syndrome an SError may have. */
const ISS_MASK = 0x1ff_ffffn

export function getEvents(vcpu: VcpuState, events: Uint8Array): number {
  events.fill(0)
  const hasEsr = hasSErrorSyndrome(vcpu)
  events[SERROR_HAS_ESR] = Number(hasEsr)
  if (vcpu.pendingSError === null) return 0
  events[SERROR_PENDING] = 1
  if (hasEsr) viewOf(events).setBigUint64(SERROR_ESR, vcpu.pendingSError, true)
  return 0
}

/** A requested external abort reaches the guest at its next instruction, and so has no effect here. */
export function setEvents(vcpu: VcpuState, events: Uint8Array): number {
  const reserved = [...events.subarray(PAD, SERROR_ESR), ...events.subarray(RESERVED)]
  if (reserved.some((byte) => byte !== 0)) return -errnos.EINVAL
  if (events[SERROR_PENDING] === 0) return 0
  const syndrome =
    events[SERROR_HAS_ESR] === 0 ? UNTOLD_SYNDROME : viewOf(events).getBigUint64(SERROR_ESR, true)
  const isRefused = events[SERROR_HAS_ESR] !== 0 && (!hasSErrorSyndrome(vcpu) || syndrome > ISS_MASK)
  if (isRefused) return -errnos.EINVAL
  vcpu.pendingSError = syndrome
  return 0
}

/** Performs a guest's wait for an interrupt. */
export function waitForInterrupt(vcpu: VcpuState): 'on' | 'wait' {
  return hasWakingEvent(vcpu) ? 'on' : 'wait'
}

/** A pending SError and the inputs raised without a GIC are bits of HCR_EL2 (`arch/arm64/kvm/hyp/nvhe/hyp-main.c:sync_hyp_vcpu`). */
export function dropInputs(vcpu: VcpuState): void {
  vcpu.pendingSError = null
  vcpu.raisedInputs.clear()
}

/** Returns whether the vCPU has a reason to end a wait (`arch/arm64/kvm/arm.c:kvm_arch_vcpu_runnable`). */
export function hasWakingEvent(vcpu: VcpuState): boolean {
  const { vm, pendingSError, raisedInputs } = vcpu
  return (
    raisedInputs.size > 0 ||
    (pendingSError !== null && vm.host.traits.sErrorWakes) ||
    hasPendingInterrupt(vcpu)
  )
}

function hasSErrorSyndrome({ vm }: VcpuState): boolean {
  return vm.host.capability('KVM_CAP_ARM_INJECT_SERROR_ESR') > 0
}

function viewOf(events: Uint8Array): DataView {
  return new DataView(events.buffer, events.byteOffset)
}
