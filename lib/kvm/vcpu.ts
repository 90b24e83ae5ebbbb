import {
  checkArray,
  checkBoolean,
  checkChoice,
  checkMilliseconds,
  checkOptions,
  checkUint32,
  checkUint64,
  invalidType,
  outOfRange,
} from '../arguments.js'
import type { Conduit, VcpuFd } from '../backend.js'
import { encodeRegister } from '../registers/index.js'
import {
  cpuInputs,
  errnos,
  exitReasons,
  irqTypes,
  KVM_ARM_VCPU_SVE,
  KVM_VCPU_EVENTS_SIZE,
  kvmRun,
  type MpState,
  mpStates,
  type VcpuFeature,
  featureWord,
  vcpuFeatures,
  GUEST_DEBUG_WORDS,
} from '../uapi.js'
import { Attributes } from './attributes.js'
import { check, IN_FLIGHT, KvmError, kvmError, NO_THREAD } from './errors.js'
import { decodeExit, type Exit } from './exits.js'
import { callFromGuest } from './guest-call.js'
import { type GuestDebug, packGuestDebug } from './guest-debug.js'
import { type FirstRun, hasEntered } from './ordering.js'
import { Registers } from './registers.js'
import { NO_STATS, OpenStats, type Stats } from './stats.js'
import { Pmu, StolenTime, Timers } from './vcpu-parts.js'
import { withImmediateExit } from './immediate-exit.js'

export interface VcpuInit {
  /** `KVM_ARM_VCPU_*`. Without `psci-0.2` the guest gets PSCI 0.1. Default: `['psci-0.2']`. */
  features?: readonly VcpuFeature[]
  /** `struct kvm_vcpu_init.target`, 32 bits. Default: the result of `KVM_ARM_PREFERRED_TARGET`. */
  target?: number
}

export interface VcpuRunOptions {
  /** Milliseconds after which the run ends with exit `interrupted`; 0 means no limit. Default: 0. */
  timeout?: number
}

export interface HypercallOptions {
  /** The instruction with which the guest makes the call. Default: `hvc`. */
  conduit?: Conduit
  /** Milliseconds after which a call that does not return ends with exit `interrupted`; 0 means no limit. Default: 1000. */
  timeout?: number
}

export interface HypercallResult {
  /** x0 to x3 after the call or, if the call did not return, at the exit; 64 bits each. */
  x: readonly [bigint, bigint, bigint, bigint]
  /** Why the run ended, if the call did not return to the guest. */
  exit?: Exit
}

/** What a vCPU uses of its VM. */
export interface VcpuOwner {
  readonly firstRun: FirstRun
  /** False if only the kernel enforces the order. */
  readonly enforceOrdering: boolean
  preferredTarget(): number
  /** Maps the stub guest, unless it is mapped. */
  mapStub(): void
  /** Returns whether a slot has memory at this guest physical address. */
  hasMemoryAt(address: bigint): boolean
  /** Returns how many breakpoints and watchpoints the host has. */
  debugLimits(): { breakpoints: number; watchpoints: number }
  /** Passes on the writes that the guest posted. */
  deliverPosted(): void
  /** `KVM_IRQ_LINE` for this vCPU; throws with the remedy of its `-errno`. */
  setLine(type: number, number: number, level: boolean, remedies: Readonly<Record<number, string>>): void
}

/** A page that a guest wrote. */
export interface DirtyPage {
  readonly slot: number
  /** Its place in the slot, counted in pages of the host. */
  readonly page: number
}

/** Entries that are taken from a ring at once. */
const ENTRIES = 256

/** An input of a vCPU without a GIC. */
export type CpuInput = keyof typeof cpuInputs
const cpuInputNames = Object.keys(cpuInputs) as CpuInput[]

function checkPpi(input: number): void {
  checkUint32(input, 'input')
  if (input < 16 || input > 31) {
    throw outOfRange(
      'input',
      'from 16 to 31, the numbers of private interrupts; vm.setIrq() sets shared ones',
      input,
    )
  }
}

/** Remedies of `KVM_IRQ_LINE`. */
export const NO_GIC = 'The VM has no GIC: make one with vm.createGic()'
export const GIC_NOT_READY = 'The GIC is not initialised: call its init() (KVM_DEV_ARM_VGIC_CTRL_INIT)'
/** The remedy of calls about a dirty ring. */
export const NO_RING = 'The VM has no dirty ring: call enableDirtyRing() before the first vCPU'

/**
 * A virtual CPU, made by `Vm.createVcpu`.
 *
 * @example
 * vcpu.registers.set('pc', 0x8000_0000n)
 * for (;;) {
 *   const exit = await vcpu.run()
 *   if (exit.reason !== 'mmio') break
 *   if (!exit.write) vcpu.respond(0n)
 * }
 */
export class Vcpu implements Disposable {
  /** KVM's id of the vCPU, as passed to `Vm.createVcpu`. */
  readonly id: number
  /** The registers of this vCPU. */
  readonly registers: Registers
  /** `Documentation/virt/kvm/devices/vcpu.rst` */
  readonly attributes: Attributes
  /** The interrupts of its timers. */
  readonly timers: Timers
  /** Its PMU, with the feature `pmu-v3`. */
  readonly pmu: Pmu
  /** Where its guest reads the time that the host took from it. */
  readonly stolenTime: StolenTime
  readonly #fd: VcpuFd
  readonly #stats = new OpenStats()
  readonly #vm: VcpuOwner
  /** Calls of `run()` that have not settled, including one that was refused because another is in flight. */
  #unsettled = 0
  /** The guest access that ended the last run; KVM completes it at the next run. */
  #accessPending: 'read' | 'write' | undefined
  #features: readonly VcpuFeature[] = []

  /** `Vm.createVcpu` makes the vCPUs. */
  constructor(fd: VcpuFd, id: number, vm: VcpuOwner) {
    this.id = id
    this.#fd = fd
    this.#vm = vm
    fd.onPosted = () => vm.deliverPosted()
    this.registers = new Registers(fd, {
      id,
      firstRun: vm.enforceOrdering ? vm.firstRun : undefined,
      inFlight: () => this.#inFlight,
    })
    this.attributes = new Attributes(fd, {
      kind: 'vcpu',
      vcpu: id,
      runRemedy: () => (this.#inFlight ? IN_FLIGHT : undefined),
    })
    this.timers = new Timers(this.attributes)
    this.pmu = new Pmu(this.attributes)
    this.stolenTime = new StolenTime(this.attributes)
  }

  /**
   * `KVM_ARM_VCPU_INIT`: chooses the vCPU's features, or resets it.
   * @throws KvmError `ENOENT` for a feature the kernel does not know; `EINVAL` for a feature this host lacks, a combination it
   * refuses, or features that differ from those an earlier init fixed; `EBUSY` while a run is in flight, `ERR_KVM_CLOSED`
   * @throws TypeError for another type or an unknown option; RangeError for an unknown feature or a target wider than 32 bits
   *
   * @example
   * const vcpu = vm.createVcpu(1, { init: false })
   * vcpu.init({ features: ['psci-0.2', 'power-off'] })
   */
  init(options: VcpuInit = {}): void {
    checkVcpuInit(options)
    const { features = ['psci-0.2'], target = this.#vm.preferredTarget() } = options
    const outcome = this.#fd.init(target, [featureWord(features)])
    if (outcome < 0) {
      throw kvmError(outcome, {
        syscall: 'KVM_ARM_VCPU_INIT',
        vcpu: this.id,
        remedy: this.#inFlight
          ? IN_FLIGHT
          : outcome === -errnos.EBADF
            ? undefined
            : `Asked for target ${target} with ${features.join(', ') || 'no features'}: check the host's capabilities for each feature.` +
              ` The id is not free again: KVM keeps the vCPU with its VM`,
      })
    }
    this.#features = [...features]
  }

  /** The features of the last `init`; empty before the first. */
  get features(): readonly VcpuFeature[] {
    return this.#features
  }

  /**
   * `KVM_ARM_VCPU_FINALIZE`: fixes the SVE vector lengths. Needed once after the init of a vCPU with `sve`.
   * @throws KvmError `EPERM` the second time, `EINVAL` for a vCPU without SVE, `EBUSY` while a run is in flight, `ERR_KVM_CLOSED`
   */
  finalize(): void {
    this.#check(this.#fd.finalize(KVM_ARM_VCPU_SVE), 'KVM_ARM_VCPU_FINALIZE')
  }

  /**
   * `KVM_RUN` on this thread until an exit. This starts the VM.
   *
   * `KVM_RUN` blocks without end if PSCI stopped the guest, or if it waits for an interrupt that never comes: give a `timeout`, or
   * use `run()` and `kick()`.
   *
   * @param options.timeout milliseconds after which the exit is `interrupted`; 0, the default, means no limit
   * @throws KvmError `EBUSY` while `run()` is in flight, `ENOEXEC` before init, `EPERM` before finalize, `EIO` on a VM that died,
   * `ERR_KVM_CLOSED`
   * @throws SimulatorError `ERR_KVM_SIMULATOR_NO_GUEST_CODE` on a simulated host, for a run that has no timeout and would never end
   * @throws TypeError for another type or an unknown option; RangeError for a negative timeout
   *
   * @example
   * const exit = vcpu.runSync({ timeout: 1000 })
   * if (exit.reason === 'interrupted' && exit.pcOutsideMemory !== undefined) console.error('map the guest code first')
   */
  runSync(options: VcpuRunOptions = {}): Exit {
    checkOptions(options, 'options', ['timeout'])
    const { timeout = 0 } = options
    checkMilliseconds(timeout, 'timeout')
    const started = timeout > 0 ? performance.now() : 0
    const exit = this.#delivered(() => this.#exit(this.#run(timeout)))
    const isTimeout = exit.reason === 'interrupted' && timeout > 0 && performance.now() - started >= timeout
    const pcOutsideMemory = isTimeout ? this.#pcOutsideMemory() : undefined
    return pcOutsideMemory === undefined ? exit : { reason: 'interrupted', pcOutsideMemory }
  }

  /**
   * Makes the guest issue one call, and returns its results. The guest runs a stub: `hvc #0` or `smc #0`, then a store to an
   * address without memory. The first call maps the stub into the VM, in slot `STUB_SLOT` at `STUB_ADDRESS`. Each call restores x0
   * to x7 and pc, so the guest can continue where it was. This starts the VM.
   *
   * Expects a vCPU in the state `init` leaves: AArch64, at EL1, with the MMU off. On a vCPU that sleeps, or that PSCI stopped, the
   * call ends at the timeout.
   *
   * @param functionId w0 of the call, 32 bits; as a `bigint`, all 64 bits of x0
   * @param args x1 to x6, 64 bits each; missing ones are 0
   * @throws KvmError as `runSync`; `EEXIST` if the VM has other memory at that address or another slot of that number; `EOPNOTSUPP`
   * in AArch32 state or at EL0; `EBUSY` after an exit `mmio` that no later run has completed
   * @throws TypeError for another type or an unknown option; RangeError for wider numbers, for more than six `args` and for an unknown
   * conduit
   *
   * @example
   * const { x } = vcpu.hypercall(0x8400_0000) // PSCI_VERSION
   */
  hypercall(
    functionId: number | bigint,
    args: readonly bigint[] = [],
    options: HypercallOptions = {},
  ): HypercallResult {
    const x0 = checkFunctionId(functionId)
    checkCallArguments(args)
    checkOptions(options, 'options', ['conduit', 'timeout'])
    const { conduit = 'hvc', timeout = 1000 } = options
    checkChoice(conduit, 'conduit', ['hvc', 'smc'])
    checkMilliseconds(timeout, 'timeout')
    this.#refuseInFlight()
    this.#openPage('KVM_RUN')
    if (this.#accessPending !== undefined) {
      // The next run would complete that access, and with it skip the stub's call.
      const remedy =
        'KVM has yet to finish the access of the last exit: respond() to a read, then freeze() or run, then call'
      throw kvmError(-errnos.EBUSY, { syscall: 'KVM_RUN', vcpu: this.id, remedy })
    }
    this.#vm.mapStub()
    let exit: Exit | undefined
    const call = { conduit, args: [x0, ...args] }
    const found = this.#delivered(() =>
      callFromGuest(this.#fd, call, (fd) => {
        const outcome = this.#run(timeout, fd)
        exit = this.#exit(outcome)
        return outcome
      }),
    )
    if (typeof found === 'number') {
      const isState = found === -errnos.EOPNOTSUPP || found === -errnos.ENOEXEC
      const remedy = isState
        ? 'A guest can make calls from AArch64 state above EL0, on an initialised vCPU'
        : 'The registers of the stub guest could not be exchanged, and the guest’s own may be lost'
      throw kvmError(found, { syscall: 'KVM_GET_ONE_REG', vcpu: this.id, remedy })
    }
    // The stub's own access is complete.
    if (found.returned) this.#accessPending = undefined
    const x = found.x as [bigint, bigint, bigint, bigint]
    return found.returned ? { x } : { x, exit: exit! }
  }

  /**
   * `KVM_RUN` on a thread of this vCPU. This starts the VM. Several vCPUs can run at once this way. `kick()` ends the run.
   * @throws KvmError as `runSync`: the promise rejects
   *
   * @example
   * const exit = await vcpu.run()
   */
  async run(): Promise<Exit> {
    this.#unsettled++
    this.#vm.firstRun.begin()
    let outcome = -errnos.EINVAL
    try {
      outcome = await this.#fd.run()
    } finally {
      this.#vm.firstRun.end(outcome)
      this.#unsettled--
    }
    return this.#delivered(() => this.#exit(outcome))
  }

  /**
   * Interrupts the run in flight: `run()` resolves with `interrupted`. A run is in flight from the call until its promise settles.
   * If the guest has already exited, `run()` resolves with that exit, and the next `run()`, `runSync()` or `hypercall()` ends with
   * `interrupted` before the guest executes an instruction; `freeze()` does not consume the kick. Several kicks of one run count as
   * one. Does nothing when no run is in flight, and after `close()`.
   */
  kick(): void {
    this.#fd.kick()
  }

  /**
   * `KVM_IRQ_LINE`: sets the level of a private interrupt (PPI) of this vCPU or, in a VM without a GIC, of an input of the vCPU
   * itself. Legal at any time, also while vCPUs run. A raised input ends the guest's wait for an interrupt, even if it masks it;
   * `init()` before the first run lowers all inputs. KVM ignores the level of a timer's interrupt.
   *
   * Before Linux 6.7 KVM counts the vCPUs in the order of their creation here, whatever their ids: create vCPU 0 first, then 1.
   * @param input `irq` or `fiq`, or the GIC's number of the interrupt, 16 to 31
   * @throws KvmError for a PPI `ENXIO` without a GIC, `EBUSY` for a GICv3 that is not initialised; for an input of the vCPU `ENXIO`
   * with a GIC; `EINVAL` for a vCPU that KVM counts otherwise, `ERR_KVM_CLOSED` once the VM is closed
   * @throws TypeError for another type; RangeError for another name and for a number outside 16 to 31
   *
   * @example
   * vcpu.setIrq(23, true)
   */
  setIrq(input: CpuInput | number, level: boolean): void {
    const isPpi = typeof input === 'number'
    if (isPpi) checkPpi(input)
    else checkChoice(input, 'input', cpuInputNames)
    checkBoolean(level, 'level')
    this.#vm.setLine(isPpi ? irqTypes.ppi : irqTypes.cpu, isPpi ? input : cpuInputs[input], level, {
      [-errnos.ENXIO]: isPpi
        ? NO_GIC
        : 'The VM has a GIC, which alone drives the inputs: raise an interrupt there',
      [-errnos.EBUSY]: GIC_NOT_READY,
      [-errnos.EINVAL]:
        'Before Linux 6.7 KVM counts the vCPUs in the order of their creation here, whatever their ids',
    })
  }

  /**
   * Starts the VM without executing a guest instruction (`KVM_RUN` with `immediate_exit`), which freezes everything the first run
   * freezes.
   * @throws KvmError as `runSync`
   */
  freeze(): void {
    // During a run in flight kick() uses this flag to end the run.
    this.#refuseInFlight()
    withImmediateExit(this.#openPage('KVM_RUN'), () => this.runSync())
  }

  /**
   * Answers an MMIO read: the next run continues with `value`, truncated to the access size, in the register the guest loads.
   * @param value 64 bits
   * @throws KvmError `ERR_KVM_NO_READ_PENDING` unless the last exit is an MMIO read, `EBUSY` while a run is in flight, `ERR_KVM_CLOSED`
   * @throws TypeError for anything but a bigint; RangeError for a negative value or more than 64 bits
   */
  respond(value: bigint): void {
    checkUint64(value, 'value')
    const page = this.#openPage('KVM_RUN')
    this.#refuseInFlight()
    if (this.#accessPending !== 'read') {
      throw new KvmError('ERR_KVM_NO_READ_PENDING', undefined, 'no MMIO read is pending', {
        syscall: 'KVM_RUN',
        vcpu: this.id,
        remedy: "respond() answers an exit { reason: 'mmio', write: false }, before the next run",
      })
    }
    new DataView(page).setBigUint64(kvmRun.mmio.data, value, true)
  }

  /** Whether the vCPU is open and no run is in flight. */
  get idle(): boolean {
    return !this.#inFlight && this.#fd.runPage.byteLength > 0
  }

  /** The mapping of `struct kvm_run`, for data that `Exit` does not carry. Its length is 0 after `close()`. */
  get runPage(): ArrayBuffer {
    return this.#fd.runPage
  }

  /**
   * `KVM_GET_MP_STATE`: returns the state's name, or its number if this library does not know it.
   * @throws KvmError `EIO` on a VM that died, `EBUSY` while a run is in flight, `ERR_KVM_CLOSED`
   */
  get mpState(): MpState | number {
    const state = this.#check(this.#fd.getMpState(), 'KVM_GET_MP_STATE')
    const known = Object.entries(mpStates).find(([, number]) => number === state)
    return known === undefined ? state : (known[0] as MpState)
  }

  /**
   * `KVM_SET_MP_STATE`: `runnable` wakes a vCPU that PSCI stopped.
   * @throws KvmError `EINVAL` for `suspended` on a kernel without `KVM_CAP_ARM_SYSTEM_SUSPEND`, `EIO` on a VM that died, `EBUSY` while a
   * run is in flight, `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for anything but the name of a state
   */
  set mpState(state: MpState) {
    checkChoice(state, 'mpState', Object.keys(mpStates))
    this.#check(this.#fd.setMpState(mpStates[state]), 'KVM_SET_MP_STATE')
  }

  /**
   * `KVM_GET_VCPU_EVENTS`: the 64 bytes of `struct kvm_vcpu_events` (`arch/arm64/include/uapi/asm/kvm.h`), which hold a pending SError.
   * @throws KvmError `ENOEXEC` before init on kernels that check for it, `EIO` on a VM that died, `EBUSY` while a run is in flight,
   * `ERR_KVM_CLOSED`
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
   * @throws RangeError for fewer bytes; TypeError for anything but a `Uint8Array`
   */
  setEvents(events: Uint8Array): void {
    checkArray(events, Uint8Array, KVM_VCPU_EVENTS_SIZE, 'events')
    this.#check(this.#fd.setVcpuEvents(events), 'KVM_SET_VCPU_EVENTS')
  }

  /**
   * `KVM_SET_GUEST_DEBUG`: makes single steps, breakpoints, watchpoints and `brk` instructions exits with reason `debug`, or ends that
   * with null. The addresses are the guest's virtual ones. A run that ended before an instruction with a breakpoint or watchpoint ends
   * there again: remove it, or step over it without. While the guest is debugged it does not see its own debug registers take effect.
   * With pKVM, Linux 6.18 ends runs at `brk` alone.
   * @throws KvmError `EBUSY` while a run is in flight, `ERR_KVM_CLOSED`
   * @throws TypeError for another type or an unknown key; RangeError for an address that is no multiple of 4, a watchpoint that passes a
   * multiple of 8, and more of either than the host has
   *
   * @example
   * vcpu.setDebug({ breakpoints: [0x8000_0010n], watchpoints: [{ address: 0x9000_0000n, size: 4, access: 'write' }] })
   */
  setDebug(debug: GuestDebug | null): void {
    const off = { control: 0, registers: new BigUint64Array(GUEST_DEBUG_WORDS) }
    const { control, registers } = debug === null ? off : packGuestDebug(debug, this.#vm.debugLimits())
    this.#check(this.#fd.setGuestDebug(control, registers), 'KVM_SET_GUEST_DEBUG')
  }

  /**
   * Takes the pages that the guest wrote from the vCPU's dirty ring, in the order of their first writes; `Vm.resetDirtyRings` then
   * frees their entries, so that KVM logs further writes to these pages. Legal while the vCPU runs.
   * @throws KvmError `ENXIO` for a VM without a ring (`Vm.enableDirtyRing`), `ERR_KVM_CLOSED`
   *
   * @example
   * for (const { slot, page } of vcpu.takeDirtyPages()) console.log(slot, page)
   */
  takeDirtyPages(): DirtyPage[] {
    const entries = new BigUint64Array(2 * ENTRIES)
    const pages: DirtyPage[] = []
    for (let taken = ENTRIES; taken === ENTRIES;) {
      const outcome = this.#fd.takeDirty(entries)
      const remedy = outcome === -errnos.ENXIO ? NO_RING : undefined
      taken = check(outcome, { syscall: 'takeDirtyPages', vcpu: this.id, remedy })
      for (let entry = 0; entry < taken; entry++) {
        pages.push({ slot: Number(entries[2 * entry]), page: Number(entries[2 * entry + 1]) })
      }
    }
    return pages
  }

  /**
   * `KVM_GET_STATS_FD`: opens what KVM counts of this vCPU, such as `exits`. They can be read while it runs.
   * @throws KvmError `EBUSY` while a run is in flight: open them before; otherwise as `Vm.openStats`
   *
   * @example
   * using stats = vcpu.openStats()
   * const [exits] = stats.read().get('exits')!
   */
  openStats(): Stats {
    const outcome = this.#fd.getStatsFd()
    const remedy =
      outcome === -errnos.EBUSY && this.#inFlight
        ? IN_FLIGHT
        : outcome === -errnos.EINVAL
          ? NO_STATS
          : undefined
    return this.#stats.add(check(outcome, { syscall: 'KVM_GET_STATS_FD', vcpu: this.id, remedy }))
  }

  /**
   * Closes the vCPU; a run in flight ends with exit `interrupted`. KVM keeps the vCPU in its VM, and its id stays in use. Every
   * later call throws `ERR_KVM_CLOSED`, except `kick()` and `close()`, which then do nothing.
   */
  close(): void {
    // The ring of coalesced writes is mapped with the vCPU.
    this.#vm.deliverPosted()
    this.#fd.close()
    this.#stats.close()
    this.#vm.deliverPosted()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  get #inFlight(): boolean {
    return this.#unsettled > 0
  }

  /** Returns the mapping of `struct kvm_run`; throws if the vCPU is closed. */
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

  /** Returns the guest's pc if no slot has memory for it; undefined if a slot has, or if this cannot be determined. */
  #pcOutsideMemory(): bigint | undefined {
    const [pc, pstate, sctlr] = [PC, PSTATE, SCTLR_EL1].map((id) => this.#fd.getOneReg(id))
    if (typeof pc !== 'bigint' || typeof pstate !== 'bigint' || typeof sctlr !== 'bigint') return undefined
    // EL2 has an MMU switch of its own. A vCPU that PSCI stopped executes nothing, wherever its pc is.
    const isPhysical = (sctlr & MMU_ON) === 0n && (pstate & 0x1cn) !== IN_EL2
    if (!isPhysical || this.#fd.getMpState() !== mpStates.runnable) return undefined
    return this.#vm.hasMemoryAt(pc) ? undefined : pc
  }

  #run(timeout: number, fd = this.#fd): number {
    this.#vm.firstRun.begin()
    let outcome = -errnos.EINVAL
    try {
      outcome = fd.runSync(timeout)
    } finally {
      this.#vm.firstRun.end(outcome)
    }
    return outcome
  }

  /** Passes on what the guest posted once the exit is read: a receiver may run this vCPU. */
  #delivered<T>(read: () => T): T {
    try {
      return read()
    } finally {
      this.#vm.deliverPosted()
    }
  }

  #exit(outcome: number): Exit {
    // A run that KVM refused, because of another run or of the vCPU's state, has completed nothing.
    if (hasEntered(outcome)) this.#accessPending = undefined
    if (outcome === -errnos.EINTR) return { reason: 'interrupted' }
    if (outcome >= 0) {
      const exit = decodeExit(new DataView(this.#fd.runPage))
      if (exit.reason === 'mmio') this.#accessPending = exit.write ? 'write' : 'read'
      return exit
    }
    if (outcome === -errnos.EFAULT || outcome === -errnos.EHWPOISON) {
      // EFAULT and EHWPOISON with this reason are an exit; EFAULT without it means that a host mapping has gone.
      const run = new DataView(this.#fd.runPage)
      if (run.getUint32(kvmRun.exit_reason, true) === exitReasons.KVM_EXIT_MEMORY_FAULT)
        return decodeExit(run)
    }
    const remedy = this.#inFlight ? IN_FLIGHT : runRemedies.get(-outcome)
    throw kvmError(outcome, { syscall: 'KVM_RUN', vcpu: this.id, remedy })
  }
}

/** Checks the options of `Vcpu.init` and `Vm.createVcpu`. */
export function checkVcpuInit(options: VcpuInit): void {
  checkOptions(options, 'options', ['features', 'target'])
  const { features, target } = options
  if (target !== undefined) checkUint32(target, 'target')
  if (features === undefined) return
  if (!Array.isArray(features)) throw invalidType('features', 'an array of names of features', features)
  for (const [index, feature] of features.entries()) {
    checkChoice(feature, `features[${index}]`, Object.keys(vcpuFeatures))
  }
}

/** Returns x0 for a call. */
function checkFunctionId(functionId: number | bigint): bigint {
  if (typeof functionId === 'bigint') checkUint64(functionId, 'functionId')
  else if (typeof functionId === 'number') checkUint32(functionId, 'functionId')
  else throw invalidType('functionId', 'a number of 32 bits or a bigint of 64', functionId)
  return BigInt(functionId)
}

function checkCallArguments(args: readonly bigint[]): void {
  if (!Array.isArray(args)) throw invalidType('args', 'an array of bigints', args)
  if (args.length > 6) throw outOfRange('args', 'at most 6 bigints, for x1 to x6', args.length)
  for (const [index, argument] of args.entries()) checkUint64(argument, `args[${index}]`)
}

const PSTATE = encodeRegister('pstate')
const PC = encodeRegister('pc')
const SCTLR_EL1 = encodeRegister('SCTLR_EL1')
const MMU_ON = 1n
const IN_EL2 = 0x8n

const runRemedies = new Map<number, string>([
  [errnos.EAGAIN, NO_THREAD],
  [errnos.ENOEXEC, 'Call init() on this vCPU first'],
  [errnos.EPERM, 'Call finalize() on this vCPU first'],
  [
    errnos.EIO,
    'A first run failed with an interrupt controller that was not configured, and KVM gave the VM up: make a new one',
  ],
  [errnos.ENXIO, 'Give the GIC its addresses and initialise it before the first run'],
  [errnos.EINVAL, 'A vCPU with feature pmu-v3 needs KVM_ARM_VCPU_PMU_V3_INIT before the first run'],
  [errnos.EBUSY, 'The GIC was given addresses but not initialised'],
  [
    errnos.ENOSYS,
    'The guest accessed memory outside every slot by an instruction that KVM does not take apart (a pair, a vector, with writeback):' +
      ' enable KVM_CAP_ARM_NISV_TO_USER to have it as an exit',
  ],
  [errnos.EFAULT, 'The guest touched memory of a slot that is no longer mapped in this process'],
])
