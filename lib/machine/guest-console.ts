import { StringDecoder } from 'node:string_decoder'
import { checkMilliseconds, checkOptions, invalidType } from '../arguments.js'
import { MachineError } from './errors.js'

export interface ExpectOptions {
  /** Milliseconds to wait; 0 means no limit. Default: 60000. */
  timeout?: number
}

interface Waiter {
  readonly pattern: RegExp
  readonly resolve: (match: RegExpExecArray) => void
  readonly reject: (error: Error) => void
  readonly timer: NodeJS.Timeout | undefined
}

/** A guest can print without end; of what nobody expected, this many characters stay. */
const KEPT = 1 << 20

/**
 * The other end of one of the guest's consoles.
 *
 * @example
 * await machine.console.expect(/# $/)
 * machine.console.write('nproc\n')
 * const [, count] = await machine.console.expect(/^(\d+)$/m)
 */
export class GuestConsole {
  readonly #type: (bytes: Uint8Array) => void
  readonly #hold: (isPaused: boolean) => void
  #isPaused = false
  readonly #decoder = new StringDecoder('utf8')
  readonly #listeners = new Set<(bytes: Uint8Array) => void>()
  #transcript = ''
  /** Output behind the last match. */
  #unread = ''
  #waiter: Waiter | undefined
  #isSearchDue = false
  #end: string | undefined

  /**
   * @param type receives what is written, for the guest
   * @param hold is called when the guest has to wait with its output, and when it need not any more
   * @internal
   */
  constructor(type: (bytes: Uint8Array) => void, hold: (isPaused: boolean) => void = () => undefined) {
    this.#type = type
    this.#hold = hold
  }

  /**
   * Gives the guest input, as if it were typed: a line ends with `\n`. Input waits until the guest reads it; a Linux that opens the
   * device for the first time may drop what was there before, so expect a prompt first.
   * @throws TypeError for anything but a string or a `Uint8Array`
   */
  write(input: string | Uint8Array): void {
    if (typeof input === 'string') this.#type(Buffer.from(input))
    else if (input instanceof Uint8Array) this.#type(input.slice())
    else throw invalidType('input', 'a string or a Uint8Array', input)
  }

  /**
   * Waits until the output since the last match contains the pattern, and returns the match; what comes behind it is left for the
   * next call. One call at a time.
   * @throws MachineError `ERR_MACHINE_TIMEOUT`, `ERR_MACHINE_ENDED`; the promise rejects
   * @throws TypeError for another type, or while another call waits
   */
  async expect(pattern: RegExp | string, options: ExpectOptions = {}): Promise<RegExpExecArray> {
    const expression = expressionOf(pattern)
    checkOptions(options, 'options', ['timeout'])
    const { timeout = 60_000 } = options
    checkMilliseconds(timeout, 'timeout')
    if (this.#waiter !== undefined)
      throw new TypeError('expect() is already waiting: await it before the next call')
    return await new Promise((resolve, reject) => {
      const expired = () => {
        const message = `the guest did not print ${String(pattern)} within ${timeout} ms`
        this.#settle()?.reject(this.#error('ERR_MACHINE_TIMEOUT', message))
      }
      const timer = timeout === 0 ? undefined : setTimeout(expired, timeout)
      this.#waiter = { pattern: expression, resolve, reject, timer }
      this.#search()
    })
  }

  /** The last output, at most a million characters. */
  get transcript(): string {
    return this.#transcript
  }

  /**
   * Calls a function with all output from now on, as it comes.
   * @returns a function that ends this
   */
  listen(listener: (bytes: Uint8Array) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /**
   * Makes the guest wait with its output until `resume`: its device reports that it cannot send. Linux waits where programs print;
   * its own log then takes 10 ms for each character on a serial port. A little can still come; beyond 64 KiB it is lost.
   */
  pause(): void {
    if (!this.#isPaused) this.#hold((this.#isPaused = true))
  }

  /** Ends a `pause`. */
  resume(): void {
    if (this.#isPaused) this.#hold((this.#isPaused = false))
  }

  /** Whether the guest has to wait with its output. */
  get isPaused(): boolean {
    return this.#isPaused
  }

  /**
   * The guest has printed something.
   * @internal
   */
  print(bytes: Uint8Array): void {
    const text = this.#decoder.write(Buffer.from(bytes))
    this.#transcript = kept(this.#transcript + text)
    this.#unread = kept(this.#unread + text)
    for (const listener of this.#listeners) listener(bytes)
    // A serial port prints one byte at a time.
    if (this.#waiter === undefined || this.#isSearchDue) return
    this.#isSearchDue = true
    setImmediate(() => {
      this.#isSearchDue = false
      this.#search()
    })
  }

  /**
   * Nothing will be printed any more.
   * @internal
   */
  end(reason: string): void {
    this.#end ??= reason
    this.#search()
  }

  #search(): void {
    const waiter = this.#waiter
    if (waiter === undefined) return
    const match = waiter.pattern.exec(this.#unread)
    if (match !== null) {
      this.#unread = this.#unread.slice(match.index + match[0].length)
      this.#settle()?.resolve(match)
    } else if (this.#end !== undefined) {
      const message = `the machine ended (${this.#end}) before it printed ${String(waiter.pattern)}`
      this.#settle()?.reject(this.#error('ERR_MACHINE_ENDED', message))
    }
  }

  #settle(): Waiter | undefined {
    const waiter = this.#waiter
    clearTimeout(waiter?.timer)
    this.#waiter = undefined
    return waiter
  }

  #error(code: 'ERR_MACHINE_TIMEOUT' | 'ERR_MACHINE_ENDED', message: string): MachineError {
    const lines = this.#transcript.replaceAll('\r', '').trimEnd().split('\n')
    return new MachineError(code, message, { console: lines.slice(-20).join('\n') })
  }
}

function kept(text: string): string {
  return text.length > KEPT ? text.slice(-KEPT / 2) : text
}

/** Without the flags that make a search begin where the last one ended. */
function expressionOf(pattern: unknown): RegExp {
  if (pattern instanceof RegExp) return new RegExp(pattern.source, pattern.flags.replaceAll(/[gy]/g, ''))
  if (typeof pattern === 'string') return new RegExp(pattern.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, '\\$&'))
  throw invalidType('pattern', 'a RegExp or a string', pattern)
}
