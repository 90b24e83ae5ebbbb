/** What decides whether a call reaches KVM's handler. */
import { gateOf } from '../../hypercalls/index.js'
import type { VcpuState } from '../state.js'

/**
 * Whether the bitmaps let a call through (`arch/arm64/kvm/hypercalls.c:kvm_smccc_test_fw_bmap`, `kvm_smccc_default_allowed`). A bitmap
 * the host does not have hides nothing. Version 6 of the series that made the bitmaps ("KVM: arm64: Add support for hypercall services
 * selection") also keeps PSCI's ids from a vCPU of PSCI 0.1, and 0.1's from all others; that is left out, because no guest can tell:
 * the handler refuses the same ids.
 */
export function isAllowed(vcpu: VcpuState, functionId: number): boolean {
  const gate = gateOf(functionId)
  if (typeof gate === 'string') return gate === 'default'
  const bitmap = vcpu.file!.byId.get(gate.register)?.read(vcpu)
  return bitmap === undefined || ((BigInt(bitmap) >> BigInt(gate.bit)) & 1n) === 1n
}
