/** KVM's answers, in the form a trace has. */
import { errnoName } from '../kvm/errors.js'
import { hex } from '../registers/index.js'
import type { StatsDescriptor } from '../uapi.js'

/** KVM's answer: one of the op's results, or the name of an errno; with `E2BIG` there is `n` too. */
export interface Outcome {
  ret?: number
  /** A register's value as `0x…`, or a number. */
  value?: string | number
  n?: string
  regs?: readonly string[]
  words?: readonly number[]
  masks?: Readonly<Record<string, string>>
  bitmap?: Readonly<Record<string, string>>
  data?: string
  stats?: readonly StatsDescriptor[]
  exit?: number
  x?: readonly string[]
  errno?: string
}

export const done: Outcome = { ret: 0 }
/** The outcome of a call on a number without a handle. */
export const closed: Outcome = { errno: 'EBADF' }

/** The outcome of an ioctl that failed with `-errno`. */
export function refused(errno: number): Outcome {
  return { errno: errnoName(errno) }
}

/** The outcome of an ioctl that returns 0, a positive number or `-errno`. */
export function plain(answer: number): Outcome {
  if (answer === 0) return done
  return answer < 0 ? refused(answer) : { ret: answer }
}

/** The outcome of an ioctl whose result is a number, or `-errno`. */
export function number(answer: number): Outcome {
  return answer < 0 ? refused(answer) : { value: answer }
}

/** The masks other than 0, by index. */
export function nonZeroMasks(masks: BigUint64Array): Record<string, string> {
  const entries = [...masks.entries()].filter(([, mask]) => mask !== 0n)
  return Object.fromEntries(entries.map(([index, mask]) => [index, hex(mask)]))
}

export function toHex(data: Uint8Array): string {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('hex')
}
