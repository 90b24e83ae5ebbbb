import type { Finding } from './finding.js'

/**
 * Returns whether a finding makes a move impossible: the destination refuses the state, or the guest cannot go on after it. In a file of
 * its own, since the gate of a fleet does not load the schemas of findings.
 */
export function isObstacle({ stops, severity }: Pick<Finding, 'stops' | 'severity'>): boolean {
  return stops || severity === 'guest-broken'
}
