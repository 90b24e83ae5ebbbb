/** Experiments that need a guest: results of hypercalls that no register or capability reports. */
import type { Conduit, SystemFd, VcpuFd, VmFd } from '../backend.js'
import {
  affinityLevels,
  functionIdOf,
  functionIds,
  gatedServices,
  MPIDR_HWID_BITMASK,
  NOT_SUPPORTED,
  type ServiceCall,
} from '../hypercalls/index.js'
import { check, kvmError } from '../kvm/errors.js'
import { callFromGuest, mapStub } from '../kvm/guest-call.js'
import { encodeRegister, hex } from '../registers/index.js'
import type { Traits } from '../report/report.js'
import { errnos, type VcpuFeature } from '../uapi.js'
import { BASE } from './configurations.js'
import { hasPendingSError, initialise, onVcpu, onVm, pendSError } from './rig.js'

/** Milliseconds; a call takes microseconds, and somewhat longer under an emulator. */
export const PATIENCE = 10_000

const CPU_SUSPEND = BigInt(functionIdOf('PSCI_CPU_SUSPEND'))
const CPU_ON = BigInt(functionIdOf('PSCI_CPU_ON_64'))
const AFFINITY_INFO = BigInt(functionIdOf('PSCI_AFFINITY_INFO'))
/** Matches no MPIDR_EL1: bit 31 is RES1 there, and not part of the affinity. */
const NO_AFFINITY = 1n << 31n

const MPIDR_EL1 = encodeRegister('MPIDR_EL1')
const SUCCESS = 0n

/** Runs an experiment on a vCPU, initialised with the features, of a VM that has the stub guest. */
export function onStub<T>(
  kvm: SystemFd,
  type: bigint,
  experiment: (vcpu: VcpuFd, vm: VmFd) => T,
  features: readonly VcpuFeature[] = BASE,
): T {
  return onVm(kvm, type, (vm) => {
    const stub = check(mapStub(kvm, vm), { syscall: 'KVM_SET_USER_MEMORY_REGION' })
    try {
      return onVcpu(vm, 0, (vcpu) => {
        initialise(vm, vcpu, features)
        return experiment(vcpu, vm)
      })
    } finally {
      stub.close()
    }
  })
}

export function probeHypercalls(kvm: SystemFd, type: bigint): Traits['hypercalls'] {
  return onStub(kvm, type, (vcpu) => {
    const x0 = (conduit: Conduit, ...args: bigint[]): bigint => answerTo(vcpu, conduit, args)
    const isAnswered = ({ functionId, args }: ServiceCall): boolean =>
      x0('hvc', BigInt(functionId), ...args) !== NOT_SUPPORTED
    return {
      services: gatedServices.filter(({ calls: [proof] }) => isAnswered(proof!)).map(({ name }) => name),
      smc: x0('smc', BigInt(functionIds.SMCCC_VERSION)) !== NOT_SUPPORTED,
      affinityMasked: x0('hvc', AFFINITY_INFO, NO_AFFINITY) === BigInt(affinityLevels.ON),
      sameAffinity: sameAffinity(kvm, type),
    }
  })
}

/** Gives the first of two vCPUs, which makes the call, the affinity of the other, which is off. */
function sameAffinity(kvm: SystemFd, type: bigint): 'first' | 'last' {
  return onStub(kvm, type, (first, vm) =>
    onVcpu(vm, 1, (last) => {
      initialise(vm, last, [...BASE, 'power-off'])
      const affinity = last.getOneReg(MPIDR_EL1)
      if (typeof affinity !== 'bigint' || first.setOneReg(MPIDR_EL1, affinity) < 0) return 'first'
      const x0 = answerTo(first, 'hvc', [CPU_ON, affinity & MPIDR_HWID_BITMASK])
      return x0 === SUCCESS ? 'last' : 'first'
    }),
  )
}

/** Returns x0 after a call that must return. */
export function answerTo(vcpu: VcpuFd, conduit: Conduit, args: bigint[]): bigint {
  const found = callFromGuest(vcpu, { conduit, args }, (fd) => fd.runSync(PATIENCE))
  if (typeof found === 'number') throw kvmError(found, { syscall: 'KVM_GET_ONE_REG' })
  if (found.returned) return found.x[0]!
  const remedy = `A guest called ${hex(args[0]!)} by ${conduit}, and the call did not come back`
  throw kvmError(found.outcome < 0 ? found.outcome : -errnos.EIO, { syscall: 'KVM_RUN', remedy })
}

/**
 * The guest makes a call that waits, with SErrors masked. A guest that is woken returns as soon as from a call that does not wait.
 */
export function probeSErrorWakes(kvm: SystemFd, type: bigint): boolean {
  return onStub(kvm, type, (vcpu) => {
    const started = performance.now()
    callFromGuest(vcpu, { conduit: 'hvc', args: [BigInt(functionIds.SMCCC_VERSION)] }, (fd) =>
      fd.runSync(PATIENCE),
    )
    const wait = Math.max(20, 10 * (performance.now() - started))
    pendSError(vcpu)
    const found = callFromGuest(vcpu, { conduit: 'hvc', args: [CPU_SUSPEND] }, (fd) => fd.runSync(wait))
    return typeof found !== 'number' && found.returned
  })
}

/** The guest makes a call with SErrors masked, which leaves a pending one alone. */
export function probeSErrorDropped(kvm: SystemFd, type: bigint): Traits['sErrorDropped'] {
  return onStub(kvm, type, (vcpu) => {
    pendSError(vcpu)
    callFromGuest(vcpu, { conduit: 'hvc', args: [BigInt(functionIds.SMCCC_VERSION)] }, (fd) =>
      fd.runSync(PATIENCE),
    )
    return hasPendingSError(vcpu) ? undefined : true
  })
}
