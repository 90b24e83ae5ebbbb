/** Device attributes: their groups and data. */
import { checkArray } from '../arguments.js'
import type { VcpuState } from './state.js'

/** The attributes of a vCPU with one group number. */
export interface AttributeGroup {
  has(vcpu: VcpuState, attribute: bigint): number
  get(vcpu: VcpuState, attribute: bigint, data: Uint8Array): number
  set(vcpu: VcpuState, attribute: bigint, data: Uint8Array | null): number
}

export function readWord(data: Uint8Array, bytes: 4 | 8): bigint {
  checkArray(data, Uint8Array, bytes, 'data')
  const view = new DataView(data.buffer, data.byteOffset, bytes)
  return bytes === 4 ? BigInt(view.getUint32(0, true)) : view.getBigUint64(0, true)
}

export function writeWord(data: Uint8Array, bytes: 4 | 8, value: bigint): void {
  checkArray(data, Uint8Array, bytes, 'data')
  const view = new DataView(data.buffer, data.byteOffset, bytes)
  if (bytes === 4) view.setUint32(0, Number(value), true)
  else view.setBigUint64(0, value, true)
}

/** The value KVM reads if nothing was set: all ones means no address. */
export const NO_ADDRESS = 0xffff_ffff_ffff_ffffn
