/** The rings of written pages (`virt/kvm/dirty_ring.c`). */
import {
  DIRTY_GFN_SIZE,
  errnos,
  exitReasons,
  KVM_DIRTY_RING_RSVD_ENTRIES,
  KVM_MEM_LOG_DIRTY_PAGES,
} from '../uapi.js'
import type { RawExit } from './exits.js'
import type { MemorySlot, VcpuState, VmState } from './state.js'

/** `KVM_CAP_DIRTY_LOG_RING_ACQ_REL`: returns 0 or `-errno`. KVM does not look at the flags. */
export function enableDirtyRing(vm: VmState, argument: bigint): number {
  const most = vm.host.capability('KVM_CAP_DIRTY_LOG_RING_ACQ_REL')
  const size = Number(BigInt.asUintN(32, argument))
  const isPowerOfTwo = size > 0 && Number.isInteger(Math.log2(size))
  const least = Math.max(Number(vm.host.pageSize), KVM_DIRTY_RING_RSVD_ENTRIES * DIRTY_GFN_SIZE)
  if (most <= 0 || !isPowerOfTwo || size < least) return -errnos.EINVAL
  if (size > most) return -errnos.E2BIG
  if (vm.dirtyRing !== null || vm.vcpus.size > 0) return -errnos.EINVAL
  vm.dirtyRing = { entries: size / DIRTY_GFN_SIZE, hasBitmap: false }
  return 0
}

/** `KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP`: returns 0 or `-errno`. */
export function enableBitmapBesideRing(vm: VmState): number {
  if (vm.dirtyRing === null || vm.memorySlots.size > 0) return -errnos.EINVAL
  vm.dirtyRing.hasBitmap = true
  return 0
}

/** Returns whether slots have bitmaps of their written pages. */
export function hasBitmaps({ dirtyRing }: VmState): boolean {
  return dirtyRing === null || dirtyRing.hasBitmap
}

/** The exit of a vCPU whose ring is full; null if it may go on. */
export function fullRing({ vm: { dirtyRing }, dirtyPages }: VcpuState): RawExit | null {
  if (dirtyRing === null || dirtyPages.length < dirtyRing.entries - KVM_DIRTY_RING_RSVD_ENTRIES) return null
  return { reason: exitReasons.KVM_EXIT_DIRTY_RING_FULL, words: [] }
}

/**
 * Makes the pages writable that a guest's store is about to change, and adds those that were not to the vCPU's ring. Returns the exit
 * if the ring is full then: the guest has not stored yet.
 */
export function faultPages(vcpu: VcpuState, slot: MemorySlot, first: bigint, last: bigint): RawExit | null {
  if (vcpu.vm.dirtyRing === null || !isLogged(slot)) return null
  for (let page = first; page <= last; page++) {
    if (slot.writable.has(page)) continue
    slot.writable.add(page)
    addPage(vcpu, slot, page)
    const exit = fullRing(vcpu)
    if (exit !== null) return exit
  }
  return null
}

/** Adds a page to the vCPU's ring that KVM itself has written, which it does each time. */
export function addWritten(vcpu: VcpuState, slot: MemorySlot, page: bigint): void {
  if (vcpu.vm.dirtyRing !== null && isLogged(slot)) addPage(vcpu, slot, page)
}

function isLogged({ flags }: MemorySlot): boolean {
  return (flags & KVM_MEM_LOG_DIRTY_PAGES) !== 0
}

function addPage({ vm, dirtyPages }: VcpuState, slot: MemorySlot, page: bigint): void {
  const [number] = [...vm.memorySlots].find(([, known]) => known === slot)!
  dirtyPages.push({ slot: number, page, isTaken: false })
}

/** See `VcpuFd.takeDirty`. */
export function takeDirty({ vm, dirtyPages }: VcpuState, entries: BigUint64Array): number {
  if (vm.dirtyRing === null) return -errnos.ENXIO
  const taken = dirtyPages.filter(({ isTaken }) => !isTaken).slice(0, Math.floor(entries.length / 2))
  for (const [index, entry] of taken.entries()) {
    entries.set([BigInt(entry.slot), entry.page], 2 * index)
    entry.isTaken = true
  }
  return taken.length
}

/** `KVM_RESET_DIRTY_RINGS`: returns how many entries were taken, or `-errno`. */
export function resetDirtyRings(vm: VmState): number {
  if (vm.dirtyRing === null) return -errnos.EINVAL
  let reset = 0
  for (const { dirtyPages } of vm.vcpus.values()) {
    const end = dirtyPages.findIndex(({ isTaken }) => !isTaken)
    const taken = dirtyPages.splice(0, end < 0 ? dirtyPages.length : end)
    for (const { slot, page } of taken) vm.memorySlots.get(slot)?.writable.delete(page)
    reset += taken.length
  }
  return reset
}
