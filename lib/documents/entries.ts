/** The building blocks of entries in every format. */
import * as v from 'valibot'
import { HIDDEN, printable } from './printable.js'

/** A 64-bit quantity or wider, unsigned, lower case, no leading zeros: `0x0`, `0x6030000000160000`. At most 2048 bits. */
export const hex = v.pipe(
  v.string(),
  v.regex(/^0x(0|[1-9a-f][0-9a-f]{0,511})$/, 'is not a 0x… number in lower case without leading zeros'),
)
export const hex64 = v.pipe(
  v.string(),
  v.regex(/^0x(0|[1-9a-f][0-9a-f]{0,15})$/, 'is not a 64-bit 0x… number in lower case without leading zeros'),
)
/**
 * The id of an arm64 register as `KVM_GET_ONE_REG` takes it: bits 63:60 are 6, 55:52 log2 of its bytes (0 to 8), 27:0 coprocessor
 * and register, the others 0. Firmware registers (coprocessors 0x14 and 0x16) have 64 bits: kernels without commit a25bc8486f9c
 * would copy wider values over their stack.
 */
export const registerId = v.pipe(
  v.string(),
  v.regex(/^0x60(3000000|[0-8]000000(?!014|016))[0-9a-f]{7}$/, ({ input }) => registerIdProblem(input)),
)

function registerIdProblem(id: string): string {
  const [, architecture, size, coprocessor] =
    /^0x([0-9a-f])0([0-9a-f])000000([0-9a-f]{3})[0-9a-f]{4}$/.exec(id) ?? []
  const problem = 'is not the id of an arm64 register'
  if (architecture === undefined) return `${problem}: expected 0x60 and 14 more digits in lower case`
  if (architecture !== '6') return `${problem}, but of another architecture: an id of arm64 begins with 0x60`
  const bits = 8 * 2 ** Number.parseInt(size!, 16)
  return coprocessor === '014' || coprocessor === '016'
    ? `${problem}: a firmware register has 64 bits, and this id says ${bits}`
    : `${problem}: it says ${bits} bits, and a register has 8 to 2048`
}

/** Text shown on terminals and in pages: without control, bidirectional and zero-width characters. */
export const text = v.pipe(
  v.string(),
  v.maxLength(1000),
  v.regex(new RegExp(`^[^${HIDDEN}]*$`), 'contains control, bidirectional or zero-width characters'),
)
/**
 * Turns a text from outside, such as the name of a file, into one the entry `text` accepts: escapes it, and truncates it if it is
 * too long.
 */
export function asText(outside: string): string {
  return printable(outside).slice(0, 1000)
}

export const uint32 = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff))
export const int32 = v.pipe(v.number(), v.integer(), v.minValue(-0x80000000), v.maxValue(0x7fffffff))
/** `uname -r` and `uname -v`: for readers, never for a decision. */
export const host = v.strictObject({ release: text, build: text })
