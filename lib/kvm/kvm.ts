import type { Backend, SystemFd } from '../backend.js'
import { serviceBitmaps } from '../hypercalls/index.js'
import { kernelBackend } from '../kernel/index.js'
import { capabilities, errnos, KVM_API_VERSION, type Capability } from '../uapi.js'
import { check, errnoName, KvmError } from './errors.js'
import { GuestMemory } from './memory.js'
import { Vm } from './vm.js'

export interface KvmOptions {
  /**
   * Who refuses configuration after the first run: `library` (the default), with an error that says what to do, or `kernel`,
   * which is asked every time and answers as it does.
   */
  ordering?: 'library' | 'kernel'
}

export interface VmOptions {
  /**
   * Bits of guest physical address space, 32 to `KVM_CAP_ARM_VM_IPA_SIZE`; 0 is KVM's own choice, 40. Default: 0, or the host's limit
   * where that is lower than 40.
   */
  ipaSize?: number
}

/**
 * Opens KVM: `/dev/kvm` of this machine, or what `backend` stands for.
 * @throws KvmError `ERR_KVM_NOT_AVAILABLE`, `ERR_KVM_PERMISSION`, `ERR_KVM_WRONG_ARCHITECTURE`, `ERR_KVM_API_VERSION`; an error
 * with code `ERR_KVM_ADDON_MISSING` or `ERR_KVM_UNSUPPORTED_PLATFORM` where the addon cannot be loaded
 */
export function openKvm(backend: Backend = kernelBackend, { ordering = 'library' }: KvmOptions = {}): Kvm {
  if (backend.name === 'kernel' && process.arch !== 'arm64') {
    throw new KvmError(
      'ERR_KVM_WRONG_ARCHITECTURE',
      undefined,
      `this machine is ${process.arch}, not arm64`,
      {
        syscall: 'open',
        remedy:
          "Use a simulated host, openKvm(simulator('linux-6.12-neoverse-n1')), or boot a real arm64 kernel: kvm-arm64 lab run",
      },
    )
  }
  const fd = backend.open()
  if (typeof fd === 'number') throw openError(fd)
  const version = fd.getApiVersion()
  if (version !== KVM_API_VERSION) {
    fd.close()
    throw new KvmError('ERR_KVM_API_VERSION', undefined, `/dev/kvm speaks version ${version} of the API`, {
      syscall: 'KVM_GET_API_VERSION',
      remedy: `Version ${KVM_API_VERSION} is needed: a kernel of 2007 or later`,
    })
  }
  return new Kvm(backend, fd, ordering === 'library')
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
      ' In a container, pass the device in. Elsewhere use a simulated host or kvm-arm64 lab run',
  })
}

/** KVM of one host. */
export class Kvm implements Disposable {
  /** What answers. */
  readonly backend: Backend
  /** The bare ioctls, whose outcomes are numbers. */
  readonly fd: SystemFd
  readonly #enforceOrdering: boolean
  #supportedBitmaps: ReadonlyMap<bigint, bigint> | undefined

  /** Made by `openKvm`. */
  constructor(backend: Backend, fd: SystemFd, enforceOrdering: boolean) {
    this.backend = backend
    this.fd = fd
    this.#enforceOrdering = enforceOrdering
  }

  /** `KVM_CHECK_EXTENSION` on `/dev/kvm`: 0 for no, a positive number for yes or how much. */
  checkExtension(capability: Capability | number): number {
    const number = typeof capability === 'number' ? capability : capabilities[capability]
    return check(this.fd.checkExtension(number), { syscall: 'KVM_CHECK_EXTENSION' })
  }

  /** `KVM_GET_VCPU_MMAP_SIZE`: bytes of a vCPU's `kvm_run` mapping. */
  get vcpuMmapSize(): number {
    return check(this.fd.getVcpuMmapSize(), { syscall: 'KVM_GET_VCPU_MMAP_SIZE' })
  }

  /**
   * `KVM_CREATE_VM`
   * @throws KvmError `EINVAL` for an address space this host cannot provide
   */
  createVm({ ipaSize = this.#defaultIpaSize() }: VmOptions = {}): Vm {
    const outcome = this.fd.createVm(BigInt(ipaSize))
    const remedy = `Asked for ${ipaSize} bits of guest address space: KVM_CAP_ARM_VM_IPA_SIZE tells the host's limit`
    const fd = check(outcome, { syscall: 'KVM_CREATE_VM', remedy })
    return new Vm(
      fd,
      BigInt(ipaSize),
      this.fd,
      this.#enforceOrdering,
      () => (this.#supportedBitmaps ??= this.#trySupportedBitmaps()),
    )
  }

  /**
   * Memory to give to guests with `Vm.mapMemory`.
   * @param size in bytes, a multiple of the host's page size and not 0
   * @throws KvmError `EINVAL` for another size, `ENOMEM` where there is not as much memory
   * @throws RangeError for what is no number of bytes
   */
  createMemory(size: number): GuestMemory {
    return new GuestMemory(
      check(this.fd.createMemory(size), { syscall: 'memfd_create', remedy: `Asked for ${size} bytes` }),
    )
  }

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
   * Which bits each bitmap firmware register may hold, by writing each bit to a VM made for it. Reading does not tell:
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
      const errnoOf = registers.write(ids, bits)
      supported.set(
        id,
        bits.reduce((mask, bit, index) => (errnoOf[index] === 0 ? mask | bit : mask), 0n),
      )
    }
    return supported
  }
}
