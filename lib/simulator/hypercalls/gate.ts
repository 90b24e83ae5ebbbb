/** Decides whether a call reaches KVM's handler. */
import { gateOf } from '../../hypercalls/index.js'
import { encodeRegister } from '../../registers/index.js'
import type { VcpuState } from '../state.js'

const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
export const PSCI_0_1 = 1n

/** The PSCI version of a vCPU, as its register holds it. */
export function psciVersionOf(vcpu: VcpuState): bigint {
  return BigInt(vcpu.file!.byId.get(PSCI_VERSION)!.read(vcpu))
}

/**
 * Returns whether the bitmaps and the vCPU's PSCI version let a call through (`arch/arm64/kvm/hypercalls.c:kvm_smccc_test_fw_bmap`,
 * `kvm_smccc_default_allowed`). A bitmap the host does not have hides nothing. Only version 6 of the series that introduced the
 * bitmaps checks the PSCI version here (`kvm_psci_func_id_is_valid`); in released kernels the handler refuses the same ids, so a
 * guest cannot see the difference.
 */
export function isAllowed(vcpu: VcpuState, functionId: number): boolean {
  // All versions except 0.1 have one rule.
  const gate = gateOf(functionId, psciVersionOf(vcpu) === PSCI_0_1 ? '0.1' : '0.2')
  if (typeof gate === 'string') return gate === 'default'
  const bitmap = vcpu.file!.byId.get(gate.register)?.read(vcpu)
  return bitmap === undefined || ((BigInt(bitmap) >> BigInt(gate.bit)) & 1n) === 1n
}
