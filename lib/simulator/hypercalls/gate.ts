/** What decides whether a call reaches KVM's handler. */
import { gateOf } from '../../hypercalls/index.js'
import type { VcpuState } from '../state.js'

/**
 * `kvm_smccc_test_fw_bmap` and `kvm_smccc_default_allowed`. A bitmap the host does not have hides nothing. That the seed keeps
 * PSCI's ids from a vCPU of PSCI 0.1, and 0.1's from all others, no guest can tell: the handler refuses them likewise.
 */
export function isAllowed(vcpu: VcpuState, functionId: number): boolean {
  const gate = gateOf(functionId)
  if (typeof gate === 'string') return gate === 'default'
  const bitmap = vcpu.file!.byId.get(gate.register)?.read(vcpu)
  return bitmap === undefined || ((BigInt(bitmap) >> BigInt(gate.bit)) & 1n) === 1n
}
