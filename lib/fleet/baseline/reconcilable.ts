/** Finds which hosts can be reconciled with each other. */
import { reportDigest } from '../../report/digest.js'
import type { Candidate } from './candidate.js'

/** Returns the hosts in groups that can be reconciled, the largest first. */
export function classesOf(
  hosts: readonly Candidate[],
  canBeReconciled: (group: readonly Candidate[]) => boolean,
): string[][] {
  // Equal hosts need no comparison, and most of a fleet are equal.
  const alike = new Map<string, Candidate[]>()
  for (const host of hosts) {
    const digest = reportDigest(host.report)
    const others = alike.get(digest)
    if (others === undefined) alike.set(digest, [host])
    else others.push(host)
  }
  const kinds = new Map([...alike.values()].map((equals) => [equals[0]!, equals]))
  return reconcilableGroups([...kinds.keys()], canBeReconciled)
    .map((group) => new Set(group.flatMap((host) => kinds.get(host)!)))
    .map((group) => hosts.filter((host) => group.has(host)).map(({ name }) => name))
    .toSorted((a, b) => b.length - a.length)
}

/** Each group is the largest found among the remaining hosts. */
function reconcilableGroups(
  hosts: readonly Candidate[],
  canBeReconciled: (group: readonly Candidate[]) => boolean,
): Candidate[][] {
  const known = new Map<string, boolean>()
  const areReconcilable = (group: readonly Candidate[]): boolean => {
    const key = group.map(({ name }) => name).join('\n')
    const answer = known.get(key) ?? canBeReconciled(group)
    known.set(key, answer)
    return answer
  }
  const classes: Candidate[][] = []
  let left = [...hosts]
  while (left.length > 0) {
    let largest: Candidate[] = []
    for (const seed of left) {
      if (largest.includes(seed)) continue
      const group = [seed]
      for (const host of left) {
        if (group.includes(host)) continue
        const fitsEach = group.every((member) => areReconcilable([member, host].toSorted(byName)))
        if (fitsEach && areReconcilable([...group, host])) group.push(host)
      }
      if (group.length > largest.length) largest = group
    }
    classes.push(largest)
    left = left.filter((host) => !largest.includes(host))
  }
  return classes
}

function byName(a: Candidate, b: Candidate): number {
  return a.name < b.name ? -1 : 1
}
