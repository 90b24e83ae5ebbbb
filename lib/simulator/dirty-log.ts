/** The log of written pages (`virt/kvm/kvm_main.c:kvm_get_dirty_log_protect`, `kvm_clear_dirty_log_protect`). */
import { outOfRange } from '../arguments.js'
import { errnos, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE } from '../uapi.js'
import { hasBitmaps } from './dirty-ring.js'
import type { VmState } from './state.js'

/** Returns a word with the lowest `count` bits set; all 64 for a larger count. */
export function lowestBits(count: number): bigint {
  return (1n << BigInt(Math.min(count, 64))) - 1n
}

/** `KVM_GET_DIRTY_LOG`: returns 0 or `-errno`. */
export function getDirtyLog(vm: VmState, slot: number, bitmap: BigUint64Array): number {
  const found = vm.memorySlots.get(slot)
  // The addon makes this check on every slot: KVM writes as many words as the slot needs.
  const words = found === undefined ? 0 : Math.ceil(Number(found.size / vm.host.pageSize) / 64)
  if (bitmap.length < words) throw outOfRange('bitmap', `at least ${words} elements long`)
  if (!hasBitmaps(vm)) return -errnos.ENXIO
  if (!isSlotNumber(vm, slot)) return -errnos.EINVAL
  if (found === undefined || found.dirty === null) return -errnos.ENOENT
  bitmap.set(found.dirty)
  if ((vm.manualDirtyLog & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) === 0n) found.dirty.fill(0n)
  return 0
}

/** `KVM_CLEAR_DIRTY_LOG`: returns 0 or `-errno`. */
export function clearDirtyLog(
  vm: VmState,
  slot: number,
  firstPage: number,
  pages: number,
  bitmap: BigUint64Array,
): number {
  const words = Math.ceil(pages / 64)
  if (bitmap.length < words) throw outOfRange('bitmap', `at least ${words} elements long`)
  if (!hasBitmaps(vm)) return -errnos.ENXIO
  if (!isSlotNumber(vm, slot) || firstPage % 64 !== 0) return -errnos.EINVAL
  const found = vm.memorySlots.get(slot)
  if (found === undefined || found.dirty === null) return -errnos.ENOENT
  const left = Number(found.size / vm.host.pageSize) - firstPage
  if (left < 0 || pages > left || (pages < left && pages % 64 !== 0)) return -errnos.EINVAL
  const first = firstPage / 64
  for (let word = 0; word < words; word++) found.dirty[first + word]! &= ~bitmap[word]!
  return 0
}

/** The upper half names an address space, of which arm64 has one. */
function isSlotNumber(vm: VmState, slot: number): boolean {
  return slot < vm.host.capability('KVM_CAP_NR_MEMSLOTS')
}
