/**
 * Registers of the Scalable Vector Extension, coprocessor 0x15. Z, P and FFR come in slices of 2048 (Z) or 256 (P, FFR) bits, of which
 * KVM has only slice 0; `z0[1]` is the name of slice 1.
 */
import type { Below } from './below.js'
import { arm64Id, coprocessors, sizes } from './id.js'

export type SveKind = 'z' | 'p' | 'ffr' | 'vls'

export interface SveParts {
  kind: SveKind
  /** Which Z (0 to 31) or P (0 to 15) register; 0 for FFR and VLS. */
  number: number
  /** 0 to 31; 0 for VLS. */
  slice: number
}

const VLS_NAME = 'KVM_REG_ARM64_SVE_VLS'
const VLS_INDEX = 0xffff
const P_BASE = 0x400
const FFR_BASE = 0x600
const FFR_END = 0x620

type SveBaseName = `z${Below<32>}` | `p${Below<16>}` | 'ffr'
export type SveRegisterName = SveBaseName | `${SveBaseName}[${Below<32>}]` | typeof VLS_NAME

/** Returns the parts of an id of the SVE space, or undefined if the index or size is not valid. */
export function sveParts(size: number, index: number): SveParts | undefined {
  const number = (index >> 5) & 0x1f
  const slice = index & 0x1f
  if (index < P_BASE) return size === sizes.U2048 ? { kind: 'z', number, slice } : undefined
  if (index < FFR_BASE) return size === sizes.U256 ? { kind: 'p', number: number & 0xf, slice } : undefined
  if (index < FFR_END) return size === sizes.U256 ? { kind: 'ffr', number: 0, slice } : undefined
  return index === VLS_INDEX && size === sizes.U512 ? { kind: 'vls', number: 0, slice: 0 } : undefined
}

export function sveName({ kind, number, slice }: SveParts): string {
  if (kind === 'vls') return VLS_NAME
  const name = kind === 'ffr' ? 'ffr' : `${kind}${number}`
  return slice === 0 ? name : `${name}[${slice}]`
}

export function sveDescription({ kind, number, slice }: SveParts): string {
  if (kind === 'vls') {
    return 'set of vector lengths of the vCPU: bit n stands for (n + 1) × 128 bits; fixed by KVM_ARM_VCPU_FINALIZE'
  }
  const what = {
    z: `vector register ${number}`,
    p: `predicate register ${number}`,
    ffr: 'first fault register',
  }[kind]
  const width = kind === 'z' ? 2048 : 256
  return `SVE ${what}, bits ${(slice + 1) * width - 1}:${slice * width}`
}

/** Returns the id of a name in the SVE space (lower case, prefix optional), or undefined. */
export function sveId(name: string): bigint | undefined {
  if (name === VLS_NAME.toLowerCase() || name === 'sve_vls')
    return arm64Id(sizes.U512, coprocessors.SVE, VLS_INDEX)
  const match = /^(?:z([0-9]|[12][0-9]|3[01])|p([0-9]|1[0-5])|ffr)(?:\[([0-9]|[12][0-9]|3[01])\])?$/.exec(
    name,
  )
  if (match === null) return undefined
  const slice = Number(match[3] ?? 0)
  if (match[1] !== undefined) return arm64Id(sizes.U2048, coprocessors.SVE, (Number(match[1]) << 5) | slice)
  const base = match[2] === undefined ? FFR_BASE : P_BASE | (Number(match[2]) << 5)
  return arm64Id(sizes.U256, coprocessors.SVE, base | slice)
}

/** Returns the bits of the longest vectors in a value of `KVM_REG_ARM64_SVE_VLS`; 0 if it has none. */
export function longestVector(lengths: bigint): number {
  return lengths === 0n ? 0 : lengths.toString(2).length * 128
}
