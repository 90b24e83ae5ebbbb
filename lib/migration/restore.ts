/** Restores a whole state, or nothing of it. */
import type { Kvm, Vcpu, Vm } from '../kvm/index.js'
import {
  attemptRestore,
  type RegisterOutcome,
  type RestoreAttempt,
  type StepRefusal,
  type UnsetRegister,
} from './attempt.js'
import type { DeviceDifference } from './device-restore.js'
import { hex } from '../registers/index.js'
import type { State } from './state.js'
import { type Reaction, strict, type VmmRules } from './vmm/rules.js'

/** Thrown when a restore is refused. The VM is closed. */
export class RestoreError extends Error {
  override readonly name = 'RestoreError'
  readonly code = 'ERR_KVM_RESTORE'
  readonly refusals: readonly StepRefusal[]
  /** The outcome for each register; those with `same` had been applied. */
  readonly outcomes: readonly RegisterOutcome[]

  constructor(
    { refusals, outcomes, deviceDifferences }: RestoreAttempt,
    failures: readonly RegisterOutcome[],
    missing: readonly UnsetRegister[],
  ) {
    const reasons = [
      ...refusals.map(refusalText),
      ...failures.map(outcomeText),
      ...missing.map(missingText),
      ...deviceDifferences.map(differenceText),
    ]
    const more = reasons.length > 5 ? `; and ${reasons.length - 5} more` : ''
    const applied = outcomes.filter(({ outcome }) => outcome === 'same').length
    super(
      `the state was not restored: ${reasons.slice(0, 5).join('; ')}${more}. ` +
        `${applied} of ${outcomes.length} registers had been applied; the VM is closed`,
    )
    this.refusals = refusals
    this.outcomes = outcomes
  }
}

function refusalText(refusal: StepRefusal): string {
  const what = stepText(refusal)
  const { vcpu } = { vcpu: undefined, ...refusal }
  return `${refusal.step}${what && ` (${what})`}${vcpu === undefined ? '' : ` of vCPU ${vcpu}`}: ${refusal.errno}`
}

function differenceText({ what, vcpu, source, destination }: DeviceDifference): string {
  return `${what}${vcpu === undefined ? '' : ` of vCPU ${vcpu}`} = ${source}: accepted, but reads ${destination}`
}

function stepText(refusal: StepRefusal): string {
  switch (refusal.step) {
    case 'create-vm':
      return `${refusal.ipaSize} bits of guest physical address`
    case 'enable-capability':
      return refusal.capability
    case 'smccc-filter': {
      const { action, count, base } = refusal.calls
      return `${action} ${count} functions from ${hex(base)}`
    }
    case 'create-vcpu':
      return ''
    case 'init':
      return refusal.features.join(', ') || 'no features'
    case 'finalize':
      return 'sve'
    case 'mp-state':
      return refusal.mpState
    case 'device':
      return refusal.what
    default:
      return refusal.events
  }
}

function outcomeText(found: RegisterOutcome): string {
  const what = `${found.name} = ${found.value} on vCPU ${found.vcpu}`
  if (found.outcome === 'absent') return `${what}: this host has no such register`
  return found.outcome === 'differs'
    ? `${what}: accepted, but reads ${found.reads}`
    : `${what}: ${found.outcome === 'refused' ? found.errno : 'restored'}`
}

function missingText({ name, vcpu, value }: UnsetRegister): string {
  return `${name} on vCPU ${vcpu}: not in the state, and keeps ${value}`
}

export interface RestoreOptions {
  /** Decides which registers are restored, and which outcome is an obstacle. Default: `strict`. */
  rules?: VmmRules
  /** Called with the VM before its first vCPU is made, so that the caller can give it memory. */
  prepare?: (vm: Vm) => void
}

export interface Restored {
  vm: Vm
  /** In the state's order. */
  vcpus: readonly Vcpu[]
  outcomes: readonly RegisterOutcome[]
  unset: readonly UnsetRegister[]
}

/**
 * Restores a state into a VM made for it, on any backend, and reads every register back, those of the GICv3 too. The VM has not
 * started. The caller gives it memory in `prepare`, makes what `state.vm.notCarried` lists, and the devices it emulates itself.
 *
 * @throws RestoreError if a step is refused, or a register reads back differently, and `rules` do not allow it; the VM is then
 * closed
 * @throws KvmError `ENOMEM`, `EMFILE`, `EFAULT` for an accident on this machine; the VM is then closed; `ERR_KVM_CLOSED`
 * @throws TypeError for a `prepare` that returns a promise
 */
export function restore(kvm: Kvm, state: State, { rules = strict, prepare }: RestoreOptions = {}): Restored {
  const attempt = attemptRestore(kvm, state, {
    carries: (id) => rules.carries(id),
    ...(prepare && { prepare }),
  })
  const failures = attempt.outcomes.filter((found) => reactionTo(found, rules) === 'fails')
  const missing = attempt.unset.filter(
    ({ id, value }) => rules.on('missing', BigInt(id), BigInt(value)) === 'fails',
  )
  const { vm, vcpus, outcomes, unset } = attempt
  const problems = [attempt.refusals, failures, missing, attempt.deviceDifferences]
  if (vm !== undefined && problems.every(({ length }) => length === 0)) {
    return { vm, vcpus, outcomes, unset }
  }
  vm?.close()
  throw new RestoreError(attempt, failures, missing)
}

/** Returns how a VMM reacts to an outcome; undefined if there is nothing to react to. */
export function reactionTo({ outcome, id, value }: RegisterOutcome, rules: VmmRules): Reaction | undefined {
  return outcome === 'same' ? undefined : rules.on(outcome, BigInt(id), BigInt(value))
}
