import type { DeviceFd } from '../backend.js'
import { deviceTypes } from '../uapi.js'
import { type AttributeOwner, type AttributeOwnerKind, Attributes } from './attributes.js'

const kinds: ReadonlyMap<number, AttributeOwnerKind> = new Map([
  [deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V2, 'gic'],
  [deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3, 'gic'],
  [deviceTypes.KVM_DEV_TYPE_ARM_VGIC_ITS, 'its'],
])

/** A device that KVM emulates, such as a GIC or an ITS. `Vm.createDevice` makes it; closing the VM closes it too. */
export class Device implements Disposable {
  /** The device's settings and registers. */
  readonly attributes: Attributes
  /** One of `deviceTypes`, or a number this library has no name for. */
  readonly type: number
  readonly #fd: DeviceFd

  /** `runRemedy` returns the remedy for `EBUSY` caused by vCPUs that run. */
  constructor(fd: DeviceFd, type: number, runRemedy: AttributeOwner['runRemedy']) {
    this.#fd = fd
    this.type = type
    this.attributes = new Attributes(fd, { kind: kinds.get(type) ?? 'other', runRemedy })
  }

  /** Closes the handle; the device stays in its VM. Every later call throws `ERR_KVM_CLOSED`, but `close()` may be called again. */
  close(): void {
    this.#fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
