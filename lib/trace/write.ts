import { formatEntry, formatHead, type TraceEntry, type TraceHead } from './format.js'

/** Characters gathered before they are written. */
const CHUNK = 64 * 1024

/** Writes a trace as its calls come, buffering some of it. */
export class TraceWriter {
  readonly #write: (text: string) => void
  #text: string

  /** @param write receives the trace's text, piece by piece */
  constructor(head: TraceHead, write: (text: string) => void) {
    this.#text = formatHead(head)
    this.#write = write
  }

  add(entry: TraceEntry): void {
    this.#text += formatEntry(entry)
    if (this.#text.length >= CHUNK) this.flush()
  }

  /** Writes what is buffered: the trace is then complete up to the last call. */
  flush(): void {
    this.#write(this.#text)
    this.#text = ''
  }
}

/** Returns a short trace as text. */
export function formatTrace(head: TraceHead, entries: readonly TraceEntry[]): string {
  return formatHead(head) + entries.map(formatEntry).join('')
}
