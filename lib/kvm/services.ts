import {
  bitmapOfServices,
  serviceBitmaps,
  type ServiceGroup,
  type ServiceName,
  servicesInBitmap,
  UnknownServiceError,
  type UnnamedService,
} from '../hypercalls/index.js'
import { KvmError } from './errors.js'
import type { Vcpu } from './vcpu.js'

/**
 * Names of services by the register that holds them; an empty list where the host has no such register. A bit for which this library
 * knows no service is `bit-<n>`.
 */
export type ElectedServices = {
  readonly [Group in ServiceGroup]: readonly (ServiceName<Group> | UnnamedService)[]
}

/** The services to leave discoverable, by register; registers not named keep what they hold. */
export type Election = Partial<ElectedServices>

/**
 * The hypercall services a VM's guest may discover: the bitmap firmware registers, whose value is the whole VM's.
 *
 * A guest that finds a service may use it for ever, so what is elected must be there on every host it will move to. What is
 * not elected answers `NOT_SUPPORTED`. To be chosen before the first run of any vCPU
 * (`Documentation/virt/kvm/arm/fw-pseudo-registers.rst`).
 */
export class Services {
  readonly #firstVcpu: () => Vcpu | undefined
  readonly #supportedBitmaps: () => ReadonlyMap<bigint, bigint>

  /** `supportedBitmaps` tells, for each bitmap register the host has, the bits it may hold. */
  constructor(firstVcpu: () => Vcpu | undefined, supportedBitmaps: () => ReadonlyMap<bigint, bigint>) {
    this.#firstVcpu = firstVcpu
    this.#supportedBitmaps = supportedBitmaps
  }

  /** What this host offers, found on a VM made for the question and remembered. */
  get supported(): ElectedServices {
    return this.#read((id) => this.#supportedBitmaps().get(id) ?? 0n)
  }

  /**
   * What this VM's guest may discover now.
   * @throws KvmError before the VM has a vCPU: the registers are reached through one
   */
  get elected(): ElectedServices {
    const { registers } = this.#vcpu('KVM_GET_ONE_REG')
    return this.#read((id) => (this.#supportedBitmaps().has(id) ? registers.get(id) : 0n))
  }

  /**
   * Elects services; all of them or, with an error, none.
   * @throws RangeError for a register or a service there is not, and for a service this host does not offer
   * @throws KvmError `EBUSY` once the VM has started, unless nothing would change
   */
  elect(election: Election): void {
    const groups = Object.values(serviceBitmaps).map(({ group }) => group)
    const unknown = Object.keys(election).find((group) => !(groups as string[]).includes(group))
    if (unknown !== undefined) {
      throw new UnknownServiceError(`${unknown} is none of the registers of services: ${groups.join(', ')}`)
    }
    const supported = this.#supportedBitmaps()
    const writes: { id: bigint; value: bigint }[] = []
    for (const { register: id, group, name } of Object.values(serviceBitmaps)) {
      const names = election[group]
      if (names === undefined) continue
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
    const vcpu = this.#firstVcpu()
    if (vcpu !== undefined) return vcpu
    throw new KvmError('ENOEXEC', undefined, 'the VM has no vCPU, and its services are reached through one', {
      syscall,
      remedy: 'Create a vCPU first',
    })
  }
}
