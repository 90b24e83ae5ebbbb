import type { DeviceFd } from '../backend.js'
import { Attributes } from './attributes.js'

/** A device KVM emulates, made by `Vm.createDevice`: a GIC, an ITS. */
export class Device implements Disposable {
  readonly attributes: Attributes
  readonly #fd: DeviceFd

  constructor(fd: DeviceFd) {
    this.#fd = fd
    this.attributes = new Attributes(fd)
  }

  close(): void {
    this.#fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
