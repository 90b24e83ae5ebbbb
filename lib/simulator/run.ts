/**
 * `KVM_RUN` up to the guest's first instruction (`arch/arm64/kvm/arm.c:kvm_arch_vcpu_run_pid_change`): its checks, and what it
 * freezes.
 */
import { errnos, type ErrnoName, kvmRun } from '../uapi.js'
import { tabulateAffinities } from './affinity.js'
import { isHidden } from './hidden-registers.js'
import { isFinalised } from './init.js'
import { enablePmu } from './pmu-attributes.js'
import { reloadPmu } from './pmu-registers.js'
import type { Gic, VcpuState, VmState } from './state.js'
import { enableTimers } from './timer-attributes.js'

/** Makes the checks before a vCPU runs, and the changes that its first run makes to the VM: returns 0 or `-errno`. */
export function prepareRun(vcpu: VcpuState): number {
  if (!vcpu.initialised) return -errnos.ENOEXEC
  if (!isFinalised(vcpu)) return -errnos.EPERM
  if (vcpu.hasRun) return 0
  const { vm } = vcpu
  tabulateAffinities(vm)
  const { runWithoutVgicInit } = vm.host.traits
  // A kernel that lets a VM with an unconfigured GIC live counts the vCPU as run before it checks anything.
  if (runWithoutVgicInit?.killsVm === false) vcpu.hasRun = true
  if (vm.gic !== null && runWithoutVgicInit !== null) {
    const refusal = gicRefusal(vm, vm.gic, runWithoutVgicInit.errno)
    if (refusal < 0) {
      if (runWithoutVgicInit.killsVm) vm.dead = true
      else vm.gic.destroy()
      return refusal
    }
  }
  narrowIdRegisters(vm)
  const refusal = enableTimers(vcpu) || enablePmu(vcpu)
  if (refusal < 0) return refusal
  if (isTooLate(vcpu)) return -errnos.EINVAL
  vcpu.hasRun = true
  vm.hasRun = true
  return 0
}

/** pKVM takes over a VM, with the vCPUs there are, in the first run (`arch/arm64/kvm/pkvm.c:pkvm_create_hyp_vm`). */
function isTooLate(vcpu: VcpuState): boolean {
  const { vm } = vcpu
  if (!vm.host.isProtectedKvm) return false
  vm.protectedVcpus ??= new Set(vm.vcpus.values())
  return !vm.protectedVcpus.has(vcpu)
}

function gicRefusal(vm: VmState, gic: Gic, withoutAddress: ErrnoName): number {
  const vcpus = [...vm.vcpus.values()]
  if (gic.distributor === null || !vcpus.every(({ hasRedistributor }) => hasRedistributor)) {
    return -errnos[withoutAddress]
  }
  return gic.initialised ? 0 : -errnos.EBUSY
}

/** Before the first run, even one that then fails, KVM adjusts ID registers to what the VM really has. */
function narrowIdRegisters(vm: VmState): void {
  if (vm.hasRun || vm.gic !== null) return
  vm.overrideIdRegisters(vm.host.traits.changedByFirstRun)
}

/** Changes the registers that are loaded into the CPU, at one of the stages of a run. */
export function loadRegisters(vcpu: VcpuState, stage: 'run' | 'load' | 'guest'): void {
  const { vm, values, file } = vcpu
  if (stage === 'run' && vm.gic?.initialised) vcpu.cpuInterface.load()
  if (stage === 'load') reloadPmu(vcpu)
  for (const { id, by, kept } of vm.host.traits.lossyRegisters) {
    const slot = by === stage && !isHidden(vcpu, BigInt(id)) ? file!.slots.get(BigInt(id)) : undefined
    if (slot !== undefined) values[slot] = values[slot]! & BigInt(kept)
  }
}

/** `kvm_run.immediate_exit`: userspace wants the run to end before the guest executes anything. */
export function wantsImmediateExit(runPage: ArrayBuffer): boolean {
  return new Uint8Array(runPage)[kvmRun.immediate_exit] !== 0
}
