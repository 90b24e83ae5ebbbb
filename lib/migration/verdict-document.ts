/** The verdict as a document: whether a VM can move, from where to where, by which VMM, and everything found on the way. */
import * as v from 'valibot'
import { checkDocument, type DocumentFormat, readDocument } from '../documents/document.js'
import { text, uint32 } from '../documents/entries.js'
import { originSchema } from '../report/origin.js'
import { findingSchema } from './finding.js'

const end = v.strictObject({
  /** For readers: a built-in host, a file, or `this` for the machine that made the document. */
  name: text,
  /** Who answered when its report was made, or its state captured. */
  origin: originSchema,
})

const move = v.strictObject({
  from: end,
  to: end,
  /** Whether the state was restored on the destination's KVM, or on a simulation of the destination: then it is a prediction. */
  restoredOn: v.picklist(['kernel', 'simulation']),
  /** The rules that judged. */
  vmm: text,
  /** Whether the move would succeed. What the guest would notice is in `findings`. */
  possible: v.boolean(),
  /** Registers over all vCPUs: how many the state has, and how many would be unchanged. */
  registers: v.strictObject({ total: uint32, same: uint32 }),
  /** Gravest first. */
  findings: v.array(findingSchema),
})

/** The entries of a verdict; see the file's head. */
export const verdictSchema = v.strictObject({
  format: v.literal('kvm-arm64/verdict'),
  version: v.literal(1),
  /** One for each direction and VMM that was asked for. */
  moves: v.pipe(v.array(move), v.minLength(1)),
})

export type VerdictDocument = v.InferOutput<typeof verdictSchema>
/** Where a VM is, or where it is to go. */
export type MoveEnd = JudgedMove['from']
/** One move of a verdict. */
export type JudgedMove = VerdictDocument['moves'][number]

/** The format `kvm-arm64/verdict`. */
export const verdictFormat: DocumentFormat<VerdictDocument> = { noun: 'verdict', schema: verdictSchema }

/**
 * Reads a verdict from a file, as `kvm-arm64 check --json` prints it.
 * @throws FormatError for a file that is missing, empty, truncated, of another format or version, or hostile
 */
export function readVerdict(file: string): VerdictDocument {
  return readDocument(file, verdictFormat)
}

/**
 * Checks data to be a verdict.
 * @throws FormatError as `readVerdict`
 */
export function checkVerdict(data: unknown, source: string): VerdictDocument {
  return checkDocument(data, source, verdictFormat)
}
