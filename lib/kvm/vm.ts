import {
  checkArray,
  checkBoolean,
  checkChoice,
  checkOptions,
  checkSize,
  checkUint32,
  checkUint64,
  invalidType,
  numberOf,
  outOfRange,
} from '../arguments.js'
import type { GuestMemoryFd, SystemFd, VcpuFd, VmFd } from '../backend.js'
import {
  capabilities,
  type Capability,
  type DeviceType,
  deviceTypes,
  errnos,
  type Irq,
  irqTypes,
  KVM_ARM_FEATURE_ID_RANGE_SIZE,
  KVM_ARM_VM_SMCCC_CTRL,
  KVM_ARM_VM_SMCCC_FILTER,
  KVM_MEM_LOG_DIRTY_PAGES,
  KVM_MEM_READONLY,
  KVM_IRQFD_FLAG_DEASSIGN,
  KVM_IRQFD_FLAG_RESAMPLE,
  KVM_MSI_VALID_DEVID,
  packGsiRoutes,
  packIrq,
  DIRTY_GFN_SIZE,
  KVM_ARM_TAGS_FROM_GUEST,
  KVM_ARM_TAGS_TO_GUEST,
  MTE_GRANULE,
  packSmcccFilter,
  smcccFilterActions,
  unpackSmcccFilter,
} from '../uapi.js'
import { GuestAddressSpace, type MappedMemory } from './address-space.js'
import { Attributes } from './attributes.js'
import { Device } from './device.js'
import { Connection } from './connection.js'
import { check, KvmError, kvmError } from './errors.js'
import { HostEvent } from './event.js'
import { checkGicOptions, configureGic, type Gic, type GicOptions } from './gic.js'
import { mapStub, STUB_ADDRESS, STUB_SIZE, STUB_SLOT } from './guest-call.js'
import { GuestMemory } from './memory.js'
import { checkMessage, type Message, type MessageRoute, type PinRoute, toGsiRoute } from './messages.js'
import { Mmio } from './mmio.js'
import { FirstRun } from './ordering.js'
import { Services } from './services.js'
import { NO_STATS, OpenStats, type Stats } from './stats.js'
import { checkVcpuInit, GIC_NOT_READY, NO_GIC, NO_RING, Vcpu, type VcpuInit } from './vcpu.js'
import { featureIdAt, hex } from '../registers/index.js'

export interface MemoryMapping {
  /** Guest physical address of 64 bits, a multiple of the page size. */
  address: bigint
  /** Memory from `Kvm.createMemory` of the same backend. */
  memory: GuestMemory
  /** Offset in `memory` at which the slot begins, in bytes, a multiple of the page size. Default: 0. */
  offset?: number
  /** Bytes of the slot, a multiple of the page size and not 0. Default: all of `memory` from `offset`. */
  size?: number
  /** `KVM_MEM_READONLY`: guest writes become MMIO exits. Default: false. */
  readonly?: boolean
  /** `KVM_MEM_LOG_DIRTY_PAGES`. Default: false. */
  logDirtyPages?: boolean
}

/** A slot of guest memory. */
export interface MemorySlot {
  readonly slot: number
  /** Guest physical address. */
  readonly address: bigint
  /** Bytes. */
  readonly size: number
  readonly readonly: boolean
}

/** `handle`: KVM answers the call. `deny`: it returns `NOT_SUPPORTED`. `forward`: the run ends with exit `hypercall`. */
export type FilterAction = keyof typeof smcccFilterActions
const filterActions = Object.keys(smcccFilterActions) as FilterAction[]

/** A range of `count` function ids from `base`, and what KVM does with the guest's calls to them. */
export interface FilteredCalls {
  /** 32 bits. */
  base: number
  /** 32 bits. */
  count: number
  action: FilterAction
}

/** Options of `Vm.createVcpu`. */
export interface VcpuOptions extends VcpuInit {
  /** Whether to initialise the vCPU, and finalize its SVE. Default: true. */
  init?: boolean
}

/** The part of a slot whose pages `Vm.clearDirtyLog` clears. */
export interface ClearedPages {
  /** The first page, a multiple of 64; bit 0 of the bitmap stands for it. Default: 0. */
  firstPage?: number
  /** How many pages, a multiple of 64 unless they are the slot's last. Default: all from `firstPage` on. */
  pages?: number
}

/** What a VM uses of its host. */
export interface VmHost {
  readonly system: SystemFd
  /** False if only the kernel enforces the order. */
  readonly enforceOrdering: boolean
  /** For each bitmap register of the host, the bits it may hold. */
  supportedBitmaps(): ReadonlyMap<bigint, bigint>
}

/**
 * A virtual machine, made by `Kvm.createVm`.
 *
 * @example
 * using vm = kvm.createVm()
 * using memory = kvm.createMemory(0x10000)
 * vm.mapMemory(0, { address: 0x8000_0000n, memory })
 * const vcpu = vm.createVcpu(0, { features: ['psci-0.2'] })
 */
export class Vm implements Disposable {
  /** `Documentation/virt/kvm/devices/vm.rst` */
  readonly attributes: Attributes
  /** The guest's memory by its physical addresses. */
  readonly memory: GuestAddressSpace
  /** Device accesses that end no run. */
  readonly mmio: Mmio
  /** The hypercall services the VM's guest can discover. */
  readonly services: Services
  /** As passed to `KVM_CREATE_VM`: bits 7:0 are the bits of guest physical address space, 0 for 40. */
  readonly type: bigint
  readonly #enabledCapabilities = new Set<Capability>()
  readonly #smcccFilter: FilteredCalls[] = []
  #counterOffset: bigint | null = null
  readonly #fd: VmFd
  readonly #firstRun = new FirstRun()
  readonly #host: VmHost
  readonly #vcpus = new Map<number, Vcpu>()
  /** Each maps the VM's ring of coalesced writes. */
  readonly #rings: VcpuFd[] = []
  readonly #devices = new Set<Device>()
  readonly #stats = new OpenStats()
  /** The guest's memory, by slot. */
  readonly #slots = new Map<number, MappedMemory>()
  #stub: GuestMemoryFd | null = null
  #closed = false

  /** `Kvm.createVm` makes the VMs. */
  constructor(fd: VmFd, type: bigint, host: VmHost) {
    this.#fd = fd
    this.type = type
    this.#host = host
    this.memory = new GuestAddressSpace(() => this.#slots.values())
    this.mmio = new Mmio(fd, (entries) => this.#takeCoalesced(entries))
    this.attributes = new Attributes(fd, { kind: 'vm', runRemedy: () => this.#runRemedy() })
    this.services = new Services({
      anyVcpu: () => this.#anyVcpu(),
      supportedBitmaps: () => this.#supportedBitmaps(),
    })
  }

  /** Whether any vCPU has run or is running, which froze what the first run freezes. */
  get started(): boolean {
    return this.#firstRun.started
  }

  /** The vCPUs in the order of their creation, including closed ones. */
  get vcpus(): readonly Vcpu[] {
    return [...this.#vcpus.values()]
  }

  /**
   * `KVM_CREATE_VCPU`, `KVM_ARM_VCPU_INIT` and, if `features` include `sve`, `KVM_ARM_VCPU_FINALIZE`. With `init: false` only the
   * first: the caller then calls `Vcpu.init` and `Vcpu.finalize`.
   * @param id the vCPU's index of 32 bits, from 0; MPIDR_EL1 is derived from it
   * @throws KvmError `EEXIST` for an id in use, `EINVAL` beyond `KVM_CAP_MAX_VCPUS`, `EBUSY` once the GIC is initialised,
   * `ERR_KVM_CLOSED`, and as `Vcpu.init`
   * @throws TypeError for another type or an unknown option; RangeError for an id wider than 32 bits or an unknown feature
   *
   * @example
   * const vcpu = vm.createVcpu(0, { features: ['psci-0.2', 'sve'] })
   */
  createVcpu(id: number, options: VcpuOptions = {}): Vcpu {
    checkUint32(id, 'id')
    checkOptions(options, 'options', ['init', 'features', 'target'])
    const { init = true, ...how } = options
    checkBoolean(init, 'init')
    // Creation uses up an id, so all checks come before it.
    checkVcpuInit(how)
    const outcome = this.#fd.createVcpu(id)
    const remedy = typeof outcome === 'number' ? createVcpuRemedies.get(-outcome) : undefined
    const fd = check(outcome, { syscall: 'KVM_CREATE_VCPU', vcpu: id, remedy })
    const vcpu = new Vcpu(fd, id, {
      firstRun: this.#firstRun,
      enforceOrdering: this.#host.enforceOrdering,
      preferredTarget: () => this.preferredTarget(),
      mapStub: () => this.#mapStub(),
      hasMemoryAt: (address) => this.#hasMemoryAt(address),
      debugLimits: () => ({
        breakpoints: this.checkExtension('KVM_CAP_GUEST_DEBUG_HW_BPS'),
        watchpoints: this.checkExtension('KVM_CAP_GUEST_DEBUG_HW_WPS'),
      }),
      deliverPosted: () => this.mmio.deliver(),
      setLine: (type, number, level, remedies) =>
        this.#setLine({ type, vcpu: id, number }, level, remedies, id),
    })
    try {
      if (init) {
        vcpu.init(how)
        if (vcpu.features.includes('sve')) vcpu.finalize()
      }
    } catch (error) {
      vcpu.close()
      throw error
    }
    this.#vcpus.set(id, vcpu)
    this.#rings.push(fd)
    return vcpu
  }

  /**
   * `KVM_ARM_PREFERRED_TARGET`: returns the target number for `Vcpu.init`.
   * @throws KvmError `ERR_KVM_CLOSED`
   */
  preferredTarget(): number {
    const init = new Uint32Array(8)
    check(this.#fd.getPreferredTarget(init), { syscall: 'KVM_ARM_PREFERRED_TARGET' })
    return init[0]!
  }

  /**
   * `KVM_CHECK_EXTENSION` on the VM: returns 0 if the capability is absent, else a positive number, 1 or a quantity.
   * @param capability its name, or its 32-bit number if this library has no name for it
   * @throws RangeError for an unknown name; TypeError for another type
   * @throws KvmError `ERR_KVM_CLOSED`
   */
  checkExtension(capability: Capability | number): number {
    const number = numberOf(capability, 'capability', capabilities)
    return check(this.#fd.checkExtension(number), { syscall: 'KVM_CHECK_EXTENSION' })
  }

  /**
   * `KVM_ENABLE_CAP`
   * @param capability its name, or its 32-bit number if this library has no name for it
   * @param args up to four 64-bit numbers
   * @throws KvmError `EINVAL` for a capability that this kernel lacks or that is enabled too late, `ERR_KVM_CLOSED`
   * @throws TypeError for another type; RangeError for an unknown name, a wider number or a fifth argument
   *
   * @example
   * vm.enableCapability('KVM_CAP_ARM_NISV_TO_USER')
   */
  enableCapability(capability: Capability | number, ...args: bigint[]): void {
    const number = numberOf(capability, 'capability', capabilities)
    if (args.length > 4) throw outOfRange('args', 'at most 4 numbers', args.length)
    for (const [index, argument] of args.entries()) checkUint64(argument, `args[${index}]`)
    const outcome = this.#fd.enableCap(number, 0, args)
    if (outcome < 0) {
      const remedy =
        outcome === -errnos.EBADF
          ? undefined
          : `This kernel does not know ${capability}, or it must be enabled before the first vCPU is created`
      throw kvmError(outcome, { syscall: 'KVM_ENABLE_CAP', remedy })
    }
    const name = Object.entries(capabilities).find(([, known]) => known === number)?.[0]
    if (name !== undefined) this.#enabledCapabilities.add(name as Capability)
  }

  /** The capabilities enabled with `enableCapability`; KVM has no call that reports them. */
  get enabledCapabilities(): readonly Capability[] {
    return [...this.#enabledCapabilities]
  }

  /**
   * `KVM_ARM_VM_SMCCC_FILTER`: decides for a range of function ids how KVM treats the guest's calls, before it consults the service
   * bitmaps. A decision cannot be changed.
   * @throws KvmError `EEXIST` for an id that was decided before and for the Arm architecture calls, `EBUSY` once the VM has
   * started, `ENXIO` or `EINVAL` if the kernel has no filter, `EINVAL` for a count of 0 and for a range beyond 32 bits,
   * `ERR_KVM_CLOSED`
   * @throws TypeError for another type or an unknown key; RangeError for another action, and for a `base` or `count` wider than 32 bits
   *
   * @example
   * vm.filterCalls({ base: 0x8400_0000, count: 0x20, action: 'deny' })
   */
  filterCalls(calls: FilteredCalls): void {
    checkOptions(calls, 'calls', ['base', 'count', 'action'])
    const { base, count, action } = calls
    checkUint32(base, 'base')
    checkUint32(count, 'count')
    checkChoice(action, 'action', filterActions)
    if (this.#host.enforceOrdering && !this.#closed && this.#firstRun.started) {
      throw new KvmError('EBUSY', undefined, 'the VM has started, which froze its SMCCC filter', {
        syscall: 'KVM_SET_DEVICE_ATTR',
        remedy:
          `Asked to ${action} ${count} functions from ${hex(base)}. Filter calls on a new VM before the first run of any vCPU` +
          ` (or open KVM with { ordering: 'kernel' } to let the kernel answer)`,
      })
    }
    const outcome = this.#fd.setDeviceAttr(
      KVM_ARM_VM_SMCCC_CTRL,
      KVM_ARM_VM_SMCCC_FILTER,
      packSmcccFilter({ base, nr: count, action: smcccFilterActions[action] }),
    )
    if (outcome < 0) {
      const why =
        outcome === -errnos.EBUSY
          ? 'the first run of any vCPU froze the filter'
          : 'Linux has the filter from 6.4 on'
      const remedy =
        outcome === -errnos.EBADF
          ? undefined
          : `Asked to ${action} ${count} functions from ${hex(base)}; ${why}`
      throw kvmError(outcome, { syscall: 'KVM_SET_DEVICE_ATTR', remedy })
    }
    this.#smcccFilter.push({ base, count, action })
  }

  /** The decisions made with `filterCalls` or as an attribute of the VM; KVM has no call that reports them. */
  get smcccFilter(): readonly FilteredCalls[] {
    const asAttributes = this.attributes.written.flatMap(({ group, attribute, data }) => {
      if (group !== KVM_ARM_VM_SMCCC_CTRL || attribute !== KVM_ARM_VM_SMCCC_FILTER || data === null) return []
      const { base, nr: count, action } = unpackSmcccFilter(data)!
      return [{ base, count, action: filterActions.find((name) => smcccFilterActions[name] === action)! }]
    })
    return [...this.#smcccFilter, ...asAttributes]
  }

  /**
   * `KVM_ARM_GET_REG_WRITABLE_MASKS`: returns the bits that userspace may change, for each feature ID register that has any.
   * @throws KvmError `EINVAL` before Linux 6.7: check `KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES`; `ERR_KVM_CLOSED`
   */
  writableMasks(): Map<bigint, bigint> {
    const masks = new BigUint64Array(KVM_ARM_FEATURE_ID_RANGE_SIZE)
    check(this.#fd.getRegWritableMasks(0, masks), { syscall: 'KVM_ARM_GET_REG_WRITABLE_MASKS' })
    const result = new Map<bigint, bigint>()
    for (const [index, mask] of masks.entries()) {
      if (mask !== 0n) result.set(featureIdAt(index), mask)
    }
    return result
  }

  /**
   * `KVM_SET_USER_MEMORY_REGION`: makes memory visible to the guest. The VM keeps the memory until the slot is deleted or the VM is
   * closed.
   * @param slot below `KVM_CAP_NR_MEMSLOTS`; `hypercall` uses slot 500
   * @throws KvmError `EEXIST` if it overlaps another slot, `EINVAL` if an address, offset or size is not a multiple of the page
   * size, `EFAULT` beyond the guest's address space, `ERR_KVM_CLOSED` once the VM or the memory is closed
   * @throws TypeError for another type or an unknown key; RangeError for a number that is too wide and for bytes beyond the memory
   *
   * @example
   * using memory = kvm.createMemory(0x20_0000)
   * vm.mapMemory(0, { address: 0x4000_0000n, memory })
   */
  mapMemory(slot: number, mapping: MemoryMapping): void {
    checkUint32(slot, 'slot')
    const keys = ['address', 'memory', 'offset', 'size', 'readonly', 'logDirtyPages']
    checkOptions(mapping, 'mapping', keys)
    const { address, memory, offset = 0, readonly = false, logDirtyPages = false } = mapping
    checkUint64(address, 'address')
    if (!(memory instanceof GuestMemory)) throw invalidType('memory', 'made by createMemory()', memory)
    checkSize(offset, 'offset')
    if (offset > memory.size) throw outOfRange('offset', `at most ${memory.size}, the memory's size`, offset)
    const { size = memory.size - offset } = mapping
    checkSize(size, 'size')
    if (size === 0 || size > memory.size - offset) {
      throw outOfRange('size', `from 1 to the ${memory.size - offset} bytes the memory has from offset`, size)
    }
    checkBoolean(readonly, 'readonly')
    checkBoolean(logDirtyPages, 'logDirtyPages')
    const flags = (readonly ? KVM_MEM_READONLY : 0) | (logDirtyPages ? KVM_MEM_LOG_DIRTY_PAGES : 0)
    const outcome = this.#fd.setUserMemoryRegion({ slot, flags, address, memory: memory.fd, offset, size })
    if (outcome < 0) {
      const remedy =
        outcome !== -errnos.EBADF
          ? `Asked for ${size} bytes at guest address ${hex(address)} in slot ${slot}`
          : `It is the ${this.#closed ? 'VM' : 'memory'}`
      throw kvmError(outcome, { syscall: 'KVM_SET_USER_MEMORY_REGION', remedy })
    }
    this.#slots.set(slot, { address, memory, offset, size, readonly })
  }

  /** The memory that `mapMemory` mapped, without the stub guest's of `Vcpu.hypercall`. KVM has no call that reports it. */
  get memorySlots(): readonly MemorySlot[] {
    return [...this.#slots]
      .filter(([slot]) => slot !== STUB_SLOT || this.#stub === null)
      .map(([slot, { address, size, readonly }]) => ({ slot, address, size, readonly }))
  }

  /**
   * `KVM_SET_USER_MEMORY_REGION` of size 0: removes a slot's memory from the guest.
   * @throws KvmError `EINVAL` for a slot that is empty, or that is not below `KVM_CAP_NR_MEMSLOTS`; `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for anything but a 32-bit number
   */
  unmapMemory(slot: number): void {
    checkUint32(slot, 'slot')
    check(this.#fd.setUserMemoryRegion({ slot, flags: 0, address: 0n, memory: null, offset: 0, size: 0 }), {
      syscall: 'KVM_SET_USER_MEMORY_REGION',
    })
    this.#slots.delete(slot)
  }

  /**
   * `KVM_GET_DIRTY_LOG`: returns a bit for each page of a slot that the guest, or KVM for it, wrote since the last call; bit 0 of the
   * first word is the slot's first page. Writes by this process are not logged. The call also clears the log, unless
   * `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2` is enabled: then `clearDirtyLog` does, so that a page is protected again only once it is
   * about to be copied. Legal while vCPUs run.
   * @param slot of memory mapped with `logDirtyPages`; map it again with the option to begin, and without it to end
   * @throws KvmError `ENOENT` for a slot that is empty or keeps no log, `EINVAL` for a slot not below `KVM_CAP_NR_MEMSLOTS`, `ENXIO`
   * with a dirty ring and no bitmap, `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for anything but a 32-bit number
   *
   * @example
   * vm.mapMemory(0, { address: 0x4000_0000n, memory, logDirtyPages: true })
   * const bitmap = vm.getDirtyLog(0)
   */
  getDirtyLog(slot: number): BigUint64Array {
    checkUint32(slot, 'slot')
    const bitmap = new BigUint64Array(Math.ceil(this.#pagesOf(slot) / 64))
    const outcome = this.#fd.getDirtyLog(slot, bitmap)
    check(outcome, { syscall: 'KVM_GET_DIRTY_LOG', remedy: dirtyLogRemedy(outcome, slot) })
    return bitmap
  }

  /**
   * `KVM_CLEAR_DIRTY_LOG`: clears the pages of a slot's log whose bits are set, and logs their next write again. Legal while vCPUs
   * run, and with or without `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`.
   * @throws KvmError `ENOENT` for a slot that is empty or keeps no log; `EINVAL` for pages beyond the slot, and for a first page or
   * count that is no multiple of 64; `ENXIO` with a dirty ring and no bitmap, `ERR_KVM_CLOSED`
   * @throws TypeError for another type or an unknown key; RangeError for a number that is too wide, and for a bitmap with fewer bits
   * than pages
   *
   * @example
   * vm.enableCapability('KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2', 1n)
   * vm.clearDirtyLog(0, vm.getDirtyLog(0))
   */
  clearDirtyLog(slot: number, bitmap: BigUint64Array, part: ClearedPages = {}): void {
    checkUint32(slot, 'slot')
    checkOptions(part, 'part', ['firstPage', 'pages'])
    const { firstPage = 0 } = part
    checkSize(firstPage, 'firstPage')
    const { pages = Math.max(0, this.#pagesOf(slot) - firstPage) } = part
    checkUint32(pages, 'pages')
    checkArray(bitmap, BigUint64Array, Math.ceil(pages / 64), 'bitmap')
    const outcome = this.#fd.clearDirtyLog(slot, firstPage, pages, bitmap)
    check(outcome, { syscall: 'KVM_CLEAR_DIRTY_LOG', remedy: dirtyLogRemedy(outcome, slot) })
  }

  /**
   * `KVM_CAP_DIRTY_LOG_RING_ACQ_REL`: gives each vCPU a ring of the pages that its guest writes in slots mapped with `logDirtyPages`,
   * beside or in place of a bitmap for each slot. `vcpu.takeDirtyPages` takes them, `resetDirtyRings` frees their entries. Call it
   * before the first vCPU is created. When all but 64 entries of a vCPU's ring are in use, its run ends with exit `dirty-ring-full`.
   * @param entries of each ring, of 16 bytes: a power of 2, at least 64 and a page of the host, at most a 16th of
   * `KVM_CAP_DIRTY_LOG_RING_ACQ_REL`
   * @param options.bitmap also keeps the bitmaps (`KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP`), for what KVM writes while no vCPU runs, such as
   * the tables of a GIC; call it before memory is mapped then. Without them `getDirtyLog` and `clearDirtyLog` are `ENXIO`. Default: false
   * @throws KvmError `EINVAL` before Linux 6.4, for another number, once there is a vCPU or a ring, and with `bitmap` once memory is
   * mapped; `E2BIG` beyond the host's most; `ERR_KVM_CLOSED` (`virt/kvm/kvm_main.c:kvm_vm_ioctl_enable_dirty_log_ring`). Where only the
   * bitmaps are refused, the ring stays
   * @throws TypeError for another type or an unknown option; RangeError for more than 0x0fff_ffff entries
   *
   * @example
   * vm.enableDirtyRing(4096, { bitmap: true })
   */
  enableDirtyRing(entries: number, options: { bitmap?: boolean } = {}): void {
    checkUint32(entries, 'entries')
    if (entries > MOST_ENTRIES) throw outOfRange('entries', `at most ${MOST_ENTRIES}`, entries)
    checkOptions(options, 'options', ['bitmap'])
    const { bitmap = false } = options
    checkBoolean(bitmap, 'bitmap')
    const enable = (capability: Capability, argument: bigint, remedy: string): void => {
      const outcome = this.#fd.enableCap(capabilities[capability], 0, [argument])
      check(outcome, { syscall: 'KVM_ENABLE_CAP', remedy: outcome === -errnos.EBADF ? undefined : remedy })
    }
    const size = BigInt(entries * DIRTY_GFN_SIZE)
    const limits = `Asked for ${entries} entries of ${DIRTY_GFN_SIZE} bytes: expected a power of 2, at least a page and at most KVM_CAP_DIRTY_LOG_RING_ACQ_REL bytes, once, before the first vCPU`
    enable('KVM_CAP_DIRTY_LOG_RING_ACQ_REL', size, limits)
    if (bitmap) {
      enable('KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP', 0n, 'Enable the bitmaps before any memory is mapped')
    }
  }

  /**
   * `KVM_ARM_MTE_COPY_TAGS`: returns the tags of guest memory, one for each 16 bytes; fewer where the memory ends.
   * @param address guest physical address, a multiple of the page size
   * @param length bytes of memory, a multiple of the page size, less than 2 GiB
   * @throws KvmError `EINVAL` for a VM without tags (enable `KVM_CAP_ARM_MTE` before the first vCPU) and for another address or length;
   * `EFAULT` without memory there, `ERR_KVM_CLOSED`
   * @throws TypeError for another type; RangeError for a number that is too wide
   *
   * @example
   * vm.enableCapability('KVM_CAP_ARM_MTE')
   * const tags = vm.readTags(0x4000_0000n, 0x1000)
   */
  readTags(address: bigint, length: number): Uint8Array {
    checkSize(length, 'length')
    if (length >= MOST_TAGGED) throw outOfRange('length', 'less than 2 GiB', length)
    const tags = new Uint8Array(Math.floor(length / MTE_GRANULE))
    return tags.subarray(0, this.#copyTags(address, length, tags, KVM_ARM_TAGS_FROM_GUEST) / MTE_GRANULE)
  }

  /**
   * `KVM_ARM_MTE_COPY_TAGS`: gives guest memory its tags. Returns for how many bytes of memory: fewer than for all `tags` where it ends.
   * @param address guest physical address, a multiple of the page size
   * @param tags one for each 16 bytes of memory, 0 to 15: KVM ignores higher bits; a whole number of pages, less than 2 GiB of memory
   * @throws KvmError as `readTags`; `EBUSY` while any slot keeps a dirty log (seen on Linux 6.12 to 7.2, and not on 6.1)
   * @throws TypeError for another type; RangeError for a number that is too wide, and for too many tags
   *
   * @example
   * vm.writeTags(0x4000_0000n, new Uint8Array(256).fill(5))
   */
  writeTags(address: bigint, tags: Uint8Array): number {
    checkArray(tags, Uint8Array, 0, 'tags')
    const length = tags.length * MTE_GRANULE
    if (length >= MOST_TAGGED) throw outOfRange('tags', 'for less than 2 GiB of memory', tags.length)
    return this.#copyTags(address, length, tags, KVM_ARM_TAGS_TO_GUEST)
  }

  #copyTags(address: bigint, length: number, tags: Uint8Array, flags: number): number {
    checkUint64(address, 'address')
    const outcome = this.#fd.copyMteTags(address, length, tags, flags)
    return check(outcome, { syscall: 'KVM_ARM_MTE_COPY_TAGS', remedy: tagRemedies[outcome] })
  }

  /**
   * `KVM_RESET_DIRTY_RINGS`: frees the entries that `Vcpu.takeDirtyPages` took, and protects their pages, so that the next write to each
   * is logged again: copy the pages after this call. Legal while vCPUs run. Returns how many entries it freed.
   * @throws KvmError `EINVAL` without a dirty ring, `ERR_KVM_CLOSED` (`virt/kvm/kvm_main.c:kvm_vm_ioctl_reset_dirty_pages`)
   *
   * @example
   * const pages = vm.vcpus.flatMap((vcpu) => vcpu.takeDirtyPages())
   * vm.resetDirtyRings()
   */
  resetDirtyRings(): number {
    const outcome = this.#fd.resetDirtyRings()
    const remedy = outcome === -errnos.EINVAL ? NO_RING : undefined
    return check(outcome, { syscall: 'KVM_RESET_DIRTY_RINGS', remedy })
  }

  #pagesOf(slot: number): number {
    const known = this.#slots.get(slot)
    return known === undefined ? 0 : known.size / known.memory.pageSize
  }

  /**
   * `KVM_CREATE_DEVICE`
   * @param type its name, or its 32-bit number if this library has no name for it
   * @throws KvmError `ENODEV` for a type this host does not have, `EEXIST` for a second GIC, `EBUSY` for a GIC after the first run,
   * `ERR_KVM_CLOSED`
   * @throws SimulatorError `ERR_KVM_SIMULATOR_NO_DEVICE` on a simulated host, for any type but `KVM_DEV_TYPE_ARM_VGIC_V3`
   * @throws RangeError for an unknown name or a wider number; TypeError for another type
   *
   * @example
   * const gic = vm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3')
   */
  createDevice(type: DeviceType | number): Device {
    const number = numberOf(type, 'type', deviceTypes)
    const outcome = this.#fd.createDevice(number, 0)
    const remedy =
      outcome === -errnos.EBUSY
        ? (this.#runRemedy() ?? 'Create the device before the first run of any vCPU')
        : outcome === -errnos.ENODEV
          ? `This host cannot create ${type}`
          : undefined
    const fd = check(outcome, { syscall: 'KVM_CREATE_DEVICE', remedy })
    const device = new Device(fd, number, () => this.#runRemedy())
    this.#devices.add(device)
    return device
  }

  /**
   * `KVM_ARM_SET_COUNTER_OFFSET`: makes the guest's virtual and physical counters run `offset` ticks behind the host's. From then on
   * KVM ignores writes to `KVM_REG_ARM_TIMER_CNT` and `KVM_REG_ARM_PTIMER_CNT`, without an error. To move a guest to another host,
   * choose the offset so that its counter continues: KVM cannot scale it, so both hosts must count at the same frequency.
   * @param offset 64 bits, in ticks of the host's counter
   * @throws KvmError `EINVAL` before Linux 6.4 (check `KVM_CAP_COUNTER_OFFSET`), `EBUSY` while a vCPU runs, `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for anything but a 64-bit number
   *
   * @example
   * vm.setCounterOffset(0x1234_5678n)
   */
  setCounterOffset(offset: bigint): void {
    checkUint64(offset, 'offset')
    const outcome = this.#fd.setCounterOffset(offset, 0n)
    const remedy =
      outcome === -errnos.EBUSY
        ? (this.#runRemedy() ?? 'A vCPU of the VM runs: kick() it and await its run first')
        : outcome === -errnos.EINVAL
          ? 'Linux has it from 6.4 on (KVM_CAP_COUNTER_OFFSET); before, write KVM_REG_ARM_TIMER_CNT'
          : undefined
    check(outcome, { syscall: 'KVM_ARM_SET_COUNTER_OFFSET', value: offset, remedy })
    this.#counterOffset = offset
  }

  /** What `setCounterOffset` set last; null if it was not called. KVM has no call that reports it. */
  get counterOffset(): bigint | null {
    return this.#counterOffset
  }

  /** The devices that `createDevice` and `createGic` made, in that order. */
  get devices(): readonly Device[] {
    return [...this.#devices]
  }

  /**
   * Makes an interrupt controller and sets it up: `KVM_CREATE_DEVICE`, its addresses and number of interrupts, and its translation
   * services; then initialises it. Create all vCPUs before, or call with `init: false` and {@link Gic.init} later, before the first
   * run.
   * @throws KvmError `ENODEV` for a version that this host cannot make; `EEXIST` for a second GIC and for overlapping addresses;
   * `EINVAL` for an address that is not aligned, too few or too many interrupts, or regions that do not follow each other; `E2BIG`
   * beyond the guest's address space; `EBUSY` after the first run; `ERR_KVM_CLOSED`. What failed after the GIC was made leaves it in
   * the VM: start again with a new one
   * @throws SimulatorError `ERR_KVM_SIMULATOR_NO_DEVICE` on a simulated host, for version 2 and for translation services
   * @throws TypeError for another type or an unknown option; RangeError for a number that is too wide, and for another version
   *
   * @example
   * vm.createVcpu(0)
   * const gic = vm.createGic({ version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n, irqs: 64 })
   */
  createGic(options: GicOptions): Gic {
    checkGicOptions(options)
    const device = this.createDevice(
      options.version === 3 ? 'KVM_DEV_TYPE_ARM_VGIC_V3' : 'KVM_DEV_TYPE_ARM_VGIC_V2',
    )
    const addresses = options.version === 3 ? (options.its ?? []) : []
    const its = addresses.map(() => this.createDevice('KVM_DEV_TYPE_ARM_VGIC_ITS'))
    return configureGic(options, device, its)
  }

  /**
   * `KVM_IRQ_LINE`: sets the level of a shared interrupt (SPI) of the GIC, as a device's wire does. Legal at any time, also while
   * vCPUs run. The GIC decides when a vCPU takes it: the guest must have enabled it there. An edge-triggered interrupt becomes
   * pending each time its level rises, so lower it again. Private interrupts (PPIs): {@link Vcpu.setIrq}.
   * @param intid the GIC's number of the interrupt, 32 to 1019; a device tree counts SPIs from 0, so its SPI 1 is 33 here
   * @throws KvmError `ENXIO` for a VM without a GIC, `EBUSY` for a GICv3 that is not initialised, `EINVAL` for a number beyond those
   * of the GIC, `ERR_KVM_CLOSED`
   * @throws TypeError for another type; RangeError for a number outside 32 to 1019
   *
   * @example
   * vm.setIrq(33, true)
   * vm.setIrq(33, false)
   */
  setIrq(intid: number, level: boolean): void {
    checkUint32(intid, 'intid')
    if (intid < FIRST_SPI || intid > LAST_SPI) {
      const why = 'from 32 to 1019, the numbers of shared interrupts; vcpu.setIrq() sets private ones'
      throw outOfRange('intid', why, intid)
    }
    checkBoolean(level, 'level')
    this.#setLine({ type: irqTypes.spi, vcpu: 0, number: intid }, level, {
      [-errnos.ENXIO]: NO_GIC,
      [-errnos.EBUSY]: GIC_NOT_READY,
      [-errnos.EINVAL]: `The GIC has no interrupt ${intid}: set more of them (KVM_DEV_ARM_VGIC_GRP_NR_IRQS) before its initialisation`,
    })
  }

  /**
   * `KVM_SIGNAL_MSI`: raises a message-signalled interrupt, as a device's write to the translation service (ITS) does. Legal at any
   * time, also while vCPUs run. Returns whether KVM delivered it: false if the guest has not mapped the event.
   * @throws KvmError `EINVAL` without a GIC, for an address that is no ITS's, and for a message without `deviceId`; `ENODEV` for a
   * VM without an ITS; `EBUSY` for an ITS that the guest has not enabled (seen on Linux 6.12); `ERR_KVM_CLOSED` (`arch/arm64/kvm/vgic/vgic-irqfd.c:kvm_set_msi`)
   * @throws TypeError for another type or an unknown key; RangeError for a number that is too wide
   *
   * @example
   * vm.signalMsi({ address: 0x808_0000n + 0x1_0040n, data: 3, deviceId: 8 })
   */
  signalMsi(message: Message): boolean {
    checkOptions(message, 'message', ['address', 'data', 'deviceId'])
    const { address, data, deviceId } = message
    checkMessage(message, 'message')
    const flags = deviceId === undefined ? 0 : KVM_MSI_VALID_DEVID
    const outcome = this.#fd.signalMsi(address, data, flags, deviceId ?? 0)
    const remedy =
      outcome === -errnos.ENODEV
        ? 'The VM has no translation service: createGic with its: [address]'
        : outcome === -errnos.EINVAL
          ? `It needs a GIC, the address of an ITS's GITS_TRANSLATER (64 KiB + 0x40 behind the ITS) and a deviceId; asked for ${hex(address)}`
          : undefined
    return check(outcome, { syscall: 'KVM_SIGNAL_MSI', remedy }) > 0
  }

  /**
   * `KVM_SET_GSI_ROUTING`: replaces all routes from numbers of interrupts (GSIs), which `KVM_IRQFD` takes, to pins of the GIC or to
   * messages. Without it a GIC has the routes that its initialisation makes: GSI n is shared interrupt 32 + n. It does not apply to
   * `setIrq`. Legal at any time.
   * @param routes at most 4096, one for each GSI
   * @throws KvmError `EINVAL` for a GSI of 4096 or more, a second route of a GSI, a pin of 988 or more, and too many routes;
   * `ERR_KVM_CLOSED` (`virt/kvm/irqchip.c:kvm_set_irq_routing`)
   * @throws TypeError for another type or an unknown key; RangeError for a number that is too wide
   *
   * @example
   * vm.setGsiRouting([{ gsi: 0, pin: 1 }, { gsi: 1, address: 0x809_0040n, data: 3, deviceId: 8 }])
   */
  setGsiRouting(routes: readonly (PinRoute | MessageRoute)[]): void {
    if (!Array.isArray(routes)) throw invalidType('routes', 'an array', routes)
    const outcome = this.#fd.setGsiRouting(0, packGsiRoutes(routes.map(toGsiRoute)))
    const remedy =
      outcome === -errnos.EINVAL
        ? 'At most 4096 routes, one for each GSI below 4096, to pins below 988 or to messages'
        : undefined
    check(outcome, { syscall: 'KVM_SET_GSI_ROUTING', remedy })
  }

  /**
   * `KVM_IRQFD`: raises an interrupt whenever `event` is signalled, by this process or, with another doorbell, by KVM. The GIC must
   * be initialised. Legal while vCPUs run. From Linux 5.11 on KVM takes the event's count then: `take()` and `wait()` do not see it.
   * @param gsi number of the interrupt as `setGsiRouting` routes it, 32 bits; without routes of your own GSI n is shared interrupt 32 + n
   * @param options.resampled for an interrupt that stays raised until the guest acknowledges it; then this event is signalled
   * @throws KvmError `EAGAIN` without an initialised GIC, `EBUSY` for an event that raises an interrupt already, `ERR_KVM_CLOSED` for a
   * closed VM or event (`virt/kvm/eventfd.c:kvm_irqfd_assign`)
   * @throws TypeError for another type or an unknown key; RangeError for a number that is too wide
   *
   * @example
   * using event = kvm.createEvent()
   * using connection = vm.connectIrq(1, event)
   * event.signal() // raises shared interrupt 33
   */
  connectIrq(gsi: number, event: HostEvent, options: { resampled?: HostEvent } = {}): Connection {
    checkUint32(gsi, 'gsi')
    if (!(event instanceof HostEvent)) throw invalidType('event', 'made by createEvent()', event)
    checkOptions(options, 'options', ['resampled'])
    const { resampled } = options
    if (resampled !== undefined && !(resampled instanceof HostEvent)) {
      throw invalidType('resampled', 'made by createEvent()', resampled)
    }
    const flags = resampled === undefined ? 0 : KVM_IRQFD_FLAG_RESAMPLE
    const outcome = this.#fd.irqFd(event.fd, gsi, flags, resampled?.fd ?? null)
    const remedy =
      outcome === -errnos.EAGAIN
        ? 'Make a GIC and initialise it first (createGic)'
        : outcome === -errnos.EBUSY
          ? 'The event raises another interrupt: close that connection, or take another event'
          : undefined
    check(outcome, { syscall: 'KVM_IRQFD', remedy })
    return new Connection(() => {
      this.#fd.irqFd(event.fd, gsi, KVM_IRQFD_FLAG_DEASSIGN, null)
    })
  }

  /**
   * `KVM_GET_STATS_FD`: opens what KVM counts of this VM, such as `remote_tlb_flush`. Legal at any time; `Vcpu.openStats` opens what it
   * counts of a vCPU.
   * @throws KvmError `EINVAL` before Linux 5.14 (check `KVM_CAP_BINARY_STATS_FD`), `EMFILE` if the process has too many files open,
   * `EIO` on a VM that died, `ERR_KVM_CLOSED`
   *
   * @example
   * using stats = vm.openStats()
   * for (const [name, numbers] of stats.read()) console.log(name, ...numbers)
   */
  openStats(): Stats {
    const outcome = this.#fd.getStatsFd()
    const remedy = outcome === -errnos.EINVAL ? NO_STATS : undefined
    return this.#stats.add(check(outcome, { syscall: 'KVM_GET_STATS_FD', remedy }))
  }

  #setLine(irq: Irq, level: boolean, remedies: Readonly<Record<number, string>>, vcpu?: number): void {
    const outcome = this.#fd.irqLine(packIrq(irq), Number(level))
    if (outcome === 0) return
    throw kvmError(outcome, { syscall: 'KVM_IRQ_LINE', vcpu, remedy: remedies[outcome] })
  }

  /**
   * Closes the VM with its vCPUs, devices and statistics, each of which would keep it alive in the kernel. A run in flight ends with exit
   * `interrupted`. Every later call throws `ERR_KVM_CLOSED`, except that `close()` may be repeated.
   */
  close(): void {
    this.#closed = true
    for (const vcpu of this.#vcpus.values()) vcpu.close()
    for (const device of this.#devices) device.close()
    this.#stats.close()
    this.#stub?.close()
    this.#fd.close()
  }

  #takeCoalesced(entries: BigUint64Array): number {
    for (const fd of this.#rings) {
      const taken = fd.takeCoalesced(entries)
      if (taken !== -errnos.EBADF) return taken
    }
    return -errnos.EBADF
  }

  #anyVcpu(): Vcpu | undefined {
    this.#refuseClosed('KVM_GET_ONE_REG')
    return this.vcpus.find(({ idle }) => idle) ?? this.vcpus[0]
  }

  #supportedBitmaps(): ReadonlyMap<bigint, bigint> {
    this.#refuseClosed('KVM_GET_ONE_REG')
    return this.#host.supportedBitmaps()
  }

  #refuseClosed(syscall: string): void {
    if (this.#closed) throw kvmError(-errnos.EBADF, { syscall })
  }

  /** The remedy for `EBUSY` that names the running vCPUs; undefined if none runs. */
  #runRemedy(): string | undefined {
    const running = this.vcpus
      .filter(({ idle, runPage }) => !idle && runPage.byteLength > 0)
      .map(({ id }) => id)
    if (running.length === 0) return undefined
    return `vCPU ${running.join(', ')} of this VM runs: kick() each and await its run first`
  }

  #hasMemoryAt(address: bigint): boolean {
    return [...this.#slots.values()].some(
      (slot) => address >= slot.address && address < slot.address + BigInt(slot.size),
    )
  }

  /** Maps the stub guest's memory on the first call that needs it. */
  #mapStub(): void {
    if (this.#stub !== null) return
    this.#refuseClosed('KVM_SET_USER_MEMORY_REGION')
    const stub = mapStub(this.#host.system, this.#fd)
    if (stub === -errnos.EBADF) {
      const remedy =
        'The Kvm that made this VM is closed, and the first call needs memory from it: close it after the VM'
      throw kvmError(stub, { syscall: 'memfd_create', remedy })
    }
    const remedy = `The guest's call needs slot ${STUB_SLOT} and 64 KiB at guest address ${hex(STUB_ADDRESS)}, and none at the page behind them`
    this.#stub = check(stub, { syscall: 'KVM_SET_USER_MEMORY_REGION', remedy })
    const memory = new GuestMemory(this.#stub)
    this.#slots.set(STUB_SLOT, {
      address: STUB_ADDRESS,
      memory,
      offset: 0,
      size: STUB_SIZE,
      readonly: false,
    })
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

function dirtyLogRemedy(outcome: number, slot: number): string | undefined {
  switch (outcome) {
    case -errnos.ENOENT:
      return `Slot ${slot} keeps no log: map its memory with logDirtyPages`
    case -errnos.ENXIO:
      return 'The VM has a dirty ring and no bitmaps: enable both (enableDirtyRing with bitmap: true), or take pages from the vCPUs'
    case -errnos.EINVAL:
      return `Slot ${slot} must be below KVM_CAP_NR_MEMSLOTS; clear multiples of 64 pages from a multiple of 64, or to the slot's end`
    default:
      return undefined
  }
}

const MOST_TAGGED = 2 ** 31
const tagRemedies: Readonly<Record<number, string>> = {
  [-errnos.EINVAL]:
    'The VM needs KVM_CAP_ARM_MTE, enabled before its first vCPU, and address and length must be multiples of the page size',
  [-errnos.EFAULT]: 'The guest has no memory at this address: map it first',
  [-errnos.EBUSY]: 'A slot keeps a dirty log: write the tags before it begins',
}

/** Whose bytes fit the 32 bits at which KVM looks. */
const MOST_ENTRIES = 0x0fff_ffff
const FIRST_SPI = 32
const LAST_SPI = 1019

const createVcpuRemedies = new Map<number, string>([
  [
    errnos.EEXIST,
    'KVM keeps a vCPU with its VM, also one that was closed or whose init failed: take another id, or a new VM',
  ],
  [
    errnos.EBUSY,
    'The GIC is initialised, and takes no further vCPU: create all vCPUs before KVM_DEV_ARM_VGIC_CTRL_INIT',
  ],
  [errnos.EINVAL, "KVM_CAP_MAX_VCPUS is the host's limit, of ids too"],
])
