import type { GuestMemoryFd, SystemFd, VmFd } from '../backend.js'
import {
  capabilities,
  type Capability,
  deviceTypes,
  errnos,
  KVM_ARM_FEATURE_ID_RANGE_SIZE,
  KVM_ARM_VM_SMCCC_CTRL,
  KVM_ARM_VM_SMCCC_FILTER,
  KVM_MEM_LOG_DIRTY_PAGES,
  KVM_MEM_READONLY,
  packSmcccFilter,
  smcccFilterActions,
} from '../uapi.js'
import { Attributes } from './attributes.js'
import { Device } from './device.js'
import { check, KvmError, kvmError } from './errors.js'
import { mapStub, STUB_ADDRESS, STUB_SLOT } from './guest-call.js'
import type { GuestMemory } from './memory.js'
import { FirstRun } from './ordering.js'
import { Services } from './services.js'
import { Vcpu, type VcpuInit } from './vcpu.js'
import { featureIdAt, hex } from '../registers/index.js'

export interface MemoryMapping {
  /** Guest physical address, a multiple of the page size. */
  address: bigint
  memory: GuestMemory
  /** Where in `memory` the slot begins, in bytes, and how long it is; default: all of it. Multiples of the page size. */
  offset?: number
  size?: number
  /** Guest writes become MMIO exits. */
  readonly?: boolean
  /** `KVM_MEM_LOG_DIRTY_PAGES` */
  logDirtyPages?: boolean
}

/** What becomes of a call of the guest: KVM answers it, it is `NOT_SUPPORTED`, or the run ends with exit `hypercall`. */
export type FilterAction = keyof typeof smcccFilterActions

/** Function ids, `count` from `base`, that are to be treated alike. */
export interface FilteredCalls {
  /** 32 bits. */
  base: number
  /** 32 bits. */
  count: number
  action: FilterAction
}

/** A virtual machine. */
export class Vm implements Disposable {
  readonly attributes: Attributes
  /** The hypercall services its guest may discover. */
  readonly services: Services
  /** As given to `KVM_CREATE_VM`: bits 7:0 are the bits of guest physical address space, 0 for 40. */
  readonly type: bigint
  readonly #enabledCapabilities = new Set<Capability>()
  readonly #smcccFilter: FilteredCalls[] = []
  readonly #fd: VmFd
  readonly #firstRun = new FirstRun()
  readonly #enforceOrdering: boolean
  readonly #vcpus = new Map<number, Vcpu>()
  readonly #devices = new Set<Device>()
  readonly #system: SystemFd
  #stub: GuestMemoryFd | null = null

  /** VMs are made by `Kvm.createVm`. */
  constructor(
    fd: VmFd,
    type: bigint,
    system: SystemFd,
    enforceOrdering: boolean,
    supportedBitmaps: () => ReadonlyMap<bigint, bigint>,
  ) {
    this.#fd = fd
    this.type = type
    this.#system = system
    this.#enforceOrdering = enforceOrdering
    this.attributes = new Attributes(fd)
    this.services = new Services(() => this.#anyVcpu(), supportedBitmaps)
  }

  /** Whether any vCPU has run or is running: what the first run freezes is frozen. */
  get started(): boolean {
    return this.#firstRun.started
  }

  /** In the order they were created. */
  get vcpus(): readonly Vcpu[] {
    return [...this.#vcpus.values()]
  }

  /**
   * `KVM_CREATE_VCPU`, `KVM_ARM_VCPU_INIT` and, where `features` hold `sve`, `KVM_ARM_VCPU_FINALIZE`. With `init: false` only
   * the first: `Vcpu.init` and `Vcpu.finalize` are then the caller's.
   * @param id the vCPU's index, from 0; MPIDR_EL1 is derived from it
   * @throws KvmError `EEXIST` for an id in use, `EINVAL` beyond `KVM_CAP_MAX_VCPUS`, and as `Vcpu.init`
   */
  createVcpu(id: number, { init = true, ...how }: VcpuInit & { init?: boolean } = {}): Vcpu {
    const outcome = this.#fd.createVcpu(id)
    const remedy =
      outcome === -errnos.EEXIST
        ? 'KVM keeps a vCPU with its VM, also one that was closed or whose init failed: take another id, or a new VM'
        : undefined
    const fd = check(outcome, { syscall: 'KVM_CREATE_VCPU', vcpu: id, remedy })
    const vcpu = new Vcpu(
      fd,
      id,
      this.#firstRun,
      this.#enforceOrdering,
      () => this.preferredTarget(),
      () => this.#mapStub(),
    )
    try {
      if (init) {
        vcpu.init(how)
        if (how.features?.includes('sve')) vcpu.finalize()
      }
    } catch (error) {
      vcpu.close()
      throw error
    }
    this.#vcpus.set(id, vcpu)
    return vcpu
  }

  /** `KVM_ARM_PREFERRED_TARGET`: the target number `Vcpu.init` takes. */
  preferredTarget(): number {
    const init = new Uint32Array(8)
    check(this.#fd.getPreferredTarget(init), { syscall: 'KVM_ARM_PREFERRED_TARGET' })
    return init[0]!
  }

  /** `KVM_CHECK_EXTENSION` on the VM: 0 for no, a positive number for yes or how much. */
  checkExtension(capability: Capability | number): number {
    const number = typeof capability === 'number' ? capability : capabilities[capability]
    return check(this.#fd.checkExtension(number), { syscall: 'KVM_CHECK_EXTENSION' })
  }

  /**
   * `KVM_ENABLE_CAP`
   * @throws KvmError `EINVAL` for one this kernel does not have or that comes too late
   */
  enableCapability(capability: Capability | number, ...args: bigint[]): void {
    const number = typeof capability === 'number' ? capability : capabilities[capability]
    const outcome = this.#fd.enableCap(number, 0, args)
    if (outcome < 0) {
      const remedy = `${capability} is unknown to this kernel, or must be enabled before the first vCPU is created`
      throw kvmError(outcome, { syscall: 'KVM_ENABLE_CAP', remedy })
    }
    const name = Object.entries(capabilities).find(([, known]) => known === number)?.[0]
    if (name !== undefined) this.#enabledCapabilities.add(name as Capability)
  }

  /** What `enableCapability` enabled: KVM itself does not tell. */
  get enabledCapabilities(): readonly Capability[] {
    return [...this.#enabledCapabilities]
  }

  /**
   * `KVM_ARM_VM_SMCCC_FILTER`: decides what becomes of some of the guest's calls, before the bitmaps of services are looked at. What
   * was decided once cannot be changed.
   * @throws KvmError `EEXIST` for an id decided on before or one of the Arm architecture calls, `EBUSY` once the VM has started, `ENXIO`
   * or `EINVAL` where the kernel has no filter, `EINVAL` for no functions and for a range beyond 32 bits
   * @throws RangeError for another action, and for a `base` or `count` that is no number of 32 bits
   */
  filterCalls({ base, count, action }: FilteredCalls): void {
    checkUint32(base, 'base')
    checkUint32(count, 'count')
    if (!Object.hasOwn(smcccFilterActions, action)) {
      throw new RangeError(`action is one of ${Object.keys(smcccFilterActions).join(', ')}, not ${action}`)
    }
    if (this.#enforceOrdering && this.#firstRun.started) {
      throw new KvmError('EBUSY', undefined, 'the VM has started, which froze its SMCCC filter', {
        syscall: 'KVM_SET_DEVICE_ATTR',
        remedy:
          `Asked to ${action} ${count} functions from ${hex(base)}. Filter calls on a new VM before the first run of any vCPU` +
          ` (or open KVM with { ordering: 'kernel' } to have the kernel answer)`,
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
          : 'the filter is there from Linux 6.4 on'
      const remedy = `Asked to ${action} ${count} functions from ${hex(base)}; ${why}`
      throw kvmError(outcome, { syscall: 'KVM_SET_DEVICE_ATTR', remedy })
    }
    this.#smcccFilter.push({ base, count, action })
  }

  /** What `filterCalls` decided: KVM itself does not tell. */
  get smcccFilter(): readonly FilteredCalls[] {
    return [...this.#smcccFilter]
  }

  /**
   * `KVM_ARM_GET_REG_WRITABLE_MASKS`: for each feature ID register with any, the bits userspace may change.
   * @throws KvmError `EINVAL` before Linux 6.7: ask `KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES`
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
   * `KVM_SET_USER_MEMORY_REGION`: makes memory visible to the guest. The VM keeps the memory until the slot is deleted or the
   * VM is closed.
   * @throws KvmError `EEXIST` where it overlaps another slot, `EINVAL` where something is not a multiple of the page size
   */
  mapMemory(
    slot: number,
    { address, memory, offset = 0, size = memory.size - offset, ...how }: MemoryMapping,
  ): void {
    const flags = (how.readonly ? KVM_MEM_READONLY : 0) | (how.logDirtyPages ? KVM_MEM_LOG_DIRTY_PAGES : 0)
    const outcome = this.#fd.setUserMemoryRegion({ slot, flags, address, memory: memory.fd, offset, size })
    if (outcome < 0) {
      const remedy = `Asked for ${size} bytes at guest address ${hex(address)} in slot ${slot}`
      throw kvmError(outcome, { syscall: 'KVM_SET_USER_MEMORY_REGION', remedy })
    }
  }

  /**
   * `KVM_SET_USER_MEMORY_REGION` of size 0: takes a slot's memory from the guest.
   * @throws KvmError `EINVAL` for a slot that has none, or that is not below `KVM_CAP_NR_MEMSLOTS`
   */
  unmapMemory(slot: number): void {
    check(this.#fd.setUserMemoryRegion({ slot, flags: 0, address: 0n, memory: null, offset: 0, size: 0 }), {
      syscall: 'KVM_SET_USER_MEMORY_REGION',
    })
  }

  /**
   * `KVM_CREATE_DEVICE`
   * @throws KvmError `ENODEV` for a type this host has not, `EEXIST` for a second GIC
   */
  createDevice(type: keyof typeof deviceTypes | number): Device {
    const number = typeof type === 'number' ? type : deviceTypes[type]
    const device = new Device(check(this.#fd.createDevice(number, 0), { syscall: 'KVM_CREATE_DEVICE' }))
    this.#devices.add(device)
    return device
  }

  /** Interrupts what runs and closes the VM with its vCPUs and devices, each of which would keep it alive in the kernel. */
  close(): void {
    for (const vcpu of this.#vcpus.values()) vcpu.close()
    for (const device of this.#devices) device.close()
    this.#stub?.close()
    this.#fd.close()
  }

  /** A vCPU to reach what is the whole VM's through: one that can be asked now, if there is any. */
  #anyVcpu(): Vcpu | undefined {
    return this.vcpus.find(({ idle }) => idle) ?? this.vcpus[0]
  }

  /** The stub guest's memory, on the first call that needs it. */
  #mapStub(): void {
    if (this.#stub !== null) return
    const stub = mapStub(this.#system, this.#fd)
    if (stub === -errnos.EBADF) {
      const remedy =
        'The Kvm that made this VM is closed, and the first call needs memory from it: close it after the VM'
      throw kvmError(stub, { syscall: 'memfd_create', remedy })
    }
    const remedy = `The guest's call needs slot ${STUB_SLOT} and 64 KiB at guest address ${hex(STUB_ADDRESS)}, and none at the page behind them`
    this.#stub = check(stub, { syscall: 'KVM_SET_USER_MEMORY_REGION', remedy })
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

function checkUint32(value: number, name: string): void {
  if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
    throw new RangeError(`${name} is 0 to 0xffffffff, not ${value}`)
  }
}
