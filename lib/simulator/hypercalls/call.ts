/**
 * A guest's call, by `hvc` or `smc`, from the exception to its answer: what the hypervisor answers itself, the SMCCC filter, the
 * bitmaps' gate, the handler (`arch/arm64/kvm/handle_exit.c`, `arch/arm64/kvm/hypercalls.c:kvm_smccc_call_handler`).
 */
import { workarounds } from '../../hypercalls/index.js'
import { exitReasons } from '../../uapi.js'
import { generalRegister } from '../guest-registers.js'
import type { VcpuState } from '../state.js'
import { isAllowed } from './gate.js'
import { callPsci } from './psci.js'
import { NOT_SUPPORTED, setResults, toWord } from './results.js'
import { callService } from './services.js'

export type Conduit = 'hvc' | 'smc'

/** `KVM_SMCCC_FILTER_DENY`, `KVM_SMCCC_FILTER_FWD_TO_USER`. */
const DENY = 1
const FORWARD = 2

/** What becomes of the vCPU after a call: it goes on, it waits, or `KVM_RUN` returns with this in `kvm_run`. */
export type Continuation = 'on' | 'wait' | Exit

/** `kvm_run.exit_reason` and what goes to its union, as words of 64 bits by offset into the page. */
export interface Exit {
  reason: number
  words: readonly (readonly [offset: number, value: bigint])[]
}

/** A call with the function id in x0; the guest's pc is past it already. `immediate` is the instruction's. */
export function callFromGuest(vcpu: VcpuState, conduit: Conduit, immediate: number): Continuation {
  const functionId = Number(BigInt.asUintN(32, generalRegister(vcpu, 0)))
  if (conduit === 'hvc' && isWorkaround(vcpu, functionId)) {
    // Answered at EL2 with two registers at hand: el1_hvc_guest in hyp-entry.S.
    return setResults(vcpu, [0n, 0n])
  }
  if (conduit === 'smc' && (immediate !== 0 || !vcpu.vm.host.traits.hypercalls.smc)) {
    return setResults(vcpu, [toWord(NOT_SUPPORTED)])
  }
  switch (filterAction(vcpu, functionId)) {
    case DENY:
      return refuse(vcpu)
    case FORWARD:
      return hypercallExit(functionId, conduit)
  }
  return isAllowed(vcpu, functionId) ? handle(vcpu, functionId) : refuse(vcpu)
}

function handle(vcpu: VcpuState, functionId: number): Continuation {
  return callService(vcpu, functionId) ?? callPsci(vcpu, functionId)
}

function refuse(vcpu: VcpuState): Continuation {
  return setResults(vcpu, [toWord(NOT_SUPPORTED), 0n, 0n, 0n])
}

/** Whether it is one of the workarounds this kernel knows, and so answers where the guest enters it. */
function isWorkaround(vcpu: VcpuState, functionId: number): boolean {
  const { byId } = vcpu.file!
  return workarounds.some(
    (workaround) => workaround.functionId === functionId && byId.has(workaround.register),
  )
}

function filterAction({ vm }: VcpuState, functionId: number): number | undefined {
  return vm.filteredRanges.find(({ first, last }) => first <= functionId && functionId <= last)?.action
}

/** `struct kvm_run.hypercall`: nr at 32, flags at 96, of which bit 0 is `KVM_HYPERCALL_EXIT_SMC`. */
function hypercallExit(functionId: number, conduit: Conduit): Exit {
  return {
    reason: exitReasons.KVM_EXIT_HYPERCALL,
    words: [
      [32, BigInt(functionId)],
      ...[40, 48, 56, 64, 72, 80, 88].map((offset) => [offset, 0n] as const),
      [96, conduit === 'smc' ? 1n : 0n],
    ],
  }
}
