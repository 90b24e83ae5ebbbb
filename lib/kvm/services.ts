import {
  bitmapOfServices,
  serviceBitmaps,
  type ServiceGroup,
  type ServiceName,
  servicesInBitmap,
  UnknownServiceError,
  type UnnamedService,
} from '../hypercalls/index.js'
import { checkObject, checkText, invalidType } from '../arguments.js'
import { KvmError } from './errors.js'
import type { Vcpu } from './vcpu.js'

/**
 * Names of services by the register that holds them; the list is empty if the host has no such register. A bit without a known
 * service is `bit-<n>`.
 */
export type ElectedServices = {
  readonly [Group in ServiceGroup]: readonly (ServiceName<Group> | UnnamedService)[]
}

/** The services to leave discoverable, by register; registers not named keep their current value. */
export type Election = Partial<ElectedServices>

/** What `Services` uses of its VM. Both methods throw `ERR_KVM_CLOSED` once the VM is closed. */
export interface ServicesOwner {
  /** A vCPU through which to access the registers, an idle one if possible. */
  anyVcpu(): Vcpu | undefined
  /** For each bitmap register of the host, the bits it may hold. */
  supportedBitmaps(): ReadonlyMap<bigint, bigint>
}

/**
 * The hypercall services a VM's guest may discover, from the bitmap firmware registers, which are shared by the whole VM.
 *
 * A guest that finds a service may use it for the rest of its life, so every host it will move to must have every elected service.
 * A service that is not elected returns `NOT_SUPPORTED`. Elect before the first run of any vCPU
 * (`Documentation/virt/kvm/arm/fw-pseudo-registers.rst`).
 *
 * @example
 * vm.createVcpu(0)
 * vm.services.elect({ std: [], stdHyp: ['pv-time'] })
 */
export class Services {
  readonly #vm: ServicesOwner

  constructor(vm: ServicesOwner) {
    this.#vm = vm
  }

  /**
   * The services this host offers. The first read finds them on a scratch VM; the `Kvm` caches them for all its VMs.
   * @throws KvmError `ERR_KVM_CLOSED` once the VM is closed, or the `Kvm` before the first read
   */
  get supported(): ElectedServices {
    const supported = this.#vm.supportedBitmaps()
    return this.#read((id) => supported.get(id) ?? 0n)
  }

  /**
   * The services this VM's guest can discover now.
   * @throws KvmError `ENOEXEC` before the VM has a vCPU, which the registers are accessed through; `EBUSY` while all vCPUs run;
   * `ERR_KVM_CLOSED`
   */
  get elected(): ElectedServices {
    const { registers } = this.#vcpu('KVM_GET_ONE_REG')
    const supported = this.#vm.supportedBitmaps()
    return this.#read((id) => (supported.has(id) ? registers.get(id) : 0n))
  }

  /**
   * Elects services. Either all of them take effect or, on an error, none.
   * @throws RangeError for an unknown register or service (`ERR_KVM_UNKNOWN_SERVICE`), and for a service this host does not offer
   * @throws TypeError for another type
   * @throws KvmError `ENOEXEC` before the VM has a vCPU; `EBUSY` once the VM has started, unless nothing would change, and while all vCPUs
   * run; `ERR_KVM_CLOSED`
   */
  elect(election: Election): void {
    checkObject(election, 'election', "an object such as { std: ['trng-v1.0'] }")
    const groups = Object.values(serviceBitmaps).map(({ group }) => group)
    const unknown = Object.keys(election).find((group) => !(groups as string[]).includes(group))
    if (unknown !== undefined) {
      throw new UnknownServiceError(
        `unknown group of services ${JSON.stringify(unknown)}; expected one of ${groups.join(', ')}`,
      )
    }
    const supported = this.#vm.supportedBitmaps()
    const writes: { id: bigint; value: bigint }[] = []
    for (const { register: id, group, name } of Object.values(serviceBitmaps)) {
      const names = election[group]
      if (names === undefined) continue
      if (!Array.isArray(names)) throw invalidType(group, 'an array of names of services', names)
      for (const [index, each] of names.entries()) checkText(each, `${group}[${index}]`)
      const value = bitmapOfServices(group, names)
      const missing = value & ~(supported.get(id) ?? 0n)
      if (missing !== 0n) {
        const offered = servicesInBitmap(group, supported.get(id) ?? 0n)
        throw new RangeError(
          `this host does not offer ${servicesInBitmap(group, missing).join(', ')} in ${name}` +
            ` (it offers ${offered.join(', ') || 'nothing there'})`,
        )
      }
      if (supported.has(id)) writes.push({ id, value })
    }
    const { registers } = this.#vcpu('KVM_SET_ONE_REG')
    for (const { id, value } of writes) registers.set(id, value)
  }

  #read(valueOf: (id: bigint) => bigint): ElectedServices {
    const entries = Object.values(serviceBitmaps).map(({ register, group }) => [
      group,
      servicesInBitmap(group, valueOf(register)),
    ])
    return Object.fromEntries(entries) as ElectedServices
  }

  #vcpu(syscall: string): Vcpu {
    const vcpu = this.#vm.anyVcpu()
    if (vcpu !== undefined) return vcpu
    throw new KvmError('ENOEXEC', undefined, 'the VM has no vCPU, and its services are reached through one', {
      syscall,
      remedy: 'Create a vCPU first',
    })
  }
}
