/** Checks ids and values of registers, with the errors that the addon throws. */
import { checkUint64, invalidType, outOfRange } from '../arguments.js'
import { hex } from '../registers/index.js'

/** @throws TypeError, or RangeError if no register has the width of `id` */
export function checkRegisterId(id: bigint): void {
  checkUint64(id, 'id')
  if (((id >> 52n) & 0xfn) > 8n) {
    throw outOfRange('id', 'the id of a register of 8 to 2048 bits: its bits 55:52 are 0 to 8')
  }
}

/** @throws TypeError, or RangeError if `value` does not fit the `bits` of register `id` */
export function checkRegisterValue(id: bigint, value: bigint, bits: number): void {
  if (typeof value !== 'bigint') throw invalidType('value', 'a bigint', value)
  if (BigInt.asUintN(bits, value) !== value) {
    throw outOfRange('value', `an unsigned bigint that fits the ${bits} bits of register ${hex(id)}`)
  }
}
