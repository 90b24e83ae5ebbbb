/** `KVM_ARM_MTE_COPY_TAGS` (`arch/arm64/kvm/guest.c:kvm_vm_ioctl_mte_copy_tags`). */
import { errnos, KVM_ARM_TAGS_FROM_GUEST } from '../uapi.js'
import type { VmState } from './state.js'

/** Returns the bytes whose tags are copied, or `-errno`. The simulator gives no memory to a VM with tags. */
export function copyMteTags(vm: VmState, address: bigint, length: bigint, flags: number): number {
  const { pageSize } = vm.host
  if (!vm.mte || flags > KVM_ARM_TAGS_FROM_GUEST) return -errnos.EINVAL
  if (address % pageSize !== 0n || length % pageSize !== 0n) return -errnos.EINVAL
  return length === 0n ? 0 : -errnos.EFAULT
}
