/**
 * A guest's call, by `hvc` or `smc`, from the exception to its result: the calls that EL2 answers directly, the SMCCC filter, the
 * bitmaps' gate, the handler (`arch/arm64/kvm/handle_exit.c`, `arch/arm64/kvm/hypercalls.c:kvm_smccc_call_handler`).
 */
import type { Conduit } from '../../backend.js'
import { NOT_SUPPORTED, workarounds } from '../../hypercalls/index.js'
import { exitReasons, KVM_HYPERCALL_EXIT_SMC, kvmRun, smcccFilterActions } from '../../uapi.js'
import { generalRegister } from '../guest-registers.js'
import type { Continuation, RawExit } from '../exits.js'
import type { VcpuState } from '../state.js'
import { isAllowed } from './gate.js'
import { callPsci } from './psci.js'
import { setResults } from './results.js'
import { callService } from './services.js'

/** Answers a guest's call with the function id in x0; the guest's pc is already past it. `immediate` is the instruction's. */
export function answerCall(vcpu: VcpuState, conduit: Conduit, immediate: number): Continuation {
  const functionId = Number(BigInt.asUintN(32, generalRegister(vcpu, 0)))
  if (conduit === 'hvc' && isWorkaround(vcpu, functionId)) {
    // EL2 answers this directly, using two registers: el1_hvc_guest in hyp-entry.S.
    return setResults(vcpu, [0n, 0n])
  }
  if (conduit === 'hvc') vcpu.counts.hvc++
  if (conduit === 'smc' && (immediate !== 0 || !vcpu.vm.host.traits.hypercalls.smc)) {
    return setResults(vcpu, [NOT_SUPPORTED])
  }
  switch (filterAction(vcpu, functionId)) {
    case smcccFilterActions.deny:
      return refuse(vcpu)
    case smcccFilterActions.forward:
      return hypercallExit(functionId, conduit)
  }
  return isAllowed(vcpu, functionId) ? handle(vcpu, functionId) : refuse(vcpu)
}

function handle(vcpu: VcpuState, functionId: number): Continuation {
  return callService(vcpu, functionId) ?? callPsci(vcpu, functionId)
}

function refuse(vcpu: VcpuState): Continuation {
  return setResults(vcpu, [NOT_SUPPORTED, 0n, 0n, 0n])
}

/** Returns whether it is one of the workarounds this kernel knows, which EL2 answers directly. */
function isWorkaround(vcpu: VcpuState, functionId: number): boolean {
  const { byId } = vcpu.file!
  return workarounds.some(
    (workaround) => workaround.functionId === functionId && byId.has(workaround.register),
  )
}

function filterAction({ vm }: VcpuState, functionId: number): number | undefined {
  return vm.filteredRanges.find(({ first, last }) => first <= functionId && functionId <= last)?.action
}

function hypercallExit(functionId: number, conduit: Conduit): RawExit {
  const { nr, args, ret, flags } = kvmRun.hypercall
  return {
    reason: exitReasons.KVM_EXIT_HYPERCALL,
    words: [
      [nr, BigInt(functionId)],
      ...[...args, ret].map((offset) => [offset, 0n] as const),
      [flags, conduit === 'smc' ? KVM_HYPERCALL_EXIT_SMC : 0n],
    ],
  }
}
