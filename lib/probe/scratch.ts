import type { SystemFd, VcpuFd, VmFd } from '../backend.js'
import { check } from '../kvm/errors.js'
import { KVM_ARM_VCPU_SVE, KVM_VCPU_EVENTS_SIZE, kvmRun, vcpuFeatures, type VcpuFeature } from '../uapi.js'

/** `kvm_vcpu_init.features[0]` for features by name. */
export function featureWord(features: readonly VcpuFeature[]): number {
  return features.reduce((bits, feature) => bits | (1 << vcpuFeatures[feature]), 0)
}

/** Runs an experiment on a VM of its own, which is closed after it. */
export function onVm<T>(kvm: SystemFd, type: bigint, experiment: (vm: VmFd) => T): T {
  const vm = check(kvm.createVm(type), { syscall: 'KVM_CREATE_VM' })
  try {
    return experiment(vm)
  } finally {
    vm.close()
  }
}

/** Runs an experiment on a vCPU, not yet initialised, of a VM. */
export function onVcpu<T>(vm: VmFd, id: number, experiment: (vcpu: VcpuFd) => T): T {
  const vcpu = check(vm.createVcpu(id), { syscall: 'KVM_CREATE_VCPU', vcpu: id })
  try {
    return experiment(vcpu)
  } finally {
    vcpu.close()
  }
}

/** `KVM_ARM_VCPU_INIT` for the VM's preferred target, and `KVM_ARM_VCPU_FINALIZE` where SVE is asked for: 0 or `-errno`. */
export function initialise(vm: VmFd, vcpu: VcpuFd, features: readonly VcpuFeature[]): number {
  const init = new Uint32Array(8)
  check(vm.getPreferredTarget(init), { syscall: 'KVM_ARM_PREFERRED_TARGET' })
  const outcome = vcpu.init(init[0]!, [featureWord(features)])
  return outcome === 0 && features.includes('sve') ? vcpu.finalize(KVM_ARM_VCPU_SVE) : outcome
}

/** Every id of `KVM_GET_REG_LIST`, in its order. */
export function listRegisters(vcpu: VcpuFd): BigUint64Array {
  const count = new BigUint64Array(1)
  vcpu.getRegList(count)
  const list = new BigUint64Array(1 + Number(count[0]))
  list[0] = count[0]!
  check(vcpu.getRegList(list), { syscall: 'KVM_GET_REG_LIST' })
  return list.subarray(1)
}

/** `KVM_RUN` that executes nothing and sets the VM's has-ran-once flag: what `KVM_RUN` answered, `-EINTR` when all is well. */
export function freeze(vcpu: VcpuFd): number {
  const page = new Uint8Array(vcpu.runPage)
  page[kvmRun.immediate_exit] = 1
  const outcome = vcpu.runSync(0)
  page[kvmRun.immediate_exit] = 0
  return outcome
}

/** `KVM_SET_VCPU_EVENTS` with `exception.serror_pending`, its first byte. */
export function pendSError(vcpu: VcpuFd): void {
  const events = new Uint8Array(KVM_VCPU_EVENTS_SIZE)
  events[0] = 1
  check(vcpu.setVcpuEvents(events), { syscall: 'KVM_SET_VCPU_EVENTS' })
}
