/** The answer of the gate as a document: whether a VM of one class can go to another, and whether it can come back. */
import * as v from 'valibot'
import { checkDocument, type DocumentFormat } from '../documents/document.js'
import { text, uint32 } from '../documents/entries.js'
import { findingSchema } from '../migration/finding.js'
import { unknownFacts } from '../migration/verdict.js'
import { classDigest } from './summary.js'

const end = v.strictObject({ class: classDigest, hostCount: uint32 })

const answer = v.strictObject({
  /** As far as is known: see `unknown`. */
  possible: v.boolean(),
  /** What the answer depends on and the reports do not say. */
  unknown: v.array(v.picklist(unknownFacts)),
  /** What stops the move, or what its guest would notice: the gravest first. */
  findings: v.array(findingSchema),
})

/** The entries of an answer; see the file's head. */
export const gateSchema = v.strictObject({
  format: v.literal('kvm-arm64/gate'),
  version: v.literal(1),
  /** The rules that judged the moves. */
  vmm: text,
  from: end,
  to: end,
  /** For a VM of `from` that goes to `to`. */
  there: answer,
  /** For a VM of `to` that goes to `from`: if only one of the two is possible, a VM that has moved cannot come back. */
  back: answer,
})

export type GateAnswer = v.InferOutput<typeof gateSchema>

const gateFormat: DocumentFormat<GateAnswer> = { noun: 'gate answer', schema: gateSchema }

/**
 * Checks that data is an answer of the gate, as `kvm-arm64 check --class A --class B --json` prints it.
 * @throws FormatError for data of another format or version, or hostile
 */
export function checkGateAnswer(data: unknown, source: string): GateAnswer {
  return checkDocument(data, source, gateFormat)
}
