/** `KVM_ARM_VM_SMCCC_FILTER`: the guest's calls that userspace takes over (`arch/arm64/kvm/hypercalls.c:kvm_smccc_set_filter`). */
import { errnos, SMCCC_FILTER_SIZE, smcccFilterActions, unpackSmcccFilter } from '../uapi.js'
import { checkArray } from '../arguments.js'
import type { VmState } from './state.js'

const actions: readonly number[] = Object.values(smcccFilterActions)

/** Function ids of the Arm architecture calls, which always stay with KVM. */
const RESERVED = [
  { first: 0x8000_0000, last: 0x8000_ffff },
  { first: 0xc000_0000, last: 0xc000_ffff },
]

/** Returns 0 or `-errno`; `data` null means a null address. */
export function setSmcccFilter(vm: VmState, data: Uint8Array | null, emptyRangeAtZero: number): number {
  if (data === null) return -errnos.EFAULT
  checkArray(data, Uint8Array, SMCCC_FILTER_SIZE, 'data')
  const filter = unpackSmcccFilter(data)
  if (filter === null) return -errnos.EINVAL
  const { base: first, nr: count, action } = filter
  // 32-bit arithmetic as in the kernel: a count of 0 from base 0 means all 2³² functions.
  const last = (first + count - 1) >>> 0
  const isEmptyAtZero = first === 0 && count === 0
  if (last < first || !actions.includes(action)) return -errnos.EINVAL
  if (isEmptyAtZero && emptyRangeAtZero === errnos.EINVAL) return -errnos.EINVAL
  if (vm.hasRun) return -errnos.EBUSY
  const taken = [...RESERVED, ...vm.filteredRanges]
  const overlaps = taken.some((range) => first <= range.last && range.first <= last)
  if (overlaps) return -errnos.EEXIST
  vm.filteredRanges.push({ first, last, action })
  return 0
}
