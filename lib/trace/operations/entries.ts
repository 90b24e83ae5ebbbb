/** The building blocks of the table's rows, besides the entries of every format. */
import * as v from 'valibot'
import { FormatError } from '../../documents/document.js'
import { int32, uint32 } from '../../documents/entries.js'
import { type Outcome, refused } from '../outcome.js'

export const bytes = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER))

export const hex32 = v.pipe(
  v.string(),
  v.regex(/^0x(0|[1-9a-f][0-9a-f]{0,7})$/, 'is not a 32-bit 0x… number in lower case without leading zeros'),
)

/** Bytes of the longest payload that KVM takes on arm64. */
export const LONGEST_PAYLOAD = 4096

/** A payload, two digits a byte. */
export const payload = v.pipe(
  v.string(),
  v.regex(
    new RegExp(`^([0-9a-f]{2}){0,${LONGEST_PAYLOAD}}$`),
    'is not an even number of lower-case hex digits',
  ),
)

/** The result of an ioctl that returns 0 or a positive number. */
export const ret = { ret: v.optional(int32) }
/** The result of an ioctl that returns a number. */
export const value = { value: v.optional(int32) }

/** The kinds of handle that have attributes. */
export const owners = ['vm', 'vcpu', 'device'] as const
export const owner = { vm: v.optional(uint32), vcpu: v.optional(uint32), device: v.optional(uint32) }

/** Refuses a call that names no handle, or several. */
export function oneOf(kinds: readonly string[]): (call: object, outcome: Outcome, source: string) => void {
  return (call, _, source) => {
    if (kinds.filter((kind) => kind in call).length === 1) return
    throw new FormatError(source, '$', `expected exactly one of ${kinds.join(', ')}`)
  }
}

/** The outcome of an ioctl that fills one of its arguments, and returns 0 or `-errno`. */
export function filled<Args, Call>(
  result: (args: Args, call: Call) => Outcome,
): (answer: number, args: Args, call: Call) => Outcome {
  return (answer, args, call) => (answer < 0 ? refused(answer) : result(args, call))
}

/** Returns the bytes with room behind them: if a payload is too short, no kernel reads beyond the buffer. */
export function toBytes(digits: string): Uint8Array {
  const data = new Uint8Array(Math.max(LONGEST_PAYLOAD, digits.length / 2))
  data.set(Buffer.from(digits, 'hex'))
  return data
}
