import type { AttributeFd } from '../backend.js'
import { check, IN_FLIGHT, kvmError, type KvmErrorDetails } from './errors.js'
import { errnos } from '../uapi.js'

/**
 * The device attributes of a VM, a vCPU or a device: settings that KVM numbers, in groups it numbers too. Which there are, and the size
 * and the meaning of each one's data, is told by one kernel document for each kind of handle, in `Documentation/virt/kvm/devices/`:
 * `vm.rst`, `vcpu.rst`, `arm-vgic-v3.rst`, `arm-vgic-its.rst`. Groups are unsigned numbers of 32 bits, attributes of 64.
 */
export class Attributes {
  readonly #fd: AttributeFd
  readonly #inFlight: () => boolean

  /** `inFlight` tells of a vCPU whether it runs. */
  constructor(fd: AttributeFd, inFlight = () => false) {
    this.#fd = fd
    this.#inFlight = inFlight
  }

  /**
   * `KVM_HAS_DEVICE_ATTR`: whether there is such an attribute. `ENXIO` is no, as are `EINVAL` and `ENOTTY`, which kernels without any
   * attributes here answer.
   * @throws KvmError for any other errno
   * @throws RangeError for a number wider than 32 or 64 bits
   */
  has(group: number, attribute: bigint): boolean {
    const outcome = this.#fd.hasDeviceAttr(group, attribute)
    if (outcome === -errnos.ENXIO || outcome === -errnos.EINVAL || outcome === -errnos.ENOTTY) return false
    if (outcome < 0) throw kvmError(outcome, this.#details('KVM_HAS_DEVICE_ATTR', outcome))
    return true
  }

  /**
   * `KVM_GET_DEVICE_ATTR`
   * @param size of the attribute's data in bytes, as its document has it; what KVM writes beyond is dropped
   * @throws KvmError `ENXIO` for an attribute there is not, or that cannot be read; others as its document has them
   * @throws RangeError for a number wider than 32 or 64 bits
   */
  get(group: number, attribute: bigint, size: number): Uint8Array {
    const data = new Uint8Array(size)
    const outcome = this.#fd.getDeviceAttr(group, attribute, data)
    check(outcome, this.#details('KVM_GET_DEVICE_ATTR', outcome))
    return data
  }

  /**
   * `KVM_SET_DEVICE_ATTR`
   * @param data of the size the attribute's document has; absent for attributes that carry none
   * @throws KvmError `ENXIO` for an attribute there is not, `EFAULT` without data it needs, `EBUSY` for what is settled already,
   * `EINVAL` for a value it may not have; others as its document has them
   * @throws RangeError for a number wider than 32 or 64 bits
   */
  set(group: number, attribute: bigint, data?: Uint8Array): void {
    const outcome = this.#fd.setDeviceAttr(group, attribute, data ?? null)
    check(outcome, this.#details('KVM_SET_DEVICE_ATTR', outcome))
  }

  #details(syscall: string, outcome: number): KvmErrorDetails {
    return { syscall, remedy: outcome === -errnos.EBUSY && this.#inFlight() ? IN_FLIGHT : undefined }
  }
}
