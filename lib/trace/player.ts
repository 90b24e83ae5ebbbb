import type {
  AttributeFd,
  DeviceFd,
  GuestCallOutcome,
  GuestMemoryFd,
  SystemFd,
  VcpuFd,
  VmFd,
} from '../backend.js'
import { errnoName } from '../kvm/errors.js'
import { callFromGuest, mapStub } from '../kvm/guest-call.js'
import { hex } from '../registers/index.js'
import {
  errnos,
  KVM_ARM_FEATURE_ID_RANGE_SIZE,
  KVM_ARM_VM_SMCCC_CTRL,
  KVM_ARM_VM_SMCCC_FILTER,
  KVM_VCPU_EVENTS_SIZE,
  kvmRun,
  mpStates,
  packSmcccFilter,
} from '../uapi.js'
import type { Call, CallOf, Outcome } from './format.js'

/** Bytes behind every payload, so that a trace that tells too short a one makes no kernel reach beyond it. */
const PAYLOAD_ROOM = 4096
/** What a run without `immediate_exit` gets before it is interrupted, milliseconds. */
const RUN_TIME = 1
/** What a guest's call gets at a time, and until it is given up, milliseconds. */
const CALL_SLICE = 2
const CALL_TIME = 10_000

/** Makes calls on a backend, with handles numbered as a trace numbers them. A call on a number that has no handle answers `EBADF`. */
export class Player {
  readonly #kvm: SystemFd
  readonly #vms = new Map<number, VmFd>()
  readonly #vcpus = new Map<number, VcpuFd>()
  readonly #vmOfVcpu = new Map<number, number>()
  readonly #devices = new Map<number, DeviceFd>()
  readonly #memories = new Map<number, GuestMemoryFd>()
  /** Memory of the stub guest, by VM. */
  readonly #stubs = new Map<number, GuestMemoryFd>()

  constructor(kvm: SystemFd) {
    this.#kvm = kvm
  }

  /**
   * Makes one call. A run without `immediate_exit` is interrupted after a millisecond, and a guest's call once the guest is stopped.
   * @throws what the backend throws where it cannot answer at all
   */
  perform(call: Call): Outcome {
    switch (call.op) {
      case 'get_one_reg':
        return this.#getOneReg(call)
      case 'set_one_reg':
        return this.#onVcpu(call, (vcpu) =>
          call.value === undefined
            ? plain(vcpu.setOneRegAtNull(BigInt(call.id)))
            : plain(vcpu.setOneReg(BigInt(call.id), BigInt(call.value))),
        )
      case 'api_version':
        return number(this.#kvm.getApiVersion())
      case 'vcpu_mmap_size':
        return number(this.#kvm.getVcpuMmapSize())
      case 'check_extension':
        if (call.vm === undefined) return number(this.#kvm.checkExtension(call.cap))
        return this.#onVm({ vm: call.vm }, (vm) => number(vm.checkExtension(call.cap)))
      case 'create_vm':
        return keep(this.#vms, call.vm, this.#kvm.createVm(BigInt(call.type)))
      case 'create_memory':
        return keep(this.#memories, call.memory, this.#kvm.createMemory(call.size))
      case 'enable_cap':
        return this.#onVm(call, (vm) => plain(vm.enableCap(call.cap, call.flags ?? 0, call.args.map(BigInt))))
      case 'create_vcpu':
        this.#vmOfVcpu.set(call.vcpu, call.vm)
        return this.#onVm(call, (vm) => keep(this.#vcpus, call.vcpu, vm.createVcpu(call.id)))
      case 'preferred_target':
        return this.#onVm(call, preferredTarget)
      case 'writable_masks':
        return this.#onVm(call, (vm) => writableMasks(vm, call.range ?? 0))
      case 'set_user_memory_region':
        return this.#setUserMemoryRegion(call)
      case 'create_device':
        return this.#onVm(call, (vm) =>
          keep(this.#devices, call.device, vm.createDevice(call.type, call.flags)),
        )
      case 'has_device_attr':
        return this.#onAny(call, (fd) => plain(fd.hasDeviceAttr(call.group, BigInt(call.attr))))
      case 'get_device_attr':
        return this.#onAny(call, (fd) => getAttribute(fd, call))
      case 'set_device_attr':
        return this.#onAny(call, (fd) =>
          plain(
            fd.setDeviceAttr(call.group, BigInt(call.attr), call.data === null ? null : toBytes(call.data)),
          ),
        )
      case 'smccc_filter':
        return this.#onVm(call, (vm) =>
          plain(vm.setDeviceAttr(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, packSmcccFilter(call))),
        )
      case 'vcpu_init':
        return this.#init(call)
      case 'vcpu_finalize':
        return this.#onVcpu(call, (vcpu) => plain(vcpu.finalize(call.feature)))
      case 'get_reg_list':
        return this.#onVcpu(call, (vcpu) => getRegList(vcpu, BigInt(call.n_in)))
      case 'get_mp_state':
        return this.#onVcpu(call, (vcpu) => number(vcpu.getMpState()))
      case 'set_mp_state':
        return this.#onVcpu(call, (vcpu) => plain(vcpu.setMpState(call.state)))
      case 'get_vcpu_events':
        return this.#onVcpu(call, getEvents)
      case 'set_vcpu_events':
        return this.#onVcpu(call, (vcpu) => plain(vcpu.setVcpuEvents(toBytes(call.data))))
      case 'run':
        return this.#onVcpu(call, (vcpu) => run(vcpu, call.immediate_exit))
      case 'hvc':
      case 'smc':
        return this.#guestCall(call)
      case 'close':
        this.#close(call)
        return {}
      case 'reset':
        this.reset()
        return {}
      default:
        return call satisfies never
    }
  }

  /** Closes every handle but the system's. */
  reset(): void {
    for (const handles of [this.#vcpus, this.#devices, this.#vms, this.#memories, this.#stubs]) {
      for (const handle of handles.values()) handle.close()
      handles.clear()
    }
    this.#vmOfVcpu.clear()
  }

  #onVm({ vm }: { vm: number }, work: (vm: VmFd) => Outcome): Outcome {
    const fd = this.#vms.get(vm)
    return fd === undefined ? closed : work(fd)
  }

  #onVcpu({ vcpu }: { vcpu: number }, work: (vcpu: VcpuFd) => Outcome): Outcome {
    const fd = this.#vcpus.get(vcpu)
    return fd === undefined ? closed : work(fd)
  }

  #onAny(
    { vm, vcpu, device }: { vm?: number | undefined; vcpu?: number | undefined; device?: number | undefined },
    work: (fd: AttributeFd) => Outcome,
  ): Outcome {
    const fd =
      vm === undefined
        ? vcpu === undefined
          ? this.#devices.get(device!)
          : this.#vcpus.get(vcpu)
        : this.#vms.get(vm)
    return fd === undefined ? closed : work(fd)
  }

  #getOneReg(call: CallOf<'get_one_reg'>): Outcome {
    const vcpu = this.#vcpus.get(call.vcpu)
    if (vcpu === undefined) return closed
    if (call.addr === 'bad') return plain(vcpu.getOneRegAtNull(BigInt(call.id)))
    const value = vcpu.getOneReg(BigInt(call.id))
    return typeof value === 'bigint' ? { value: hex(value) } : refused(value)
  }

  #init({ vcpu, target, features }: CallOf<'vcpu_init'>): Outcome {
    const fd = this.#vcpus.get(vcpu)
    if (fd === undefined) return closed
    if (target !== 'preferred') return plain(fd.init(target, features.map(Number)))
    const vm = this.#vms.get(this.#vmOfVcpu.get(vcpu)!)
    if (vm === undefined) return closed
    const words = new Uint32Array(8)
    const outcome = vm.getPreferredTarget(words)
    return outcome < 0 ? refused(outcome) : plain(fd.init(words[0]!, features.map(Number)))
  }

  #guestCall({ op, vcpu, args }: CallOf<'hvc' | 'smc'>): Outcome {
    const fd = this.#vcpus.get(vcpu)
    if (fd === undefined) return closed
    const refusal = this.#mapStub(this.#vmOfVcpu.get(vcpu)!)
    if (refusal < 0) return refused(refusal)
    return guestCallOutcome(fd, callFromGuest(fd, { conduit: op, args: args.map(BigInt) }, runGuestCall))
  }

  /** The stub guest of a VM, on the first call that needs it: 0 or `-errno`. */
  #mapStub(vm: number): number {
    if (this.#stubs.has(vm)) return 0
    const fd = this.#vms.get(vm)
    if (fd === undefined) return -errnos.EBADF
    const stub = mapStub(this.#kvm, fd)
    if (typeof stub === 'number') return stub
    this.#stubs.set(vm, stub)
    return 0
  }

  #setUserMemoryRegion(call: CallOf<'set_user_memory_region'>): Outcome {
    const memory = call.memory === null ? null : this.#memories.get(call.memory)
    if (memory === undefined) return closed
    const { slot, flags, address, offset, size } = call
    return this.#onVm(call, (vm) =>
      plain(vm.setUserMemoryRegion({ slot, flags, address: BigInt(address), memory, offset, size })),
    )
  }

  #close({ vm, vcpu, device, memory }: CallOf<'close'>): void {
    drop(this.#vms, vm)
    drop(this.#vcpus, vcpu)
    drop(this.#devices, device)
    drop(this.#memories, memory)
  }
}

const closed: Outcome = { errno: 'EBADF' }
const done: Outcome = { ret: 0 }

function refused(outcome: number): Outcome {
  return { errno: errnoName(outcome) }
}

function plain(outcome: number): Outcome {
  if (outcome === 0) return done
  return outcome < 0 ? refused(outcome) : { ret: outcome }
}

function number(outcome: number): Outcome {
  return outcome < 0 ? refused(outcome) : { value: outcome }
}

function keep<T extends { close(): void }>(handles: Map<number, T>, key: number, made: T | number): Outcome {
  if (typeof made === 'number') return plain(made)
  handles.get(key)?.close()
  handles.set(key, made)
  return done
}

function drop(handles: Map<number, { close(): void }>, key: number | undefined): void {
  if (key === undefined) return
  handles.get(key)?.close()
  handles.delete(key)
}

function preferredTarget(vm: VmFd): Outcome {
  const words = new Uint32Array(8)
  const outcome = vm.getPreferredTarget(words)
  return outcome < 0 ? refused(outcome) : { words: [...words] }
}

function writableMasks(vm: VmFd, range: number): Outcome {
  const masks = new BigUint64Array(KVM_ARM_FEATURE_ID_RANGE_SIZE)
  const outcome = vm.getRegWritableMasks(range, masks)
  return outcome < 0 ? refused(outcome) : { masks: nonZeroMasks(masks) }
}

/** The masks other than 0, by index. */
export function nonZeroMasks(masks: BigUint64Array): Record<string, string> {
  const entries = [...masks.entries()].filter(([, mask]) => mask !== 0n)
  return Object.fromEntries(entries.map(([index, mask]) => [index, hex(mask)]))
}

function getAttribute(fd: AttributeFd, { group, attr, size }: CallOf<'get_device_attr'>): Outcome {
  const data = new Uint8Array(PAYLOAD_ROOM)
  const outcome = fd.getDeviceAttr(group, BigInt(attr), data)
  return outcome < 0 ? refused(outcome) : { data: toHex(data.subarray(0, size)) }
}

function getEvents(vcpu: VcpuFd): Outcome {
  const events = new Uint8Array(KVM_VCPU_EVENTS_SIZE)
  const outcome = vcpu.getVcpuEvents(events)
  return outcome < 0 ? refused(outcome) : { data: toHex(events) }
}

function getRegList(vcpu: VcpuFd, room: bigint): Outcome {
  const list = new BigUint64Array(1 + Number(BigInt.asUintN(32, room)))
  list[0] = room
  const outcome = vcpu.getRegList(list)
  const n = hex(list[0])
  if (outcome === -errnos.E2BIG) return { n, errno: 'E2BIG' }
  if (outcome < 0) return refused(outcome)
  return { n, regs: Array.from(list.subarray(1, 1 + Number(list[0])), hex) }
}

function run(vcpu: VcpuFd, immediateExit: boolean): Outcome {
  const view = new DataView(vcpu.runPage)
  view.setUint8(kvmRun.immediate_exit, immediateExit ? 1 : 0)
  const outcome = vcpu.runSync(RUN_TIME)
  view.setUint8(kvmRun.immediate_exit, 0)
  return outcome < 0 ? refused(outcome) : { exit: view.getUint32(kvmRun.exit_reason, true) }
}

/**
 * Runs a guest until it is back from its call, or cannot be. One that waits for an interrupt goes on when it runs again, and so however
 * slow the machine is, a call has one outcome.
 */
function runGuestCall(vcpu: VcpuFd): number {
  const end = performance.now() + CALL_TIME
  for (;;) {
    const outcome = vcpu.runSync(CALL_SLICE)
    if (outcome !== -errnos.EINTR || performance.now() > end) return outcome
    // One that PSCI stopped executes nothing.
    if (vcpu.getMpState() !== mpStates.runnable) return outcome
  }
}

export function guestCallOutcome(vcpu: VcpuFd, found: GuestCallOutcome): Outcome {
  if (typeof found === 'number') return refused(found)
  if (found.returned) return { x: found.x.map(hex) }
  if (found.outcome < 0) return refused(found.outcome)
  return { exit: new DataView(vcpu.runPage).getUint32(kvmRun.exit_reason, true) }
}

export function toHex(data: Uint8Array): string {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('hex')
}

function toBytes(digits: string): Uint8Array {
  const data = new Uint8Array(Math.max(PAYLOAD_ROOM, digits.length / 2))
  data.set(Buffer.from(digits, 'hex'))
  return data
}
