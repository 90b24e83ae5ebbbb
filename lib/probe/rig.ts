/** The rig for experiments: bare handles on a new VM for each experiment. The probe and the conformance checks use it. */
import type { SystemFd, VcpuFd, VmFd } from '../backend.js'
import { check, kvmError } from '../kvm/errors.js'
import { withImmediateExit } from '../kvm/immediate-exit.js'
import {
  capabilities,
  featureWord,
  KVM_ARM_VCPU_SVE,
  KVM_VCPU_EVENTS_SIZE,
  type VcpuFeature,
} from '../uapi.js'

/** The type for `KVM_CREATE_VM` with 40 bits of address space, KVM's default, or with the host's limit if that is lower. */
export function smallestVmType(kvm: SystemFd): bigint {
  const limit = check(kvm.checkExtension(capabilities.KVM_CAP_ARM_VM_IPA_SIZE), {
    syscall: 'KVM_CHECK_EXTENSION',
  })
  return limit > 0 && limit < 40 ? BigInt(limit) : 0n
}

/** Runs an experiment on a new VM and closes the VM afterwards. */
export function onVm<T>(kvm: SystemFd, type: bigint, experiment: (vm: VmFd) => T): T {
  const vm = check(kvm.createVm(type), { syscall: 'KVM_CREATE_VM' })
  try {
    return experiment(vm)
  } finally {
    vm.close()
  }
}

/** Runs an experiment on a new vCPU, not yet initialised, of a VM. */
export function onVcpu<T>(vm: VmFd, id: number, experiment: (vcpu: VcpuFd) => T): T {
  const vcpu = check(vm.createVcpu(id), { syscall: 'KVM_CREATE_VCPU', vcpu: id })
  try {
    return experiment(vcpu)
  } finally {
    vcpu.close()
  }
}

/** `KVM_ARM_VCPU_INIT` for the VM's preferred target; returns 0 or `-errno`. */
export function initVcpu(vm: VmFd, vcpu: VcpuFd, features: readonly VcpuFeature[]): number {
  const init = new Uint32Array(8)
  check(vm.getPreferredTarget(init), { syscall: 'KVM_ARM_PREFERRED_TARGET' })
  return vcpu.init(init[0]!, [featureWord(features)])
}

/** `initVcpu`, then `KVM_ARM_VCPU_FINALIZE` if `features` include `sve`; returns 0 or `-errno`. */
export function initialise(vm: VmFd, vcpu: VcpuFd, features: readonly VcpuFeature[]): number {
  const outcome = initVcpu(vm, vcpu, features)
  return outcome === 0 && features.includes('sve') ? vcpu.finalize(KVM_ARM_VCPU_SVE) : outcome
}

/** Returns every id of `KVM_GET_REG_LIST`, in its order. */
export function listRegisters(vcpu: VcpuFd): BigUint64Array {
  const count = new BigUint64Array(1)
  vcpu.getRegList(count)
  const list = new BigUint64Array(1 + Number(count[0]))
  list[0] = count[0]!
  check(vcpu.getRegList(list), { syscall: 'KVM_GET_REG_LIST' })
  return list.subarray(1)
}

/** Performs a `KVM_RUN` that executes nothing and sets the VM's has-ran-once flag. Returns its outcome, `-EINTR` on success. */
export function freeze(vcpu: VcpuFd): number {
  return withImmediateExit(vcpu.runPage, () => vcpu.runSync(0))
}

/** `KVM_GET_ONE_REG` of a register that the vCPU lists. */
export function readRegister(vcpu: VcpuFd, id: bigint): bigint {
  const value = vcpu.getOneReg(id)
  if (typeof value === 'bigint') return value
  throw kvmError(value, {
    syscall: 'KVM_GET_ONE_REG',
    register: id,
    remedy: 'KVM lists this register but cannot read it',
  })
}

/** `KVM_SET_VCPU_EVENTS` with `exception.serror_pending`, its first byte. */
export function pendSError(vcpu: VcpuFd): void {
  const events = new Uint8Array(KVM_VCPU_EVENTS_SIZE)
  events[0] = 1
  check(vcpu.setVcpuEvents(events), { syscall: 'KVM_SET_VCPU_EVENTS' })
}

export function hasPendingSError(vcpu: VcpuFd): boolean {
  const events = new Uint8Array(KVM_VCPU_EVENTS_SIZE)
  check(vcpu.getVcpuEvents(events), { syscall: 'KVM_GET_VCPU_EVENTS' })
  return events[0] === 1
}
