/** Reads JSON as found in files: with or without a byte order mark, and without duplicate keys. */

/** Text that is not JSON, or in which an object has a key twice. */
export class JsonError extends Error {
  override readonly name = 'JsonError'
  /** The place, as a JSON path. */
  readonly path: string

  constructor(path: string, problem: string) {
    super(problem)
    this.path = path
  }
}

/**
 * Like `JSON.parse`, but refuses a duplicate key instead of dropping its first entry.
 * @throws JsonError
 */
export function parseStrictJson(text: string): unknown {
  const json = text.startsWith('\ufeff') ? text.slice(1) : text
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch (error) {
    throw new JsonError('$', json.trim() === '' ? 'is empty' : `is not JSON: ${(error as Error).message}`)
  }
  // JSON.parse drops an entry whose key comes again: the text then has more keys than the value. To find which is slower.
  if (countKeys(value) !== countColons(json)) refuseDuplicateKeys(json)
  return value
}

/** How many keys the objects in a value have. */
function countKeys(root: unknown): number {
  let count = 0
  // A stack of its own: JSON may be nested deeper than calls can be.
  const values = [root]
  for (let value = values.pop(); value !== undefined; value = values.pop()) {
    if (value === null || typeof value !== 'object') continue
    const entries = Array.isArray(value) ? value : Object.values(value)
    if (entries !== value) count += entries.length
    for (const entry of entries) if (typeof entry === 'object') values.push(entry)
  }
  return count
}

/** How many keys valid JSON text has: a colon follows each, and others stand in strings. */
function countColons(json: string): number {
  let count = 0
  for (let at = 0; at < json.length; at++) {
    const found = json.charCodeAt(at)
    if (found === QUOTE) at = endOfString(json, at + 1)
    else if (found === COLON) count++
  }
  return count
}

interface Level {
  /** The keys of an object; null for a list. */
  readonly keys: Set<string> | null
  /** The part of the path for this level's current entry. */
  key: string | number
}

const code = (character: string): number => character.charCodeAt(0)
const [QUOTE, COLON, COMMA, BACKSLASH] = [code('"'), code(':'), code(','), code('\\')]
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [code('['), code(']'), code('{'), code('}')]

/**
 * Written by hand: a regular expression takes ten times as long, and traces have millions of lines.
 * @param json valid JSON text
 */
function refuseDuplicateKeys(json: string): void {
  const levels: Level[] = []
  let level: Level = { keys: null, key: 0 }
  let expectsKey = false
  for (let at = 0; at < json.length; at++) {
    switch (json.charCodeAt(at)) {
      case QUOTE: {
        const end = endOfString(json, at + 1)
        if (expectsKey) {
          expectsKey = false
          const raw = json.slice(at + 1, end)
          level.key = raw.includes('\\') ? (JSON.parse(`"${raw}"`) as string) : raw
          if (level.keys!.has(level.key)) {
            throw new JsonError(`$${jsonPath(levels.map(({ key }) => key))}`, 'appears twice')
          }
          level.keys!.add(level.key)
        }
        at = end
        break
      }
      case OPEN_OBJECT:
        levels.push((level = { keys: new Set(), key: '' }))
        expectsKey = true
        break
      case OPEN_LIST:
        levels.push((level = { keys: null, key: 0 }))
        expectsKey = false
        break
      case CLOSE_OBJECT:
      case CLOSE_LIST:
        levels.pop()
        level = levels.at(-1) ?? level
        expectsKey = false
        break
      case COMMA:
        expectsKey = level.keys !== null
        if (!expectsKey) level.key = Number(level.key) + 1
        break
      default:
    }
  }
}

function endOfString(json: string, from: number): number {
  for (let at = from; ; at++) {
    const found = json.charCodeAt(at)
    if (found === QUOTE) return at
    if (found === BACKSLASH) at++
  }
}

/** The path of an entry below the root, `.registers[3].value`. */
export function jsonPath(keys: readonly (string | number)[]): string {
  return keys
    .map((key) =>
      typeof key === 'number'
        ? `[${key}]`
        : /^[A-Za-z_$][\w$]*$/.test(key)
          ? `.${key}`
          : `[${JSON.stringify(key)}]`,
    )
    .join('')
}
