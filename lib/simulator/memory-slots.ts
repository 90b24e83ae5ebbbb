/** The memory of a simulated VM, by guest physical address. */
import type { MemoryRegion } from '../backend.js'
import { errnos, KVM_DIRTY_LOG_INITIALLY_SET, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from '../uapi.js'
import { lowestBits } from './dirty-log.js'
import { addWritten, faultPages, hasBitmaps } from './dirty-ring.js'
import type { RawExit } from './exits.js'
import { outOfRange } from '../arguments.js'
import { SimulatorError } from './errors.js'
import { SimulatedMemory } from './memory.js'
import type { MemorySlot, VcpuState, VmState } from './state.js'

/**
 * `KVM_SET_USER_MEMORY_REGION`: returns 0 or `-errno` (`virt/kvm/kvm_main.c:__kvm_set_memory_region`, then
 * `arch/arm64/kvm/mmu.c:kvm_arch_prepare_memory_region`).
 */
export function setMemoryRegion(vm: VmState, region: MemoryRegion): number {
  if (vm.mte) {
    // Kernels differ in whether such a VM may have shared memory, and no report says which do.
    throw new SimulatorError(
      'ERR_KVM_SIMULATOR_NOT_RECORDED',
      'The simulator gives no memory to a VM with memory tagging (KVM_CAP_ARM_MTE).',
    )
  }
  const { slot, flags, address, memory, offset } = region
  const size = BigInt(region.size)
  if (memory instanceof SimulatedMemory) {
    if (memory.closed) return -errnos.EBADF
    if (offset + region.size > memory.size) throw outOfRange('size', 'within the memory, counted from offset')
  } else if (region.size !== 0) {
    throw new TypeError('memory must be memory made by createMemory() unless size is 0')
  }
  const { pageSize } = vm.host
  const knownFlags =
    KVM_MEM_LOG_DIRTY_PAGES | (vm.host.capability('KVM_CAP_READONLY_MEM') > 0 ? KVM_MEM_READONLY : 0)
  const isAligned = [size, address, BigInt(offset)].every((number) => number % pageSize === 0n)
  if ((flags & ~knownFlags) !== 0 || !isAligned) return -errnos.EINVAL
  if (slot >= vm.host.capability('KVM_CAP_NR_MEMSLOTS')) return -errnos.EINVAL
  if (size !== 0n && address + size >= 1n << 64n) return -errnos.EINVAL

  const old = vm.memorySlots.get(slot)
  if (size === 0n) return vm.memorySlots.delete(slot) ? 0 : -errnos.EINVAL
  if (old !== undefined) {
    const isSameMemory = old.memory === memory && old.offset === offset && old.size === size
    if (!isSameMemory || ((old.flags ^ flags) & KVM_MEM_READONLY) !== 0) return -errnos.EINVAL
  }
  if (old?.address !== address) {
    const overlaps = [...vm.memorySlots].some(
      ([other, { address: start, size: length }]) =>
        other !== slot && address < start + length && start < address + size,
    )
    if (overlaps) return -errnos.EEXIST
  }
  if (address + size > 1n << BigInt(vm.ipaBits)) return -errnos.EFAULT
  const isLogged = (flags & KVM_MEM_LOG_DIRTY_PAGES) !== 0
  const dirty = isLogged && hasBitmaps(vm) ? (old?.dirty ?? newLog(vm, size)) : null
  const kept = { memory: memory as SimulatedMemory, offset, dirty, writable: writablePages(vm, old, flags) }
  vm.memorySlots.set(slot, { address, size, flags, ...kept })
  return 0
}

/** A log that begins protects every page, unless it begins with all of them. */
function writablePages(vm: VmState, old: MemorySlot | undefined, flags: number): Set<bigint> {
  const begins = (flags & ~(old?.flags ?? 0) & KVM_MEM_LOG_DIRTY_PAGES) !== 0
  const protects = begins && (vm.manualDirtyLog & KVM_DIRTY_LOG_INITIALLY_SET) === 0n
  return old === undefined || protects ? new Set() : old.writable
}

function newLog(vm: VmState, size: bigint): BigUint64Array {
  const pages = Number(size / vm.host.pageSize)
  const log = new BigUint64Array(Math.ceil(pages / 64))
  if ((vm.manualDirtyLog & KVM_DIRTY_LOG_INITIALLY_SET) === 0n) return log
  return log.map((_, word) => lowestBits(pages - 64 * word))
}

/** Returns the first and the last page of a slot that bytes touch. */
function pagesOf({ host }: VmState, slot: MemorySlot, address: bigint, length: number): [bigint, bigint] {
  const start = address - slot.address
  return [start / host.pageSize, (start + BigInt(length) - 1n) / host.pageSize]
}

/** A write of KVM itself goes to the ring; one of the guest did so when it faulted. */
function markDirty(vcpu: VcpuState, slot: MemorySlot, address: bigint, length: number, by: Writer): void {
  const [first, last] = pagesOf(vcpu.vm, slot, address, length)
  for (let page = first; page <= last; page++) {
    if (by === 'kvm') addWritten(vcpu, slot, page)
    if (slot.dirty !== null && vcpu.vm.dirtyRing === null)
      slot.dirty[Number(page >> 6n)]! |= 1n << (page & 63n)
  }
}

/** Returns whether a guest physical address lies in memory the guest may write. */
export function isWritableMemory(vm: VmState, address: bigint): boolean {
  const slot = slotAt(vm, address, 1)
  return slot !== undefined && (slot.flags & KVM_MEM_READONLY) === 0
}

/** Returns `length` bytes at a guest physical address, or null if the guest has no memory there. */
export function readGuestMemory(vm: VmState, address: bigint, length: number): DataView | null {
  const slot = slotAt(vm, address, length)
  return slot === undefined ? null : viewOf(slot, address, length)
}

type Writer = 'guest' | 'kvm'

/** Returns whether there was memory that the guest may write; KVM writes there as the guest does. */
export function writeGuestMemory(vcpu: VcpuState, address: bigint, bytes: Uint8Array, by: Writer): boolean {
  const slot = writableSlotAt(vcpu.vm, address, bytes.length)
  if (slot === undefined) return false
  const { buffer, byteOffset } = viewOf(slot, address, bytes.length)
  new Uint8Array(buffer).set(bytes, byteOffset)
  markDirty(vcpu, slot, address, bytes.length, by)
  return true
}

/** Returns the exit of a guest's store that has to wait for its vCPU's dirty ring. */
export function faultStore(vcpu: VcpuState, address: bigint, length: number): RawExit | null {
  const slot = writableSlotAt(vcpu.vm, address, length)
  return slot === undefined ? null : faultPages(vcpu, slot, ...pagesOf(vcpu.vm, slot, address, length))
}

function writableSlotAt(vm: VmState, address: bigint, length: number): MemorySlot | undefined {
  const slot = slotAt(vm, address, length)
  return slot === undefined || (slot.flags & KVM_MEM_READONLY) !== 0 ? undefined : slot
}

function slotAt(vm: VmState, address: bigint, length: number): MemorySlot | undefined {
  return [...vm.memorySlots.values()].find(
    (slot) => address >= slot.address && address + BigInt(length) <= slot.address + slot.size,
  )
}

function viewOf({ address: start, memory, offset }: MemorySlot, address: bigint, length: number): DataView {
  return new DataView(memory.contents, offset + Number(address - start), length)
}
