/**
 * Keys of classes: two hosts with the same key can exchange VMs both ways. Labels of nodes carry them, because a scheduler can only
 * compare labels for equality.
 */
import { canonicalJson, CLASS_DIGITS, sha256 } from '../report/digest.js'
import { canSurelyMove, type GateDocument } from './gate.js'
import { disjointGroups } from './groups.js'

/**
 * Returns the key of each class, by its digest. Classes with the same key form a group: under the fleet's VMM, VMs move from each class
 * to each other one, and between hosts of one class, and no answer depends on facts that no report records. Possible moves do not chain:
 * A to B and B to C do not imply A to C. So a class that moves freely with two groups is in only one of them.
 *
 * A class has no key if its VMs cannot move to another host of the class, or if that depends on unknown facts.
 *
 * The key is a digest of the VMM and of all classes in the group, so it changes when a class joins or leaves the group: equal keys of
 * two analyses never claim a move that neither of them predicted.
 */
export function moveKeys(document: GateDocument): Map<string, string> {
  const { classes, vmm } = document
  const isFree = (one: number, other: number) =>
    canSurelyMove(document, one, other) && canSurelyMove(document, other, one)
  const movable = [...classes.keys()].filter((index) => isFree(index, index))
  const groups = disjointGroups(
    movable.map((index) => classes[index]!.hostCount),
    (one, other) => isFree(movable[one]!, movable[other]!),
  )
  return new Map(
    groups.flatMap((group) => {
      const digests = group.map((index) => classes[movable[index]!]!.digest)
      const key = sha256(canonicalJson([vmm, digests.toSorted()])).slice(0, CLASS_DIGITS)
      return digests.map((digest) => [digest, key] as const)
    }),
  )
}
