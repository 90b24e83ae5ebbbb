/** Reads the text of documents, without their schemas, which take long to load. */
import { isUtf8 } from 'node:buffer'
import { foreignBytes } from './foreign.js'
import { FormatError, unreadable } from './format-error.js'
import { openInput } from './input.js'
import { JsonError, parseStrictJson } from './json.js'

/** Two orders of magnitude larger than any document: a larger file is something else. */
export const MAX_BYTES = 64 * 1024 * 1024

/**
 * Reads JSON of any format from a file, up to the largest size of a document.
 * @param noun what the file should be, for errors: `report`
 * @throws FormatError for a file that is missing, empty, too large, or no JSON
 */
export function readJson(file: string, noun: string): unknown {
  return parseDocumentJson(readText(file, noun), file, noun)
}

/**
 * Reads UTF-8 text from a file, up to one byte more than the largest size of a document.
 * @param noun what the file should be, for errors: `report`
 * @throws FormatError for a file that cannot be read, or is not UTF-8
 */
export function readText(file: string, noun: string): string {
  let bytes: Buffer
  try {
    bytes = readAtMost(file, MAX_BYTES + 1)
  } catch (error) {
    throw unreadable(file, error)
  }
  const foreign = foreignBytes(bytes)
  if (foreign !== undefined) throw new FormatError(file, '$', `is not a ${noun} but ${foreign}`)
  // The limit may cut through a character.
  if (bytes.length <= MAX_BYTES && !isUtf8(bytes)) throw new FormatError(file, '$', 'is not UTF-8 text')
  return bytes.toString('utf8')
}

/**
 * Returns the file's first `limit` bytes: it does not read on in a file without end, or one too large for memory.
 * @throws the error of `node:fs`
 */
export function readAtMost(file: string, limit: number): Buffer {
  const input = openInput(file)
  try {
    const chunks: Buffer[] = []
    let length = 0
    while (length < limit) {
      const chunk = Buffer.allocUnsafe(Math.min(256 * 1024, limit - length))
      const count = input.read(chunk, 0)
      if (count === 0) break
      chunks.push(chunk.subarray(0, count))
      length += count
    }
    return Buffer.concat(chunks)
  } finally {
    input.close()
  }
}

/**
 * Reads JSON text of any format; errors call it `source` and `noun`.
 * @throws FormatError as `readJson`
 */
export function parseDocumentJson(json: string, source: string, noun: string): unknown {
  if (json.length > MAX_BYTES)
    throw new FormatError(source, '$', `is larger than any ${noun} (${MAX_BYTES / 1024 / 1024} MiB at most)`)
  return parseJson(json, source)
}

/**
 * Parses JSON of a known length; errors call the text `source`.
 * @throws FormatError for text that is empty, is not JSON, or has a key twice in one object
 */
export function parseJson(json: string, source: string): unknown {
  try {
    return parseStrictJson(json)
  } catch (error) {
    if (!(error instanceof JsonError)) throw error
    throw new FormatError(source, error.path, error.message)
  }
}
