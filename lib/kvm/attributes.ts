import type { AttributeFd } from '../backend.js'
import { check, kvmError } from './errors.js'
import { errnos } from '../uapi.js'

/**
 * The device attributes of a VM, a vCPU or a device: settings that KVM numbers, in groups it numbers too. Which there are, and the size
 * and the meaning of each one's data, is told by one kernel document for each kind of handle, in `Documentation/virt/kvm/devices/`:
 * `vm.rst`, `vcpu.rst`, `arm-vgic-v3.rst`, `arm-vgic-its.rst`. Groups are unsigned numbers of 32 bits, attributes of 64.
 */
export class Attributes {
  readonly #fd: AttributeFd

  constructor(fd: AttributeFd) {
    this.#fd = fd
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
    if (outcome < 0) throw kvmError(outcome, { syscall: 'KVM_HAS_DEVICE_ATTR' })
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
    check(this.#fd.getDeviceAttr(group, attribute, data), { syscall: 'KVM_GET_DEVICE_ATTR' })
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
    check(this.#fd.setDeviceAttr(group, attribute, data ?? null), { syscall: 'KVM_SET_DEVICE_ATTR' })
  }
}
