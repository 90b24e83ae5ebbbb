/** Which system registers do not come back from the CPU as userspace wrote them. */
import type { SystemFd, VcpuFd } from '../backend.js'
import { functionIds } from '../hypercalls/index.js'
import { callFromGuest } from '../kvm/guest-call.js'
import { decodeRegister, hex, isFeatureIdRegister, registerWidth } from '../registers/index.js'
import type { ReportedRegister, Traits } from '../report/report.js'
import type { ProbedConfiguration } from './configurations.js'
import { onStub, PATIENCE } from './guest-calls.js'
import { exitReasons, kvmRun, mpStates } from '../uapi.js'
import { freeze } from './scratch.js'

type Found = Pick<Traits, 'lossyRegisters'>
type Stage = NonNullable<Traits['lossyRegisters']>['by']

/** Runs a vCPU and reads what has changed. Only to registers that did are all ones written: in others these can hang a guest. */
export function probeLossyRegisters(kvm: SystemFd, type: bigint, { registers }: ProbedConfiguration): Found {
  const candidates = registers.filter(({ id, value }) => value !== null && isPlainSystemRegister(BigInt(id)))
  for (const by of ['run', 'load', 'guest'] as const) {
    const changed = onStub(kvm, type, (vcpu) => {
      run(vcpu, by)
      return candidates.filter(({ id, value }) => vcpu.getOneReg(BigInt(id)) !== BigInt(value!))
    })
    if (changed.length > 0) {
      return { lossyRegisters: { by, registers: changed.map((register) => kept(kvm, type, register, by)) } }
    }
  }
  return {}
}

function kept(
  kvm: SystemFd,
  type: bigint,
  { id, name }: ReportedRegister,
  by: Stage,
): { id: string; name: string; kept: string } {
  return onStub(kvm, type, (vcpu) => {
    vcpu.setOneReg(BigInt(id), (1n << BigInt(registerWidth(BigInt(id)))) - 1n)
    run(vcpu, by)
    return { id, name, kept: hex(vcpu.getOneReg(BigInt(id))) }
  })
}

function run(vcpu: VcpuFd, by: Stage): void {
  switch (by) {
    case 'run':
      freeze(vcpu)
      break
    case 'load':
      runStopped(vcpu)
      break
    case 'guest':
      callFromGuest(vcpu, 'hvc', [BigInt(functionIds.SMCCC_VERSION)], (fd) => fd.runSync(PATIENCE))
  }
}

/** On a slow machine the time may be over before `KVM_RUN` waits, which then tells nothing: it is given twice as much. */
function runStopped(vcpu: VcpuFd): void {
  const page = new DataView(vcpu.runPage)
  page.setUint32(kvmRun.exit_reason, exitReasons.KVM_EXIT_UNKNOWN, true)
  vcpu.setMpState(mpStates.stopped)
  for (let wait = 5; wait < PATIENCE; wait *= 2) {
    vcpu.runSync(wait)
    if (page.getUint32(kvmRun.exit_reason, true) === exitReasons.KVM_EXIT_INTR) break
  }
  vcpu.setMpState(mpStates.runnable)
}

/** System registers but for the timers', which change by themselves, and feature ID registers, of which other traits tell. */
function isPlainSystemRegister(id: bigint): boolean {
  const { space, name } = decodeRegister(id)
  return space === 'sysreg' && !name.startsWith('KVM_REG_ARM_') && !isFeatureIdRegister(id)
}
