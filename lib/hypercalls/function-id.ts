/** The 32 bits of a function id, as the SMC Calling Convention lays them out (Arm DEN0028, section 2.5). */

export interface FunctionIdParts {
  /** Bit 31: a fast call, which runs to its end; the other kind yields. */
  fast: boolean
  /** Bit 30: arguments and results are 64 bits wide (SMC64/HVC64). */
  wide: boolean
  /** Bits 29:24: which owning entity defines the function. */
  owner: number
  /** Bits 23:17: zero in every fast call. */
  reserved: number
  /** Bit 16: the caller has no live SVE state (SMCCC 1.3). */
  sveHint: boolean
  /** Bits 15:0. */
  number: number
}

/** Owning entities with services relevant to a hypervisor. */
export const owners = {
  ARCH: 0,
  CPU: 1,
  SIP: 2,
  OEM: 3,
  STANDARD: 4,
  STANDARD_HYP: 5,
  VENDOR_HYP: 6,
} as const

const ownerNames = [
  'Arm architecture',
  'CPU',
  'silicon provider',
  'OEM',
  'standard secure service',
  'standard hypervisor service',
  'vendor hypervisor service',
]

/** @throws RangeError if `id` is not an unsigned 32-bit number */
export function decodeFunctionId(id: number): FunctionIdParts {
  if (!Number.isInteger(id) || id < 0 || id > 0xffff_ffff) {
    throw new RangeError(`A function id has 32 bits, ${id} does not fit`)
  }
  return {
    fast: id >>> 31 === 1,
    wide: ((id >>> 30) & 1) === 1,
    owner: (id >>> 24) & 0x3f,
    reserved: (id >>> 17) & 0x7f,
    sveHint: ((id >>> 16) & 1) === 1,
    number: id & 0xffff,
  }
}

/**
 * The inverse of `decodeFunctionId`: an unsigned number of 32 bits. Parts are not checked: one wider than its bits (`owner` 6, `reserved`
 * 7, `number` 16) gives an id of no meaning.
 */
export function encodeFunctionId(parts: FunctionIdParts): number {
  const { fast, wide, owner, reserved, sveHint, number } = parts
  const high = (Number(fast) << 7) | (Number(wide) << 6) | owner
  return (((high << 24) | (reserved << 17) | (Number(sveHint) << 16)) >>> 0) + number
}

/** Who defines the functions of an owner number, 0 to 63. */
export function ownerName(owner: number): string {
  if (owner >= 50) return 'trusted OS'
  if (owner >= 48) return 'trusted application'
  return ownerNames[owner] ?? 'reserved'
}
