/** The search stops after this many look-ups and uses what it found so far: the number of groups can grow exponentially. */
const PATIENCE = 100_000_000

/**
 * Finds maximal sets of vertices in which each is joined with every other (Bron and Kerbosch, with Tomita's choice of the pivot),
 * those with most weight first.
 *
 * @param weights of the vertices
 */
export function groupsOf(
  weights: readonly number[],
  areJoined: (one: number, other: number) => boolean,
): { classes: number[]; hostCount: number }[] {
  const neighbours = weights.map(
    (_, one) => new Set([...weights.keys()].filter((other) => other !== one && areJoined(one, other))),
  )
  const groups: number[][] = []
  let lookUps = 0
  const extend = (group: number[], candidates: Set<number>, done: Set<number>): void => {
    // A step counts the neighbours of each vertex among the candidates.
    lookUps += 1 + candidates.size * (candidates.size + done.size)
    if (lookUps > PATIENCE) return
    if (candidates.size === 0) {
      if (done.size === 0) groups.push(group)
      return
    }
    const joined = (vertex: number): number => count(candidates, neighbours[vertex]!)
    const pivot = [...candidates, ...done].reduce((best, vertex) =>
      joined(vertex) > joined(best) ? vertex : best,
    )
    for (const vertex of [...candidates].filter((candidate) => !neighbours[pivot]!.has(candidate))) {
      extend([...group, vertex], both(candidates, neighbours[vertex]!), both(done, neighbours[vertex]!))
      candidates.delete(vertex)
      done.add(vertex)
    }
  }
  extend([], new Set(weights.keys()), new Set())
  return groups
    .map((classes) => ({
      classes: classes.toSorted((a, b) => a - b),
      hostCount: classes.reduce((sum, vertex) => sum + weights[vertex]!, 0),
    }))
    .toSorted((a, b) => b.hostCount - a.hostCount || a.classes[0]! - b.classes[0]!)
}

function both(one: ReadonlySet<number>, other: ReadonlySet<number>): Set<number> {
  return new Set([...one].filter((vertex) => other.has(vertex)))
}

function count(one: ReadonlySet<number>, other: ReadonlySet<number>): number {
  let found = 0
  for (const vertex of one) if (other.has(vertex)) found++
  return found
}

/**
 * Divides all vertices into sets in each of which every vertex is joined with every other. Starts each set with the vertex of most
 * weight that is left, and adds those of most weight that are joined with all in it: a smallest number of sets cannot be found in any
 * useful time.
 *
 * @param weights of the vertices
 */
export function disjointGroups(
  weights: readonly number[],
  areJoined: (one: number, other: number) => boolean,
): number[][] {
  const groups: number[][] = []
  let left = [...weights.keys()].toSorted((a, b) => weights[b]! - weights[a]! || a - b)
  while (left.length > 0) {
    const group: number[] = []
    left = left.filter((vertex) => {
      const fits = group.every((member) => areJoined(member, vertex))
      if (fits) group.push(vertex)
      return !fits
    })
    groups.push(group)
  }
  return groups
}
