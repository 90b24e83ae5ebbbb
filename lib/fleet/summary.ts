/**
 * A summary of a fleet: a row for each host, and the body of each class once. It is text with one entry on each line, so that a part
 * of any size is read line by line, and several parts in one file are a summary too.
 *
 * Merging takes the newest row of each host and the union of the rest. It is associative, commutative and idempotent: parts may come
 * in any order, in any grouping and more than once.
 */
import * as v from 'valibot'
import { text } from '../documents/entries.js'
import { FormatError } from '../documents/document.js'
import { canonicalJson, CLASS_DIGITS, classOfText, commonText } from '../report/digest.js'
import { originSchema } from '../report/origin.js'
import { checkReport } from '../report/read.js'
import { type Report, reportSchema } from '../report/report.js'

/** The identity of a class; see `classOf`. */
export const classDigest = v.pipe(
  v.string(),
  v.regex(
    new RegExp(`^[0-9a-f]{${CLASS_DIGITS}}$`),
    `is not a class: expected ${CLASS_DIGITS} hexadecimal digits`,
  ),
)

const { format, version, probedAt } = reportSchema.entries

/** A host, as `probe --digest` prints it. */
export const hostRowSchema = v.strictObject({
  name: text,
  class: classDigest,
  /** `uname -r` */
  release: text,
  /** `uname -v` */
  build: text,
  origin: originSchema,
  probedAt,
})

export type HostRow = v.InferOutput<typeof hostRowSchema>

/** The first line. */
export const summaryHeadSchema = v.strictObject({
  format: v.literal('kvm-arm64/summary'),
  version: v.literal(1),
})

/** What the reports of a class have in common; the class is the digest of its text. Summaries of version 1 hold reports of version 2. */
export const classBodySchema = v.strictObject({ class: classDigest, common: v.looseObject({}) })

/**
 * A report that could not be read: the name of its file without the suffix, or `sha256:` and digits of its text. It does not count
 * once a host of this name has a row.
 */
export const faultSchema = v.strictObject({ fault: text })

/** A line of a summary. */
export const summaryLineSchema = v.union([summaryHeadSchema, classBodySchema, hostRowSchema, faultSchema])

/** Returns the row of a host. */
export function hostRow(name: string, digest: string, { host, origin, probedAt: when }: Report): HostRow {
  return { name, class: digest, release: host.release, build: host.build, origin, probedAt: when }
}

/** Returns whether the first row replaces the second, of the same host: it is newer, or else comes later in an order of all rows. */
export function replaces(one: HostRow, other: HostRow): boolean {
  const [when, before] = [timeOf(one), timeOf(other)]
  return when === before ? canonicalJson(one) > canonicalJson(other) : when > before
}

/** Returns when a host was probed, in milliseconds since 1970. */
export function timeOf({ probedAt: when }: HostRow): number {
  // The pattern of a time lets some through that are none.
  return Date.parse(when) || 0
}

/**
 * Returns a report of a class from its body, after a check that it is this body.
 * @throws FormatError if the body is not that of the class, or no report
 */
export function reportOfBody(body: v.InferOutput<typeof classBodySchema>, source: string): Report {
  const { class: digest, common } = body
  const shown = canonicalJson(common)
  const found = classOfText(shown)
  if (found !== digest) {
    throw new FormatError(source, '$.common', `is not the body of class ${digest} but of ${found}: damaged?`)
  }
  const report = checkReport(reportOfCommon(common), `${source}, in "common"`)
  // Written again, it would be the body of another class.
  if (commonText(report) !== shown) {
    throw new FormatError(source, '$.common', 'has entries that are not the same on all hosts of a class')
  }
  return report
}

/**
 * Returns what equal hosts have in common as a report, the same for every host. Its hosts differ in when and on which build it was
 * made: these entries are empty. They may differ in the numbers of CPUs: the CPUs of each kind have the number of the kind.
 * @param common parsed from `commonText`
 */
export function reportOfCommon(common: object): unknown {
  const { cpus, ...rest } = common as { cpus?: { kinds?: unknown } }
  const kinds = Array.isArray(cpus?.kinds)
    ? cpus.kinds.map((kind: unknown, index) => (isObject(kind) ? { ...kind, cpus: `${index}` } : kind))
    : cpus?.kinds
  return {
    ...rest,
    // The body names no version of reports: that of the summary implies it.
    format: format.literal,
    version: version.literal,
    ...(cpus !== undefined && { cpus: { ...cpus, kinds } }),
    probedAt: '1970-01-01T00:00:00.000Z',
    host: { release: '', build: '' },
    origin: { kind: 'unknown' },
  }
}

function isObject(value: unknown): value is object {
  return value !== null && typeof value === 'object' && !Array.isArray(value)
}

/** What a summary holds. */
export interface Summary {
  /** Ordered by name. */
  hosts: Iterable<HostRow>
  /** Bodies as canonical JSON text, ordered by class. */
  bodies: Iterable<readonly [digest: string, common: string]>
  /** In alphabetical order. */
  faults: Iterable<string>
}

/** Writes a summary, line by line with the line ends. Equal summaries have equal text. */
export function* summaryLines({ hosts, bodies, faults }: Summary): Generator<string> {
  yield '{"format":"kvm-arm64/summary","version":1}\n'
  for (const [digest, common] of bodies) yield `{"class":"${digest}","common":${common}}\n`
  for (const row of hosts) yield `${rowText(row)}\n`
  for (const fault of faults) yield `${JSON.stringify({ fault })}\n`
}

/** A row as text, its entries in the order of the schema. */
export function rowText({ name, class: digest, release, build, origin, probedAt: when }: HostRow): string {
  return JSON.stringify({ name, class: digest, release, build, origin: sortedOrigin(origin), probedAt: when })
}

function sortedOrigin(origin: HostRow['origin']): unknown {
  return JSON.parse(canonicalJson(origin))
}
