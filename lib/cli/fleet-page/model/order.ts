/** Orders the classes of a matrix so that free movement forms blocks, and joins classes that move alike. */

/** Whether a VM can go from one class to another; true from a class to itself. */
export type CanMove = (from: number, to: number) => boolean

/** The moves of a class as bits: where its VMs can go, then where VMs can come from. */
class Moves {
  readonly #rows: Uint32Array[]

  constructor(size: number, canMove: CanMove) {
    const words = Math.ceil(size / 32)
    this.#rows = Array.from({ length: size }, (_, one) => {
      const bits = new Uint32Array(words * 2)
      for (let other = 0; other < size; other++) {
        const bit = 1 << (other & 31)
        if (one === other || canMove(one, other)) bits[other >> 5]! |= bit
        if (one === other || canMove(other, one)) bits[words + (other >> 5)]! |= bit
      }
      return bits
    })
  }

  /** The part of their moves that only one of two classes has: 0 if they move alike, 1 if they have none in common. */
  distance(one: number, other: number): number {
    const [a, b] = [this.#rows[one]!, this.#rows[other]!]
    let [both, either] = [0, 0]
    for (let word = 0; word < a.length; word++) {
      both += ones(a[word]! & b[word]!)
      either += ones(a[word]! | b[word]!)
    }
    return 1 - both / either
  }

  /** Positive for a class that more classes can be reached from than can reach it. */
  balance(one: number): number {
    const row = this.#rows[one]!
    const half = row.length / 2
    let sum = 0
    for (let word = 0; word < half; word++) sum += ones(row[word]!) - ones(row[half + word]!)
    return sum
  }

  key(one: number): string {
    return this.#rows[one]!.join()
  }
}

/**
 * Returns the classes in an order in which those with like moves are neighbours: average-linkage clustering by the moves that two
 * classes have in common. Of two clusters that do, the one comes first whose VMs can go to more places, so that free movement gathers
 * above the diagonal; of others the one with more hosts.
 *
 * @param families names of what keeps classes together that have no move in common
 */
export function blockOrder(
  weights: readonly number[],
  canMove: CanMove,
  families: readonly string[] = [],
): number[] {
  const { length: size } = weights
  const moves = new Moves(size, canMove)
  const distance = Array.from({ length: size }, (_, one) =>
    Float32Array.from({ length: size }, (__, other) =>
      one === other
        ? Infinity
        : moves.distance(one, other) + (families[one] === families[other] ? 0 : STRANGE),
    ),
  )
  const clusters: (Cluster | undefined)[] = weights.map((weight, one) => ({
    members: [one],
    balance: moves.balance(one),
    weight,
  }))
  // A chain of nearest neighbours ends in two that are nearest to each other; average linkage may join them at once.
  const chain: number[] = []
  for (let left = size; left > 1;) {
    if (chain.length === 0) chain.push(clusters.findIndex((one) => one !== undefined))
    const last = chain.at(-1)!
    const before = chain.at(-2)
    let nearest = before ?? -1
    let least = before === undefined ? Infinity : distance[last]![before]!
    for (const [other, cluster] of clusters.entries()) {
      if (cluster === undefined || distance[last]![other]! >= least) continue
      nearest = other
      least = distance[last]![other]!
    }
    if (nearest !== before) {
      chain.push(nearest)
      continue
    }
    chain.length -= 2
    const [a, b] = [clusters[last]!, clusters[nearest]!]
    const share = a.members.length / (a.members.length + b.members.length)
    for (const [other, cluster] of clusters.entries()) {
      if (cluster === undefined || other === last || other === nearest) continue
      const mean = share * distance[last]![other]! + (1 - share) * distance[nearest]![other]!
      distance[last]![other] = mean
      distance[other]![last] = mean
    }
    clusters[last] = joined(a, b, least < APART)
    clusters[nearest] = undefined
    left--
  }
  return clusters.find((one) => one !== undefined)?.members ?? []
}

/** What a different family adds to a distance. */
const STRANGE = 0.25
/** Less than the distance of clusters of different families that have no move in common. */
const APART = 1 + STRANGE / 2

interface Cluster {
  members: number[]
  balance: number
  weight: number
}

function joined(one: Cluster, other: Cluster, areRelated: boolean): Cluster {
  const mean = ({ balance, members }: Cluster) => balance / members.length
  const order =
    (areRelated ? mean(other) - mean(one) : 0) ||
    other.weight - one.weight ||
    one.members[0]! - other.members[0]!
  const [first, second] = order <= 0 ? [one, other] : [other, one]
  return {
    members: [...first.members, ...second.members],
    balance: one.balance + other.balance,
    weight: one.weight + other.weight,
  }
}

/**
 * Joins classes that move freely among each other and have the same moves to and from all others: one row stands for them all.
 * Keeps the order of their first members.
 *
 * @param ways in which VMs may be made: classes are alike if they are in each
 */
export function alike(order: readonly number[], ...ways: readonly CanMove[]): number[][] {
  const moves = ways.map(
    (canMove) => new Moves(order.length, (from, to) => canMove(order[from]!, order[to]!)),
  )
  const groups = new Map<string, number[]>()
  for (const [place, one] of order.entries()) {
    const key = moves.map((way) => way.key(place)).join(' ')
    const others = groups.get(key)
    if (others === undefined) groups.set(key, [one])
    else others.push(one)
  }
  return [...groups.values()]
}

function ones(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555)
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333)
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}
