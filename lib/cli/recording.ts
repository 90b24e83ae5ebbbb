import { type Draft, openDraft } from '../documents/write.js'
import { type TraceEntry, TraceWriter } from '../trace/index.js'
import { cannotWrite, isStandardOutput } from './output.js'

/** A trace being written to a file, which keeps its old content until the recording is published; or to standard output. */
export class Recording {
  readonly #file: string
  readonly #draft: Draft
  readonly #writer: TraceWriter
  #failure: unknown
  #isOver = false

  /** @throws CommandError if the file cannot be written */
  constructor(host: string, file: string | undefined) {
    this.#file = file ?? 'standard output'
    this.#draft = this.#try(() =>
      file === undefined || isStandardOutput(file) ? standardOutput : openDraft(file),
    )
    this.#writer = new TraceWriter({ host }, (text) => this.#draft.write(text))
  }

  /** @throws CommandError if the file cannot be written */
  add(entry: TraceEntry): void {
    // A script may have caught the first failure and continued.
    if (this.#failure === undefined && !this.#isOver) this.#try(() => this.#writer.add(entry))
  }

  /**
   * Publishes the recording; further calls do nothing.
   * @throws CommandError if this write or an earlier one failed: the file is then unchanged
   */
  publish(): void {
    if (this.#isOver) return
    this.#isOver = true
    try {
      if (this.#failure !== undefined) throw this.#failure
      this.#try(() => {
        this.#writer.flush()
        this.#draft.publish()
      })
    } catch (error) {
      this.#draft.discard()
      throw error
    }
  }

  /** Leaves the file unchanged. */
  discard(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#draft.discard()
  }

  #try<T>(work: () => T): T {
    try {
      return work()
    } catch (error) {
      throw (this.#failure = cannotWrite(this.#file, error))
    }
  }
}

const standardOutput: Draft = {
  write: (text) => void process.stdout.write(text),
  publish: () => undefined,
  discard: () => undefined,
}
