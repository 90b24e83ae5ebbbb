/**
 * Handles for experiments. An errno caused by the state of this machine at this moment, which says nothing about KVM, ends the
 * experiment with an error instead of counting as the host's answer.
 */
import type { Backend, DeviceFd, SystemFd, VcpuFd, VmFd } from '../backend.js'
import { refuseAccident } from '../kvm/errors.js'

type Method = Exclude<keyof SystemFd | keyof VmFd | keyof VcpuFd | keyof DeviceFd, 'observed' | 'runPage'>

/**
 * The ioctl behind each method that can fail by accident; null if the method has no outcome or its outcome is passed on unchanged.
 */
const syscalls: Readonly<Record<Method, string | null>> = {
  getApiVersion: 'KVM_GET_API_VERSION',
  checkExtension: 'KVM_CHECK_EXTENSION',
  getVcpuMmapSize: 'KVM_GET_VCPU_MMAP_SIZE',
  createVm: 'KVM_CREATE_VM',
  createMemory: 'memfd_create',
  createEvent: 'eventfd',
  enableCap: 'KVM_ENABLE_CAP',
  createVcpu: 'KVM_CREATE_VCPU',
  getPreferredTarget: 'KVM_ARM_PREFERRED_TARGET',
  getRegWritableMasks: 'KVM_ARM_GET_REG_WRITABLE_MASKS',
  setUserMemoryRegion: 'KVM_SET_USER_MEMORY_REGION',
  createDevice: 'KVM_CREATE_DEVICE',
  registerCoalescedMmio: 'KVM_REGISTER_COALESCED_MMIO',
  unregisterCoalescedMmio: 'KVM_UNREGISTER_COALESCED_MMIO',
  copyMteTags: null,
  takeCoalesced: null,
  takeDirty: null,
  resetDirtyRings: 'KVM_RESET_DIRTY_RINGS',
  getStatsFd: 'KVM_GET_STATS_FD',
  irqLine: 'KVM_IRQ_LINE',
  signalMsi: 'KVM_SIGNAL_MSI',
  setGsiRouting: 'KVM_SET_GSI_ROUTING',
  ioEventFd: 'KVM_IOEVENTFD',
  irqFd: 'KVM_IRQFD',
  setCounterOffset: 'KVM_ARM_SET_COUNTER_OFFSET',
  setConstant: null,
  removeConstant: null,
  addPosted: null,
  removePosted: null,
  takePosted: null,
  onPosted: null,
  getDirtyLog: 'KVM_GET_DIRTY_LOG',
  clearDirtyLog: 'KVM_CLEAR_DIRTY_LOG',
  hasDeviceAttr: 'KVM_HAS_DEVICE_ATTR',
  getDeviceAttr: 'KVM_GET_DEVICE_ATTR',
  setDeviceAttr: 'KVM_SET_DEVICE_ATTR',
  init: 'KVM_ARM_VCPU_INIT',
  finalize: 'KVM_ARM_VCPU_FINALIZE',
  getRegList: 'KVM_GET_REG_LIST',
  getOneReg: 'KVM_GET_ONE_REG',
  setOneReg: 'KVM_SET_ONE_REG',
  getOneRegAtNull: null,
  setOneRegAtNull: null,
  getRegs: 'KVM_GET_ONE_REG',
  setRegs: 'KVM_SET_ONE_REG',
  getMpState: 'KVM_GET_MP_STATE',
  setMpState: 'KVM_SET_MP_STATE',
  getVcpuEvents: 'KVM_GET_VCPU_EVENTS',
  setVcpuEvents: 'KVM_SET_VCPU_EVENTS',
  setGuestDebug: 'KVM_SET_GUEST_DEBUG',
  runSync: null,
  run: null,
  kick: null,
  noteGuestCall: null,
  close: null,
}

/**
 * Wraps a backend so that its handles, and those made from them, throw a `KvmError` for an accident. Memory and events are passed on
 * unwrapped.
 */
export function steadyBackend(backend: Backend): Backend {
  return {
    ...backend,
    open: () => {
      const fd = backend.open()
      return typeof fd === 'number' ? fd : steady(fd)
    },
  }
}

/** See `steadyBackend`. */
export function steady<Fd extends object>(fd: Fd): Fd {
  return new Proxy(fd, {
    get: (_, key) => {
      const value: unknown = Reflect.get(fd, key, fd)
      if (typeof value !== 'function') return value
      const call = value.bind(fd) as (...args: unknown[]) => unknown
      const syscall = syscalls[key as Method] ?? null
      if (syscall === null) return call
      return (...args: unknown[]) => {
        const outcome = call(...args)
        if (typeof outcome === 'number') refuseAccident(outcome, { syscall })
        if (key === 'getRegs' || key === 'setRegs') refuseAccidents(args, syscall)
        const isHandle = typeof outcome === 'object' && outcome !== null && !isPassedOn(key)
        return isHandle ? steady(outcome) : outcome
      }
    },
  })
}

/** Memory and events are arguments of other calls, which take only the backend's own. */
function isPassedOn(method: PropertyKey): boolean {
  return method === 'createMemory' || method === 'createEvent'
}

/** Checks the outcome of each register of a batch. */
function refuseAccidents([ids, , outcomes]: readonly unknown[], syscall: string): void {
  for (const [index, outcome] of (outcomes as Int32Array).entries()) {
    refuseAccident(outcome, { syscall, register: (ids as BigUint64Array)[index] })
  }
}
