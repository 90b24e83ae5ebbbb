/** Classes whose VMs cannot move at all, although a fleet predicts no move within a class. */
import type { Finding } from '../migration/finding.js'
import type { MoveTable } from './moves.js'

interface MovesOfFleet extends MoveTable {
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
export function boundClasses({ moves, predictions, obstacles }: MovesOfFleet): Set<number> {
  const ofSource = new Set(
    [...predictions.keys()].filter((index) => {
      const { possible, obstacles: stopping } = predictions[index]!
      return !possible && stopping.some((obstacle) => isOfSource(obstacles[obstacle]!))
    }),
  )
  return new Set(
    [...moves.keys()].filter((from) => moves[from]!.some((index) => index !== null && ofSource.has(index))),
  )
}
