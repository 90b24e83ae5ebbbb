import type { EventFd, GuestMemoryFd, SystemFd, VmFd } from '../backend.js'
import { isProtectedKvm } from '../report/machine.js'
import { isInRanges } from '../report/ranges.js'
import { errnos, KVM_API_VERSION, KVM_VM_TYPE_ARM_PROTECTED } from '../uapi.js'
import { checkUint32, checkUint64 } from '../arguments.js'
import { SimulatorError } from './errors.js'
import { SimulatedEvent } from './event.js'
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
    return this.#closed ? -errnos.EBADF : this.#host.checkExtension('system', capability)
  }

  getVcpuMmapSize(): number {
    return this.#closed ? -errnos.EBADF : this.#host.report.vcpuMmapSize
  }

  /** @throws SimulatorError `ERR_KVM_SIMULATOR_NOT_RECORDED` for a protected VM, unless the report says that there are none */
  createVm(type: bigint): VmFd | number {
    checkUint64(type, 'type')
    if (this.#closed) return -errnos.EBADF
    const bits = ipaBits(this.#host, type)
    return bits < 0 ? bits : new SimulatedVm(new VmState(this.#host, bits))
  }

  createMemory(size: number): GuestMemoryFd | number {
    return this.#closed ? -errnos.EBADF : createMemory(size, this.#host.pageSize)
  }

  createEvent(): EventFd | number {
    return this.#closed ? -errnos.EBADF : new SimulatedEvent()
  }

  close(): void {
    this.#closed = true
  }
}

/** Returns the bits of guest physical address space of a VM of this type, or `-errno`. */
function ipaBits(host: Host, type: bigint): number {
  const { vmTypes } = host.report
  if ((type & KVM_VM_TYPE_ARM_PROTECTED) !== 0n && vmTypes?.protected !== false) throw notRecorded(host)
  if (type > 0xffn) return -errnos.EINVAL
  // A host without the capability supports one size, and only type 0.
  const limit = host.capability('KVM_CAP_ARM_VM_IPA_SIZE') || DEFAULT_IPA_BITS
  if (isProtectedKvm(host.report)) return limit
  const asked = Number(type)
  const bits = asked === 0 ? DEFAULT_IPA_BITS : asked
  const isAccepted = vmTypes ? isInRanges(vmTypes.ipaSizes, asked) : bits >= LEAST_IPA_BITS && bits <= limit
  return isAccepted ? bits : -errnos.EINVAL
}

function notRecorded(host: Host): SimulatorError {
  return new SimulatorError(
    'ERR_KVM_SIMULATOR_NOT_RECORDED',
    `The report of ${host.report.host.release} does not record whether it can make protected VMs (bit 31 of the VM type).`,
  )
}
