import { closeSync, openSync, readSync } from 'node:fs'
import { StringDecoder } from 'node:string_decoder'
import { FormatError } from '../report/document.js'
import { parseEntry, parseHead, type TraceEntry, type TraceHead } from './format.js'

/** Bytes read at once. */
const CHUNK = 256 * 1024
/** Characters of the longest line a trace may have: a list of 65536 registers is shorter. */
const LONGEST_LINE = 4 * 1024 * 1024

/** A trace that is read as it is needed: its size does not matter. */
export interface Trace {
  head: TraceHead
  /** In order, each with its line in the file. */
  entries: Iterable<TraceEntry & { line: number }>
}

/**
 * Reads a trace, line by line. What is wrong in a later line is thrown by the iteration that comes to it.
 * @throws FormatError for a file that is missing, empty, or no trace; its message names file, line and entry
 */
export function readTrace(file: string): Trace {
  const lines = linesOf(file)
  const first = lines.next()
  if (first.done) throw new FormatError(file, '$', 'is empty')
  return { head: parseHead(first.value, `${file}:1`), entries: entriesOf(lines, file) }
}

function* entriesOf(lines: Generator<string>, file: string): Generator<TraceEntry & { line: number }> {
  let line = 1
  for (const text of lines) {
    line++
    if (text === '') continue
    const { call, outcome } = parseEntry(text, `${file}:${line}`)
    yield { call, outcome, line }
  }
}

function* linesOf(file: string): Generator<string> {
  const descriptor = attempt(file, () => openSync(file, 'r'))
  try {
    const decoder = new StringDecoder('utf8')
    const chunk = Buffer.allocUnsafe(CHUNK)
    let rest = ''
    for (;;) {
      const count = attempt(file, () => readSync(descriptor, chunk))
      if (count === 0) break
      const lines = (rest + decoder.write(chunk.subarray(0, count))).split('\n')
      rest = lines.pop()!
      if (rest.length > LONGEST_LINE) throw new FormatError(file, '$', 'has a line too long for a trace')
      yield* lines
    }
    if (rest !== '') yield rest
  } finally {
    closeSync(descriptor)
  }
}

function attempt<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw new FormatError(
      file,
      '$',
      `cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`,
    )
  }
}
