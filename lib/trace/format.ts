/**
 * The trace: a sequence of KVM's ioctls with their outcomes, as NDJSON. The first line is the head, every other line one call: an
 * operation of the table in operations/, which reader and writer follow.
 *
 * The trace numbers VMs, vCPUs, devices and memories, each kind from 0, and does not reuse a number before a `reset`.
 */
import * as v from 'valibot'
import { checkShape, FormatError, parseJson, unknownVersion } from '../documents/document.js'
import { type Call, type Op, operations } from './operations/index.js'
import type { Outcome } from './outcome.js'

export interface TraceEntry {
  call: Call
  outcome: Outcome
}

export interface TraceHead {
  /** `uname -r` of the host that answered. For readers. */
  host: string
}

export const TRACE_FORMAT = 'kvm-arm64'
export const TRACE_VERSION = 1

const headSchema = v.strictObject({
  trace: v.literal(TRACE_FORMAT),
  version: v.literal(TRACE_VERSION),
  host: v.pipe(v.string(), v.maxLength(1000)),
})

const errno = v.pipe(v.string(), v.regex(/^E[A-Z0-9]+$|^ERRNO_[0-9]+$/, 'is not the name of an errno'))

type LineSchema = v.GenericSchema<Record<string, unknown>>
const lineSchemas = new Map<Op, LineSchema>()

/** A line with its call and its outcome. */
function lineSchemaOf(op: Op): LineSchema {
  let schema = lineSchemas.get(op)
  if (schema === undefined) {
    const { args, results } = operations[op]
    schema = v.strictObject({ op: v.literal(op), ...args, ...results, errno: v.optional(errno) })
    lineSchemas.set(op, schema)
  }
  return schema
}

export function formatHead({ host }: TraceHead): string {
  return `${JSON.stringify({ trace: TRACE_FORMAT, version: TRACE_VERSION, host })}\n`
}

export function formatEntry({ call, outcome }: TraceEntry): string {
  return `${JSON.stringify({ ...call, ...outcome })}\n`
}

/**
 * Reads a trace's first line; errors call the place `source`.
 * @throws FormatError
 */
export function parseHead(text: string, source: string): TraceHead {
  const data = parseJson(text, source) as { trace?: unknown; version?: unknown } | null
  if (data === null || typeof data !== 'object' || data.trace !== TRACE_FORMAT) {
    throw new FormatError(
      source,
      '$.trace',
      `is not a trace: expected the head {"trace":"${TRACE_FORMAT}",…} in the first line`,
    )
  }
  if (data.version !== TRACE_VERSION) {
    throw new FormatError(source, '$.version', unknownVersion(data.version, TRACE_VERSION))
  }
  const { host } = checkShape(headSchema, data, source)
  return { host }
}

/**
 * Reads any other line.
 * @throws FormatError
 */
export function parseEntry(text: string, source: string): TraceEntry {
  const data = parseJson(text, source) as Record<string, unknown> | null
  if (data === null || typeof data !== 'object')
    throw new FormatError(source, '$', 'expected a call, an object')
  const { op } = data
  if (!isOp(op)) {
    const problem = op === undefined ? 'expected an operation' : `unknown operation ${JSON.stringify(op)}`
    throw new FormatError(source, '$.op', problem)
  }
  const entry = split(checkShape(lineSchemaOf(op), data, source), op)
  operations[op].check(entry.call, entry.outcome, source)
  checkOutcome(entry, source)
  return entry
}

function isOp(op: unknown): op is Op {
  return typeof op === 'string' && Object.hasOwn(operations, op)
}

/** Formats a line with a call and its outcome. */
function split(line: Record<string, unknown>, op: Op): TraceEntry {
  const { args } = operations[op]
  const call: Record<string, unknown> = {}
  const outcome: Record<string, unknown> = {}
  for (const key in line) (key === 'op' || key in args ? call : outcome)[key] = line[key]
  return { call: call as Call, outcome }
}

function checkOutcome({ call, outcome }: TraceEntry, source: string): void {
  const answers = Object.keys(outcome).filter((key) => key !== 'n')
  const hasNone = operations[call.op].results === null
  if (answers.length !== (hasNone ? 0 : 1)) {
    throw new FormatError(
      source,
      '$',
      hasNone ? `${call.op} has no outcome` : 'expected one outcome, or "errno"',
    )
  }
}
