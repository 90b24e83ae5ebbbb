import type { Conduit, VcpuFd } from '../backend.js'
import {
  errnos,
  exitReasons,
  KVM_ARM_VCPU_SVE,
  KVM_VCPU_EVENTS_SIZE,
  kvmRun,
  type MpState,
  mpStates,
  type VcpuFeature,
  vcpuFeatures,
} from '../uapi.js'
import { Attributes } from './attributes.js'
import { check, IN_FLIGHT, kvmError } from './errors.js'
import { decodeExit, type Exit } from './exits.js'
import { callFromGuest } from './guest-call.js'
import { type FirstRun, hasEntered } from './ordering.js'
import { Registers } from './registers.js'

export interface VcpuInit {
  /** `KVM_ARM_VCPU_*`. Without `psci-0.2` the guest gets PSCI 0.1. Default: `['psci-0.2']`. */
  features?: readonly VcpuFeature[]
  /** `struct kvm_vcpu_init.target`. Default: what `KVM_ARM_PREFERRED_TARGET` answers. */
  target?: number
}

export interface HypercallOptions {
  /** The instruction the guest calls with. Default: `hvc`. */
  conduit?: Conduit
  /** Milliseconds after which a call that does not come back ends with `interrupted`; 0 waits for ever. Default: 1000. */
  timeout?: number
}

export interface HypercallResult {
  /** x0 to x3 after the call, or as it left them at the exit. */
  x: readonly [bigint, bigint, bigint, bigint]
  /** Why the run ended, where the call did not come back to the guest. */
  exit?: Exit
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
  readonly #mapStub: () => void
  /** Calls of `run()` that have not settled: one that is refused over another among them. */
  #unsettled = 0
  /** The last run ended with an access of the guest that KVM finishes at the next one. */
  #accessPending = false
  #features: readonly VcpuFeature[] = []

  /** Vcpus are made by `Vm.createVcpu`. */
  constructor(
    fd: VcpuFd,
    id: number,
    firstRun: FirstRun,
    enforceOrdering: boolean,
    preferredTarget: () => number,
    mapStub: () => void,
  ) {
    this.id = id
    this.#fd = fd
    this.#firstRun = firstRun
    this.#preferredTarget = preferredTarget
    this.#mapStub = mapStub
    const inFlight = () => this.#inFlight
    this.registers = new Registers(fd, id, enforceOrdering ? firstRun : undefined, inFlight)
    this.attributes = new Attributes(fd, inFlight)
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
        remedy: this.#inFlight
          ? IN_FLIGHT
          : `Asked for target ${target} with ${features.join(', ') || 'no features'}: check the host's capabilities for each feature.` +
            ` The id is not free again: KVM keeps the vCPU with its VM`,
      })
    }
    this.#features = [...features]
  }

  /** Those of the last `init`; none before it. */
  get features(): readonly VcpuFeature[] {
    return this.#features
  }

  /**
   * `KVM_ARM_VCPU_FINALIZE`: settles the SVE vector lengths. Needed once after the init of a vCPU with `sve`.
   * @throws KvmError `EPERM` the second time, `EINVAL` for a vCPU without SVE
   */
  finalize(): void {
    this.#check(this.#fd.finalize(KVM_ARM_VCPU_SVE), 'KVM_ARM_VCPU_FINALIZE')
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
    return this.#exit(this.#run(timeout))
  }

  /**
   * Lets the guest make one call and tells what it was answered. It runs a stub, `hvc #0` or `smc #0` and a store to an address
   * without memory, which is mapped into the VM on the first call: `STUB_SLOT`, from `STUB_ADDRESS`. x0 to x7 and pc are put back
   * after it, so the guest itself is where it was. The VM has started from here on.
   *
   * Meant for a vCPU as `init` leaves it: AArch64, at EL1, with the MMU off. One that sleeps, or that PSCI stopped, answers
   * nothing before the timeout.
   *
   * @param functionId w0 of the call; as a `bigint`, x0 with its upper half
   * @param args x1 to x6, what is missing 0
   * @throws KvmError as `runSync`; `EEXIST` where the VM has other memory or another slot there; `EOPNOTSUPP` in AArch32 state or at
   * EL0; `EBUSY` after an exit `mmio` that no run has gone on from
   */
  hypercall(
    functionId: number | bigint,
    args: readonly bigint[] = [],
    { conduit = 'hvc', timeout = 1000 }: HypercallOptions = {},
  ): HypercallResult {
    this.#refuseInFlight()
    this.#openPage('KVM_RUN')
    if (this.#accessPending) {
      // The next run would finish that access, and with it skip the stub's call.
      const remedy =
        'KVM has yet to finish the access of the last exit: respond() to a read, then freeze() or run, then call'
      throw kvmError(-errnos.EBUSY, { syscall: 'KVM_RUN', vcpu: this.id, remedy })
    }
    this.#mapStub()
    let exit: Exit | undefined
    const call = { conduit, args: [BigInt(functionId), ...args.slice(0, 6)] }
    const found = callFromGuest(this.#fd, call, (fd) => {
      const outcome = this.#run(timeout, fd)
      exit = this.#exit(outcome)
      return outcome
    })
    if (typeof found === 'number') {
      const remedy = 'A guest can make calls from AArch64 state above EL0, on an initialised vCPU'
      throw kvmError(found, { syscall: 'KVM_GET_ONE_REG', vcpu: this.id, remedy })
    }
    // That of the stub is finished.
    if (found.returned) this.#accessPending = false
    const x = found.x as [bigint, bigint, bigint, bigint]
    return found.returned ? { x } : { x, exit: exit! }
  }

  /**
   * `KVM_RUN` on a thread of this vCPU's own. The VM has started from here on. Several vCPUs run at once this way.
   * @throws KvmError as `runSync`
   */
  async run(): Promise<Exit> {
    this.#unsettled++
    this.#firstRun.begin()
    let outcome = -errnos.EINVAL
    try {
      outcome = await this.#fd.run()
    } finally {
      this.#firstRun.end(outcome)
      this.#unsettled--
    }
    return this.#exit(outcome)
  }

  /**
   * Interrupts the run in flight: `run()` resolves with `interrupted`. A run is in flight from the call until its promise settles.
   * If the guest has exited already, `run()` resolves with that exit, and the next `run()`, `runSync()` or `hypercall()` ends with
   * `interrupted` before the guest executes an instruction; `freeze()` does not use the kick up. Several kicks of one run count as
   * one. Does nothing when no run is in flight.
   */
  kick(): void {
    this.#fd.kick()
  }

  /**
   * Starts the VM without executing a guest instruction (`KVM_RUN` with `immediate_exit`), which freezes what the first run
   * freezes.
   * @throws KvmError as `runSync`
   */
  freeze(): void {
    // Of a run in flight the flag is what kick() ends it by.
    this.#refuseInFlight()
    const page = new Uint8Array(this.#openPage('KVM_RUN'))
    const before = page[kvmRun.immediate_exit]!
    page[kvmRun.immediate_exit] = 1
    try {
      this.runSync()
    } finally {
      page[kvmRun.immediate_exit] = before
    }
  }

  /**
   * Answers an MMIO read: the next run goes on with `value` in the register the guest loads, cut to the access's size.
   * @throws KvmError `ERR_KVM_CLOSED`
   */
  respond(value: bigint): void {
    new DataView(this.#openPage('mmap')).setBigUint64(kvmRun.mmio.data, value, true)
  }

  /** Whether it can be asked now: it is open, and no run is in flight. */
  get idle(): boolean {
    return !this.#inFlight && this.#fd.runPage.byteLength > 0
  }

  /** The mapping of `struct kvm_run`, for what `Exit` does not tell. Length 0 after `close()`. */
  get runPage(): ArrayBuffer {
    return this.#fd.runPage
  }

  /**
   * `KVM_GET_MP_STATE`; a number for a state this library does not know.
   * @throws KvmError `EIO` on a VM that died
   */
  get mpState(): MpState | number {
    const state = this.#check(this.#fd.getMpState(), 'KVM_GET_MP_STATE')
    const known = Object.entries(mpStates).find(([, number]) => number === state)
    return known === undefined ? state : (known[0] as MpState)
  }

  /**
   * `KVM_SET_MP_STATE`: `runnable` wakes a vCPU that PSCI stopped.
   * @throws KvmError `EINVAL` for `suspended` on a kernel without `KVM_CAP_ARM_SYSTEM_SUSPEND`, `EIO` on a VM that died
   */
  set mpState(state: MpState) {
    this.#check(this.#fd.setMpState(mpStates[state]), 'KVM_SET_MP_STATE')
  }

  /**
   * `KVM_GET_VCPU_EVENTS`: the 64 bytes of `struct kvm_vcpu_events` (`arch/arm64/include/uapi/asm/kvm.h`), an SError that is pending.
   * @throws KvmError `ENOEXEC` before init on kernels that look for it, `EIO` on a VM that died
   */
  getEvents(): Uint8Array {
    const events = new Uint8Array(KVM_VCPU_EVENTS_SIZE)
    this.#check(this.#fd.getVcpuEvents(events), 'KVM_GET_VCPU_EVENTS')
    return events
  }

  /**
   * `KVM_SET_VCPU_EVENTS`: makes an SError or an external abort pending.
   * @param events the 64 bytes of `struct kvm_vcpu_events`, its pads 0
   * @throws KvmError `EINVAL` for pads that are not 0, for a syndrome on a host without `KVM_CAP_ARM_INJECT_SERROR_ESR` and for one
   * wider than ESR_EL2.ISS; otherwise as `getEvents`
   * @throws RangeError for fewer bytes
   */
  setEvents(events: Uint8Array): void {
    this.#check(this.#fd.setVcpuEvents(events), 'KVM_SET_VCPU_EVENTS')
  }

  /** Interrupts a run in flight, which comes back with `interrupted`, and closes the vCPU. */
  close(): void {
    this.#fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  get #inFlight(): boolean {
    return this.#unsettled > 0
  }

  /** The mapping of `struct kvm_run`, of an open vCPU. */
  #openPage(syscall: string): ArrayBuffer {
    const { runPage } = this.#fd
    if (runPage.byteLength === 0) throw kvmError(-errnos.EBADF, { syscall, vcpu: this.id })
    return runPage
  }

  #check(outcome: number, syscall: string): number {
    const remedy = outcome === -errnos.EBUSY && this.#inFlight ? IN_FLIGHT : undefined
    return check(outcome, { syscall, vcpu: this.id, remedy })
  }

  #refuseInFlight(): void {
    if (this.#inFlight)
      throw kvmError(-errnos.EBUSY, { syscall: 'KVM_RUN', vcpu: this.id, remedy: IN_FLIGHT })
  }

  #run(timeout: number, fd = this.#fd): number {
    this.#firstRun.begin()
    let outcome = -errnos.EINVAL
    try {
      outcome = fd.runSync(timeout)
    } finally {
      this.#firstRun.end(outcome)
    }
    return outcome
  }

  #exit(outcome: number): Exit {
    // A run that was refused, over one in flight or over the vCPU's state, has finished nothing.
    if (hasEntered(outcome)) this.#accessPending = false
    if (outcome === -errnos.EINTR) return { reason: 'interrupted' }
    if (outcome >= 0) {
      const exit = decodeExit(new DataView(this.#fd.runPage))
      this.#accessPending = exit.reason === 'mmio'
      return exit
    }
    if (outcome === -errnos.EFAULT || outcome === -errnos.EHWPOISON) {
      // EFAULT and EHWPOISON with this reason are an exit; EFAULT without it is a host mapping that went away.
      const run = new DataView(this.#fd.runPage)
      if (run.getUint32(kvmRun.exit_reason, true) === exitReasons.KVM_EXIT_MEMORY_FAULT)
        return decodeExit(run)
    }
    const remedy = this.#inFlight ? IN_FLIGHT : runRemedies.get(-outcome)
    throw kvmError(outcome, { syscall: 'KVM_RUN', vcpu: this.id, remedy })
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
  [errnos.EBUSY, 'The GIC was given addresses but not initialised'],
  [
    errnos.ENOSYS,
    'The guest accessed memory outside every slot by an instruction that KVM does not take apart (a pair, a vector, with writeback):' +
      ' enable KVM_CAP_ARM_NISV_TO_USER to have it as an exit',
  ],
  [errnos.EFAULT, 'The guest touched memory of a slot that is no longer mapped in this process'],
])

function featureBit(feature: VcpuFeature): number {
  const bit = (vcpuFeatures as Record<string, number>)[feature]
  if (bit === undefined) {
    throw new RangeError(`${feature} is no vCPU feature: ${Object.keys(vcpuFeatures).join(', ')}`)
  }
  return bit
}
