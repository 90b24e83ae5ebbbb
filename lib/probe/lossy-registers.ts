/** Finds system registers in which the CPU does not keep the value that userspace wrote. */
import type { SystemFd, VcpuFd } from '../backend.js'
import { functionIds } from '../hypercalls/index.js'
import { callFromGuest } from '../kvm/guest-call.js'
import {
  decodeRegister,
  encodeRegister,
  hex,
  isFeatureIdRegister,
  timerControls,
  U64,
  withoutIstatus,
} from '../registers/index.js'
import type { ReportedRegister, Traits } from '../report/report.js'
import { onStub, PATIENCE } from './guest-calls.js'
import { exitReasons, kvmRun, mpStates } from '../uapi.js'
import { freeze, readRegister } from './rig.js'

const SCTLR_EL1 = encodeRegister('SCTLR_EL1')
const MMU_ON = 1n

type LossyRegisters = Traits['lossyRegisters']
type Stage = LossyRegisters[number]['by']

/** Writes ones to all of them, runs a vCPU and reads them back; then repeats this for each one alone, as some change others. */
export function probeLossyRegisters(
  kvm: SystemFd,
  type: bigint,
  registers: readonly ReportedRegister[],
): LossyRegisters {
  let candidates = registers.filter(({ id, value }) => value !== null && isCandidate(BigInt(id)))
  return (['run', 'load', 'guest'] as const).flatMap((by) => {
    const suspects = losses(kvm, type, candidates, by).map(({ register }) => register)
    const found = suspects.flatMap((register) => losses(kvm, type, [register], by))
    candidates = candidates.filter((candidate) => !found.some(({ register }) => register === candidate))
    return found.map(({ register: { id, name }, lost }) => ({ id, name, by, kept: hex(U64 & ~lost) }))
  })
}

/** Returns the registers that a run changes, with the bits that became 0. */
function losses(
  kvm: SystemFd,
  type: bigint,
  registers: readonly ReportedRegister[],
  by: Stage,
): { register: ReportedRegister; lost: bigint }[] {
  return onStub(kvm, type, (vcpu) => {
    const get = ({ id }: ReportedRegister): bigint => readRegister(vcpu, BigInt(id))
    for (const { id } of registers) vcpu.setOneReg(BigInt(id), onesFor(BigInt(id)))
    const written = registers.map(get)
    run(vcpu, by)
    return registers.flatMap((register, index) => {
      const lost = withoutIstatus(BigInt(register.id), written[index]! & ~get(register))
      return lost === 0n ? [] : [{ register, lost }]
    })
  })
}

/** All bits except `SCTLR_EL1.M`: a guest whose MMU is on does not reach its call. */
function onesFor(id: bigint): bigint {
  return id === SCTLR_EL1 ? U64 & ~MMU_ON : U64
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
      callFromGuest(vcpu, { conduit: 'hvc', args: [BigInt(functionIds.SMCCC_VERSION)] }, (fd) =>
        fd.runSync(PATIENCE),
      )
  }
}

/** On a slow machine the time may be over before `KVM_RUN` waits, which shows nothing: the second attempt gets twice the time. */
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

/** System registers, without feature ID registers (other traits cover them), timer controls and registers that count time. */
function isCandidate(id: bigint): boolean {
  return timerControls.has(id) || (decodeRegister(id).space === 'sysreg' && !isFeatureIdRegister(id))
}
