/** Reports of version 1, which did not say who answered. */
import * as v from 'valibot'
import { checkShape } from '../documents/document.js'
import { reportSchema, type Report } from './report.js'

const { origin: _later, ...entries } = reportSchema.entries
const version1Schema = v.strictObject({ ...entries, version: v.literal(1) })

/**
 * Checks a report of version 1 and converts it.
 * @throws FormatError
 */
export function readVersion1(data: unknown, source: string): Report {
  return { ...checkShape(version1Schema, data, source), version: 2, origin: { kind: 'unknown' } }
}
