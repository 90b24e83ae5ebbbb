/** `KVM_ARM_VM_SMCCC_FILTER`: which of the guest's calls userspace takes over (`arch/arm64/kvm/hypercalls.c:kvm_smccc_set_filter`). */
import { errnos } from '../uapi.js'
import { checkArray } from './arguments.js'
import type { VmState } from './state.js'

/** `sizeof(struct kvm_smccc_filter)`: u32 base, u32 nr_functions, u8 action, u8 pad[15]. */
const FILTER_SIZE = 24
/** `KVM_SMCCC_FILTER_HANDLE`, `_DENY`, `_FWD_TO_USER`. */
const ACTIONS = 3

/** Function ids of the Arm architecture calls, which are always KVM's. */
const RESERVED = [
  { first: 0x8000_0000, last: 0x8000_ffff },
  { first: 0xc000_0000, last: 0xc000_ffff },
]

/** 0 or `-errno`; `data` null is a null address. */
export function setSmcccFilter(vm: VmState, data: Uint8Array | null, emptyRangeAtZero: number): number {
  if (data === null) return -errnos.EFAULT
  checkArray(data, Uint8Array, FILTER_SIZE, 'data')
  const view = new DataView(data.buffer, data.byteOffset, FILTER_SIZE)
  if (data.subarray(9, FILTER_SIZE).some((byte) => byte !== 0)) return -errnos.EINVAL
  const first = view.getUint32(0, true)
  const count = view.getUint32(4, true)
  // 32-bit arithmetic as in the kernel: no functions at all from 0 are all 2³² of them.
  const last = (first + count - 1) >>> 0
  const isEmptyAtZero = first === 0 && count === 0
  const action = view.getUint8(8)
  if (last < first || action >= ACTIONS) return -errnos.EINVAL
  if (isEmptyAtZero && emptyRangeAtZero === errnos.EINVAL) return -errnos.EINVAL
  if (vm.hasRun) return -errnos.EBUSY
  const taken = [...RESERVED, ...vm.filteredRanges]
  const overlaps = taken.some((range) => first <= range.last && range.first <= last)
  if (overlaps) return -errnos.EEXIST
  vm.filteredRanges.push({ first, last, action })
  return 0
}
