import type { VcpuFd } from '../backend.js'
import {
  errnos,
  exitReasons,
  KVM_ARM_VCPU_SVE,
  KVM_VCPU_EVENTS_SIZE,
  mpStates,
  vcpuFeatures,
  type MpState,
  type VcpuFeature,
} from '../uapi.js'
import { Attributes } from './attributes.js'
import { check, errnoName, kvmError } from './errors.js'
import { decodeExit, IMMEDIATE_EXIT_OFFSET, MMIO_DATA_OFFSET, type Exit } from './exits.js'
import type { FirstRun } from './ordering.js'
import { Registers } from './registers.js'

export interface VcpuInit {
  /** `KVM_ARM_VCPU_*`. Without `psci-0.2` the guest gets PSCI 0.1. Default: `['psci-0.2']`. */
  features?: readonly VcpuFeature[]
  /** `struct kvm_vcpu_init.target`. Default: what `KVM_ARM_PREFERRED_TARGET` answers. */
  target?: number
}

/** A virtual CPU. */
export class Vcpu implements Disposable {
  /** KVM's id of it, as given to `Vm.createVcpu`. */
  readonly id: number
  readonly registers: Registers
  readonly attributes: Attributes
  readonly #fd: VcpuFd
  readonly #firstRun: FirstRun
  readonly #preferredTarget: () => number

  /** Vcpus are made by `Vm.createVcpu`. */
  constructor(
    fd: VcpuFd,
    id: number,
    firstRun: FirstRun,
    enforceOrdering: boolean,
    preferredTarget: () => number,
  ) {
    this.id = id
    this.#fd = fd
    this.#firstRun = firstRun
    this.#preferredTarget = preferredTarget
    this.registers = new Registers(fd, id, enforceOrdering ? firstRun : undefined)
    this.attributes = new Attributes(fd)
  }

  /**
   * `KVM_ARM_VCPU_INIT`: chooses the vCPU's features, or resets it.
   * @throws KvmError `ENOENT` for a feature the kernel does not know, `EINVAL` for one this host has not, for a combination
   * it refuses, or for features other than an earlier init fixed
   */
  init({ features = ['psci-0.2'], target = this.#preferredTarget() }: VcpuInit = {}): void {
    const word = features.reduce((bits, feature) => bits | (1 << featureBit(feature)), 0)
    const outcome = this.#fd.init(target, [word])
    if (outcome < 0) {
      throw kvmError(outcome, {
        syscall: 'KVM_ARM_VCPU_INIT',
        vcpu: this.id,
        remedy: `Asked for target ${target} with ${features.join(', ') || 'no features'}: check the host's capabilities for each feature`,
      })
    }
  }

  /**
   * `KVM_ARM_VCPU_FINALIZE`: settles the SVE vector lengths. Needed once after the init of a vCPU with `sve`.
   * @throws KvmError `EPERM` the second time, `EINVAL` for a vCPU without SVE
   */
  finalize(): void {
    check(this.#fd.finalize(KVM_ARM_VCPU_SVE), { syscall: 'KVM_ARM_VCPU_FINALIZE', vcpu: this.id })
  }

  /**
   * `KVM_RUN` on this thread until an exit. The VM has started from here on.
   *
   * A guest that was stopped by PSCI, or waits for an interrupt that never comes, lets `KVM_RUN` block for good: give a
   * `timeout`, or use `run()` and `kick()`.
   *
   * @param options.timeout milliseconds after which the exit is `interrupted`; without it there is no limit
   * @throws KvmError `EBUSY` while `run()` is in flight, `ENOEXEC` before init, `EPERM` before finalize, `EIO` on a VM that died
   */
  runSync({ timeout = 0 }: { timeout?: number } = {}): Exit {
    this.#firstRun.begin()
    let outcome = -errnos.EINVAL
    try {
      outcome = this.#fd.runSync(timeout)
    } finally {
      this.#firstRun.end(outcome)
    }
    return this.#exit(outcome)
  }

  /**
   * `KVM_RUN` on a thread of this vCPU's own. The VM has started from here on. Several vCPUs run at once this way.
   * @throws KvmError as `runSync`
   */
  async run(): Promise<Exit> {
    this.#firstRun.begin()
    let outcome = -errnos.EINVAL
    try {
      outcome = await this.#fd.run()
    } finally {
      this.#firstRun.end(outcome)
    }
    return this.#exit(outcome)
  }

  /** Makes a run in flight come back with `interrupted`; does nothing when there is none. */
  kick(): void {
    this.#fd.kick()
  }

  /**
   * Starts the VM without executing a guest instruction (`KVM_RUN` with `immediate_exit`), which freezes what the first run
   * freezes.
   * @throws KvmError as `runSync`
   */
  freeze(): void {
    const page = new Uint8Array(this.#fd.runPage)
    page[IMMEDIATE_EXIT_OFFSET] = 1
    try {
      this.runSync()
    } finally {
      page[IMMEDIATE_EXIT_OFFSET] = 0
    }
  }

  /** Answers an MMIO read: the next run goes on with `value` in the register the guest loads, cut to the access's size. */
  respond(value: bigint): void {
    new DataView(this.#fd.runPage).setBigUint64(MMIO_DATA_OFFSET, value, true)
  }

  /** The mapping of `struct kvm_run`, for what `Exit` does not tell. Length 0 after `close()`. */
  get runPage(): ArrayBuffer {
    return this.#fd.runPage
  }

  /** `KVM_GET_MP_STATE`; a number for a state this library does not know. */
  get mpState(): MpState | number {
    const state = check(this.#fd.getMpState(), { syscall: 'KVM_GET_MP_STATE', vcpu: this.id })
    const known = Object.entries(mpStates).find(([, number]) => number === state)
    return known === undefined ? state : (known[0] as MpState)
  }

  /** `KVM_SET_MP_STATE`: `runnable` wakes a vCPU that PSCI stopped. */
  set mpState(state: MpState) {
    check(this.#fd.setMpState(mpStates[state]), { syscall: 'KVM_SET_MP_STATE', vcpu: this.id })
  }

  /** `KVM_GET_VCPU_EVENTS`: the 64 bytes of `struct kvm_vcpu_events`. */
  getEvents(): Uint8Array {
    const events = new Uint8Array(KVM_VCPU_EVENTS_SIZE)
    check(this.#fd.getVcpuEvents(events), { syscall: 'KVM_GET_VCPU_EVENTS', vcpu: this.id })
    return events
  }

  /** `KVM_SET_VCPU_EVENTS`, from 64 bytes. */
  setEvents(events: Uint8Array): void {
    check(this.#fd.setVcpuEvents(events), { syscall: 'KVM_SET_VCPU_EVENTS', vcpu: this.id })
  }

  /** Interrupts a run in flight, which comes back with `interrupted`, and closes the vCPU. */
  close(): void {
    this.#fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #exit(outcome: number): Exit {
    if (outcome === -errnos.EINTR) return { reason: 'interrupted' }
    if (outcome >= 0) return decodeExit(new DataView(this.#fd.runPage))
    if (outcome === -errnos.EFAULT || errnoName(outcome) === 'ERRNO_133') {
      // EFAULT and EHWPOISON with this reason are an exit; EFAULT without it is a host mapping that went away.
      const run = new DataView(this.#fd.runPage)
      if (run.getUint32(8, true) === exitReasons.KVM_EXIT_MEMORY_FAULT) return decodeExit(run)
    }
    throw kvmError(outcome, { syscall: 'KVM_RUN', vcpu: this.id, remedy: runRemedies.get(-outcome) })
  }
}

const runRemedies = new Map<number, string>([
  [errnos.ENOEXEC, 'Call init() on this vCPU first'],
  [errnos.EPERM, 'Call finalize() on this vCPU first'],
  [
    errnos.EIO,
    'A first run failed with an interrupt controller that was not configured, and KVM gave the VM up: make a new one',
  ],
  [errnos.ENXIO, 'Give the GIC its addresses and initialise it before the first run'],
  [errnos.EINVAL, 'A PMU that was asked for needs KVM_ARM_VCPU_PMU_V3_INIT before the first run'],
  [errnos.EBUSY, 'A run is in flight on this vCPU, or the GIC was given addresses but not initialised'],
  [errnos.EFAULT, 'The guest touched memory of a slot that is no longer mapped in this process'],
])

function featureBit(feature: VcpuFeature): number {
  const bit = (vcpuFeatures as Record<string, number>)[feature]
  if (bit === undefined) {
    throw new RangeError(`${feature} is no vCPU feature: ${Object.keys(vcpuFeatures).join(', ')}`)
  }
  return bit
}
