/** Text for readers: numbers of things, and lines that fit. */
import { stripVTControlCharacters } from 'node:util'

/** `1 host`, `2 hosts` */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}

/** Columns of the terminal; undefined if the output is not a terminal. */
export function terminalColumns(): number | undefined {
  return (process.stdout.isTTY && process.stdout.columns) || undefined
}

/** Wraps on a terminal; elsewhere a line stays one, for grep. */
export function wrapOnTerminal(text: string, indent: number, hanging: number): string {
  return terminalColumns() === undefined ? ' '.repeat(indent) + text : wrap(text, indent, hanging)
}

/**
 * Breaks text at spaces into lines that fit the terminal, or 80 columns.
 * @param indent spaces before the first line
 * @param hanging spaces before the other lines
 */
export function wrap(text: string, indent: number, hanging = indent): string {
  const width = terminalColumns() ?? 80
  const lines: string[] = []
  let line = ' '.repeat(indent)
  let isEmpty = true
  for (const word of text.split(' ')) {
    const length = stripVTControlCharacters(line).length + 1 + stripVTControlCharacters(word).length
    if (!isEmpty && length > width) {
      lines.push(line)
      line = ' '.repeat(hanging)
      isEmpty = true
    }
    line += isEmpty ? word : ` ${word}`
    isEmpty = false
  }
  return [...lines, line].join('\n')
}
