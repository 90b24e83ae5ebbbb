import type { GuestMemoryFd, SystemFd, VmFd } from '../backend.js'
import { errnos, KVM_API_VERSION } from '../uapi.js'
import { checkUint32, checkUint64 } from '../arguments.js'
import type { Host } from './host.js'
import { createMemory } from './memory.js'
import { VmState } from './state.js'
import { SimulatedVm } from './vm.js'

/** Bits of the address space of a VM that requests none, and the fewest it may request. */
const DEFAULT_IPA_BITS = 40
const LEAST_IPA_BITS = 32

/** `/dev/kvm` of a simulated host. */
export class SimulatedSystem implements SystemFd {
  readonly #host: Host
  #closed = false

  constructor(host: Host) {
    this.#host = host
  }

  getApiVersion(): number {
    return this.#closed ? -errnos.EBADF : KVM_API_VERSION
  }

  checkExtension(capability: number): number {
    checkUint32(capability, 'capability')
    return this.#closed ? -errnos.EBADF : this.#host.systemCapability(capability)
  }

  getVcpuMmapSize(): number {
    return this.#closed ? -errnos.EBADF : this.#host.report.vcpuMmapSize
  }

  createVm(type: bigint): VmFd | number {
    checkUint64(type, 'type')
    if (this.#closed) return -errnos.EBADF
    // A host without the capability supports one size, and only type 0.
    const limit = this.#host.capability('KVM_CAP_ARM_VM_IPA_SIZE') || DEFAULT_IPA_BITS
    const asked = Number(type & 0xffn)
    const bits = asked === 0 ? DEFAULT_IPA_BITS : asked
    if (type > 0xffn || bits < LEAST_IPA_BITS || bits > limit) return -errnos.EINVAL
    return new SimulatedVm(new VmState(this.#host, bits))
  }

  createMemory(size: number): GuestMemoryFd | number {
    return this.#closed ? -errnos.EBADF : createMemory(size, this.#host.pageSize)
  }

  close(): void {
    this.#closed = true
  }
}
