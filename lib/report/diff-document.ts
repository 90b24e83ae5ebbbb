/** The differences between two hosts as a document, as `kvm-arm64 diff --json` prints it. */
import * as v from 'valibot'
import { checkDocument, type DocumentFormat, readDocument } from '../documents/document.js'
import { text } from '../documents/entries.js'
import { differenceKinds, type Difference } from './diff.js'
import { originSchema } from './origin.js'

const host = v.strictObject({
  /** For readers: a built-in host, a file, or `this` for the machine that made the document. */
  name: text,
  /** What answered KVM's calls when the report was made. */
  origin: originSchema,
})

const difference: v.GenericSchema<unknown, Difference> = v.strictObject({
  kind: v.picklist(differenceKinds),
  /** The capability (its number, if it has no name here), the vCPU feature, the PSCI version, the fact, the register. */
  name: text,
  /** The field or the bits of a register; absent if the difference is about the whole register. */
  field: v.exactOptional(text),
  /** The value on host `a`; null if it has no such register. */
  a: v.nullable(text),
  /** The value on host `b`, likewise. */
  b: v.nullable(text),
})

/** The entries of a diff; see the file's head. */
export const diffSchema = v.strictObject({
  format: v.literal('kvm-arm64/diff'),
  version: v.literal(1),
  a: host,
  b: host,
  /** Empty if there are none. */
  differences: v.array(difference),
})

export type DiffDocument = v.InferOutput<typeof diffSchema>

/** The format `kvm-arm64/diff`. */
export const diffFormat: DocumentFormat<DiffDocument> = { noun: 'diff', schema: diffSchema }

/**
 * Reads a diff from a file, as `kvm-arm64 diff --json` prints it.
 * @throws FormatError for a file that is missing, empty, truncated, of another format or version, or hostile
 */
export function readDiff(file: string): DiffDocument {
  return readDocument(file, diffFormat)
}

/**
 * Checks that data is a diff.
 * @throws FormatError as `readDiff`
 */
export function checkDiff(data: unknown, source: string): DiffDocument {
  return checkDocument(data, source, diffFormat)
}
