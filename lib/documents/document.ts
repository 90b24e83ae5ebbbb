/**
 * Reads files of the formats this package publishes: limits their size, checks them against their schema, and names the entry at
 * fault when it refuses one.
 */
import * as v from 'valibot'
import { foreignData } from './foreign.js'
import { jsonPath } from './json.js'
import { FormatError } from './format-error.js'
import { parseDocumentJson, readJson } from './text.js'

export { FormatError, unreadable } from './format-error.js'
export { MAX_BYTES, parseDocumentJson, parseJson, readJson, readText } from './text.js'

interface Head {
  readonly format: v.LiteralSchema<string, undefined>
  readonly version: v.LiteralSchema<number, undefined>
}

/** A format of documents: JSON objects with the entries `format` and `version`. */
export interface DocumentFormat<T> {
  /** The name of such a document in errors: `report`. */
  readonly noun: string
  readonly schema: v.GenericSchema<unknown, T> & { readonly entries: Head }
  /** Checks that the schema cannot make; throws FormatError. */
  readonly checkMore?: (document: T, source: string) => void
  /** Readers of earlier versions, by version: each checks the data and returns the current document; throws FormatError. */
  readonly earlier?: ReadonlyMap<unknown, (data: unknown, source: string) => T>
}

/**
 * Reads a document from a file.
 * @throws FormatError for a file that is missing, empty, truncated, of another format or version, or hostile
 */
export function readDocument<T>(file: string, format: DocumentFormat<T>): T {
  return checkDocument(readJson(file, format.noun), file, format)
}

/**
 * Reads a document from JSON text; errors call the text `source`.
 * @throws FormatError as `readDocument`
 */
export function parseDocument<T>(json: string, source: string, format: DocumentFormat<T>): T {
  return checkDocument(parseDocumentJson(json, source, format.noun), source, format)
}

/**
 * Checks that data is a document.
 * @throws FormatError as `readDocument`
 */
export function checkDocument<T>(data: unknown, source: string, format: DocumentFormat<T>): T {
  const { noun, schema, checkMore, earlier } = format
  const head = data as { format?: unknown; version?: unknown } | null
  if (head === null || typeof head !== 'object' || head.format !== schema.entries.format.literal) {
    const foreign = foreignData(data)
    if (foreign !== undefined) throw new FormatError(source, '$', `is not a ${noun} but ${foreign}`)
    const found = typeof head?.format === 'string' ? `, found ${JSON.stringify(head.format)}` : ''
    throw new FormatError(
      source,
      '$.format',
      `is not a ${noun}: expected "${schema.entries.format.literal}"${found}`,
    )
  }
  const { literal: version } = schema.entries.version
  const readEarlier = earlier?.get(head.version)
  if (head.version !== version && readEarlier === undefined) {
    throw new FormatError(source, '$.version', unknownVersion(head.version, version))
  }
  const document = readEarlier?.(data, source) ?? checkShape(schema, data, source)
  checkMore?.(document, source)
  return document
}

/** A number of a file; one beyond 2^53 was rounded when it was read, and would not be the one that stands there. */
function shownNumber(number: number): string {
  return Math.abs(number) > Number.MAX_SAFE_INTEGER ? 'a number beyond 2^53' : String(number)
}

/** Explains why a program that reads versions up to `newest` cannot read this one. */
export function unknownVersion(found: unknown, newest: number): string {
  if (typeof found !== 'number') return 'is not a number'
  const reads = `this kvm-arm64 reads version ${newest}`
  return found > newest
    ? `is ${shownNumber(found)}, but ${reads}: written by a newer kvm-arm64?`
    : `is ${shownNumber(found)}, but ${reads}`
}

/**
 * Checks data against a schema; `path` is its place in the source.
 * @throws FormatError for the first entry that does not match the schema
 */
export function checkShape<T>(
  schema: v.GenericSchema<unknown, T>,
  data: unknown,
  source: string,
  path = '$',
): T {
  const result = v.safeParse(schema, data, { abortEarly: true })
  if (result.success) {
    refuseReservedKeys(data, source, path)
    return result.output
  }
  const issue = innermost(result.issues[0])
  throw new FormatError(source, path + jsonPath(issue.keys), problemOf(issue))
}

/** An entry that does not match its schema, and its place. */
interface Mismatch extends Pick<
  v.BaseIssue<unknown>,
  'type' | 'input' | 'expected' | 'received' | 'message'
> {
  readonly keys: readonly (string | number)[]
}

/**
 * Finds the mismatch in the alternative of a union that the data was meant for: the one whose mismatch lies deepest, and of those
 * one that lacks no key. If several remain, the data may be any of them.
 */
function innermost(issue: v.BaseIssue<unknown>): Mismatch {
  const keys = (issue.path ?? []).map(({ key }) => key as string | number)
  if (issue.type !== 'union' || issue.issues === undefined) return { ...issue, keys }
  const all = issue.issues.map(innermost)
  const depth = Math.max(...all.map((one) => one.keys.length))
  const deepest = all.filter((one) => one.keys.length === depth)
  const present = deepest.filter((one) => !lacksKey(one))
  const [first, ...others] = present.length > 0 ? present : deepest
  if (others.length === 0) return { ...first!, keys: [...keys, ...first!.keys] }
  const isSamePlace = others.every((one) => String(one.keys) === String(first!.keys))
  return { ...merged([first!, ...others]), keys: isSamePlace ? [...keys, ...first!.keys] : keys }
}

function lacksKey({ message, received }: Mismatch): boolean {
  return message.startsWith('Invalid key: ') && received === 'undefined'
}

/** One mismatch for several alternatives that the data matches equally little. */
function merged(all: readonly [Mismatch, ...Mismatch[]]): Mismatch {
  const [first] = all
  const messages = new Set(all.map(({ message }) => message))
  if (![...messages].every((message) => message.startsWith('Invalid '))) {
    return { ...first, message: [...messages].join('; or ') }
  }
  const expected = [...new Set(all.map((one) => one.expected))].join(' | ')
  return { ...first, expected, message: `Expected ${expected} but received ${first.received}` }
}

/** Keys that every JavaScript object inherits: valibot would take them for known and drop them. */
const RESERVED = ['__proto__', 'constructor', 'prototype']

interface Place {
  readonly value: unknown
  readonly key: string | number
  readonly inside: Place | null
}

/** Uses a stack of its own: an entry that may be anything may be nested deeper than calls can be. */
function refuseReservedKeys(data: unknown, source: string, path: string): void {
  const places: Place[] = [{ value: data, key: '', inside: null }]
  for (let place = places.pop(); place !== undefined; place = places.pop()) {
    const { value } = place
    if (value === null || typeof value !== 'object') continue
    const reserved = RESERVED.find((key) => Object.hasOwn(value, key))
    if (reserved !== undefined) {
      const keys: (string | number)[] = [reserved]
      for (let at: Place | null = place; at?.inside; at = at.inside) keys.unshift(at.key)
      throw new FormatError(source, path + jsonPath(keys), 'is not a known entry')
    }
    const isList = Array.isArray(value)
    for (const key of Object.keys(value)) {
      const entry = (value as Record<string, unknown>)[key]
      if (typeof entry === 'object')
        places.push({ value: entry, key: isList ? Number(key) : key, inside: place })
    }
  }
}

/** Longer lists of allowed entries are of no help. */
const LONGEST_LIST = 100

function problemOf({ type, input, expected, received, message }: Mismatch): string {
  const isUnknown = expected === 'never' || (type === 'picklist' && expected!.length > LONGEST_LIST)
  // A message that the schema itself words does not begin like this.
  if (typeof input === 'number' && message.endsWith(`eceived ${received}`)) {
    return message.slice(0, -received.length) + shownNumber(input)
  }
  if (!isUnknown || !message.startsWith('Invalid ')) return message
  return `${received === 'Object' ? 'this' : received} is unknown: written by a newer kvm-arm64?`
}

/**
 * Refuses a list that contains an id twice: the second entry would silently be ignored.
 * @param path of the list, `$.registers`
 * @throws FormatError
 */
export function refuseDuplicateIds(
  entries: readonly { readonly id: string | number }[],
  path: string,
  source: string,
): void {
  const seen = new Map<string | number, number>()
  for (const [index, { id }] of entries.entries()) {
    const first = seen.get(id)
    if (first !== undefined) {
      throw new FormatError(source, `${path}[${index}].id`, `${id} is already at ${path}[${first}]`)
    }
    seen.set(id, index)
  }
}
