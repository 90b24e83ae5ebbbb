import { isUtf8 } from 'node:buffer'
import { closeSync, openSync, readSync } from 'node:fs'
import * as v from 'valibot'
import { reportSchema, type Report } from './report.js'

/** A file that is not what it should be: the message names the file and, where one is at fault, the entry. */
export class FormatError extends Error {
  override readonly name = 'FormatError'
  readonly code = 'ERR_KVM_FORMAT'
  /** The file, or whatever else the text came from. */
  readonly source: string
  /** The entry at fault as a JSON path, `$.registers[3].value`; `$` for the whole. */
  readonly path: string

  constructor(source: string, path: string, problem: string) {
    super(printable(`${source}: ${path === '$' ? '' : `${path}: `}${problem}`))
    this.source = source
    this.path = path
  }
}

/** What is read may hold anything: a message of a length to read, which a terminal does not take for commands. */
function printable(message: string): string {
  const short = message.length > 1000 ? `${message.slice(0, 1000)}…` : message
  return short.replaceAll(/\p{Cc}/gu, '?')
}

/** Larger than any host's report by two orders of magnitude; what is larger is something else. */
const MAX_BYTES = 64 * 1024 * 1024

/**
 * Reads a report from a file.
 * @throws FormatError for a file that is missing, empty, truncated, of another format or version, or hostile
 */
export function readReport(file: string): Report {
  let bytes: Buffer
  try {
    bytes = readAtMost(file, MAX_BYTES + 1)
  } catch (error) {
    throw new FormatError(
      file,
      '$',
      `cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`,
    )
  }
  // Cut at the limit, a character may be cut too.
  if (bytes.length <= MAX_BYTES && !isUtf8(bytes)) throw new FormatError(file, '$', 'is not UTF-8 text')
  return parseReport(bytes.toString('utf8'), file)
}

/** The file's first `limit` bytes: a file without end, or too large for memory, is not read to it. */
function readAtMost(file: string, limit: number): Buffer {
  const descriptor = openSync(file, 'r')
  try {
    const chunks: Buffer[] = []
    let length = 0
    while (length < limit) {
      const chunk = Buffer.allocUnsafe(Math.min(256 * 1024, limit - length))
      const count = readSync(descriptor, chunk)
      if (count === 0) break
      chunks.push(chunk.subarray(0, count))
      length += count
    }
    return Buffer.concat(chunks)
  } finally {
    closeSync(descriptor)
  }
}

/**
 * Reads a report from JSON text; `source` is what its errors call it.
 * @throws FormatError as `readReport`
 */
export function parseReport(json: string, source: string): Report {
  if (json.length > MAX_BYTES)
    throw new FormatError(source, '$', `is larger than any report (${MAX_BYTES / 1024 / 1024} MiB at most)`)
  if (json.trim() === '') throw new FormatError(source, '$', 'is empty')
  let data: unknown
  try {
    data = JSON.parse(json)
  } catch (error) {
    throw new FormatError(source, '$', `is not JSON: ${(error as Error).message}`)
  }
  return checkReport(data, source)
}

/**
 * Checks data to be a report.
 * @throws FormatError as `readReport`
 */
export function checkReport(data: unknown, source: string): Report {
  const head = data as { format?: unknown; version?: unknown } | null
  if (head === null || typeof head !== 'object' || head.format !== reportSchema.entries.format.literal) {
    throw new FormatError(
      source,
      '$.format',
      `is not a report: expected "${reportSchema.entries.format.literal}"`,
    )
  }
  const { literal: version } = reportSchema.entries.version
  if (head.version !== version) {
    const found = typeof head.version === 'number' ? `is ${head.version}` : 'is no number'
    throw new FormatError(source, '$.version', `${found}, and this version of kvm-arm64 reads ${version}`)
  }
  const result = v.safeParse(reportSchema, data, { abortEarly: true })
  if (!result.success) {
    const issue = result.issues[0]
    throw new FormatError(source, jsonPath(issue.path ?? []), issue.message)
  }
  const report = result.output
  refuseDuplicates(report, source)
  return report
}

/** Lists in which an id may stand only once: the second of two would silently lose. */
function refuseDuplicates(report: Report, source: string): void {
  const lists: [string, readonly { id: string }[]][] = [
    ['$.registers', report.registers],
    ['$.accepts', report.accepts],
    ['$.bitmaps', report.bitmaps],
    ['$.workarounds', report.workarounds],
    ['$.writableMasks', report.writableMasks ?? []],
  ]
  for (const [index, configuration] of report.configurations.entries()) {
    if ('refused' in configuration) continue
    lists.push([`$.configurations[${index}].added`, configuration.added])
    lists.push([`$.configurations[${index}].changed`, configuration.changed])
    lists.push([`$.configurations[${index}].accepts`, configuration.accepts])
  }
  for (const [path, entries] of lists) {
    const seen = new Map<string, number>()
    for (const [index, { id }] of entries.entries()) {
      const first = seen.get(id)
      if (first !== undefined) {
        throw new FormatError(source, `${path}[${index}].id`, `${id} stands already at ${path}[${first}]`)
      }
      seen.set(id, index)
    }
  }
}

/** The path of an issue of valibot, `$.registers[3].value`. */
export function jsonPath(path: readonly { key?: unknown }[]): string {
  return path.reduce(
    (text, { key }) =>
      typeof key === 'number'
        ? `${text}[${key}]`
        : /^[A-Za-z_$][\w$]*$/.test(String(key))
          ? `${text}.${String(key)}`
          : `${text}[${JSON.stringify(key)}]`,
    '$',
  )
}
