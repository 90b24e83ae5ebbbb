/** Registers that KVM hides from a VM whose ID registers do not announce them (`arch/arm64/kvm/sys_regs.c:sysreg_visibility`). */
import type { VcpuState } from './state.js'

/** Returns whether a register of a vCPU's configuration is hidden by a value that userspace gave an ID register. */
export function isHidden(vcpu: VcpuState, id: bigint): boolean {
  const { host, idRegisters } = vcpu.vm
  if (idRegisters.size === 0) return false
  const fields = host.hiding.get(id)
  return fields !== undefined && fields.some((field) => has(vcpu, field))
}

/** Returns the ids that `KVM_GET_REG_LIST` returns, in its order. */
export function listedIds(vcpu: VcpuState): BigUint64Array {
  const { ids } = vcpu.file!
  const { host, idRegisters } = vcpu.vm
  return idRegisters.size === 0 || host.hiding.size === 0 ? ids : ids.filter((id) => !isHidden(vcpu, id))
}

function has(vcpu: VcpuState, { id, shift, values }: { id: bigint; shift: bigint; values: number }): boolean {
  const value = vcpu.file!.byId.get(id)?.read(vcpu)
  return typeof value === 'bigint' && ((values >> Number((value >> shift) & 0xfn)) & 1) === 1
}
