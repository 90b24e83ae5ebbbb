import { printable } from './printable.js'

/**
 * Thrown for a file that does not have the expected content: the message names the file and, if a single entry is at fault, the
 * entry.
 */
export class FormatError extends Error {
  override readonly name = 'FormatError'
  readonly code = 'ERR_KVM_FORMAT'
  /** The file, or another source of the text. */
  readonly source: string
  /** The entry at fault as a JSON path, `$.registers[3].value`; `$` for the whole. */
  readonly path: string

  constructor(source: string, path: string, problem: string) {
    super(printable(shortened(`${source}: ${path === '$' ? '' : `${path}: `}${problem}`)))
    this.source = source
    this.path = path
  }
}

/** An entry can be of any length; a message must stay readable. */
function shortened(message: string): string {
  return message.length > 1000 ? `${message.slice(0, 1000)}…` : message
}

/** Makes the error for a file that `node:fs` cannot read. */
export function unreadable(file: string, error: unknown): FormatError {
  return new FormatError(
    file,
    '$',
    `cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`,
  )
}
