import type {
  AttributeFd,
  Backend,
  DeviceFd,
  GuestCall,
  GuestCallOutcome,
  GuestMemoryFd,
  MemoryRegion,
  SystemFd,
  VcpuFd,
  VmFd,
} from '../backend.js'
import { errnoName } from '../kvm/errors.js'
import { hex, registerWidth } from '../registers/index.js'
import {
  errnos,
  KVM_ARM_VM_SMCCC_CTRL,
  KVM_ARM_VM_SMCCC_FILTER,
  kvmRun,
  SMCCC_FILTER_SIZE,
  unpackSmcccFilter,
} from '../uapi.js'
import type { Call, Outcome, TraceEntry } from './format.js'
import { guestCallOutcome, nonZeroMasks, toHex } from './player.js'

type Sink = (entry: TraceEntry) => void

/**
 * A backend that does what `backend` does and tells `sink` every ioctl with its outcome. Reads and writes of several registers at once
 * are as many calls. Calls on closed handles are not told: they reach no kernel.
 *
 * A `run()` stands where it began. Calls made while it is in flight are told once it has ended.
 */
export function recordingBackend(backend: Backend, sink: Sink): Backend {
  return {
    name: backend.name,
    host: backend.host,
    open: () => {
      const kvm = backend.open()
      return typeof kvm === 'number' ? kvm : new RecordedSystem(kvm, new Recorder(sink))
    },
  }
}

/** Numbers handles and keeps the order in which calls began. */
class Recorder {
  readonly memories = new WeakMap<GuestMemoryFd, number>()
  readonly #sink: Sink
  readonly #counts = { vm: 0, vcpu: 0, device: 0, memory: 0 }
  /** Calls behind a run in flight. */
  readonly #waiting: (TraceEntry | { entry: TraceEntry | null })[] = []

  constructor(sink: Sink) {
    this.#sink = sink
  }

  next(kind: 'vm' | 'vcpu' | 'device' | 'memory'): number {
    return this.#counts[kind]++
  }

  tell(call: Call, outcome: Outcome): void {
    const entry = { call, outcome }
    if (this.#waiting.length === 0) this.#sink(entry)
    else this.#waiting.push(entry)
  }

  /** Tells a call whose outcome is 0, a positive number or `-errno`. */
  plain(call: Call, outcome: number): number {
    if (outcome !== -errnos.EBADF) this.tell(call, outcome < 0 ? refused(outcome) : { ret: outcome })
    return outcome
  }

  /** Tells a call whose outcome is a number, or `-errno`. */
  number(call: Call, outcome: number): number {
    if (outcome !== -errnos.EBADF) this.tell(call, outcome < 0 ? refused(outcome) : { value: outcome })
    return outcome
  }

  /** Tells a call that fills something, and answers 0 or `-errno`. */
  filled(call: Call, outcome: number, result: () => Outcome): number {
    if (outcome !== -errnos.EBADF) this.tell(call, outcome < 0 ? refused(outcome) : result())
    return outcome
  }

  /** Keeps the place of a call that ends later; what it returns tells the outcome. */
  begin(call: Call): (outcome: Outcome) => void {
    const place: { entry: TraceEntry | null } = { entry: null }
    this.#waiting.push(place)
    return (outcome) => {
      place.entry = { call, outcome }
      this.#flush()
    }
  }

  #flush(): void {
    for (;;) {
      const [first] = this.#waiting
      if (first === undefined) return
      const entry = 'entry' in first ? first.entry : first
      if (entry === null) return
      this.#waiting.shift()
      this.#sink(entry)
    }
  }
}

function refused(outcome: number): Outcome {
  return { errno: errnoName(outcome) }
}

class RecordedSystem implements SystemFd {
  readonly #fd: SystemFd
  readonly #recorder: Recorder

  constructor(fd: SystemFd, recorder: Recorder) {
    this.#fd = fd
    this.#recorder = recorder
  }

  get observed(): SystemFd {
    return this.#fd
  }

  getApiVersion(): number {
    return this.#recorder.number({ op: 'api_version' }, this.#fd.getApiVersion())
  }

  checkExtension(capability: number): number {
    return this.#recorder.number(
      { op: 'check_extension', cap: capability },
      this.#fd.checkExtension(capability),
    )
  }

  getVcpuMmapSize(): number {
    return this.#recorder.number({ op: 'vcpu_mmap_size' }, this.#fd.getVcpuMmapSize())
  }

  createVm(type: bigint): VmFd | number {
    const made = this.#fd.createVm(type)
    const vm = this.#recorder.next('vm')
    this.#recorder.plain({ op: 'create_vm', vm, type: hex(type) }, typeof made === 'number' ? made : 0)
    return typeof made === 'number' ? made : new RecordedVm(made, vm, this.#recorder)
  }

  createMemory(size: number): GuestMemoryFd | number {
    const made = this.#fd.createMemory(size)
    const memory = this.#recorder.next('memory')
    this.#recorder.plain({ op: 'create_memory', memory, size }, typeof made === 'number' ? made : 0)
    // Its content is no business of the trace, so the memory itself is what the caller gets.
    if (typeof made !== 'number') this.#recorder.memories.set(made, memory)
    return made
  }

  close(): void {
    this.#fd.close()
  }
}

type Owner = { vm: number } | { vcpu: number } | { device: number }

/** What VMs, vCPUs and devices share; a device has nothing else. */
class RecordedHandle implements AttributeFd, DeviceFd {
  protected readonly recorder: Recorder
  readonly #fd: AttributeFd & { close(): void }
  readonly #owner: Owner
  #closed = false

  constructor(fd: AttributeFd & { close(): void }, owner: Owner, recorder: Recorder) {
    this.#fd = fd
    this.#owner = owner
    this.recorder = recorder
  }

  hasDeviceAttr(group: number, attribute: bigint): number {
    return this.recorder.plain(
      { op: 'has_device_attr', ...this.#owner, group, attr: hex(attribute) },
      this.#fd.hasDeviceAttr(group, attribute),
    )
  }

  getDeviceAttr(group: number, attribute: bigint, data: Uint8Array): number {
    return this.recorder.filled(
      { op: 'get_device_attr', ...this.#owner, group, attr: hex(attribute), size: data.length },
      this.#fd.getDeviceAttr(group, attribute, data),
      () => ({ data: toHex(data) }),
    )
  }

  setDeviceAttr(group: number, attribute: bigint, data: Uint8Array | null): number {
    const outcome = this.#fd.setDeviceAttr(group, attribute, data)
    const isFilter =
      'vm' in this.#owner && group === KVM_ARM_VM_SMCCC_CTRL && attribute === KVM_ARM_VM_SMCCC_FILTER
    const filter = isFilter && data !== null ? filterCall(this.#owner.vm, data) : null
    return this.recorder.plain(
      filter ?? {
        op: 'set_device_attr',
        ...this.#owner,
        group,
        attr: hex(attribute),
        data: data && toHex(data),
      },
      outcome,
    )
  }

  close(): void {
    this.#fd.close()
    if (!this.#closed) this.recorder.tell({ op: 'close', ...this.#owner }, {})
    this.#closed = true
  }
}

/** The filter as a call of its own, if its pads are zero. */
function filterCall(vm: number, data: Uint8Array): Call | null {
  if (data.length < SMCCC_FILTER_SIZE) return null
  const filter = unpackSmcccFilter(data)
  return filter && { op: 'smccc_filter', vm, ...filter }
}

class RecordedVm extends RecordedHandle implements VmFd {
  readonly #fd: VmFd
  readonly #vm: number

  constructor(fd: VmFd, vm: number, recorder: Recorder) {
    super(fd, { vm }, recorder)
    this.#fd = fd
    this.#vm = vm
  }

  get observed(): VmFd {
    return this.#fd
  }

  checkExtension(capability: number): number {
    return this.recorder.number(
      { op: 'check_extension', vm: this.#vm, cap: capability },
      this.#fd.checkExtension(capability),
    )
  }

  enableCap(capability: number, flags: number, args: readonly bigint[]): number {
    return this.recorder.plain(
      { op: 'enable_cap', vm: this.#vm, cap: capability, flags, args: args.map(hex) },
      this.#fd.enableCap(capability, flags, args),
    )
  }

  createVcpu(id: number): VcpuFd | number {
    const made = this.#fd.createVcpu(id)
    const vcpu = this.recorder.next('vcpu')
    this.recorder.plain({ op: 'create_vcpu', vm: this.#vm, vcpu, id }, typeof made === 'number' ? made : 0)
    return typeof made === 'number' ? made : new RecordedVcpu(made, vcpu, this.recorder)
  }

  getPreferredTarget(init: Uint32Array): number {
    return this.recorder.filled(
      { op: 'preferred_target', vm: this.#vm },
      this.#fd.getPreferredTarget(init),
      () => ({ words: [...init.subarray(0, 8)] }),
    )
  }

  getRegWritableMasks(range: number, masks: BigUint64Array): number {
    return this.recorder.filled(
      { op: 'writable_masks', vm: this.#vm, range },
      this.#fd.getRegWritableMasks(range, masks),
      () => ({ masks: nonZeroMasks(masks) }),
    )
  }

  setUserMemoryRegion(region: MemoryRegion): number {
    const outcome = this.#fd.setUserMemoryRegion(region)
    const { slot, flags, address, memory, offset, size } = region
    const number = memory === null ? null : this.recorder.memories.get(memory)!
    return this.recorder.plain(
      {
        op: 'set_user_memory_region',
        vm: this.#vm,
        slot,
        flags,
        address: hex(address),
        memory: number,
        offset,
        size,
      },
      outcome,
    )
  }

  createDevice(type: number, flags: number): DeviceFd | number {
    const made = this.#fd.createDevice(type, flags)
    const device = this.recorder.next('device')
    const call: Call = { op: 'create_device', vm: this.#vm, device, type, flags }
    this.recorder.plain(call, typeof made === 'number' ? made : 0)
    return typeof made === 'number' ? made : new RecordedHandle(made, { device }, this.recorder)
  }
}

class RecordedVcpu extends RecordedHandle implements VcpuFd {
  readonly #fd: VcpuFd
  readonly #vcpu: number

  constructor(fd: VcpuFd, vcpu: number, recorder: Recorder) {
    super(fd, { vcpu }, recorder)
    this.#fd = fd
    this.#vcpu = vcpu
  }

  get observed(): VcpuFd {
    return this.#fd
  }

  get runPage(): ArrayBuffer {
    return this.#fd.runPage
  }

  init(target: number, features: readonly number[]): number {
    return this.recorder.plain(
      { op: 'vcpu_init', vcpu: this.#vcpu, target, features: features.map(hex) },
      this.#fd.init(target, features),
    )
  }

  finalize(feature: number): number {
    return this.recorder.plain({ op: 'vcpu_finalize', vcpu: this.#vcpu, feature }, this.#fd.finalize(feature))
  }

  getRegList(list: BigUint64Array): number {
    const room = list[0]!
    const outcome = this.#fd.getRegList(list)
    const call: Call = { op: 'get_reg_list', vcpu: this.#vcpu, n_in: hex(room) }
    if (outcome === -errnos.E2BIG) {
      this.recorder.tell(call, { n: hex(list[0]!), errno: 'E2BIG' })
      return outcome
    }
    return this.recorder.filled(call, outcome, () => ({
      n: hex(list[0]!),
      regs: Array.from(list.subarray(1, 1 + Number(list[0])), hex),
    }))
  }

  getOneReg(id: bigint): bigint | number {
    const value = this.#fd.getOneReg(id)
    this.#tellGet(id, value)
    return value
  }

  setOneReg(id: bigint, value: bigint): number {
    return this.recorder.plain(
      { op: 'set_one_reg', vcpu: this.#vcpu, id: hex(id), value: hex(value) },
      this.#fd.setOneReg(id, value),
    )
  }

  getOneRegAtNull(id: bigint): number {
    return this.recorder.plain(
      { op: 'get_one_reg', vcpu: this.#vcpu, id: hex(id), addr: 'bad' },
      this.#fd.getOneRegAtNull(id),
    )
  }

  setOneRegAtNull(id: bigint): number {
    return this.recorder.plain(
      { op: 'set_one_reg', vcpu: this.#vcpu, id: hex(id), addr: 'bad' },
      this.#fd.setOneRegAtNull(id),
    )
  }

  getRegs(ids: BigUint64Array, values: BigUint64Array, outcomes: Int32Array): number {
    const failures = this.#fd.getRegs(ids, values, outcomes)
    for (const [index, id] of ids.entries()) {
      if (isAsked(id)) this.#tellGet(id, outcomes[index] === 0 ? values[index]! : outcomes[index]!)
    }
    return failures
  }

  setRegs(ids: BigUint64Array, values: BigUint64Array, outcomes: Int32Array): number {
    const failures = this.#fd.setRegs(ids, values, outcomes)
    for (const [index, id] of ids.entries()) {
      const call: Call = { op: 'set_one_reg', vcpu: this.#vcpu, id: hex(id), value: hex(values[index]!) }
      if (isAsked(id)) this.recorder.plain(call, outcomes[index]!)
    }
    return failures
  }

  getMpState(): number {
    return this.recorder.number({ op: 'get_mp_state', vcpu: this.#vcpu }, this.#fd.getMpState())
  }

  setMpState(state: number): number {
    return this.recorder.plain({ op: 'set_mp_state', vcpu: this.#vcpu, state }, this.#fd.setMpState(state))
  }

  getVcpuEvents(events: Uint8Array): number {
    return this.recorder.filled(
      { op: 'get_vcpu_events', vcpu: this.#vcpu },
      this.#fd.getVcpuEvents(events),
      () => ({ data: toHex(events.subarray(0, 64)) }),
    )
  }

  setVcpuEvents(events: Uint8Array): number {
    return this.recorder.plain(
      { op: 'set_vcpu_events', vcpu: this.#vcpu, data: toHex(events.subarray(0, 64)) },
      this.#fd.setVcpuEvents(events),
    )
  }

  runSync(timeoutMs: number): number {
    const call = this.#runCall()
    const outcome = this.#fd.runSync(timeoutMs)
    if (outcome !== -errnos.EBADF) this.recorder.tell(call, this.#exit(outcome))
    return outcome
  }

  async run(): Promise<number> {
    const end = this.recorder.begin(this.#runCall())
    const outcome = await this.#fd.run()
    end(this.#exit(outcome))
    return outcome
  }

  kick(): void {
    this.#fd.kick()
  }

  noteGuestCall({ conduit, args }: GuestCall, outcome: GuestCallOutcome): void {
    if (outcome === -errnos.EBADF) return
    const call: Call = { op: conduit, vcpu: this.#vcpu, args: args.map(hex) }
    this.recorder.tell(call, guestCallOutcome(this.#fd, outcome))
  }

  #runCall(): Call {
    const page = this.#fd.runPage
    const immediate = page.byteLength > 0 && new Uint8Array(page)[kvmRun.immediate_exit] !== 0
    return { op: 'run', vcpu: this.#vcpu, immediate_exit: immediate }
  }

  #exit(outcome: number): Outcome {
    if (outcome < 0) return refused(outcome)
    return { exit: new DataView(this.#fd.runPage).getUint32(kvmRun.exit_reason, true) }
  }

  #tellGet(id: bigint, value: bigint | number): void {
    if (value === -errnos.EBADF) return
    this.recorder.tell(
      { op: 'get_one_reg', vcpu: this.#vcpu, id: hex(id) },
      typeof value === 'bigint' ? { value: hex(value) } : refused(value),
    )
  }
}

/** Whether a call for several registers asks KVM for this one at all. */
function isAsked(id: bigint): boolean {
  return registerWidth(id) <= 64
}
