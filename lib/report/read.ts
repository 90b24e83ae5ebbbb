import {
  checkDocument,
  type DocumentFormat,
  parseDocument,
  readDocument,
  refuseDuplicateIds,
} from '../documents/document.js'
import { reportSchema, type Report } from './report.js'
import { readVersion1 } from './version-1.js'

/** The format `kvm-arm64/report`. */
export const reportFormat: DocumentFormat<Report> = {
  noun: 'report',
  schema: reportSchema,
  checkMore: refuseDuplicates,
  earlier: new Map([[1, readVersion1]]),
}

/**
 * Reads a report from a file.
 * @throws FormatError for a file that is missing, empty, truncated, of another format or version, or hostile
 */
export function readReport(file: string): Report {
  return readDocument(file, reportFormat)
}

/**
 * Reads a report from JSON text; `source` is what its errors call it.
 * @throws FormatError as `readReport`
 */
export function parseReport(json: string, source: string): Report {
  return parseDocument(json, source, reportFormat)
}

/**
 * Checks data to be a report.
 * @throws FormatError as `readReport`
 */
export function checkReport(data: unknown, source: string): Report {
  return checkDocument(data, source, reportFormat)
}

function refuseDuplicates(report: Report, source: string): void {
  refuseDuplicateIds(report.registers, '$.registers', source)
  for (const [index, configuration] of report.configurations.entries()) {
    if ('refused' in configuration) continue
    for (const list of ['added', 'changed'] as const) {
      refuseDuplicateIds(configuration[list], `$.configurations[${index}].${list}`, source)
    }
  }
}
