import type { StatsFd, VcpuFd } from '../backend.js'
import { registerWidth } from '../registers/index.js'
import { errnos, GUEST_DEBUG_WORDS, KVM_VCPU_EVENTS_SIZE, mpStates, systemEvents } from '../uapi.js'
import { checkArray, checkUint32, checkUint64, outOfRange } from '../arguments.js'
import { checkRegisterId, checkRegisterValue } from './arguments.js'
import { fullRing, takeDirty } from './dirty-ring.js'
import { SimulatorError } from './errors.js'
import { countWrite } from './event-connections.js'
import { isMmioExit, mmioWriteOf, recordExit, recordInterrupt, systemEvent } from './exits.js'
import { completeStore, runGuest } from './guest.js'
import { setGuestDebug } from './guest-debug.js'
import { isHidden, listedIds } from './hidden-registers.js'
import { applyPendingReset, finalizeVcpu, initVcpu, isFinalised } from './init.js'
import { detach } from './memory.js'
import { aliasedRegister, missingRegister, missingRegisterAtNull } from './missing-registers.js'
import { recordStolenTime } from './stolen-time.js'
import { loadRegisters, prepareRun, wantsImmediateExit } from './run.js'
import type { MmioWrite } from './mmio.js'
import type { Register, VcpuState, VmState } from './state.js'
import { vcpuStats } from './stats.js'
import { vcpuAttributes } from './vcpu-attributes.js'
import { dropInputs, getEvents, hasWakingEvent, setEvents } from './vcpu-events.js'

/** Longest delay of a timer of Node, milliseconds. */
const LONGEST_DELAY = 0x7fff_ffff

interface Flight {
  settle: (outcome: number) => void
  fail: (reason: unknown) => void
  /** Keeps the process alive, as a thread in the guest does. */
  anchor: NodeJS.Timeout
}

/** A vCPU of a simulated VM. A guest that waits gets no interrupt: its run lasts until something ends it. */
export class SimulatedVcpu implements VcpuFd {
  onPosted?: (() => void) | undefined
  readonly #state: VcpuState
  readonly #runPage: ArrayBuffer
  #closed = false
  #flight: Flight | null = null
  /** Promises of `run()` whose reactions have not run: for the caller these runs are in flight even after they left the guest. */
  #unsettled = 0
  /** The result of the last run that left the guest. */
  #outcome = 0
  /** A kick came after its run had left the guest: it applies to the next run. */
  #kickIsDue = false

  constructor(state: VcpuState) {
    this.#state = state
    this.#runPage = new ArrayBuffer(state.vm.host.report.vcpuMmapSize)
  }

  get runPage(): ArrayBuffer {
    return this.#runPage
  }

  init(target: number, features: readonly number[]): number {
    checkUint32(target, 'target')
    if (features.length > 7) throw outOfRange('features', 'at most 7 elements long')
    for (const word of features) checkUint32(word, 'features')
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : initVcpu(this.#state, target, features)
  }

  finalize(feature: number): number {
    checkUint32(feature, 'feature')
    const barrier = this.#registerBarrier()
    return barrier < 0 ? barrier : finalizeVcpu(this.#state, feature)
  }

  getRegList(list: BigUint64Array): number {
    checkArray(list, BigUint64Array, 1, 'list')
    // The kernel compares 32 bits of n with its count.
    const room = Number(BigInt.asUintN(32, list[0]!))
    if (room > list.length - 1) throw outOfRange('list', 'longer than the count in its first element')
    const barrier = this.#registerBarrier()
    if (barrier < 0) return barrier
    if (!isFinalised(this.#state)) return -errnos.EPERM
    const ids = listedIds(this.#state)
    list[0] = BigInt(ids.length)
    if (room < ids.length) return -errnos.E2BIG
    list.set(ids, 1)
    return 0
  }

  getOneReg(id: bigint): bigint | number {
    const register = this.#register(id)
    const barrier = this.#oneRegBarrier()
    if (barrier < 0) return barrier
    return register?.read(this.#state) ?? missingRegister(this.#state, id)
  }

  setOneReg(id: bigint, value: bigint): number {
    const register = this.#register(id)
    if (register === undefined || typeof value !== 'bigint' || value < 0n || value > register.limit) {
      checkRegisterValue(id, value, registerWidth(id))
    }
    const barrier = this.#oneRegBarrier()
    if (barrier < 0) return barrier
    return register?.write(this.#state, value) ?? missingRegister(this.#state, id)
  }

  getOneRegAtNull(id: bigint): number {
    const outcome = this.getOneReg(id)
    return typeof outcome === 'bigint' ? -errnos.EFAULT : outcome
  }

  setOneRegAtNull(id: bigint): number {
    const register = this.#register(id)
    const barrier = this.#oneRegBarrier()
    if (barrier < 0) return barrier
    if (register === undefined) return missingRegisterAtNull(this.#state, id)
    const refusal = register.check?.(this.#state) ?? 0
    if (refusal < 0) return refusal
    if (this.#state.vm.host.traits.faultingSetZeroes) register.zero?.(this.#state)
    return -errnos.EFAULT
  }

  getRegs(ids: BigUint64Array, values: BigUint64Array, outcomes: Int32Array): number {
    checkBatch(ids, values, outcomes)
    const barrier = this.#handleBarrier()
    if (barrier < 0) return barrier
    let failures = 0
    for (const [index, id] of ids.entries()) {
      const outcome = registerWidth(id) > 64 ? -errnos.EINVAL : this.getOneReg(id)
      const isValue = typeof outcome === 'bigint'
      values[index] = isValue ? outcome : 0n
      outcomes[index] = isValue ? 0 : outcome
      if (!isValue) failures++
    }
    return failures
  }

  setRegs(ids: BigUint64Array, values: BigUint64Array, outcomes: Int32Array): number {
    checkBatch(ids, values, outcomes)
    // Consecutive writes to one id share the look-up: a probe makes hundreds.
    let width = 0
    for (let index = 0; index < ids.length; index++) {
      if (ids[index] !== ids[index - 1]) width = registerWidth(ids[index]!)
      if (width < 64) checkRegisterValue(ids[index]!, values[index]!, width)
    }
    const barrier = this.#handleBarrier()
    if (barrier < 0) return barrier
    let write: ((value: bigint) => number) | undefined
    let failures = 0
    for (let index = 0; index < ids.length; index++) {
      if (ids[index] !== ids[index - 1]) write = this.#writer(ids[index]!)
      const outcome = write!(values[index]!)
      outcomes[index] = outcome
      if (outcome < 0) failures++
    }
    return failures
  }

  getMpState(): number {
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : this.#state.mpState
  }

  setMpState(state: number): number {
    checkUint32(state, 'state')
    const barrier = this.#barrier()
    if (barrier < 0) return barrier
    // KVM introduced the state together with the capability.
    const knowsSuspended = this.#state.vm.host.capability('KVM_CAP_ARM_SYSTEM_SUSPEND') > 0
    const isKnown =
      state === mpStates.runnable ||
      state === mpStates.stopped ||
      (state === mpStates.suspended && knowsSuspended)
    if (!isKnown) return -errnos.EINVAL
    this.#state.mpState = state
    return 0
  }

  getVcpuEvents(events: Uint8Array): number {
    checkArray(events, Uint8Array, KVM_VCPU_EVENTS_SIZE, 'events')
    const barrier = this.#eventsBarrier()
    return barrier < 0 ? barrier : getEvents(this.#state, events.subarray(0, KVM_VCPU_EVENTS_SIZE))
  }

  setVcpuEvents(events: Uint8Array): number {
    checkArray(events, Uint8Array, KVM_VCPU_EVENTS_SIZE, 'events')
    const barrier = this.#eventsBarrier()
    return barrier < 0 ? barrier : setEvents(this.#state, events.subarray(0, KVM_VCPU_EVENTS_SIZE))
  }

  setGuestDebug(control: number, registers: BigUint64Array): number {
    checkUint32(control, 'control')
    checkArray(registers, BigUint64Array, GUEST_DEBUG_WORDS, 'registers')
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : setGuestDebug(this.#state, control, registers)
  }

  takeCoalesced(entries: BigUint64Array): number {
    checkArray(entries, BigUint64Array, 3, 'entries')
    return this.#closed ? -errnos.EBADF : this.#state.vm.coalesced.take(entries)
  }

  takeDirty(entries: BigUint64Array): number {
    checkArray(entries, BigUint64Array, 2, 'entries')
    return this.#closed ? -errnos.EBADF : takeDirty(this.#state, entries)
  }

  getStatsFd(): StatsFd | number {
    const barrier = this.#barrier()
    return barrier < 0 ? barrier : vcpuStats(this.#state)
  }

  hasDeviceAttr(group: number, attribute: bigint): number {
    const barrier = this.#attributeBarrier(group, attribute)
    return barrier < 0 ? barrier : vcpuAttributes(group).has(this.#state, attribute)
  }

  getDeviceAttr(group: number, attribute: bigint, data: Uint8Array): number {
    const barrier = this.#attributeBarrier(group, attribute)
    return barrier < 0 ? barrier : vcpuAttributes(group).get(this.#state, attribute, data)
  }

  setDeviceAttr(group: number, attribute: bigint, data: Uint8Array | null): number {
    const barrier = this.#attributeBarrier(group, attribute)
    return barrier < 0 ? barrier : vcpuAttributes(group).set(this.#state, attribute, data)
  }

  /**
   * Waits for a positive `timeoutMs` if the guest waits for an interrupt.
   * @throws SimulatorError `ERR_KVM_SIMULATOR_NO_GUEST_CODE` for a run that nothing would ever end
   */
  runSync(timeoutMs: number): number {
    if (!(timeoutMs >= 0)) throw outOfRange('timeoutMs', 'at least 0')
    const outcome = this.#enter()
    if (outcome !== null) return outcome
    if (timeoutMs === 0) {
      throw new SimulatorError(
        'ERR_KVM_SIMULATOR_NO_GUEST_CODE',
        'The simulated guest executes no guest code that would end this run. ' +
          'Give runSync() a timeout, set immediate_exit, or use run() and kick().',
      )
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, timeoutMs)
    recordInterrupt(this.#runPage)
    return -errnos.EINTR
  }

  run(): Promise<number> {
    const refusal = this.#handleBarrier()
    if (refusal < 0) return Promise.resolve(refusal)
    const outcome = this.#enter()
    const run = new Promise<number>((resolve, reject) => {
      if (outcome === null) {
        this.#flight = {
          settle: resolve,
          fail: reject,
          anchor: setInterval(() => undefined, LONGEST_DELAY),
        }
        this.#state.wake = () => this.#goOn()
      } else {
        this.#outcome = outcome
        resolve(outcome)
      }
    })
    this.#unsettled++
    // The first reaction: those of the caller run after it.
    const onSettled = (): void => {
      this.#unsettled--
    }
    run.then(onSettled, onSettled)
    return run
  }

  kick(): void {
    if (this.#flight !== null) {
      recordInterrupt(this.#runPage)
      this.#outcome = -errnos.EINTR
      this.#land().settle(this.#outcome)
    } else if (this.#unsettled > 0 && this.#outcome !== -errnos.EINTR) {
      this.#kickIsDue = true
    }
  }

  /** Continues a vCPU that another vCPU's guest started. Its outcome must not affect that other run. */
  #goOn(): void {
    try {
      const ended = this.#execute()
      if (ended === null) return
      this.#outcome = ended
      this.#land().settle(ended)
    } catch (error) {
      this.#land().fail(error)
    }
  }

  #land(): Flight {
    const flight = this.#flight!
    this.#flight = null
    this.#state.wake = null
    clearInterval(flight.anchor)
    return flight
  }

  close(): void {
    if (this.#closed) return
    this.kick()
    this.#closed = true
    detach(this.#runPage)
  }

  /** Checks whether the handle accepts calls: returns 0 or `-errno`. */
  #handleBarrier(): number {
    if (this.#closed) return -errnos.EBADF
    return this.#flight === null ? 0 : -errnos.EBUSY
  }

  /** The checks before every ioctl: returns 0 or `-errno`. */
  #barrier(): number {
    const barrier = this.#handleBarrier()
    return barrier === 0 && this.#state.vm.dead ? -errnos.EIO : barrier
  }

  #registerBarrier(): number {
    const barrier = this.#barrier()
    return barrier === 0 && !this.#state.initialised ? -errnos.ENOEXEC : barrier
  }

  /** Any access to a vCPU's registers first applies what CPU_ON set. */
  #oneRegBarrier(): number {
    const barrier = this.#registerBarrier()
    if (barrier === 0) applyPendingReset(this.#state)
    return barrier
  }

  #eventsBarrier(): number {
    return this.#state.vm.host.traits.vcpuEventsNeedInit ? this.#registerBarrier() : this.#barrier()
  }

  #attributeBarrier(group: number, attribute: bigint): number {
    checkUint32(group, 'group')
    checkUint64(attribute, 'attribute')
    return this.#barrier()
  }

  /** Returns the register of an id, if the vCPU has one. */
  #register(id: bigint): Register | undefined {
    const register = this.#state.file?.byId.get(id)
    if (register !== undefined) return isHidden(this.#state, id) ? undefined : register
    checkRegisterId(id)
    return aliasedRegister(this.#state, id)
  }

  /** `KVM_SET_ONE_REG` of one id in a batch. */
  #writer(id: bigint): (value: bigint) => number {
    if (registerWidth(id) > 64) return () => -errnos.EINVAL
    const register = this.#register(id)
    const barrier = this.#oneRegBarrier()
    if (barrier < 0) return () => barrier
    if (register === undefined) return () => missingRegister(this.#state, id)
    return (value) => register.write(this.#state, value)
  }

  /** Returns null if the vCPU waits now, else the immediate result of `KVM_RUN`. */
  #enter(): number | null {
    const barrier = this.#barrier()
    if (barrier < 0) return barrier
    const outcome = prepareRun(this.#state)
    if (outcome < 0) return outcome
    loadRegisters(this.#state, 'run')
    if (this.#state.storePending && isMmioExit(this.#runPage)) completeStore(this.#state)
    if (wantsImmediateExit(this.#runPage) || this.#takeKick()) return -errnos.EINTR
    loadRegisters(this.#state, 'load')
    return this.#execute()
  }

  #takeKick(): boolean {
    const isDue = this.#kickIsDue
    this.#kickIsDue = false
    return isDue
  }

  /** Returns null if the vCPU waits now, 0 after an exit. */
  #execute(): number | null {
    recordStolenTime(this.#state)
    if (this.#state.mpState === mpStates.suspended && hasWakingEvent(this.#state)) {
      recordExit(this.#runPage, systemEvent(this.#state, systemEvents.wakeup, []))
      return 0
    }
    if (this.#state.mpState !== mpStates.runnable) return null
    applyPendingReset(this.#state)
    loadRegisters(this.#state, 'guest')
    if (this.#state.vm.host.traits.sErrorDropped) dropInputs(this.#state)
    for (;;) {
      const exit = fullRing(this.#state) ?? runGuest(this.#state)
      if (exit === 'wait') return null
      const write = mmioWriteOf(exit)
      if (write !== null && isKept(this.#state.vm, write)) {
        this.#state.counts.mmioKernel++
        completeStore(this.#state)
        continue
      }
      if (write !== null) this.#state.counts.mmioUser++
      if (write === null || !this.#state.vm.mmio.post(write)) {
        recordExit(this.#runPage, exit)
        return 0
      }
      completeStore(this.#state)
      setImmediate(() => {
        if (this.#flight !== null) this.onPosted?.()
      })
    }
  }
}

/** Whether KVM itself has taken the write. */
function isKept(vm: VmState, write: MmioWrite): boolean {
  return countWrite(vm, write) || vm.coalesced.keep(write)
}

function checkBatch(ids: BigUint64Array, values: BigUint64Array, outcomes: Int32Array): void {
  checkArray(ids, BigUint64Array, 0, 'ids')
  checkArray(values, BigUint64Array, 0, 'values')
  checkArray(outcomes, Int32Array, 0, 'errnos')
  if (values.length !== ids.length) throw outOfRange('values', 'as long as ids')
  if (outcomes.length !== ids.length) throw outOfRange('errnos', 'as long as ids')
}
