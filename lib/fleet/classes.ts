/** Reads the reports of a fleet and groups equal hosts, without parsing a report it has seen before. */
import { isUtf8 } from 'node:buffer'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { crc32, deflateRawSync, inflateRawSync } from 'node:zlib'
import * as v from 'valibot'
import {
  checkDocument,
  checkShape,
  FormatError,
  MAX_BYTES,
  parseJson,
  unreadable,
} from '../documents/document.js'
import { canonicalJson, CLASS_DIGITS, classOfText, commonText, sha256 } from '../report/digest.js'
import { type Input, openInput, standardInput } from '../documents/input.js'
import { readLines } from '../documents/lines.js'
import { checkReport } from '../report/read.js'
import { asText, text } from '../documents/entries.js'
import type { Origin } from '../report/origin.js'
import { reportSchema, type Report } from '../report/report.js'
import {
  classBodySchema,
  faultSchema,
  type HostRow,
  hostRow,
  hostRowSchema,
  replaces,
  reportOfBody,
  reportOfCommon,
  type Summary,
  summaryHeadSchema,
  timeOf,
} from './summary.js'

/** Hosts whose reports are equal except for the date and the kernel build. */
export interface HostClass {
  /** The identity of the class: the first 16 digits of the SHA-256 of what the reports of its hosts have in common. */
  readonly digest: string
  /** The number of hosts. */
  readonly hostCount: number
  /** Where its first report was read: a file, or a line of one. */
  readonly first: string
  /** Names of the hosts that have one, in alphabetical order. */
  readonly names: readonly string[]
  /** Their `uname -r`: those of most hosts, at most eight. */
  readonly releases: readonly string[]
  /** What answered KVM's calls when their reports were made, with the number of reports for each; those of most hosts, at most eight. */
  readonly origins: readonly { readonly origin: Origin; readonly hostCount: number }[]
  /** Whether a report of the class was read; if not, only rows were. */
  readonly hasReport: boolean
  /**
   * Returns what the reports of its hosts have in common, as a report: the date, the kernel's build and the numbers of CPUs are of no
   * host.
   * @throws FormatError if only rows of the class were read, and no report
   */
  report(): Report
}

export interface Fleet {
  /** Those with most hosts first; those with as many in the order of their digests. */
  classes: HostClass[]
  /** Classes that have a report and no host: each of theirs has a newer report or row of another class, or no row was read. */
  vacant: HostClass[]
  /** The number of hosts: a name counts once, a report without a name each time it was read. */
  hostCount: number
  /** The hosts that have a name, ordered by it, each as its newest report or row shows it. */
  hosts: HostRow[]
  /** What could not be read: the first 100. The classes include none of it. */
  errors: FormatError[]
  /** The total number of such errors. */
  faulty: number
  /**
   * What could not be read now or when a summary was made, each once: the name of a host, or the digest of a line. A host that
   * could be read as well is not among them.
   */
  faults: string[]
}

export interface ReadFleetOptions {
  /** Refuse reports that name no host. Default: false. */
  named?: boolean
}

const MAX_ERRORS = 100
const MAX_RELEASES = 8
/** More than this is no fleet, but hosts whose reports contain something that differs each time. */
const MAX_CLASSES = 10_000
/** Bytes of text kept to recognise equal reports. */
const MAX_KNOWN = 512 * 1024 * 1024
/** Strings kept to share between rows. */
const MAX_SHARED = 10_000
/** Bytes at the beginning that are searched for the entries in which equal hosts differ. */
const HEAD = 8 * 1024

/** The beginning of a document that spans several lines. */
const LAID_OUT = /^\s*\{\s*$/

/** Starts the common part of equal hosts. A quote inside a string has a backslash before it, so only a key matches. */
const COMMON = Buffer.from('"capabilities":')

/** The beginning of a class's body in a summary, and of the summary. */
const BODY = Buffer.from('{"class":"')
const SUMMARY = Buffer.from('{"format":"kvm-arm64/summary"')

const { format, version, probedAt, host: hostEntry, origin: originEntry } = reportSchema.entries
const headSchema = v.variant('version', [
  v.strictObject({ format, version, probedAt, host: hostEntry, origin: originEntry }),
  v.strictObject({ format, version: v.literal(1), probedAt, host: hostEntry }),
])
const named = v.strictObject({ name: text, report: v.unknown() })

/**
 * Reads a fleet from a file or, for `-`, from standard input, with one report on each line; from a file that is one report; or from
 * a directory of report files (`*.json`), in which it skips anything but regular files. A line may be `{"name": …, "report": …}` to
 * name its host, a row as `probe --digest` prints it, or a line of a summary; a host with a file of its own has the file's name.
 * Several sources are one fleet. Of a host that is there several times, the newest report or row counts.
 *
 * Reports anything that is not a report in `errors` and leaves it out.
 *
 * @throws FormatError if there is nothing to read, for a file that cannot be read, and for more than 10,000 classes
 */
export function readFleet(
  source: string | readonly string[],
  { named: needsNames = false }: ReadFleetOptions = {},
): Fleet {
  const sources = typeof source === 'string' ? [source] : source
  const reader = new FleetReader(needsNames)
  for (const one of sources) readSource(one, reader)
  return reader.finish(sources.map((one) => (one === '-' ? STANDARD_INPUT : one)).join(', '))
}

const STANDARD_INPUT = 'standard input'

function readSource(source: string, reader: FleetReader): void {
  if (source === '-') {
    readStream(standardInput, STANDARD_INPUT, reader)
    return
  }
  try {
    const stats = statSync(source)
    if (stats.isDirectory()) {
      const files = readdirSync(source).filter((file) => file.endsWith('.json'))
      for (const file of files.toSorted()) readFile(join(source, file), reader)
    } else if (stats.isFile() && stats.size <= MAX_BYTES && isOneDocument(source)) {
      readFile(source, reader)
    } else readLinesOf(source, reader)
  } catch (error) {
    if (error instanceof FormatError || (error as NodeJS.ErrnoException).code === undefined) throw error
    throw unreadable(source, error)
  }
}

function readLinesOf(file: string, reader: FleetReader): void {
  const input = openInput(file)
  try {
    readStream(input, file, reader)
  } finally {
    input.close()
  }
}

function readStream(input: Input, source: string, reader: FleetReader): void {
  let isEmpty = true
  for (const { number, bytes } of readLines(input, MAX_BYTES)) {
    isEmpty = false
    const where = `${source}, line ${number}`
    if (bytes === null) {
      const problem = `is longer than any report (${MAX_BYTES / 1024 / 1024} MiB)`
      reader.refuse(new FormatError(where, '$', problem), where)
    } else if (number === 1 && bytes.length < HEAD && LAID_OUT.test(bytes.toString('latin1'))) {
      // Otherwise every line of it would be reported as an error.
      throw new FormatError(source, '$', 'expected one report per line; convert with `jq -c .`')
    } else if (!isBlank(bytes)) reader.add(bytes, where)
  }
  if (isEmpty) throw new FormatError(source, '$', 'is empty')
}

function readFile(file: string, reader: FleetReader): void {
  const name = asText(basename(file, '.json'))
  let bytes: Buffer
  try {
    const stats = statSync(file)
    // Reading a pipe here would wait without end.
    if (!stats.isFile()) return
    if (startOf(file).subarray(0, SUMMARY.length).equals(SUMMARY)) {
      readLinesOf(file, reader)
      return
    }
    if (stats.size > MAX_BYTES) {
      const problem = `is larger than any report (${MAX_BYTES / 1024 / 1024} MiB)`
      reader.refuse(new FormatError(file, '$', problem), name)
      return
    }
    bytes = readFileSync(file)
  } catch (error) {
    if (error instanceof FormatError) throw error
    reader.refuse(unreadable(file, error), name)
    return
  }
  reader.add(bytes, file, name)
}

/** The first bytes of a file. */
function startOf(file: string): Buffer {
  const input = openInput(file)
  try {
    const start = Buffer.alloc(HEAD)
    return start.subarray(0, input.read(start, 0))
  } finally {
    input.close()
  }
}

/** Returns whether a file is one JSON document over several lines. */
function isOneDocument(file: string): boolean {
  const start = startOf(file).toString('latin1')
  if (!LAID_OUT.test(start.slice(0, start.indexOf('\n')))) return false
  try {
    parseJson(readFileSync(file, 'utf8'), file)
    return true
  } catch {
    return false
  }
}

function isBlank(bytes: Buffer): boolean {
  return bytes.length < HEAD && bytes.toString('latin1').trim() === ''
}

/** The text of a class from `"capabilities"` on. */
interface KnownText {
  bytes: Buffer
  isNamed: boolean
  version: number
  of: string
}

/** What differs between equal hosts. */
interface Head extends Pick<HostRow, 'release' | 'build' | 'origin' | 'probedAt'> {
  name: string | undefined
  version: number
}

/** What a line holds. */
type Line =
  | { kind: 'report'; report: Report; name: string | undefined; isNamed: boolean }
  | { kind: 'row'; row: HostRow }
  | { kind: 'body'; class: string; common: string }
  | { kind: 'fault'; fault: string }
  | { kind: 'head' }

/** What a class's reports have in common, compressed: a thousand of them as text would take hundreds of megabytes. */
interface Body {
  first: string
  common: Buffer
}

/** The hosts of a class, counted. */
class Members {
  readonly names: string[] = []
  hostCount = 0
  readonly #releases = new Map<string, number>()
  readonly #origins = new Map<string, { origin: Origin; hostCount: number }>()

  add({ release, origin }: Pick<HostRow, 'release' | 'origin'>): void {
    this.hostCount++
    this.#releases.set(release, (this.#releases.get(release) ?? 0) + 1)
    const key = canonicalJson(origin)
    const known = this.#origins.get(key)
    if (known === undefined) this.#origins.set(key, { origin, hostCount: 1 })
    else known.hostCount++
  }

  get releases(): string[] {
    return [...this.#releases]
      .toSorted(([a, many], [b, others]) => others - many || (a < b ? -1 : 1))
      .slice(0, MAX_RELEASES)
      .map(([release]) => release)
  }

  get origins(): HostClass['origins'] {
    return [...this.#origins]
      .toSorted(([a, one], [b, other]) => other.hostCount - one.hostCount || (a < b ? -1 : 1))
      .slice(0, MAX_RELEASES)
      .map(([, entry]) => entry)
  }
}

class FleetReader {
  readonly #needsNames: boolean
  readonly #bodies = new Map<string, Body>()
  /** By name. */
  readonly #hosts = new Map<string, HostRow>()
  /** Of hosts without a name, by class. */
  readonly #unnamed = new Map<string, Members>()
  /** By length and checksum. */
  readonly #known = new Map<string, KnownText[]>()
  /** Digests of the lines with bodies read so far: every part of a fleet holds the same. */
  readonly #knownBodies = new Set<string>()
  readonly #shared = new Map<string, string>()
  readonly #errors: FormatError[] = []
  readonly #faults = new Set<string>()
  #knownBytes = 0
  #faulty = 0

  constructor(needsNames: boolean) {
    this.#needsNames = needsNames
  }

  /** `name`, if the text itself has none. */
  add(bytes: Buffer, where: string, name?: string): void {
    const isBody = bytes.subarray(0, BODY.length).equals(BODY)
    const digest = isBody ? sha256(bytes) : ''
    if (isBody && this.#knownBodies.has(digest)) return
    const at = isBody ? -1 : bytes.subarray(0, HEAD).indexOf(COMMON)
    const common = at < 0 ? undefined : bytes.subarray(at)
    const key = common && `${common.length} ${crc32(common)}`
    const known = key && this.#known.get(key)?.find((entry) => entry.bytes.equals(common))
    try {
      if (known) {
        const head = readHead(bytes.subarray(0, at), known.isNamed)
        if (head?.version === known.version) {
          this.#count({ ...head, class: known.of }, head.name ?? name, where)
          return
        }
      }
      const line = parseLine(bytes, where)
      if (line.kind === 'row') this.#count(line.row, line.row.name, where)
      else if (line.kind === 'fault') this.#faults.add(line.fault)
      else if (line.kind === 'body') {
        this.#keep(line.class, line.common, where)
        this.#knownBodies.add(digest)
      } else if (line.kind === 'report') {
        const { report, name: own, isNamed } = line
        const shown = commonText(report)
        const of = classOfText(shown)
        // A report that is refused for want of a name leaves no class behind.
        this.#count(hostRow('', of, report), own ?? name, where)
        this.#keep(of, shown, where)
        const head = at < 0 || known ? undefined : readHead(bytes.subarray(0, at), isNamed)
        if (head) this.#remember(key!, { bytes: Buffer.from(common!), isNamed, version: head.version, of })
      }
    } catch (error) {
      if (!(error instanceof FormatError) || error instanceof TooManyClasses) throw error
      this.refuse(error, name ?? `sha256:${sha256(bytes).slice(0, CLASS_DIGITS)}`)
    }
  }

  /** @param fault what identifies the text however often it is read */
  refuse(error: FormatError, fault: string): void {
    this.#faulty++
    this.#faults.add(asText(fault))
    if (this.#errors.length < MAX_ERRORS) this.#errors.push(error)
  }

  finish(source: string): Fleet {
    const unnamed = [...this.#unnamed.values()].reduce((sum, { hostCount }) => sum + hostCount, 0)
    const hostCount = this.#hosts.size + unnamed
    if (hostCount + this.#bodies.size + this.#faults.size === 0) {
      throw new FormatError(source, '$', 'holds no report')
    }
    const hosts = [...this.#hosts.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1))
    const members = new Map<string, Members>(this.#unnamed)
    for (const digest of this.#bodies.keys()) if (!members.has(digest)) members.set(digest, new Members())
    for (const host of hosts) {
      const of = members.get(host.class) ?? new Members()
      members.set(host.class, of)
      of.names.push(host.name)
      of.add(host)
    }
    const all = [...members]
      .map(([digest, of]) => this.#classOf(digest, of, source))
      .toSorted((a, b) => b.hostCount - a.hostCount || (a.digest < b.digest ? -1 : 1))
    return {
      classes: all.filter((one) => one.hostCount > 0),
      vacant: all.filter((one) => one.hostCount === 0),
      hostCount,
      hosts,
      errors: this.#errors,
      faulty: this.#faulty,
      faults: [...this.#faults].filter((fault) => !this.#hosts.has(fault)).toSorted(),
    }
  }

  #classOf(digest: string, { hostCount, names, releases, origins }: Members, source: string): HostClass {
    const body = this.#bodies.get(digest)
    return {
      digest,
      hostCount,
      first: body?.first ?? source,
      names,
      releases,
      origins,
      hasReport: body !== undefined,
      report() {
        if (body !== undefined) {
          return reportOfCommon(JSON.parse(inflateRawSync(body.common).toString()) as object) as Report
        }
        const [name] = names
        throw new FormatError(
          source,
          '$',
          `holds no report of class ${digest}: add one, as \`kvm-arm64 probe --json\` prints it on ${name}`,
        )
      },
    }
  }

  #count(
    { release, build, origin, probedAt: when, class: of }: Omit<HostRow, 'name'>,
    name: string | undefined,
    where: string,
  ): void {
    if (name === undefined) {
      if (this.#needsNames) {
        throw new FormatError(
          where,
          '$',
          'names no host: write {"name": …, "report": …}, or give the report a file of its own in a directory',
        )
      }
      const members = this.#unnamed.get(of) ?? new Members()
      this.#unnamed.set(of, members)
      members.add({ release: this.#share(release), origin })
      return
    }
    const row: HostRow = {
      name,
      class: this.#share(of),
      release: this.#share(release),
      build: this.#share(build),
      origin: JSON.parse(this.#share(canonicalJson(origin))) as Origin,
      probedAt: when,
    }
    const known = this.#hosts.get(name)
    if (known === undefined || replaces(row, known)) this.#hosts.set(name, row)
  }

  #keep(digest: string, common: string, where: string): void {
    if (this.#bodies.has(digest)) return
    if (this.#bodies.size === MAX_CLASSES) throw new TooManyClasses(where)
    this.#bodies.set(digest, { first: where, common: deflateRawSync(common, { level: 1 }) })
  }

  /** Returns one string for equal ones: the rows of a million hosts repeat a few. */
  #share(value: string): string {
    const known = this.#shared.get(value)
    if (known !== undefined) return known
    if (this.#shared.size < MAX_SHARED) this.#shared.set(value, value)
    return value
  }

  #remember(key: string, entry: KnownText): void {
    this.#knownBytes += entry.bytes.length
    if (this.#knownBytes > MAX_KNOWN) return
    const others = this.#known.get(key)
    if (others === undefined) this.#known.set(key, [entry])
    else others.push(entry)
  }
}

/** Leaving out the classes that are read last would make the result depend on the order of reading. */
class TooManyClasses extends FormatError {
  constructor(where: string) {
    super(
      where,
      '$',
      `is one class too many: at most ${MAX_CLASSES} are kept apart; do the reports of one host differ each time?`,
    )
  }
}

/** Returns the text before `"capabilities"` if it holds only what may differ between equal hosts. */
function readHead(bytes: Buffer, isNamed: boolean): Head | undefined {
  const json = bytes.toString('utf8').trimEnd()
  if (!json.endsWith(',') || !isUtf8(bytes)) return undefined
  let data: unknown
  try {
    data = JSON.parse(`${json.slice(0, -1)}${isNamed ? '}}' : '}'}`)
  } catch {
    return undefined
  }
  const { name, report } = isNamed && v.is(named, data) ? data : { name: undefined, report: data }
  if (!v.is(headSchema, report)) return undefined
  const {
    version: of,
    probedAt: when,
    host: { release, build },
  } = report
  const who: Origin = report.version === 1 ? { kind: 'unknown' } : report.origin
  return { name, version: of, release, build, origin: who, probedAt: when }
}

function parseLine(bytes: Buffer, where: string): Line {
  if (!isUtf8(bytes)) throw new FormatError(where, '$', 'is not UTF-8 text')
  const data = parseJson(bytes.toString('utf8'), where)
  const has = (key: string): boolean => data !== null && typeof data === 'object' && key in data
  if (has('report')) {
    const { report, name } = checkShape(named, data, where)
    return { kind: 'report', report: checkReport(report, `${where}, in "report"`), name, isNamed: true }
  }
  if (has('common')) {
    const body = checkShape(classBodySchema, data, where)
    return { kind: 'body', class: body.class, common: commonText(reportOfBody(body, where)) }
  }
  if (has('class')) return { kind: 'row', row: checkShape(hostRowSchema, data, where) }
  if (has('fault')) return { kind: 'fault', ...checkShape(faultSchema, data, where) }
  if (has('format') && (data as { format: unknown }).format === summaryHeadSchema.entries.format.literal) {
    checkDocument(data, where, { noun: 'summary', schema: summaryHeadSchema })
    return { kind: 'head' }
  }
  return { kind: 'report', report: checkReport(data, where), name: undefined, isNamed: false }
}

/** A class of which only rows were read. */
export interface UnreportedClass {
  digest: string
  hostCount: number
  /** The host to get its report from: the one that was probed last, since it is the most likely to answer. */
  host: string
}

/** Returns the classes of which only rows were read, those with most hosts first. */
export function unreportedClasses({ classes, hosts }: Fleet): UnreportedClass[] {
  const newest = new Map<string, HostRow>()
  for (const row of hosts) {
    const other = newest.get(row.class)
    if (other === undefined || timeOf(row) > timeOf(other)) newest.set(row.class, row)
  }
  return classes
    .filter(({ hasReport }) => !hasReport)
    .map(({ digest, hostCount }) => ({ digest, hostCount, host: newest.get(digest)!.name }))
}

/** Returns what {@link summaryLines} writes of a fleet. */
export function fleetSummary({ hosts, classes, vacant, faults }: Fleet): Summary {
  return { hosts, bodies: bodiesOf([...classes, ...vacant]), faults }
}

function* bodiesOf(classes: readonly HostClass[]): Generator<readonly [string, string]> {
  for (const one of classes.toSorted((a, b) => (a.digest < b.digest ? -1 : 1))) {
    if (one.hasReport) yield [one.digest, commonText(one.report())]
  }
}
