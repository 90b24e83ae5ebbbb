/** Finds out whether a VM can move to a host, by restoring its state there. */
import type { Kvm } from '../kvm/index.js'
import { attemptRestore } from './attempt.js'
import { type Finding, severities } from './finding.js'
import { Judge } from './judge.js'
import type { State } from './state.js'
import { strict, type VmmRules } from './vmm/rules.js'

/** Whether a VM can go to a host. */
export interface MoveVerdict {
  vmm: string
  /** Whether the move would succeed. `findings` list what its guest would see. */
  possible: boolean
  /** Registers over all vCPUs: the number in the state, and the number that would be unchanged. */
  registers: { total: number; same: number }
  /** Gravest first. */
  findings: Finding[]
}

/**
 * Judges whether a state can be restored on a host: what stops it, what changes for its guest, and what would have prevented that.
 * It tries the restore on a VM made for this purpose, and closes that VM.
 *
 * @param kvm of the destination: with a simulated one the result is a prediction, with a real one a test
 * @param rules of the VMM that would move it
 */
export function verdict(state: State, kvm: Kvm, rules: VmmRules = strict): MoveVerdict {
  using attempt = attemptRestore(kvm, state, { carries: (id) => rules.carries(id) })
  const { refusals, outcomes, unset } = attempt
  const judge = new Judge(state, kvm, rules, attempt)
  const findings = mergeVcpus([
    ...refusals.map((refusal) => judge.refusal(refusal)),
    ...outcomes.flatMap((outcome) => judge.outcome(outcome)),
    ...unset.flatMap((register) => judge.unset(register)),
  ])
  return {
    vmm: rules.name,
    possible: attempt.vm !== undefined && findings.every(({ stops }) => !stops),
    registers: {
      total: outcomes.length,
      same: outcomes.filter(({ outcome }) => outcome === 'same').length,
    },
    findings: findings.toSorted((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity)),
  }
}

/** A finding that is the same on several vCPUs is listed once. */
function mergeVcpus(findings: readonly Finding[]): Finding[] {
  const merged = new Map<string, Finding>()
  for (const finding of findings) {
    const key = JSON.stringify({ ...finding, vcpus: [] })
    const known = merged.get(key)
    if (known === undefined) merged.set(key, finding)
    else known.vcpus.push(...finding.vcpus)
  }
  return [...merged.values()]
}
