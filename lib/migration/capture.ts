import { type Election, type Kvm, KvmError, type Vcpu, type Vm } from '../kvm/index.js'
import { checkKvm } from '../kvm/kvm.js'
import { electPsciVersion, type ElectablePsciVersion } from '../probe/psci-version.js'
import { hex, registerName } from '../registers/index.js'
import { answeredBy } from '../report/origin.js'
import type { VcpuFeature } from '../uapi.js'
import { captureVcpuDevices, captureVmDevices } from './device-capture.js'
import { machineOf } from './machine-facts.js'
import type { CapturedRegister, State, VcpuCapture } from './state.js'

/**
 * Captures the state of a VM: its vCPUs, its GICv3 and its settings. No vCPU may be running. The caller saves the guest's memory and
 * the devices it emulates itself, and sets up again what connects them: events and the routes of interrupts. `vm.notCarried` lists
 * the devices and memory tags that KVM holds and a state has no place for.
 *
 * @param options.now the value for `capturedAt`
 * @throws KvmError if a vCPU is not initialised, or not finalized
 */
export function capture(kvm: Kvm, vm: Vm, { now = new Date() }: { now?: Date } = {}): State {
  checkKvm(kvm)
  return {
    format: 'kvm-arm64/state',
    version: 2,
    capturedAt: now.toISOString(),
    ...answeredBy(kvm.backend),
    vm: {
      type: hex(vm.type),
      capabilities: [...vm.enabledCapabilities],
      smcccFilter: vm.smcccFilter.map((calls) => ({ ...calls })),
      ...captureVmDevices(vm),
    },
    machine: machineOf(kvm),
    vcpus: vm.vcpus.map((vcpu) => captureVcpu(vm, vcpu)),
  }
}

function captureVcpu(vm: Vm, vcpu: Vcpu): VcpuCapture {
  const { mpState } = vcpu
  if (typeof mpState === 'number') {
    throw new KvmError('EINVAL', undefined, `the vCPU is in state ${mpState}, which has no name here`, {
      syscall: 'KVM_GET_MP_STATE',
      vcpu: vcpu.id,
    })
  }
  return {
    id: vcpu.id,
    features: [...vcpu.features],
    registers: captureRegisters(vcpu),
    mpState,
    events: Buffer.from(vcpu.getEvents()).toString('hex'),
    ...captureVcpuDevices(vm, vcpu),
  }
}

function captureRegisters({ registers }: Vcpu): CapturedRegister[] {
  const ids = registers.list()
  const { values, errnos } = registers.read(ids)
  return Array.from(ids, (id, index) => {
    // Registers that are too wide for a batch, or failed in it, are read one by one.
    const value = errnos[index] === 0 ? values[index]! : registers.get(id)
    return { id: hex(id), name: registerName(id), value: hex(value) }
  })
}

export interface CaptureHostOptions {
  /** Default: `['psci-0.2']`. */
  features?: readonly VcpuFeature[]
  /** Services its guest may discover; registers not named keep the value of a fresh VM. */
  elect?: Election
  /** PSCI version its guest sees. Default: the host's newest. */
  psci?: ElectablePsciVersion
  /** Default: 1. */
  vcpus?: number
  now?: Date
}

/**
 * Captures the state of a VM as a host makes it, before anything ran in it.
 * @throws KvmError if the host cannot make a vCPU with these features, or lacks this PSCI version
 * @throws RangeError for a service this host does not offer
 */
export function captureHost(
  kvm: Kvm,
  { features = ['psci-0.2'], elect = {}, psci, vcpus = 1, ...how }: CaptureHostOptions = {},
): State {
  checkKvm(kvm)
  using vm = kvm.createVm()
  for (let id = 0; id < vcpus; id++) vm.createVcpu(id, { features })
  vm.services.elect(elect)
  if (psci !== undefined) electPsciVersion(vm.vcpus[0]!, psci)
  return capture(kvm, vm, how)
}
