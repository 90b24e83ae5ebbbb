/** Which system registers do not come back from the CPU as userspace wrote them. */
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

/** Writes ones to all of them, runs a vCPU and reads what has become of them; then again one by one, as some change others. */
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

/** Those that a run does not leave as they were written, with the bits that became 0. */
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

/** All bits but `SCTLR_EL1.M`: a guest whose MMU is on does not get as far as its call. */
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

/** System registers but for feature ID registers, of which other traits tell, and timers' controls; what counts time changes by itself. */
function isCandidate(id: bigint): boolean {
  return timerControls.has(id) || (decodeRegister(id).space === 'sysreg' && !isFeatureIdRegister(id))
}
