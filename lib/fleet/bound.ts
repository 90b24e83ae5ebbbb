/** Classes whose VMs cannot move at all, although a fleet predicts no move within a class. */
import type { Finding } from '../migration/finding.js'

interface MovesOfFleet {
  moves: readonly { from: number; possible: boolean; obstacles: readonly number[] }[]
  obstacles: readonly Finding[]
}

/** Whether a finding is about the VM on its source alone: then it stops a move to every host, also to one of the same class. */
function isOfSource(finding: Finding): boolean {
  switch (finding.code) {
    case 'save-refused':
    case 'vector-state-lost':
      return true
    case 'interrupt-controller-missing':
      return finding.on === 'source'
    default:
      return false
  }
}

/** Returns the indices of those classes, as their moves to other classes show them. */
export function boundClasses({ moves, obstacles }: MovesOfFleet): Set<number> {
  const found = moves.filter(
    ({ possible, obstacles: stopping }) =>
      !possible && stopping.some((index) => isOfSource(obstacles[index]!)),
  )
  return new Set(found.map(({ from }) => from))
}
