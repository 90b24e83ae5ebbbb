import Table from 'cli-table3'
import { printable } from '../../documents/printable.js'
import { paint } from '../output.js'
import { terminalColumns, wrap } from './text.js'

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
 * Formats columns without borders, indented by two; leaves out a column without content. Elsewhere than on a terminal a row is one
 * line, for grep. On a terminal columns are wrapped to the width; rows that are too wide even so follow as entries, in order.
 */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const filled = head.map((_, column) => rows.some((row) => row[column] !== ''))
  const [titles, ...cells] = [head, ...rows].map((row) =>
    row.filter((_, column) => filled[column]).map(printable),
  ) as [string[], ...string[][]]
  const widths = columnWidths([titles, ...cells])
  if (widths === null) return cells.map((row) => entry(titles, row)).join('\n')
  const columns = new Table({
    chars: Object.fromEntries(borders.map((place) => [place, ''])),
    style: { head: [], border: [], 'padding-left': GAP, 'padding-right': 0 },
    ...(widths && { wordWrap: true, colWidths: widths }),
  })
  columns.push(
    titles.map((title) => paint('bold', title)),
    ...cells,
  )
  return columns
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
}

/** Blanks before each column. */
const GAP = 2

/** Columns of a terminal that a text takes: characters of East Asian scripts take two, emoji are two code units. */
function widthOf(text: string): number {
  return text.length + (text.match(/[\u1100-\u115f\u2e80-\ud7ff\uf900-\uffe6]/g)?.length ?? 0)
}

/**
 * Returns the width of each column, with the blanks before it, if the columns must be narrower than their content to fit a
 * terminal; null if they cannot. The last column is narrowed first, then always the widest; none below its longest word.
 */
function columnWidths(lines: readonly (readonly string[])[]): number[] | null | undefined {
  const widest = (measure: (cell: string) => number): number[] =>
    lines[0]!.map((_, column) => GAP + Math.max(...lines.map((line) => measure(line[column] ?? ''))))
  const widths = widest(widthOf)
  const least = widest((cell) => Math.max(...cell.split(/\s/).map(widthOf)))
  const last = widths.length - 1
  let excess = widths.reduce((sum, width) => sum + width, 0) - (terminalColumns() ?? Infinity)
  if (excess <= 0) return undefined
  while (excess > 0) {
    const narrowable = [...widths.keys()].filter((column) => widths[column]! > least[column]!)
    if (narrowable.length === 0) return null
    const by = Math.min(excess, widths[last]! - least[last]!)
    if (by > 0) widths[last]! -= by
    else widths[narrowable.reduce((a, b) => (widths[b]! > widths[a]! ? b : a))]!--
    excess -= Math.max(by, 1)
  }
  return widths
}

/** Formats a row as lines: its first cell, then each other with its title, as many on a line as fit. */
function entry(titles: readonly string[], row: readonly string[]): string {
  const lines: string[] = []
  let used = Infinity
  for (const [column, cell] of row.entries()) {
    if (cell === '') continue
    const title = column === 0 ? '' : titles[column]!
    const part = title === '' ? cell : `${paint('dim', `${title}:`)} ${cell}`
    const width = GAP + widthOf(title === '' ? cell : `${title}: ${cell}`)
    if (used + width <= terminalColumns()!) {
      lines[lines.length - 1] += ' '.repeat(GAP) + part
      used += width
    } else {
      const indent = lines.length === 0 ? GAP : 3 * GAP
      lines.push(wrap(part, indent, indent + GAP))
      used = indent - GAP + width
    }
  }
  return lines.join('\n')
}

/** Formats a table of many narrow columns; on a terminal it follows in parts that fit, each with the first column. */
export function grid(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widest = (column: number): number =>
    GAP + Math.max(...[head, ...rows].map((row) => widthOf(row[column]!)))
  const parts: number[][] = [[]]
  let room = 0
  for (const column of head.keys()) {
    if (column === 0) continue
    if (room < widest(column)) {
      if (parts.at(-1)!.length > 0) parts.push([])
      room = (terminalColumns() ?? Infinity) - widest(0)
    }
    parts.at(-1)!.push(column)
    room -= widest(column)
  }
  return parts
    .map((part) =>
      table(
        pick(head, part),
        rows.map((row) => pick(row, part)),
      ),
    )
    .join('\n\n')
}

/** Formats name and content in two columns. */
export function properties(rows: readonly (readonly [name: string, content: string])[]): string {
  return table(['', ''], rows).replace(/^.*\n/, '')
}

function pick(row: readonly string[], columns: readonly number[]): string[] {
  return [row[0]!, ...columns.map((column) => row[column]!)]
}
