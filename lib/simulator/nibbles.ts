/** For each nibble of a register, from the least significant, a set of values: bit n of an element stands for n. */
export class NibbleSets {
  readonly #sets: readonly number[]

  constructor(nibbles: readonly string[]) {
    this.#sets = nibbles.map((set) => Number.parseInt(set, 16))
  }

  /** Whether every nibble of a value is in its set. */
  hasAll(value: bigint): boolean {
    const [low, high] = halves(value)
    for (let index = 0; index < this.#sets.length; index++) {
      if (((this.#sets[index]! >> nibbleAt(low, high, index)) & 1) === 0) return false
    }
    return true
  }

  /** Whether any nibble of a value is in its set. */
  hasAny(value: bigint): boolean {
    const [low, high] = halves(value)
    return this.#sets.some((set, index) => (set >> nibbleAt(low, high, index)) & 1)
  }

  /** Bits of the nibbles whose set has another value than the one they have in `value`. */
  freeBits(value: bigint): bigint {
    const [low, high] = halves(value)
    return this.#sets.reduce(
      (bits, set, index) =>
        set & ~(1 << nibbleAt(low, high, index)) ? bits | (0xfn << BigInt(4 * index)) : bits,
      0n,
    )
  }
}

function halves(value: bigint): [low: number, high: number] {
  return [Number(value & 0xffff_ffffn), Number(value >> 32n)]
}

function nibbleAt(low: number, high: number, index: number): number {
  return ((index < 8 ? low : high) >>> (4 * (index & 7))) & 0xf
}
