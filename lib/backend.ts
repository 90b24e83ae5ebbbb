/**
 * KVM's ioctl surface: the interface between the rest of the library and the host, which is either `/dev/kvm` through the addon or
 * the simulator. One interface per file descriptor, one method per ioctl.
 *
 * Outcomes are the kernel's own. A method that returns `number` returns the ioctl's result: 0 or a positive number, or `-errno`. A
 * method that returns `T | number` returns `T`, or `-errno` as a number. A refusal by the kernel never throws; a `TypeError` or
 * `RangeError` means an argument that cannot be passed to the kernel at all (wrong type, a register value wider than the register,
 * an id of no possible width).
 *
 * Every method returns `-EBADF` after `close()`. `close()` may be called twice.
 *
 * While a `run()` of a vCPU is in flight, all its methods except `kick()` and `close()` return `-EBUSY`: KVM would block the caller
 * until the run ends, and the caller is the only thread that could end it.
 */
export interface Backend {
  readonly name: 'kernel' | 'simulator'
  /** `uname -r` and `uname -v` of the host, or of the recorded host. For readers, never for a decision. */
  readonly host: { readonly release: string; readonly build: string }
  /** What a simulator simulates: the name of a built-in host, or the release its report names. Absent for `kernel`. */
  readonly simulates?: string
  /** The CPUs of the machine; absent if nothing is known of them. Not ioctls: KVM shows a VM only the CPU it runs on. */
  readonly cpus?: Cpus
  /** Bytes of a page of the simulated host's kernel. Absent for `kernel`, and if not known. */
  readonly pageSize?: number
  /** Opens `/dev/kvm`; returns `-errno` of `open(2)` on failure. */
  open(): SystemFd | number
}

/** CPUs of one kind. */
export interface CpuKind {
  /** Their numbers, as Linux writes them: `0-3,8`. */
  readonly cpus: string
  /** MIDR_EL1 */
  readonly midr: string
  /** REVIDR_EL1 */
  readonly revidr: string
  /** The caches of one of them, as far as firmware or the CPU describe them. */
  readonly caches: CpuCache[]
}

export interface CpuCache {
  /** 1 to 7. */
  readonly level: number
  readonly type: 'data' | 'instruction' | 'unified'
  /** Bytes. */
  readonly size?: number | undefined
  /** Bytes of a line. */
  readonly line?: number | undefined
  readonly ways?: number | undefined
  readonly sets?: number | undefined
}

/** The CPUs of the machine. */
export interface Cpus {
  /** The online CPUs by kind, in the order of the lowest number of each. Undefined if the system does not show them. */
  kinds(): CpuKind[] | undefined
  /**
   * Keeps the calling thread on the lowest of the CPUs it may run on, until `release` is called. Returns `-errno` if that fails. A
   * simulator returns the CPU on which its host was probed.
   */
  pin(): PinnedCpu | number
}

export interface PinnedCpu {
  readonly cpu: number
  release(): void
}

/** `/dev/kvm`. */
export interface SystemFd {
  /** See `VcpuFd.observed`. */
  readonly observed?: SystemFd
  /** `KVM_GET_API_VERSION` */
  getApiVersion(): number
  /** `KVM_CHECK_EXTENSION`: 0 if the capability is absent, else a positive number, 1 or a quantity. */
  checkExtension(capability: number): number
  /** `KVM_GET_VCPU_MMAP_SIZE`: bytes of the `kvm_run` mapping. */
  getVcpuMmapSize(): number
  /** `KVM_CREATE_VM`; `type` holds the IPA size in bits 7:0 (0 means 40). */
  createVm(type: bigint): VmFd | number
  /**
   * Memory to back a guest with: a memfd mapped shared. Not an ioctl, but only the kernel's kind of memory can be given to
   * `KVM_SET_USER_MEMORY_REGION`. `size` is in bytes, a multiple of the page size.
   */
  createMemory(size: number): GuestMemoryFd | number
  /** `eventfd(2)`, whose counter is 0. Not an ioctl, but KVM takes no event of another kind. */
  createEvent(): EventFd | number
  close(): void
}

/** Memory that can be given to a VM. */
export interface GuestMemoryFd {
  /** Bytes. */
  readonly size: number
  /** Bytes of a page of the host, of which memory and slots consist. */
  readonly pageSize: number
  /**
   * The mapping itself; null if the runtime forbids external buffers or supports none this large. Detached (length 0) after
   * `close()`.
   */
  readonly buffer: ArrayBuffer | null
  /** Copies `into.byteLength` bytes from `offset`; 0 or `-errno` (`-EFAULT` beyond the end). */
  read(offset: number, into: Uint8Array): number
  /** Copies `from` to `offset`; 0 or `-errno` (`-EFAULT` beyond the end). */
  write(offset: number, from: Uint8Array): number
  close(): void
}

/** An eventfd: a counter to which KVM and this process add. */
export interface EventFd {
  /** Adds to the counter: 0, `-EAGAIN` beyond 2^64 - 2, or `-EINVAL` for 2^64 - 1. */
  signal(count: bigint): number
  /** Returns the counter and sets it to 0; `-EAGAIN` if it is 0. */
  take(): bigint | number
  /**
   * Settles with the counter once it is not 0, and sets it to 0. `-EBUSY` if a wait is in flight, `-EINTR` if the event is closed
   * meanwhile, `-EAGAIN` if the thread that waits cannot be created, `-EMFILE` or `-ENFILE` if there is no file descriptor left for it.
   */
  wait(): Promise<bigint | number>
  close(): void
}

/** The statistics of a VM or a vCPU: a header, an id, descriptors and values (`api.rst`, `KVM_GET_STATS_FD`). */
export interface StatsFd {
  /** `pread(2)`: returns how many bytes it read, fewer than asked for at the end and 0 beyond it, or `-errno`. */
  read(offset: number, into: Uint8Array): number
  close(): void
}

/** `KVM_{HAS,GET,SET}_DEVICE_ATTR`, which VMs, vCPUs and devices share. */
export interface AttributeFd {
  hasDeviceAttr(group: number, attribute: bigint): number
  /** The kernel fills `data`, whose length must be the attribute's; a buffer that is too short is the caller's error. */
  getDeviceAttr(group: number, attribute: bigint, data: Uint8Array): number
  /** `data` null passes a null address, for attributes without a payload. */
  setDeviceAttr(group: number, attribute: bigint, data: Uint8Array | null): number
}

/** `struct kvm_userspace_memory_region`: maps bytes `offset` to `offset + size` of `memory` at guest physical `address`. */
export interface MemoryRegion {
  readonly slot: number
  /** `KVM_MEM_*` */
  readonly flags: number
  readonly address: bigint
  /** Null only if `size` is 0, which deletes the slot. */
  readonly memory: GuestMemoryFd | null
  readonly offset: number
  readonly size: number
}

/** A VM. */
export interface VmFd extends AttributeFd {
  /** See `VcpuFd.observed`. */
  readonly observed?: VmFd
  /** `KVM_CHECK_EXTENSION` on the VM, whose answer may be more precise than that of `/dev/kvm`. */
  checkExtension(capability: number): number
  /** `KVM_ENABLE_CAP`; `args` are up to four 64-bit words. */
  enableCap(capability: number, flags: number, args: readonly bigint[]): number
  /** `KVM_CREATE_VCPU` */
  createVcpu(id: number): VcpuFd | number
  /** `KVM_ARM_PREFERRED_TARGET`: fills `struct kvm_vcpu_init`, one word target and seven words features. */
  getPreferredTarget(init: Uint32Array): number
  /** `KVM_ARM_GET_REG_WRITABLE_MASKS`: fills the 192 masks of `range` 0. */
  getRegWritableMasks(range: number, masks: BigUint64Array): number
  /** `KVM_SET_USER_MEMORY_REGION` */
  setUserMemoryRegion(region: MemoryRegion): number
  /**
   * `KVM_GET_DIRTY_LOG`: sets bit n of `bitmap` (bit 0 of the first word: the slot's first page) for each page written since the
   * last call. Without `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2` it also clears the log. Throws `RangeError` if `bitmap` has no room for
   * the slot.
   */
  getDirtyLog(slot: number, bitmap: BigUint64Array): number
  /**
   * `KVM_CLEAR_DIRTY_LOG`: clears the pages whose bits are set, of `pages` from `firstPage` on, which bit 0 of the first word
   * stands for. Throws `RangeError` if `bitmap` has no bit for each.
   */
  clearDirtyLog(slot: number, firstPage: number, pages: number, bitmap: BigUint64Array): number
  /** `KVM_ARM_SET_COUNTER_OFFSET`: `reserved` must be 0. `-EBUSY` while a vCPU runs. */
  setCounterOffset(offset: bigint, reserved: bigint): number
  /**
   * No ioctl, as the four that follow: from now on a vCPU's `run()` and `runSync()` answer a read within `size` bytes (1 to 8) at
   * `address` with `value`, little-endian, and go on. Replaces the value of the same bytes. `-EEXIST` if it overlaps another,
   * `-ENOSPC` beyond 64, `-EINVAL` for another size and beyond the end of the address space.
   */
  setConstant(address: bigint, size: number, value: bigint): number
  /** Ends the answers of the constant at `address`; `-ENOENT` if there is none. */
  removeConstant(address: bigint): number
  /**
   * From now on a write within these bytes is kept in the VM's log with `number` (32 bits), and the vCPU goes on. With 4096 writes
   * in the log it is an exit again. Errors as `setConstant`.
   */
  addPosted(address: bigint, size: number, number: number): number
  /** `-ENOENT` if no posted range begins at `address`. */
  removePosted(address: bigint): number
  /**
   * Moves writes from the log to `entries`, oldest first, three words each: the number in bits 31:0 and the size above them, the
   * address, the data. Returns how many; fewer than there is room for once the log is empty. Works after `close()` too.
   */
  takePosted(entries: BigUint64Array): number
  /** `KVM_CREATE_DEVICE`; with `KVM_CREATE_DEVICE_TEST` in `flags` returns 0 and creates nothing. */
  createDevice(type: number, flags: number): DeviceFd | number
  /** `KVM_IRQ_LINE`, which needs no vCPU to be stopped: `irq` as `packIrq` of `lib/uapi.ts` makes it, `level` 0 or not 0. */
  irqLine(irq: number, level: number): number
  /**
   * `KVM_SIGNAL_MSI`: 1 if the interrupt was delivered, 0 if the guest has not mapped it. `flags` is `KVM_MSI_VALID_DEVID` or 0;
   * without it KVM ignores `deviceId`.
   */
  signalMsi(address: bigint, data: number, flags: number, deviceId: number): number
  /** `KVM_SET_GSI_ROUTING`: replaces every route; 12 words each, as `packGsiRoutes` of `lib/uapi.ts` makes them. */
  setGsiRouting(flags: number, routes: Uint32Array): number
  /**
   * `KVM_IOEVENTFD`: `size` is 0 (any), 1, 2, 4 or 8 bytes, `flags` are `KVM_IOEVENTFD_FLAG_*`. KVM keeps the event, also when its
   * handle is closed.
   */
  ioEventFd(event: EventFd, address: bigint, size: number, flags: number, datamatch: bigint): number
  /**
   * `KVM_REGISTER_COALESCED_MMIO`: from now on KVM keeps a write within these bytes in the VM's ring, and the vCPU goes on. `size` has
   * 32 bits; `pio` is 0, or 1 for ports of x86, which arm64 lacks: another is `-EINVAL`. `-ENOSPC` beyond 1000 zones and other devices
   * inside KVM. A zone may overlap another. It may pass the end of the address space, and then gets no write.
   */
  registerCoalescedMmio(address: bigint, size: number, pio: number): number
  /** `KVM_UNREGISTER_COALESCED_MMIO`: removes every zone that holds all of these bytes; 0 also if none does. */
  unregisterCoalescedMmio(address: bigint, size: number, pio: number): number
  /**
   * `KVM_ARM_MTE_COPY_TAGS`: copies the tags of `length` bytes of guest memory at `address`, both multiples of the page size, a byte for
   * each 16; `flags` is `KVM_ARM_TAGS_*`. Returns the bytes whose tags it copied: fewer than `length` where the memory ends. `-EINVAL`
   * for a VM without tags (`KVM_CAP_ARM_MTE`), `-EFAULT` without memory at `address`, `-EBUSY` for tags to a guest while a slot keeps a
   * dirty log, from Linux 6.12 on at the latest. Throws `RangeError` if `tags` has no byte for each 16.
   */
  copyMteTags(address: bigint, length: number, tags: Uint8Array, flags: number): number
  /**
   * `KVM_RESET_DIRTY_RINGS`: frees the entries that `takeDirty` took; KVM then logs the next write to their pages again. Returns how
   * many; `-EINVAL` without a dirty ring (`KVM_CAP_DIRTY_LOG_RING_ACQ_REL`).
   */
  resetDirtyRings(): number
  /**
   * `KVM_GET_STATS_FD`: the VM's statistics. `-EINVAL` before Linux 5.14. The VM lives until they are closed too.
   */
  getStatsFd(): StatsFd | number
  /** `KVM_IRQFD`: `flags` are `KVM_IRQFD_FLAG_*`; `resampled` is ignored without `KVM_IRQFD_FLAG_RESAMPLE`. */
  irqFd(event: EventFd, gsi: number, flags: number, resampled: EventFd | null): number
  close(): void
}

/** The instruction with which a guest calls its hypervisor or firmware. */
export type Conduit = 'hvc' | 'smc'

/** One call that a guest made: `args` are x0 to x6. */
export interface GuestCall {
  readonly conduit: Conduit
  readonly args: readonly bigint[]
}

/** The result of a guest's call, or `-errno` if the guest could not make it. */
export type GuestCallOutcome =
  | {
      /** The outcome of the last `KVM_RUN`: 0 with the exit in the `kvm_run` page, or `-errno`. */
      readonly outcome: number
      /** Whether the call returned to the guest. */
      readonly returned: boolean
      /** x0 to x3. */
      readonly x: readonly bigint[]
    }
  | number

/** A vCPU. */
export interface VcpuFd extends AttributeFd {
  /**
   * Only an observing handle has this: one that passes every call on to another handle and records it, such as the recorder of a
   * trace. This library's own calls, such as those that run its stub guest, go to `observed` directly, so they are not recorded.
   */
  readonly observed?: VcpuFd
  /**
   * Only an observing handle has this. Records a call of the stub guest, which took many ioctls on `observed`, as a single call.
   */
  noteGuestCall?(call: GuestCall, outcome: GuestCallOutcome): void
  /** `KVM_ARM_VCPU_INIT`; `features` holds up to seven 32-bit words. */
  init(target: number, features: readonly number[]): number
  /** `KVM_ARM_VCPU_FINALIZE` */
  finalize(feature: number): number
  /**
   * `KVM_GET_REG_LIST`: `list[0]` is n, the room behind it; the ids follow from `list[1]`. The kernel also writes the true count to
   * `list[0]` when it returns `-E2BIG`.
   */
  getRegList(list: BigUint64Array): number
  /** `KVM_GET_ONE_REG`, any width of 8 to 2048 bits: the value as an unsigned number, or `-errno`. */
  getOneReg(id: bigint): bigint | number
  /** `KVM_SET_ONE_REG`; throws `RangeError` for a value wider than bits 55:52 of `id` say. */
  setOneReg(id: bigint, value: bigint): number
  /** `KVM_GET_ONE_REG` with a null pointer for the value: shows which checks the kernel makes before it accesses the value. */
  getOneRegAtNull(id: bigint): number
  /** `KVM_SET_ONE_REG` with a null pointer for the value. */
  setOneRegAtNull(id: bigint): number
  /**
   * `KVM_GET_ONE_REG` for each id of at most 64 bits, in one crossing: `values[i]` is the value, `errnos[i]` 0 or `-errno`
   * (`-EINVAL`, without an ioctl, if the id says wider than 64 bits). Returns how many failed; `-EBADF` or `-EBUSY` if the vCPU
   * accepts no calls at all.
   */
  getRegs(ids: BigUint64Array, values: BigUint64Array, errnos: Int32Array): number
  /** `KVM_SET_ONE_REG` for each id, likewise. Continues after a failure. */
  setRegs(ids: BigUint64Array, values: BigUint64Array, errnos: Int32Array): number
  /** `KVM_GET_MP_STATE`: returns the state, or `-errno`. */
  getMpState(): number
  setMpState(state: number): number
  /** `KVM_GET_VCPU_EVENTS`: fills the 64 bytes of `struct kvm_vcpu_events`. */
  getVcpuEvents(events: Uint8Array): number
  setVcpuEvents(events: Uint8Array): number
  /**
   * `KVM_SET_GUEST_DEBUG`: `control` is `KVM_GUESTDBG_*`, `registers` the 64 words of `struct kvm_guest_debug_arch`: 16 control and 16
   * value registers of breakpoints, then those of watchpoints. KVM reads them only with `KVM_GUESTDBG_USE_HW`.
   */
  setGuestDebug(control: number, registers: BigUint64Array): number
  /**
   * No ioctl: moves writes from the VM's ring, which every vCPU maps, to `entries`, oldest first, three words each: the size, the
   * address, the data. Returns how many; fewer than there is room for once the ring is empty. Works while a run is in flight. `-EINVAL`
   * if the indexes in the ring were written over, `-ENXIO` without a ring.
   */
  takeCoalesced(entries: BigUint64Array): number
  /**
   * No ioctl: moves entries from the vCPU's dirty ring to `entries`, oldest first, two words each: the slot with its address space in
   * bits 31:16, and the page in the slot. Returns how many; fewer than there is room for once there are no more. Works while a run is
   * in flight. `-ENXIO` without a ring.
   */
  takeDirty(entries: BigUint64Array): number
  /** `KVM_GET_STATS_FD`: the vCPU's statistics, as `VmFd.getStatsFd`. They can be read while it runs. */
  getStatsFd(): StatsFd | number
  /** The `kvm_run` mapping: the exit is read from it and MMIO data written to it. Detached after `close()`. */
  readonly runPage: ArrayBuffer
  /**
   * `KVM_RUN` on this thread until an exit: returns 0, or `-errno`. A positive `timeoutMs` interrupts it after that many
   * milliseconds (`-EINTR`); 0 means no limit.
   */
  runSync(timeoutMs: number): number
  /** `KVM_RUN` on a thread of its own. Settles with what `runSync` would return. */
  run(): Promise<number>
  /**
   * Makes a run in flight return `-EINTR` soon. A run is in flight from `run()` until its promise settles; if it has already left
   * the guest, with anything but `-EINTR`, it settles with that, and the next `run()` or `runSync()` returns `-EINTR` without
   * executing a guest instruction. Several kicks of one run count as one. A run that ends because of `immediate_exit` in `runPage`
   * does not consume a kick. Does nothing when no run is in flight.
   */
  kick(): void
  /** Called while `run()` is in flight, once a write has been posted that nobody has taken from the log. */
  onPosted?: (() => void) | undefined
  /** Interrupts a run in flight, waits for it, settles its promise with `-EINTR`, then closes. */
  close(): void
}

/** A device made by `KVM_CREATE_DEVICE`. */
export interface DeviceFd extends AttributeFd {
  close(): void
}
