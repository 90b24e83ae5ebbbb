/** The verdict as a document: whether a VM can move, between which hosts, with which VMM, and all findings about the move. */
import * as v from 'valibot'
import { checkDocument, type DocumentFormat, readDocument } from '../documents/document.js'
import { text, uint32 } from '../documents/entries.js'
import { originSchema } from '../report/origin.js'
import { feature } from '../report/report.js'
import { findingSchema, gic } from './finding.js'
import { unknownFacts } from './verdict.js'

const end = v.strictObject({
  /** For readers: a built-in host, a file, or `this` for the machine that made the document. */
  name: text,
  /** What answered KVM's calls when the report was made or the state captured. */
  origin: originSchema,
})

const move = v.strictObject({
  from: end,
  to: end,
  /**
   * Whether the state was restored on the destination's KVM. Otherwise it was restored on a simulation of it: then this is a
   * prediction.
   */
  restoredOn: v.picklist(['kernel', 'simulation']),
  /** The rules that judged the move. */
  vmm: text,
  /** vCPU features of the VM, and of the VM that the VMM restores it into. */
  features: v.strictObject({ source: v.array(feature), destination: v.array(feature) }),
  /** Interrupt controllers of these VMs; null if the VMM makes none, or it is not known which. */
  interruptControllers: v.strictObject({ source: v.nullable(gic), destination: v.nullable(gic) }),
  /** What the answer depends on and was not recorded. */
  unknown: v.array(v.picklist(unknownFacts)),
  /** Whether the restore would succeed, as far as is known. */
  restores: v.boolean(),
  /** Whether it would, and the guest would go on unbroken. `findings` list what the guest would notice. */
  possible: v.boolean(),
  /** Registers over all vCPUs: the number in the state, and the number that would be unchanged. */
  registers: v.strictObject({ total: uint32, same: uint32 }),
  /** Gravest first. */
  findings: v.array(findingSchema),
})

/** The entries of a verdict; see the file's head. */
export const verdictSchema = v.strictObject({
  format: v.literal('kvm-arm64/verdict'),
  version: v.literal(1),
  /** One move for each direction and VMM requested. */
  moves: v.pipe(v.array(move), v.minLength(1)),
})

export type VerdictDocument = v.InferOutput<typeof verdictSchema>
/** The source or the destination of a move. */
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
 * Checks that data is a verdict.
 * @throws FormatError as `readVerdict`
 */
export function checkVerdict(data: unknown, source: string): VerdictDocument {
  return checkDocument(data, source, verdictFormat)
}
