import type { AttributeFd } from '../backend.js'
import { check, kvmError } from './errors.js'
import { errnos } from '../uapi.js'

/**
 * The device attributes of a VM, a vCPU or a device: numbered settings in numbered groups
 * (`Documentation/virt/kvm/devices/`).
 */
export class Attributes {
  readonly #fd: AttributeFd

  constructor(fd: AttributeFd) {
    this.#fd = fd
  }

  /**
   * `KVM_HAS_DEVICE_ATTR`
   * @throws KvmError for any answer but yes and `ENXIO` (`EINVAL` where the kernel has no attributes here at all is no)
   */
  has(group: number, attribute: bigint): boolean {
    const outcome = this.#fd.hasDeviceAttr(group, attribute)
    if (outcome === -errnos.ENXIO || outcome === -errnos.EINVAL || outcome === -errnos.ENOTTY) return false
    if (outcome < 0) throw kvmError(outcome, { syscall: 'KVM_HAS_DEVICE_ATTR' })
    return true
  }

  /**
   * `KVM_GET_DEVICE_ATTR`
   * @param size of the attribute in bytes
   */
  get(group: number, attribute: bigint, size: number): Uint8Array {
    const data = new Uint8Array(size)
    check(this.#fd.getDeviceAttr(group, attribute, data), { syscall: 'KVM_GET_DEVICE_ATTR' })
    return data
  }

  /** `KVM_SET_DEVICE_ATTR`; without `data` for attributes that carry none. */
  set(group: number, attribute: bigint, data?: Uint8Array): void {
    check(this.#fd.setDeviceAttr(group, attribute, data ?? null), { syscall: 'KVM_SET_DEVICE_ATTR' })
  }
}
