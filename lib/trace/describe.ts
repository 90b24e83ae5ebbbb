import { functionName } from '../hypercalls/index.js'
import { registerName } from '../registers/index.js'
import type { Call } from './operations/index.js'
import type { TraceAnswer } from './replay.js'

/** Formats a call for readers: `set_one_reg vcpu 0 KVM_REG_ARM_STD_BMAP value 0x1`. */
export function describeCall(call: Call): string {
  if (call.op === 'hvc' || call.op === 'smc') {
    const [functionId = '0x0', ...others] = call.args
    const name = functionName(Number(BigInt.asUintN(32, BigInt(functionId))))
    return `${call.op} vcpu ${call.vcpu} ${name} (${functionId})${others.map((word) => ` ${word}`).join('')}`
  }
  const { op, ...args } = call
  const words = Object.entries(args).map(([key, value]) => {
    if (key === 'id' && typeof value === 'string') return `${registerName(BigInt(value))} (${value})`
    return `${key} ${Array.isArray(value) ? `[${value.join(', ')}]` : String(value)}`
  })
  return [op, ...words].join(' ')
}

/** Formats two answers to one call, each reduced to the differing part if it is long. */
export function describeAnswers(a: TraceAnswer, b: TraceAnswer): [string, string] {
  if (a.regs && b.regs) return [describeList(a.regs, b.regs), describeList(b.regs, a.regs)]
  return [describeAnswer(a), describeAnswer(b)]
}

function describeAnswer({ fault, errno, regs, ...results }: TraceAnswer): string {
  if (fault !== undefined) return fault
  const words = Object.entries(results).map(([key, result]) => {
    const text = typeof result === 'object' ? JSON.stringify(result).replaceAll(',', ', ') : String(result)
    return key === 'value' ? text : `${key} ${text}`
  })
  if (errno !== undefined) words.unshift(errno)
  if (regs) words.push(`${regs.length} registers`)
  return words.join(' ')
}

/** For a list of registers: what the other list lacks or, if nothing, where the order differs. */
function describeList(ids: readonly string[], others: readonly string[]): string {
  const own = ids.filter((id) => !others.includes(id)).map((id) => registerName(BigInt(id)))
  if (own.length > 0) return `${ids.length} registers, among them ${own.join(', ')}`
  const place = ids.findIndex((id, index) => others[index] !== id)
  if (place === -1 || ids.length !== others.length) return `${ids.length} registers`
  return `${ids.length} registers, in place ${place} ${registerName(BigInt(ids[place]!))}`
}
