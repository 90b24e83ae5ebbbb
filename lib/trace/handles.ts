import type { DeviceFd, EventFd, GuestMemoryFd, SystemFd, VcpuFd, VmFd } from '../backend.js'
import { mapStub } from '../kvm/guest-call.js'
import { errnos } from '../uapi.js'

/** The kinds of handle on which calls are made, or which calls name. */
export interface Kinds {
  system: SystemFd
  vm: VmFd
  vcpu: VcpuFd
  device: DeviceFd
  memory: GuestMemoryFd
  event: EventFd
}

export type Kind = keyof Kinds
/** Kinds of which a trace may have several: it numbers the handles of each. */
export type NumberedKind = Exclude<Kind, 'system'>

/** Handles by the numbers that a trace gives them. */
export class Handles {
  readonly system: SystemFd
  readonly #open: { readonly [K in NumberedKind]: Map<number, Kinds[K]> } = {
    vcpu: new Map(),
    device: new Map(),
    vm: new Map(),
    memory: new Map(),
    event: new Map(),
  }
  readonly #vmOfVcpu = new Map<number, number>()
  /** Memory of the stub guest, by VM. */
  readonly #stubs = new Map<number, GuestMemoryFd>()

  constructor(system: SystemFd) {
    this.system = system
  }

  get<K extends NumberedKind>(kind: K, number: number): Kinds[K] | undefined {
    return this.#open[kind].get(number)
  }

  /** Stores a handle and closes the one that had its number; `vm` is the number of the VM the new one belongs to, if any. */
  keep<K extends NumberedKind>(kind: K, number: number, handle: Kinds[K], vm: number): void {
    this.close(kind, number)
    this.#open[kind].set(number, handle)
    if (kind === 'vcpu') this.#vmOfVcpu.set(number, vm)
  }

  close(kind: NumberedKind, number: number): void {
    this.#open[kind].get(number)?.close()
    this.#open[kind].delete(number)
  }

  /** Returns the VM of a vCPU, if it is open. */
  vmOf(vcpu: number): VmFd | undefined {
    return this.#open.vm.get(this.#vmOfVcpu.get(vcpu)!)
  }

  /** Maps the stub guest into the VM of a vCPU before the first call that needs it; returns 0 or `-errno`. */
  mapStub(vcpu: number): number {
    const vm = this.#vmOfVcpu.get(vcpu)!
    if (this.#stubs.has(vm)) return 0
    const fd = this.#open.vm.get(vm)
    if (fd === undefined) return -errnos.EBADF
    const stub = mapStub(this.system, fd)
    if (typeof stub === 'number') return stub
    this.#stubs.set(vm, stub)
    return 0
  }

  /** Closes every handle except the system's. */
  reset(): void {
    for (const handles of [...Object.values(this.#open), this.#stubs]) {
      for (const handle of handles.values()) handle.close()
      handles.clear()
    }
    this.#vmOfVcpu.clear()
  }
}
