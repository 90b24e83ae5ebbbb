/** Checks of arguments. The errors name the argument, and their classes and codes are the ones the addon uses. */
import { nearestNames } from './registers/index.js'

/** A `TypeError` with code `ERR_INVALID_ARG_TYPE`; `found` is the value, if it is informative. */
export function invalidType(name: string, expected: string, ...found: unknown[]): TypeError {
  return Object.assign(new TypeError(sentence(name, expected, found)), { code: 'ERR_INVALID_ARG_TYPE' })
}

/** A `RangeError` with code `ERR_OUT_OF_RANGE`; `found` is the value, if it is informative. */
export function outOfRange(name: string, expected: string, ...found: unknown[]): RangeError {
  return Object.assign(new RangeError(sentence(name, expected, found)), { code: 'ERR_OUT_OF_RANGE' })
}

/**
 * Calls a function of the caller that must be done when it returns.
 * @throws TypeError if it returns a promise, as an async function does: what it awaits would come too late
 */
export function callAtOnce<T>(name: string, perform: (argument: T) => void, argument: T): void {
  const result: unknown = perform(argument)
  if (!(result instanceof Promise)) return
  // Nobody else handles its rejection.
  result.catch(() => undefined)
  throw invalidType(name, 'a function that is done when it returns, and this one is async')
}

function sentence(name: string, expected: string, found: readonly unknown[]): string {
  return `${name} must be ${expected}${found.length === 0 ? '' : `, not ${shown(found[0])}`}`
}

/** Describes a value of any type in a few words. */
export function shown(value: unknown): string {
  switch (typeof value) {
    case 'bigint':
      return value > -(1n << 70n) && value < 1n << 70n ? `${value}n` : 'a bigint of more than 70 bits'
    case 'number':
    case 'boolean':
    case 'undefined':
      return String(value)
    case 'string':
      return quoted(value)
    case 'object':
      return value === null ? 'null' : Array.isArray(value) ? 'an array' : 'an object'
    default:
      return `a ${typeof value}`
  }
}

/**
 * Returns the first letters of a text as a JavaScript literal. Escapes everything but printable ASCII: a terminal would interpret
 * some of it.
 */
function quoted(text: string): string {
  const start = text.length > 40 ? `${text.slice(0, 40)}…` : text
  return JSON.stringify(start).replace(
    /[^\x20-\x7e…]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** @throws TypeError unless `value` is an object and no array */
export function checkObject(value: unknown, name: string, expected = 'an object'): asserts value is object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidType(name, expected, value)
  }
}

/**
 * @param keys of every option there is
 * @throws TypeError unless `options` is an object without any other key
 */
export function checkOptions(options: unknown, name: string, keys: readonly string[]): void {
  checkObject(options, name, `an object with ${keys.join(', ')}`)
  for (const key of Object.keys(options)) {
    if (keys.includes(key)) continue
    throw invalidType(
      name,
      `an object with ${keys.join(', ')}; it has ${quoted(key)}${suggestion(key, keys)}`,
    )
  }
}

/** @throws TypeError, or RangeError if `value` is none of `names` */
export function checkChoice<Name extends string>(
  value: unknown,
  name: string,
  names: readonly Name[],
): asserts value is Name {
  if (typeof value !== 'string') throw invalidType(name, `one of ${names.join(', ')}`, value)
  if ((names as readonly string[]).includes(value)) return
  throw outOfRange(name, `one of ${names.join(', ')}, not ${quoted(value)}${suggestion(value, names)}`)
}

/**
 * Returns the number that `value` names in `table`, or `value` itself if it is a 32-bit number.
 * @throws TypeError for another type, RangeError for an unknown name or a wider number
 */
export function numberOf(value: unknown, name: string, table: Readonly<Record<string, number>>): number {
  if (typeof value === 'string') {
    const known = Object.hasOwn(table, value) ? table[value] : undefined
    if (known !== undefined) return known
    const names = Object.keys(table)
    throw outOfRange(name, `a name such as ${names[0]}, not ${quoted(value)}${suggestion(value, names)}`)
  }
  if (typeof value !== 'number') throw invalidType(name, 'a name or a number', value)
  checkUint32(value, name)
  return value
}

function suggestion(text: string, names: readonly string[]): string {
  const [nearest] = nearestNames(text, names)
  return nearest === undefined ? '' : `: did you mean ${nearest}?`
}

/** @throws TypeError unless `value` is a string */
export function checkText(value: unknown, name: string): asserts value is string {
  if (typeof value !== 'string') throw invalidType(name, 'a string', value)
}

/** @throws TypeError unless `value` is true or false */
export function checkBoolean(value: unknown, name: string): asserts value is boolean {
  if (typeof value !== 'boolean') throw invalidType(name, 'true or false', value)
}

/** @throws TypeError, or RangeError if `value` is no integer of 32 unsigned bits */
export function checkUint32(value: unknown, name: string): asserts value is number {
  if (typeof value !== 'number') throw invalidType(name, 'a number', value)
  if (value >>> 0 !== value) throw outOfRange(name, 'an integer from 0 to 4294967295', value)
}

/** @throws TypeError, or RangeError if `value` is no count of bytes */
export function checkSize(value: unknown, name: string): asserts value is number {
  if (typeof value !== 'number') throw invalidType(name, 'a number', value)
  if (!Number.isSafeInteger(value) || value < 0) {
    throw outOfRange(name, 'an integer from 0 to Number.MAX_SAFE_INTEGER', value)
  }
}

/** @throws TypeError, or RangeError if `value` is below 0 or NaN */
export function checkMilliseconds(value: unknown, name: string): asserts value is number {
  if (typeof value !== 'number') throw invalidType(name, 'a number of milliseconds', value)
  if (!(value >= 0)) throw outOfRange(name, 'a number of milliseconds, 0 or more', value)
}

/** @throws TypeError, or RangeError if `value` has more than 64 bits or a sign */
export function checkUint64(value: unknown, name: string): asserts value is bigint {
  if (typeof value !== 'bigint') throw invalidType(name, `a bigint${asBigint(value)}`, value)
  if (BigInt.asUintN(64, value) !== value) throw outOfRange(name, 'a bigint from 0n to 2n ** 64n - 1n', value)
}

/** Ends the words "a bigint" in an error about `value`: the value the caller probably meant. */
export function asBigint(value: unknown): string {
  return Number.isSafeInteger(value) ? ` such as ${String(value)}n` : ''
}

type TypedArray = Uint8Array | Uint32Array | Int32Array | BigUint64Array

/** @throws TypeError, or RangeError if an array is of another type or too short */
export function checkArray<T extends TypedArray>(
  array: unknown,
  type: { readonly name: string; new (length: number): T },
  minimum: number,
  name: string,
): asserts array is T {
  if (!(array instanceof type)) throw invalidType(name, `a ${type.name}`, array)
  if (array.length < minimum) throw outOfRange(name, `at least ${minimum} elements long`, array.length)
}
