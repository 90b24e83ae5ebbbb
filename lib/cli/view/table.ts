import { stripVTControlCharacters } from 'node:util'
import Table from 'cli-table3'
import { printable } from '../../documents/printable.js'
import { paint } from '../output.js'

const places = [
  'top',
  'top-mid',
  'top-left',
  'top-right',
  'bottom',
  'bottom-mid',
  'bottom-left',
  'bottom-right',
]
const borders = [...places, 'left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid', 'middle']

/**
 * Formats columns without borders, indented by two; leaves out a column without content. On a terminal it wraps the last column to
 * the width; elsewhere a row is one line, for grep.
 */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const filled = head.map((_, column) => rows.some((row) => row[column] !== ''))
  const lines = [
    head.map((title) => paint('bold', printable(title))),
    ...rows.map((row) => row.map(printable)),
  ].map((row) => row.filter((_, column) => filled[column]))
  const columns = new Table({
    chars: Object.fromEntries(borders.map((place) => [place, ''])),
    style: { head: [], border: [], 'padding-left': 2, 'padding-right': 0 },
    ...wrapping(lines),
  })
  columns.push(...lines)
  return columns
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
}

/** Wraps the last column to the terminal's width; does nothing if everything fits or the output is not a terminal. */
function wrapping(
  lines: readonly (readonly string[])[],
): { wordWrap: true; colWidths: (number | null)[] } | undefined {
  const { isTTY, columns } = process.stdout
  const count = lines[0]?.length ?? 0
  if (!isTTY || count === 0) return undefined
  const widths = Array.from({ length: count }, (_, column) =>
    Math.max(...lines.map((line) => 2 + stripVTControlCharacters(line[column] ?? '').length)),
  )
  const before = widths.slice(0, -1).reduce((sum, width) => sum + width, 0)
  if (before + widths.at(-1)! <= columns) return undefined
  return {
    wordWrap: true,
    colWidths: [...widths.slice(0, -1).map(() => null), Math.max(24, columns - before)],
  }
}

/** Formats name and content in two columns. */
export function properties(rows: readonly (readonly [name: string, content: string])[]): string {
  return table(['', ''], rows).replace(/^.*\n/, '')
}
