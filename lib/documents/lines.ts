import type { Input } from './input.js'

interface Line {
  /** From 1. */
  number: number
  /** Without its line end; the next line overwrites it. Null if the line is longer than the limit and was skipped. */
  bytes: Buffer | null
}

const START = 1024 * 1024
/** A pipe returns at most this much at once. */
const ROOM = 64 * 1024

/**
 * Reads lines to the end of a file or pipe, with at most one line of `limit` bytes in memory, whatever the input.
 * @throws the error of `node:fs` if it cannot be read
 */
export function* readLines(input: Input, limit: number): Generator<Line> {
  let buffer = Buffer.allocUnsafe(START)
  let [start, end, number] = [0, 0, 1]
  let skipping = false
  for (;;) {
    if (buffer.length - end < ROOM) {
      // A line that fills half of the buffer needs a larger one; any other only moves to its start.
      const wanted = end - start > buffer.length / 2 ? Buffer.allocUnsafe(2 * buffer.length) : buffer
      buffer.copy(wanted, 0, start, end)
      ;[buffer, start, end] = [wanted, 0, end - start]
    }
    const count = input.read(buffer, end)
    if (count === 0) break
    let from = end
    end += count
    // Without what was read before and stands behind the end: a search through that after each read would take most of the time.
    const filled = buffer.subarray(0, end)
    for (;;) {
      const newline = filled.indexOf(10, from)
      if (newline < 0) break
      const isTooLong = newline - start > limit
      if (!skipping) yield { number, bytes: isTooLong ? null : buffer.subarray(start, newline) }
      skipping = false
      number++
      start = from = newline + 1
    }
    if (end - start > limit && !skipping) {
      yield { number, bytes: null }
      skipping = true
    }
    if (skipping) start = end = 0
  }
  if (end > start) yield { number, bytes: buffer.subarray(start, end) }
}
