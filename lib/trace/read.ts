import { isUtf8 } from 'node:buffer'
import { FormatError, unreadable } from '../documents/document.js'
import { type Input, openInput } from '../documents/input.js'
import { readLines } from '../documents/lines.js'
import { parseEntry, parseHead, type TraceEntry, type TraceHead } from './format.js'

/** Bytes of the longest line a trace may have: a list of 65536 registers is shorter. */
const LONGEST_LINE = 4 * 1024 * 1024

/** A trace that is read on demand, whatever its size. */
export interface Trace {
  head: TraceHead
  /** In order, each with its line in the file. */
  entries: Iterable<TraceEntry & { line: number }>
}

/**
 * Reads a trace, line by line. An error in a later line is thrown when the iteration reaches it.
 * @throws FormatError for a file that is missing, empty, or not a trace; its message names file, line and entry
 */
export function readTrace(file: string): Trace {
  const lines = linesOf(file)
  const first = lines.next()
  if (first.done) throw new FormatError(file, '$', 'is empty')
  return { head: parseHead(first.value.text, `${file}:1`), entries: entriesOf(lines, file) }
}

interface TextLine {
  text: string
  line: number
}

function* entriesOf(lines: Generator<TextLine>, file: string): Generator<TraceEntry & { line: number }> {
  for (const { text, line } of lines) {
    if (text === '') continue
    const { call, outcome } = parseEntry(text, `${file}:${line}`)
    yield { call, outcome, line }
  }
}

function* linesOf(file: string): Generator<TextLine> {
  let input: Input | undefined
  try {
    input = openInput(file)
    for (const { number, bytes } of readLines(input, LONGEST_LINE)) {
      if (bytes === null)
        throw new FormatError(`${file}:${number}`, '$', `is longer than ${LONGEST_LINE / 1024 / 1024} MiB`)
      if (!isUtf8(bytes)) throw new FormatError(`${file}:${number}`, '$', 'is not UTF-8 text')
      yield { text: bytes.toString('utf8'), line: number }
    }
  } catch (error) {
    throw error instanceof FormatError ? error : unreadable(file, error)
  } finally {
    input?.close()
  }
}
