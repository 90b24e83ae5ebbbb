/** For each nibble of a register a set of values: bit n of an element stands for n. */
export class NibbleSets {
  readonly #sets: readonly number[]

  constructor(nibbles: readonly string[]) {
    this.#sets = nibbles.map((set) => Number.parseInt(set, 16))
  }

  hasAll(value: bigint): boolean {
    return nibblesOf(value).every(
      (nibble, index) => index >= this.#sets.length || (this.#sets[index]! >> nibble) & 1,
    )
  }

  hasAny(value: bigint): boolean {
    return nibblesOf(value).some((nibble, index) => (this.#sets[index]! >> nibble) & 1)
  }

  /** Bits of the nibbles that hold another value than their bits of `value`. */
  freeBits(value: bigint): bigint {
    return nibblesOf(value).reduce(
      (bits, nibble, index) =>
        this.#sets[index]! & ~(1 << nibble) ? bits | (0xfn << BigInt(4 * index)) : bits,
      0n,
    )
  }
}

/** Least significant first. */
function nibblesOf(value: bigint): number[] {
  const low = Number(value & 0xffff_ffffn)
  const high = Number(value >> 32n)
  return Array.from({ length: 16 }, (_, index) => ((index < 8 ? low : high) >>> (4 * (index & 7))) & 0xf)
}
