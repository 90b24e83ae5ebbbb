import { formatEntry, formatHead, type TraceEntry, type TraceHead } from './format.js'

/** Characters gathered before they are written. */
const CHUNK = 64 * 1024

/** Writes a trace as it comes, some of it at a time. */
export class TraceWriter {
  readonly #write: (text: string) => void
  #text: string

  /** @param write is given the trace's text, piece by piece */
  constructor(head: TraceHead, write: (text: string) => void) {
    this.#text = formatHead(head)
    this.#write = write
  }

  add(entry: TraceEntry): void {
    this.#text += formatEntry(entry)
    if (this.#text.length >= CHUNK) this.flush()
  }

  /** Writes what is gathered: the trace is whole up to the last call. */
  flush(): void {
    this.#write(this.#text)
    this.#text = ''
  }
}

/** A short trace as text. */
export function formatTrace(head: TraceHead, entries: readonly TraceEntry[]): string {
  return formatHead(head) + entries.map(formatEntry).join('')
}
