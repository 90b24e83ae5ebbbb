/** Restores a state as far as possible, on a VM made for it. */
import { callAtOnce } from '../arguments.js'
import { errnoOf, isRefusal, refuseAccident } from '../kvm/errors.js'
import { errnoName, type FilteredCalls, type Kvm, type Vcpu, type Vm } from '../kvm/index.js'
import { checkKvm } from '../kvm/kvm.js'
import { hex, registerName, registerWidth, timerCounters, withoutIstatus } from '../registers/index.js'
import { capabilities, type Capability, type MpState, type VcpuFeature } from '../uapi.js'
import { compareDevices, type DeviceDifference, setUpDevices, writeGic } from './device-restore.js'
import {
  type OutcomeBase,
  PHASES,
  type PlannedWrite,
  type PlannedWrites,
  RestorePlan,
  SVE_VLS,
} from './planned-writes.js'
import type { State, VcpuCapture } from './state.js'

/** The outcome for one register of a state. */
export type RegisterOutcome =
  /** Accepted, and reads back the same. A counter may have advanced. */
  | (OutcomeBase & { outcome: 'same' })
  /** The destination has the register and refuses the value. */
  | (OutcomeBase & { outcome: 'refused'; errno: string })
  /** The destination has no such register. */
  | (OutcomeBase & { outcome: 'absent'; errno: string })
  /** Accepted, but reads back the different value `reads`. */
  | (OutcomeBase & { outcome: 'differs'; reads: string })

/** A register the destination has and the state lacks, with the value it keeps. */
export interface UnsetRegister {
  vcpu: number
  id: string
  name: string
  value: string
}

/** A register the destination has and the state lacks, to which the VMM could not write the value of its new VM back. */
export interface WriteBackRefusal extends UnsetRegister {
  errno: string
}

/** What a restore does besides writing registers: the VMs and capabilities it asks KVM for. */
type Step =
  | { step: 'create-vm'; ipaSize: number }
  | { step: 'enable-capability'; capability: Capability }
  | { step: 'smccc-filter'; calls: FilteredCalls }
  | { step: 'create-vcpu'; vcpu: number }
  | { step: 'init'; vcpu: number; features: readonly VcpuFeature[] }
  | { step: 'finalize'; vcpu: number }
  | { step: 'mp-state'; vcpu: number; mpState: MpState }
  | { step: 'events'; vcpu: number; events: string }
  /** `what`: `GICv3`, `GICD_IIDR = 0x…`, `PMU: init`. */
  | { step: 'device'; what: string; vcpu?: number }

/** A step the destination refused. */
export type StepRefusal = Step & { errno: string }

/** A restore as far as it got, despite any refusals. */
export interface RestoreAttempt extends Disposable {
  /** Absent if not even a VM could be made. */
  readonly vm: Vm | undefined
  readonly vcpus: readonly Vcpu[]
  readonly refusals: readonly StepRefusal[]
  /** For each vCPU, every register of the state that was to be restored, in the state's order. */
  readonly outcomes: readonly RegisterOutcome[]
  readonly unset: readonly UnsetRegister[]
  readonly notWrittenBack: readonly WriteBackRefusal[]
  /** Values of the GIC that read back differently. */
  readonly deviceDifferences: readonly DeviceDifference[]
}

/** How a VMM restores, as far as it differs from writing the whole state into a VM with the state's features. */
export interface RestoreManner {
  /** Decides which registers are restored. Default: all. */
  carries?: (id: bigint) => boolean
  /** Features of the destination's vCPUs. Default: those of the state. */
  features?: readonly VcpuFeature[]
  /** Whether vector registers are converted if only one of the VMs has SVE. */
  convertsVectors?: boolean
  /** Whether registers that the state lacks are written back with the values of the new VM, after those of the state. */
  writesBack?: boolean
  /** Called with the VM before its first vCPU is made. */
  prepare?: (vm: Vm) => void
}

/**
 * Performs the restore. Continues after a refusal, so that it reports every obstacle at once, and leaves the VM to the caller, who
 * closes it. Only what the destination answers is a refusal: if this machine lacks memory or file descriptors, the restore ends with that
 * error, and the VM is closed.
 *
 * The order works on every kernel:
 * features, vector lengths, `KVM_ARM_VCPU_FINALIZE`; the GIC, which changes ID registers, and the PMU's settings; ID registers before
 * the firmware's (`WORKAROUND_2` may be 3 only once `ID_AA64PFR1_EL1.SSBS` is 0); PSTATE before the other core registers, which it may
 * narrow; for the register pairs of the PMU, the clearing one before the setting one; counters last, because time passes; then the
 * GIC's registers, which are found by MPIDR_EL1. Read-back comes after all writes: a write may change other registers.
 *
 * @param plan of the same state and manner, made before
 * @throws KvmError `ENOMEM`, `EMFILE`, `EFAULT` for an accident on this machine; `ERR_KVM_CLOSED`
 */
export function attemptRestore(
  kvm: Kvm,
  state: State,
  manner: RestoreManner = {},
  plan = new RestorePlan(manner),
): RestoreAttempt {
  checkKvm(kvm)
  const refusals: StepRefusal[] = []
  const attempt = <T>(step: Step, perform: () => T): T | undefined => {
    try {
      return perform()
    } catch (error) {
      if (!isRefusal(error)) throw error
      refusals.push({ ...step, errno: error.code })
      return undefined
    }
  }
  const ipaSize = Number(BigInt(state.vm.type))
  const vm = attempt({ step: 'create-vm', ipaSize: ipaSize || 40 }, () => kvm.createVm({ ipaSize }))
  if (vm === undefined) return result(undefined, [], refusals)
  try {
    if (manner.prepare !== undefined) callAtOnce('prepare', manner.prepare, vm)
    for (const capability of state.vm.capabilities) {
      attempt({ step: 'enable-capability', capability }, () => vm.enableCapability(capabilities[capability]))
    }
    for (const calls of state.vm.smcccFilter) {
      attempt({ step: 'smccc-filter', calls }, () => vm.filterCalls(calls))
    }
    const begun = state.vcpus.flatMap((from) => {
      const to = beginVcpu(vm, from, attempt, manner, plan)
      return to === undefined ? [] : [to]
    })
    const attemptDevice = (what: string, vcpu: number | undefined, perform: () => void): boolean => {
      const about = { step: 'device' as const, what, ...(vcpu !== undefined && { vcpu }) }
      return attempt(about, () => (perform(), true)) === true
    }
    const gic = setUpDevices(vm, state, begun, attemptDevice)
    const written = begun.map((target) => new VcpuRestore(target, manner))
    for (let phase = 0; phase < PHASES; phase++) {
      // A vCPU without psci-0.2 can only write PSCI 0.1, and the version belongs to the VM on hosts where vCPUs may differ in that
      // feature.
      const speakers = written.toSorted((a, b) => Number(a.speaksPsci) - Number(b.speaksPsci))
      for (const vcpu of speakers) vcpu.write(phase)
    }
    for (const vcpu of written) vcpu.writeBack()
    if (gic !== undefined) {
      writeGic(gic, state, begun, ({ what, value, errno }, vcpu) => {
        refusals.push({
          step: 'device',
          what: `${what} = ${value}`,
          ...(vcpu !== undefined && { vcpu }),
          errno,
        })
      })
    }
    for (const { from, to } of begun) {
      const { id, mpState, events } = from
      attempt({ step: 'mp-state', vcpu: id, mpState }, () => {
        to.mpState = mpState
      })
      attempt({ step: 'events', vcpu: id, events }, () => to.setEvents(Buffer.from(events, 'hex')))
    }
    return { ...result(vm, written, refusals), deviceDifferences: compareDevices(vm, gic, state, begun) }
  } catch (error) {
    vm.close()
    throw error
  }
}

function result(
  vm: Vm | undefined,
  written: readonly VcpuRestore[],
  refusals: StepRefusal[],
): RestoreAttempt {
  return {
    vm,
    vcpus: written.map(({ to }) => to),
    refusals,
    outcomes: written.flatMap((vcpu) => vcpu.outcomes()),
    unset: written.flatMap((vcpu) => vcpu.unset()),
    notWrittenBack: written.flatMap((vcpu) => vcpu.notWrittenBack),
    deviceDifferences: [],
    [Symbol.dispose]: () => vm?.close(),
  }
}

interface Target {
  from: VcpuCapture
  writes: PlannedWrites
  to: Vcpu
  /** Errno of the write of the vector lengths, which precedes all other writes. */
  lengths: string | undefined
}

type Attempt = <T>(step: Step, perform: () => T) => T | undefined

function beginVcpu(
  vm: Vm,
  from: VcpuCapture,
  attempt: Attempt,
  { carries = () => true, features: own }: RestoreManner,
  plan: RestorePlan,
): Target | undefined {
  const { id } = from
  const features = own === undefined ? from.features : withPower(own, from.features)
  const vcpu = attempt({ step: 'create-vcpu', vcpu: id }, () => vm.createVcpu(id, { init: false }))
  if (vcpu === undefined) return undefined
  const isInitialised = attempt({ step: 'init', vcpu: id, features }, () => (vcpu.init({ features }), true))
  if (!isInitialised) return undefined
  let lengths: string | undefined
  if (features.includes('sve')) {
    const value = carries(SVE_VLS)
      ? from.registers.find((register) => BigInt(register.id) === SVE_VLS)?.value
      : undefined
    lengths = value === undefined ? undefined : errnoOf(() => vcpu.registers.set(SVE_VLS, BigInt(value)))
    const isFinal = attempt({ step: 'finalize', vcpu: id }, () => (vcpu.finalize(), true))
    if (!isFinal) return undefined
  }
  return { from, writes: plan.writesTo(from, features.includes('sve')), to: vcpu, lengths }
}

/** Features of the VMM's own choice; whether the vCPU starts is part of the state. */
function withPower(own: readonly VcpuFeature[], saved: readonly VcpuFeature[]): VcpuFeature[] {
  const chosen = own.filter((feature) => feature !== 'power-off')
  return saved.includes('power-off') ? ['power-off', ...chosen] : chosen
}

/** The registers of one vCPU during the restore. */
class VcpuRestore {
  readonly to: Vcpu
  readonly speaksPsci: boolean
  readonly #vcpu: number
  readonly #writes: PlannedWrites
  /** Registers of the new vCPU that the state lacks, with its values; empty if they are not written back. */
  readonly #initial: ReadonlyMap<bigint, bigint>
  readonly notWrittenBack: WriteBackRefusal[] = []
  /** Errnos by register id. */
  readonly #refused = new Map<bigint, string>()

  constructor({ from, writes, to, lengths }: Target, { writesBack = false }: RestoreManner) {
    this.to = to
    this.speaksPsci = from.features.includes('psci-0.2')
    this.#vcpu = from.id
    this.#writes = writes
    if (lengths !== undefined) this.#refused.set(SVE_VLS, lengths)
    this.#initial = writesBack ? this.#read(this.#unsetIds()) : new Map()
  }

  write(phase: number): void {
    const { registers } = this.to
    const { words, ids, values, wide } = this.#writes.phases[phase]!
    const errnos = registers.write(ids, values)
    for (const [index, errno] of errnos.entries()) {
      if (errno === 0) continue
      const { id } = words[index]!
      refuseAccident(errno, { syscall: 'KVM_SET_ONE_REG', register: id, vcpu: this.#vcpu })
      this.#refused.set(id, errnoName(errno))
    }
    for (const { id, value } of wide) {
      const errno = errnoOf(() => registers.set(id, value))
      if (errno !== undefined) this.#refused.set(id, errno)
    }
  }

  /** By id, as QEMU does: ID registers come first. */
  writeBack(): void {
    for (const [id, value] of [...this.#initial].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
      // Vector lengths are final, and those of the new VM.
      if (id === SVE_VLS) continue
      const errno = errnoOf(() => this.to.registers.set(id, value))
      if (errno === undefined) continue
      const register = { vcpu: this.#vcpu, id: hex(id), name: registerName(id), value: hex(value) }
      this.notWrittenBack.push({ ...register, errno })
    }
  }

  outcomes(): RegisterOutcome[] {
    const { all, ids } = this.#writes
    let listed: Set<bigint> | undefined
    const { values, errnos } = this.to.registers.read(ids)
    const outcomeOf = ({ id, value, same }: PlannedWrite, index: number): RegisterOutcome => {
      const errno = this.#refused.get(id)
      if (errno !== undefined) {
        listed ??= new Set(this.to.registers.list())
        return { ...same, outcome: listed.has(id) ? 'refused' : 'absent', errno }
      }
      const reads = errnos[index] === 0 ? values[index]! : this.#readAlone(id, errnos[index]!)
      if (reads === undefined) return { ...same, outcome: 'absent', errno: 'ENOENT' }
      return isSame(id, value, reads) ? same : { ...same, outcome: 'differs', reads: hex(reads) }
    }
    return all.map(outcomeOf)
  }

  unset(): UnsetRegister[] {
    return [...this.#read(this.#unsetIds())].map(([id, value]) => ({
      vcpu: this.#vcpu,
      id: hex(id),
      name: registerName(id),
      value: hex(value),
    }))
  }

  #unsetIds(): BigUint64Array {
    return this.to.registers.list().filter((id) => !this.#writes.has.has(id))
  }

  /** Values by register id, without those that cannot be read. */
  #read(ids: BigUint64Array): Map<bigint, bigint> {
    const { values, errnos } = this.to.registers.read(ids)
    const found = new Map<bigint, bigint>()
    for (const [index, id] of ids.entries()) {
      const value = errnos[index] === 0 ? values[index]! : this.#readAlone(id, errnos[index]!)
      if (value !== undefined) found.set(id, value)
    }
    return found
  }

  /**
   * Returns the value of a register that the batch did not read: it is too wide for that, or else its read failed with `-errno`.
   * Undefined if it cannot be read.
   */
  #readAlone(id: bigint, errno: number): bigint | undefined {
    if (registerWidth(id) <= 64) {
      refuseAccident(errno, { syscall: 'KVM_GET_ONE_REG', register: id, vcpu: this.#vcpu })
      return undefined
    }
    try {
      return this.to.registers.get(id)
    } catch (error) {
      if (isRefusal(error)) return undefined
      throw error
    }
  }
}

/** Ticks by which a counter may have advanced: more than an hour at 1 GHz. */
const PATIENCE = 1n << 42n

function isSame(id: bigint, value: bigint, reads: bigint): boolean {
  if (value === reads) return true
  if (timerCounters.has(id)) return BigInt.asUintN(64, reads - value) < PATIENCE
  return withoutIstatus(id, value) === withoutIstatus(id, reads)
}
