import { accessSync, constants, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { styleText } from 'node:util'
import { makeDirectories } from '../documents/directory.js'
import { printable, printableJson, printableLines } from '../documents/printable.js'
import { FormatError } from '../documents/format-error.js'
import { finalName, openDraft, writeFileAtomically } from '../documents/write.js'
import { CommandError, exitStatus, messageOf, statusOf } from './exit.js'

type Style = Parameters<typeof styleText>[0]

/** Styles text on a terminal that has colours, and whenever `FORCE_COLOR` requests it. Shows text from outside escaped. */
export function paint(style: Style, text: string): string {
  const plain = printableLines(text)
  return hasColours() ? styleText(style, plain, { validateStream: false }) : plain
}

function hasColours(): boolean {
  const force = process.env.FORCE_COLOR
  // As Node and chalk read it: it takes precedence over NO_COLOR.
  if (force !== undefined) return ['', '1', '2', '3', 'true'].includes(force)
  // The stream honours NO_COLOR, NODE_DISABLE_COLORS and TERM=dumb.
  return process.stdout.isTTY && process.stdout.hasColors()
}

/** An escape sequence of `paint`. */
const style = /(\p{Cc}\[\d+m)/u

/**
 * Prints text. Escapes everything except the sequences of `paint`; since text from outside could contain a colour as well, it goes
 * through `printable` wherever a sentence or a cell of a `table` includes it.
 */
export function print(text: string): void {
  const safe = hasColours()
    ? text.split(style).map((part, index) => (index % 2 === 0 ? printableLines(part) : part))
    : [printableLines(text)]
  process.stdout.write(`${safe.join('')}\n`)
}

export function printJson(value: unknown): void {
  process.stdout.write(`${printableJson(JSON.stringify(value, null, 2))}\n`)
}

/** Prints a line for the person at the terminal, whatever the output is used for. */
export function note(text: string): void {
  clearProgress()
  process.stderr.write(`kvm-arm64: ${printableLines(text)}\n`)
}

/** Prints what ended the command, and sets the exit status. `hasSimulate` as for `messageOf`. */
export function reportError(error: unknown, hasSimulate = true): void {
  const stack = error instanceof Error ? error.stack : undefined
  note(process.env.KVM_ARM64_DEBUG && stack !== undefined ? stack : messageOf(error, hasSimulate))
  process.exitCode = statusOf(error)
}

/** Reports the progress of work. */
export type Step = (done: number, of: number) => void

/** Milliseconds between two progress lines. */
const REFRESH = 100

/** Runs `work` while a line names it and counts its steps; only on a terminal, since it would be noise in a log. */
export function withProgress<T>(text: string, work: (step: Step) => T): T {
  try {
    return work(progressLine(text))
  } finally {
    clearProgress()
  }
}

/** As {@link withProgress}, for asynchronous work. */
export async function withProgressOf<T>(text: string, work: (step: Step) => Promise<T>): Promise<T> {
  try {
    return await work(progressLine(text))
  } finally {
    clearProgress()
  }
}

function progressLine(text: string): Step {
  if (!process.stderr.isTTY) return () => undefined
  const line = (rest: string) => {
    clearProgress()
    // A wrapped line could not be cleared.
    const room = (process.stderr.columns || 80) - rest.length - 1
    process.stderr.write(`${printable(text).slice(0, Math.max(0, room))}${rest}`)
  }
  line(' …')
  let last = performance.now()
  return (done, of) => {
    if (performance.now() - last < REFRESH) return
    last = performance.now()
    line(` … ${done} of ${of}`)
  }
}

function clearProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K')
}

/**
 * Refuses a file that cannot be written, before there is work to lose. Only the write itself shows whether the disk has room.
 * @throws CommandError as `writeOutput`
 */
export function checkOutput(file: string | undefined): void {
  if (file === undefined || isStandardOutput(file)) return
  try {
    const old = statSync(file, { throwIfNoEntry: false })
    if (old?.isDirectory()) throw Object.assign(new Error(), { code: 'EISDIR' })
    if (old === undefined || old.isFile()) {
      // The file is replaced, so its directory must be writable; the dot makes sure that it is a directory.
      const directory = dirname(finalName(file))
      accessSync(`${directory}/.`, constants.W_OK | constants.X_OK)
    } else accessSync(file, constants.W_OK)
  } catch (error) {
    throw cannotWrite(file, error)
  }
}

/**
 * Makes a directory for files, or checks that one can be written to, before there is work to lose.
 * @throws CommandError as `writeOutput`
 */
export function makeDirectory(directory: string): void {
  try {
    makeDirectories(directory)
    accessSync(`${directory}/.`, constants.W_OK | constants.X_OK)
  } catch (error) {
    throw cannotWrite(directory, error)
  }
}

/** Returns whether the FILE of an option is `-`. A file of this name is `./-`. */
export function isStandardOutput(file: string | undefined): boolean {
  return file === '-'
}

/**
 * Refuses to print two documents one after the other.
 * @throws CommandError
 */
export function refuseTwoDocuments(
  option: string,
  file: string | undefined,
  json: boolean | undefined,
): void {
  if (!json || !isStandardOutput(file)) return
  throw new CommandError(
    `${option} - and --json both print to standard output: give one of them`,
    exitStatus.usage,
  )
}

/**
 * Writes a file whole or not at all, and says so; writes to standard output if the name is absent or `-`.
 * @throws CommandError if it cannot be written
 */
export function writeOutput(file: string | undefined, text: string): void {
  if (file === undefined || isStandardOutput(file)) {
    process.stdout.write(text)
    return
  }
  try {
    writeFileAtomically(file, text)
  } catch (error) {
    throw cannotWrite(file, error)
  }
  note(`wrote ${file}`)
}

/**
 * Writes lines as they come, to a file whole or not at all; to standard output if the name is absent or `-`.
 * @throws CommandError if it cannot be written
 */
export function writeLines(file: string | undefined, lines: Iterable<string>): void {
  if (file === undefined || isStandardOutput(file)) {
    for (const text of chunks(lines)) process.stdout.write(text)
    return
  }
  try {
    const draft = openDraft(file)
    try {
      for (const text of chunks(lines)) draft.write(text)
      draft.publish()
    } catch (error) {
      draft.discard()
      throw error
    }
  } catch (error) {
    if (error instanceof FormatError) throw error
    throw cannotWrite(file, error)
  }
  note(`wrote ${file}`)
}

/** A write of each short line would take most of the time. */
function* chunks(lines: Iterable<string>): Generator<string> {
  let text = ''
  for (const line of lines) {
    text += line
    if (text.length < 1024 * 1024) continue
    yield text
    text = ''
  }
  if (text !== '') yield text
}

export function cannotWrite(file: string, error: unknown): CommandError {
  const { code } = error as NodeJS.ErrnoException
  return new CommandError(`${file}: cannot be written (${code})`, exitStatus.usage)
}
