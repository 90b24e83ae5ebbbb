/**
 * The bits of a register id, as `KVM_GET_ONE_REG` takes it: architecture, size, coprocessor and an index whose meaning
 * the coprocessor decides (`include/uapi/linux/kvm.h`, `arch/arm64/include/uapi/asm/kvm.h`).
 */

/** Every id is a sum of these: `idFromParts(idParts(id)) === id` for all 64-bit ids. */
export interface IdParts {
  /** Bits 63:60: 6 is arm64. */
  arch: number
  /** Bits 55:52: log2 of the register's bytes. 0 (8 bits) to 8 (2048 bits) are in use. */
  size: number
  /** Bits 27:16: which space of registers. */
  coproc: number
  /** Bits 15:0: which register of the space. */
  index: number
  /** Bits that no id of KVM sets (59:56, 51:28), in place. */
  stray: bigint
}

export const ARM64 = 6

/** `KVM_REG_ARM_*` coprocessors, bits 27:16. */
export const coprocessors = {
  CORE: 0x10,
  DEMUX: 0x11,
  SYSREG: 0x13,
  FW: 0x14,
  SVE: 0x15,
  FW_FEAT_BMAP: 0x16,
} as const

/** Bits 55:52, named as in the kernel (`KVM_REG_SIZE_*`). */
export const sizes = { U8: 0, U16: 1, U32: 2, U64: 3, U128: 4, U256: 5, U512: 6, U1024: 7, U2048: 8 } as const

/** The 64 bits of an id, or of most registers' values, all set. */
export const U64 = 0xffff_ffff_ffff_ffffn

const STRAY = 0x0f0f_ffff_f000_0000n

/** @throws RangeError if `id` is not an unsigned 64-bit number */
function checkId(id: bigint): void {
  if (id < 0n || id > U64) throw new RangeError(`A register id has 64 bits, ${id} does not fit`)
}

/** @throws RangeError if `id` is not an unsigned 64-bit number */
export function idParts(id: bigint): IdParts {
  checkId(id)
  return {
    arch: Number(id >> 60n),
    size: Number((id >> 52n) & 0xfn),
    coproc: Number((id >> 16n) & 0xfffn),
    index: Number(id & 0xffffn),
    stray: id & STRAY,
  }
}

export function idFromParts(parts: IdParts): bigint {
  return (
    (BigInt(parts.arch) << 60n) |
    (BigInt(parts.size) << 52n) |
    (BigInt(parts.coproc) << 16n) |
    BigInt(parts.index) |
    parts.stray
  )
}

export function arm64Id(size: number, coproc: number, index: number): bigint {
  // The low half as one number: the tables of names make more than a thousand of these at import.
  return (BigInt((ARM64 << 8) | size) << 52n) | BigInt(coproc * 0x1_0000 + index)
}

/** The id with another size (`sizes`) in bits 55:52. */
export function withSize(id: bigint, size: number): bigint {
  return idFromParts({ ...idParts(id), size })
}

/**
 * Width of a register's value in bits, taken from bits 55:52 of its id: 8 to 2048 for every register of KVM. An id
 * that no kernel knows can claim up to 262144.
 *
 * @throws RangeError if `id` is not an unsigned 64-bit number
 */
export function registerWidth(id: bigint): number {
  checkId(id)
  return 8 << Number((id >> 52n) & 0xfn)
}

/** The value of an id's register whose every bit is set. */
export function allBits(id: bigint): bigint {
  return (1n << BigInt(registerWidth(id))) - 1n
}

/** An id or a value as reports, traces and messages write it: `0x…`, lower case, without leading zeros. */
export function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`
}
