/** Reads the reports of a fleet and groups equal hosts, without parsing a report it has seen before. */
import { isUtf8 } from 'node:buffer'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { crc32 } from 'node:zlib'
import * as v from 'valibot'
import { checkShape, FormatError, MAX_BYTES, parseJson, unreadable } from '../documents/document.js'
import { reportDigest } from '../report/digest.js'
import { type Input, openInput, standardInput } from '../documents/input.js'
import { readLines } from '../documents/lines.js'
import { checkReport } from '../report/read.js'
import { text } from '../documents/entries.js'
import type { Origin } from '../report/origin.js'
import { reportSchema, type Report } from '../report/report.js'

/** Hosts whose reports are equal except for the date and the kernel build. */
export interface HostClass {
  /** The first twelve digits of the SHA-256 of what their reports have in common. */
  readonly digest: string
  /** The number of hosts. */
  hostCount: number
  /** Where the first report was read: a file, or a line of one. */
  readonly first: string
  /** Names of the hosts that have one, in the order read. */
  readonly names: string[]
  /** Their `uname -r`, the first few. */
  readonly releases: Set<string>
  /** What answered KVM's calls when their reports were made, with the number of reports for each; the first few. */
  readonly origins: { readonly origin: Origin; hostCount: number }[]
  /** The report of the first host. */
  report(): Report
}

export interface Fleet {
  /** Those with most hosts first. */
  classes: HostClass[]
  /** The number of reports read. */
  hostCount: number
  /** What could not be read as a report, or is of a new class beyond the 1000th: the first 100. The classes include none of it. */
  errors: FormatError[]
  /** The total number of such errors. */
  faulty: number
}

const MAX_ERRORS = 100
const MAX_RELEASES = 8
/** The number of classes kept apart. Every class is kept in memory, and more than this is not a plausible fleet. */
const MAX_CLASSES = 1000
/** Bytes of text kept to recognise equal reports. */
const MAX_KNOWN = 512 * 1024 * 1024
/** Bytes at the beginning that are searched for the entries in which equal hosts differ. */
const HEAD = 8 * 1024

/** The beginning of a document that spans several lines. */
const LAID_OUT = /^\s*\{\s*$/

/** Starts the common part of equal hosts. A quote inside a string has a backslash before it, so only a key matches. */
const COMMON = Buffer.from('"capabilities":')

const { format, version, probedAt, host, origin } = reportSchema.entries
const headSchema = v.variant('version', [
  v.strictObject({ format, version, probedAt, host, origin }),
  v.strictObject({ format, version: v.literal(1), probedAt, host }),
])
const named = v.strictObject({ name: text, report: v.unknown() })

/**
 * Reads a fleet from a file or, for `-`, from standard input, with one report on each line; from a file that is one report; or from
 * a directory of report files (`*.json`), in which it skips anything but regular files. A line may be `{"name": …, "report": …}` to
 * name its host; a host with a file of its own has the file's name.
 *
 * Reports anything that is not a report in `errors` and leaves it out.
 *
 * @throws FormatError if there is nothing to read, and for a file that cannot be read
 */
export function readFleet(source: string): Fleet {
  const reader = new FleetReader()
  if (source === '-') {
    readStream(standardInput, 'standard input', reader)
    return reader.finish('standard input')
  }
  try {
    const stats = statSync(source)
    if (stats.isDirectory()) {
      const files = readdirSync(source).filter((file) => file.endsWith('.json'))
      for (const file of files.toSorted()) readFile(join(source, file), reader)
    } else if (stats.isFile() && stats.size <= MAX_BYTES && isOneDocument(source)) {
      readFile(source, reader)
    } else {
      const input = openInput(source)
      try {
        readStream(input, source, reader)
      } finally {
        input.close()
      }
    }
  } catch (error) {
    if (error instanceof FormatError || (error as NodeJS.ErrnoException).code === undefined) throw error
    throw unreadable(source, error)
  }
  return reader.finish(source)
}

function readStream(input: Input, source: string, reader: FleetReader): void {
  let isEmpty = true
  for (const { number, bytes } of readLines(input, MAX_BYTES)) {
    isEmpty = false
    const where = `${source}, line ${number}`
    if (bytes === null) {
      reader.refuse(new FormatError(where, '$', `is longer than any report (${MAX_BYTES / 1024 / 1024} MiB)`))
    } else if (number === 1 && bytes.length < HEAD && LAID_OUT.test(bytes.toString('latin1'))) {
      // Otherwise every line of it would be reported as an error.
      throw new FormatError(source, '$', 'expected one report per line; convert with `jq -c .`')
    } else if (!isBlank(bytes)) reader.add(bytes, where)
  }
  if (isEmpty) throw new FormatError(source, '$', 'is empty')
}

function readFile(file: string, reader: FleetReader): void {
  let bytes: Buffer
  try {
    const stats = statSync(file)
    // Reading a pipe here would wait without end.
    if (!stats.isFile()) return
    if (stats.size > MAX_BYTES) {
      reader.refuse(new FormatError(file, '$', `is larger than any report (${MAX_BYTES / 1024 / 1024} MiB)`))
      return
    }
    bytes = readFileSync(file)
  } catch (error) {
    reader.refuse(unreadable(file, error))
    return
  }
  reader.add(bytes, file, basename(file, '.json'))
}

/** Returns whether a file is one JSON document over several lines. */
function isOneDocument(file: string): boolean {
  const json = readFileSync(file, 'utf8')
  if (!LAID_OUT.test(json.slice(0, json.indexOf('\n')))) return false
  try {
    parseJson(json, file)
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
  of: HostClass
}

interface Head {
  name: string | undefined
  version: number
  release: string
  origin: Origin
}

class FleetReader {
  readonly #classes = new Map<string, HostClass>()
  /** By length and checksum. */
  readonly #known = new Map<string, KnownText[]>()
  readonly #errors: FormatError[] = []
  #knownBytes = 0
  #hostCount = 0
  #faulty = 0

  /** `name`, if the text itself has none. */
  add(bytes: Buffer, where: string, name?: string): void {
    const at = bytes.subarray(0, HEAD).indexOf(COMMON)
    const common = at < 0 ? undefined : bytes.subarray(at)
    const key = common && `${common.length} ${crc32(common)}`
    const known = key && this.#known.get(key)?.find((entry) => entry.bytes.equals(common))
    if (known) {
      const head = readHead(bytes.subarray(0, at), known.isNamed)
      if (head?.version === known.version) {
        this.#count(known.of, head, head.name ?? name)
        return
      }
    }
    try {
      const { report, name: own, isNamed } = parseLine(bytes, where)
      const found = this.#classOf(report, where)
      this.#count(found, { release: report.host.release, origin: report.origin }, own ?? name)
      const head = at < 0 || known ? undefined : readHead(bytes.subarray(0, at), isNamed)
      if (head) {
        this.#remember(key!, { bytes: Buffer.from(common!), isNamed, version: head.version, of: found })
      }
    } catch (error) {
      if (!(error instanceof FormatError)) throw error
      this.refuse(error)
    }
  }

  refuse(error: FormatError): void {
    this.#faulty++
    if (this.#errors.length < MAX_ERRORS) this.#errors.push(error)
  }

  finish(source: string): Fleet {
    if (this.#hostCount === 0 && this.#faulty === 0) throw new FormatError(source, '$', 'holds no report')
    return {
      classes: [...this.#classes.values()].toSorted((a, b) => b.hostCount - a.hostCount),
      hostCount: this.#hostCount,
      errors: this.#errors,
      faulty: this.#faulty,
    }
  }

  #count(found: HostClass, { release, origin: who }: Pick<Head, 'release' | 'origin'>, name?: string): void {
    this.#hostCount++
    found.hostCount++
    if (name !== undefined) found.names.push(name)
    if (found.releases.size < MAX_RELEASES) found.releases.add(release)
    const known = found.origins.find((entry) => isDeepStrictEqual(entry.origin, who))
    if (known !== undefined) known.hostCount++
    else if (found.origins.length < MAX_RELEASES) found.origins.push({ origin: who, hostCount: 1 })
  }

  #classOf(report: Report, where: string): HostClass {
    const digest = reportDigest(report)
    const found = this.#classes.get(digest)
    if (found !== undefined) return found
    if (this.#classes.size === MAX_CLASSES) {
      throw new FormatError(
        where,
        '$',
        `is one class too many: at most ${MAX_CLASSES} can be compared with each other`,
      )
    }
    const json = Buffer.from(JSON.stringify(report))
    const made: HostClass = {
      digest: digest.slice(0, 12),
      hostCount: 0,
      first: where,
      names: [],
      releases: new Set(),
      origins: [],
      // Kept as text: a thousand of them as objects would not fit into memory.
      report: () => JSON.parse(json.toString()) as Report,
    }
    this.#classes.set(digest, made)
    return made
  }

  #remember(key: string, entry: KnownText): void {
    this.#knownBytes += entry.bytes.length
    if (this.#knownBytes > MAX_KNOWN) return
    const others = this.#known.get(key)
    if (others === undefined) this.#known.set(key, [entry])
    else others.push(entry)
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
    host: { release },
  } = report
  return { name, version: of, release, origin: report.version === 1 ? { kind: 'unknown' } : report.origin }
}

function parseLine(
  bytes: Buffer,
  where: string,
): { report: Report; name: string | undefined; isNamed: boolean } {
  if (!isUtf8(bytes)) throw new FormatError(where, '$', 'is not UTF-8 text')
  const data = parseJson(bytes.toString('utf8'), where)
  if (data === null || typeof data !== 'object' || !('report' in data)) {
    return { report: checkReport(data, where), name: undefined, isNamed: false }
  }
  const { report, name } = checkShape(named, data, where)
  return { report: checkReport(report, `${where}, in "report"`), name, isNamed: true }
}
