/** Whether a VM can move to a host, found out by restoring its state there. */
import type { Kvm } from '../kvm/index.js'
import { attemptRestore } from './attempt.js'
import { type Finding, severities } from './finding.js'
import { Judge } from './judge.js'
import type { State } from './state.js'
import { strict, type VmmRules } from './vmm/rules.js'

/** Whether a VM can go to a host. */
export interface MoveVerdict {
  vmm: string
  /** Whether the move would succeed. What its guest would see is in `findings`. */
  possible: boolean
  /** Registers, over all vCPUs: how many the state has, and how many would be as they were. */
  registers: { total: number; same: number }
  /** Gravest first. */
  findings: Finding[]
}

/**
 * Whether a state can be restored on a host, what stops it, what changes for its guest, and what would have prevented that. It is tried: on
 * a VM made for it, which is closed again.
 *
 * @param kvm of the destination: a simulated one predicts, a real one tells
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

/** What is the same on several vCPUs is told once. */
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
