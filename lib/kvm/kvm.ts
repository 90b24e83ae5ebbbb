import {
  checkBoolean,
  checkChoice,
  checkOptions,
  checkSize,
  checkUint32,
  invalidType,
  numberOf,
  outOfRange,
} from '../arguments.js'
import type { Backend, SystemFd } from '../backend.js'
import { serviceBitmaps } from '../hypercalls/index.js'
import { kernelBackend, wrongArchitecture } from '../kernel/index.js'
import { capabilities, type Capability, errnos, KVM_API_VERSION, KVM_VM_TYPE_ARM_PROTECTED } from '../uapi.js'
import { check, errnoName, KvmError, kvmError } from './errors.js'
import { HostEvent } from './event.js'
import { GuestMemory } from './memory.js'
import { Vm } from './vm.js'

export interface KvmOptions {
  /**
   * Chooses who refuses configuration after the first run. `library` (the default) throws an error that says what to do; `kernel`
   * passes every call to KVM, which then refuses by itself.
   */
  ordering?: 'library' | 'kernel'
}

export interface VmOptions {
  /**
   * Bits of guest physical address space, 32 to `KVM_CAP_ARM_VM_IPA_SIZE`; 0 selects KVM's default, 40. Default: 0, or the host's
   * limit if that is lower than 40.
   */
  ipaSize?: number
  /**
   * `KVM_VM_TYPE_ARM_PROTECTED`: the host cannot read the guest's memory, on a host with protected KVM (`kvm-arm.mode=protected`).
   * Such a VM has no log of written pages. Default: false.
   */
  protected?: boolean
}

/**
 * Opens KVM: `/dev/kvm` of this machine, or the host that `backend` simulates.
 * @param backend `kernelBackend` (the default), or one that `simulator()` made
 * @throws KvmError `ERR_KVM_NOT_AVAILABLE`, `ERR_KVM_PERMISSION`, `ERR_KVM_WRONG_ARCHITECTURE`, `ERR_KVM_API_VERSION`; an error
 * with code `ERR_KVM_ADDON_MISSING`, `ERR_KVM_ADDON_FORBIDDEN` or `ERR_KVM_UNSUPPORTED_PLATFORM` where the addon cannot be
 * loaded
 * @throws TypeError, RangeError for arguments that are not a backend or not valid options
 *
 * @example
 * using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
 * using vm = kvm.createVm()
 * const vcpu = vm.createVcpu(0)
 */
export function openKvm(backend: Backend = kernelBackend, options: KvmOptions = {}): Kvm {
  checkBackend(backend)
  checkOptions(options, 'options', ['ordering'])
  const { ordering = 'library' } = options
  checkChoice(ordering, 'ordering', ['library', 'kernel'])
  const wrong = backend.name === 'kernel' ? wrongArchitecture() : undefined
  if (wrong !== undefined) {
    throw new KvmError('ERR_KVM_WRONG_ARCHITECTURE', undefined, wrong.problem, {
      syscall: 'open',
      remedy: wrong.remedy,
    })
  }
  const fd = backend.open()
  if (typeof fd === 'number') throw openError(fd)
  const version = fd.getApiVersion()
  if (version !== KVM_API_VERSION) {
    fd.close()
    throw new KvmError('ERR_KVM_API_VERSION', undefined, `/dev/kvm has API version ${version}`, {
      syscall: 'KVM_GET_API_VERSION',
      remedy: `Version ${KVM_API_VERSION} is needed: a kernel of 2007 or later`,
    })
  }
  return new Kvm(backend, fd, ordering === 'library')
}

/** Refuses what is not a handle that `openKvm` made. */
export function checkKvm(kvm: unknown): asserts kvm is Kvm {
  if (typeof kvm === 'object' && kvm !== null && 'createVm' in kvm && 'backend' in kvm) return
  throw invalidType('kvm', 'a Kvm, which openKvm(backend) returns', kvm)
}

/** Names the call that the caller probably meant, if one can be guessed. */
export function checkBackend(backend: unknown): asserts backend is Backend {
  const isObject = typeof backend === 'object' && backend !== null
  if (isObject && 'open' in backend && typeof backend.open === 'function') return
  const meant =
    typeof backend === 'string' && /^[\w.+-]{1,60}$/.test(backend)
      ? `simulator('${backend}')`
      : isObject && 'registers' in backend
        ? 'simulator(report)'
        : isObject && 'ordering' in backend
          ? 'undefined, { ordering }'
          : "simulator('linux-6.12-neoverse-n1')"
  throw invalidType('backend', `a Backend; use openKvm(${meant})`, backend)
}

function openError(outcome: number): KvmError {
  if (outcome === -errnos.EACCES || outcome === -errnos.EPERM) {
    return new KvmError('ERR_KVM_PERMISSION', outcome, 'this user may not open /dev/kvm', {
      syscall: 'open',
      remedy: 'Add the user to the group kvm (usermod -aG kvm USER) and log in again',
    })
  }
  return new KvmError('ERR_KVM_NOT_AVAILABLE', outcome, `/dev/kvm cannot be opened (${errnoName(outcome)})`, {
    syscall: 'open',
    remedy:
      'The kernel must have been started at EL2 with KVM built in: a virtual machine has none unless its host nests.' +
      ' In a container, pass the device in. Elsewhere use a simulated host, openKvm(simulator(name)), or boot a real arm64 kernel with bootLab() of kvm-arm64/lab',
  })
}

/** KVM of one host, made by `openKvm`. Close it after its VMs: the first `hypercall` or `services` of a VM may need it. */
export class Kvm implements Disposable {
  /** The backend behind this handle. */
  readonly backend: Backend
  /** The bare ioctls, which return outcomes as numbers: see `lib/backend.ts`. */
  readonly fd: SystemFd
  readonly #enforceOrdering: boolean
  #supportedBitmaps: ReadonlyMap<bigint, bigint> | undefined

  /** Made by `openKvm`. */
  constructor(backend: Backend, fd: SystemFd, enforceOrdering: boolean) {
    this.backend = backend
    this.fd = fd
    this.#enforceOrdering = enforceOrdering
  }

  /**
   * `KVM_CHECK_EXTENSION` on `/dev/kvm`: returns 0 if the capability is absent, else a positive number, 1 or a quantity.
   * @param capability its name, or its 32-bit number if this library has no name for it
   * @throws RangeError for an unknown name; TypeError for another type
   * @throws KvmError `ERR_KVM_CLOSED`
   */
  checkExtension(capability: Capability | number): number {
    const number = numberOf(capability, 'capability', capabilities)
    return check(this.fd.checkExtension(number), { syscall: 'KVM_CHECK_EXTENSION' })
  }

  /**
   * `KVM_GET_VCPU_MMAP_SIZE`: bytes of a vCPU's `kvm_run` mapping.
   * @throws KvmError `ERR_KVM_CLOSED`
   */
  get vcpuMmapSize(): number {
    return check(this.fd.getVcpuMmapSize(), { syscall: 'KVM_GET_VCPU_MMAP_SIZE' })
  }

  /**
   * `KVM_CREATE_VM`
   * @param options.ipaSize bits of guest physical address space: 0, or 32 to the host's `KVM_CAP_ARM_VM_IPA_SIZE`
   * @param options.protected whether the guest's memory is closed to the host
   * @throws KvmError `EINVAL` for an address space this host cannot provide and for a protected VM it cannot make, `ERR_KVM_CLOSED`
   * @throws SimulatorError `ERR_KVM_SIMULATOR_NOT_RECORDED` for a protected VM on a simulated host that may have them
   * @throws TypeError for another type or an unknown option; RangeError for an `ipaSize` of more than 8 bits
   *
   * @example
   * using vm = kvm.createVm({ ipaSize: 40 })
   */
  createVm(options: VmOptions = {}): Vm {
    checkOptions(options, 'options', ['ipaSize', 'protected'])
    const { ipaSize = this.#defaultIpaSize(), protected: isProtected = false } = options
    checkBoolean(isProtected, 'protected')
    checkUint32(ipaSize, 'ipaSize')
    // Higher bits are flags in the VM type.
    if (ipaSize > 0xff) throw outOfRange('ipaSize', 'a number of bits, 0 or 32 to 52', ipaSize)
    const type = BigInt(ipaSize) | (isProtected ? KVM_VM_TYPE_ARM_PROTECTED : 0n)
    const limit = `Asked for ${ipaSize} bits of guest address space: KVM_CAP_ARM_VM_IPA_SIZE is the host's limit`
    const remedy = isProtected ? `${limit}; a protected VM needs kvm-arm.mode=protected on the host` : limit
    const fd = check(this.fd.createVm(type), { syscall: 'KVM_CREATE_VM', remedy })
    return new Vm(fd, type, {
      system: this.fd,
      enforceOrdering: this.#enforceOrdering,
      supportedBitmaps: () => (this.#supportedBitmaps ??= this.#trySupportedBitmaps()),
    })
  }

  /**
   * Makes zero-filled memory for guests; `Vm.mapMemory` maps it into a VM.
   * @param size in bytes, a multiple of the host's page size and not 0
   * @throws KvmError `EINVAL` for another size, `ENOMEM` if the host has not enough memory, `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for a size that is not a number of bytes
   */
  createMemory(size: number): GuestMemory {
    checkSize(size, 'size')
    const outcome = this.fd.createMemory(size)
    const isOfSize = outcome === -errnos.EINVAL || outcome === -errnos.ENOMEM
    const remedy = isOfSize
      ? `Asked for ${size} bytes: give a multiple of the page size that this machine has free`
      : undefined
    return new GuestMemory(check(outcome, { syscall: 'memfd_create', remedy }))
  }

  /**
   * Makes an event: a counter that KVM and this process add to, and that JavaScript can await.
   * @throws KvmError `EMFILE` if the process has too many files open, `ENFILE` if the system has, `ERR_KVM_CLOSED`
   *
   * @example
   * using event = kvm.createEvent()
   */
  createEvent(): HostEvent {
    return new HostEvent(check(this.fd.createEvent(), { syscall: 'eventfd' }))
  }

  /**
   * Closes `/dev/kvm`; VMs made earlier stay open. Every later call throws `ERR_KVM_CLOSED`, except that `close()` may be repeated.
   */
  close(): void {
    this.fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #defaultIpaSize(): number {
    const limit = this.checkExtension('KVM_CAP_ARM_VM_IPA_SIZE')
    return limit > 0 && limit < 40 ? limit : 0
  }

  /**
   * Finds the bits each bitmap firmware register may hold by writing each bit on a scratch VM. Reading is not enough:
   * `VENDOR_HYP_BMAP_2` resets to 0.
   */
  #trySupportedBitmaps(): Map<bigint, bigint> {
    using vm = this.createVm()
    const { registers } = vm.createVcpu(0)
    const listed = new Set(registers.list())
    const supported = new Map<bigint, bigint>()
    for (const { register: id } of Object.values(serviceBitmaps).filter(({ register }) =>
      listed.has(register),
    )) {
      const ids = new BigUint64Array(64).fill(id)
      const bits = BigUint64Array.from({ length: 64 }, (_, bit) => 1n << BigInt(bit))
      const outcomes = registers.write(ids, bits)
      // EINVAL means that the bit does not exist; any other errno says nothing about the host.
      const failure = outcomes.find((outcome) => outcome < 0 && outcome !== -errnos.EINVAL)
      if (failure !== undefined)
        throw kvmError(failure, { syscall: 'KVM_SET_ONE_REG', register: id, vcpu: 0 })
      supported.set(
        id,
        bits.reduce((mask, bit, index) => (outcomes[index] === 0 ? mask | bit : mask), 0n),
      )
    }
    return supported
  }
}
