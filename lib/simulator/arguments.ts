/** Checks of arguments that cannot be handed to a kernel at all, with the errors the addon throws for them. */
import { hex } from '../registers/index.js'

function invalidType(name: string, expected: string): TypeError {
  return Object.assign(new TypeError(`${name} must be ${expected}`), { code: 'ERR_INVALID_ARG_TYPE' })
}

export function outOfRange(name: string, expected: string): RangeError {
  return Object.assign(new RangeError(`${name} must be ${expected}`), { code: 'ERR_OUT_OF_RANGE' })
}

/** @throws TypeError if `value` is no object */
export function checkObject(value: object, name: string): void {
  if (typeof value !== 'object' || value === null) throw invalidType(name, 'an object')
}

/** @throws TypeError, or RangeError if `value` is no integer of 32 unsigned bits */
export function checkUint32(value: number, name: string): void {
  if (typeof value !== 'number') throw invalidType(name, 'a number')
  if (value >>> 0 !== value) throw outOfRange(name, 'an integer from 0 to 4294967295')
}

/** @throws TypeError, or RangeError if `value` is no size in bytes */
export function checkSize(value: number, name: string): void {
  if (typeof value !== 'number') throw invalidType(name, 'a number')
  if (!Number.isSafeInteger(value) || value < 0) {
    throw outOfRange(name, 'an integer from 0 to Number.MAX_SAFE_INTEGER')
  }
}

/** @throws TypeError, or RangeError if `value` has more than 64 bits or a sign */
export function checkUint64(value: bigint, name: string): void {
  if (typeof value !== 'bigint') throw invalidType(name, 'a bigint')
  if (BigInt.asUintN(64, value) !== value) throw outOfRange(name, 'a bigint from 0n to 2n ** 64n - 1n')
}

/** @throws TypeError, or RangeError if `id` is of no width a register has */
export function checkRegisterId(id: bigint): void {
  checkUint64(id, 'id')
  if (((id >> 52n) & 0xfn) > 8n) {
    throw outOfRange('id', 'the id of a register of 8 to 2048 bits: its bits 55:52 are 0 to 8')
  }
}

/** @throws TypeError, or RangeError if `value` does not fit the `bits` of register `id` */
export function checkRegisterValue(id: bigint, value: bigint, bits: number): void {
  if (typeof value !== 'bigint') throw invalidType('value', 'a bigint')
  if (BigInt.asUintN(bits, value) !== value) {
    throw outOfRange('value', `an unsigned bigint that fits the ${bits} bits of register ${hex(id)}`)
  }
}

/** @throws TypeError, or RangeError if an array is of another type or too short */
export function checkArray(
  array: ArrayBufferView & { readonly length: number },
  type: Uint8ArrayConstructor | Uint32ArrayConstructor | Int32ArrayConstructor | BigUint64ArrayConstructor,
  minimum: number,
  name: string,
): void {
  if (!(array instanceof type)) throw invalidType(name, `a ${type.name}`)
  if (array.length < minimum) throw outOfRange(name, `at least ${minimum} elements long`)
}
