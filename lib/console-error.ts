/** A failure that the console of a machine may explain. */
export abstract class ConsoleError<Code extends string> extends Error {
  readonly code: Code
  /** The last lines that the console showed; empty if there was no machine. */
  readonly console: string

  constructor(code: Code, message: string, options: ErrorOptions & { console?: string } = {}) {
    super(message, options)
    this.code = code
    this.console = options.console ?? ''
  }
}
