import { accessSync, constants, realpathSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { styleText } from 'node:util'
import { writeFileAtomically } from '../documents/write.js'
import { CommandError, exitStatus } from './exit.js'

type Style = Parameters<typeof styleText>[0]

/** Styled on a terminal that has colours, unless `NO_COLOR` is set; plain everywhere else. */
export function paint(style: Style, text: string): string {
  // Asked of the stream, which knows NO_COLOR, NODE_DISABLE_COLORS, FORCE_COLOR and TERM=dumb.
  return process.stdout.isTTY && process.stdout.hasColors()
    ? styleText(style, text, { validateStream: false })
    : text
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2))
}

/** A line for the person at the terminal, beside whatever the output is used for. */
export function note(text: string): void {
  process.stderr.write(`kvm-arm64: ${text}\n`)
}

/** Runs `work` under a line that says so, on a terminal only: it would be noise in a log. */
export function withProgress<T>(text: string, work: () => T): T {
  if (!process.stderr.isTTY) return work()
  process.stderr.write(`${text} …`)
  try {
    return work()
  } finally {
    process.stderr.write('\r\u001b[K')
  }
}

/**
 * Refuses a file that could not be written, before there is work to lose. What the disk has room for is known only when it is written.
 * @throws CommandError as `writeOutput`
 */
export function checkOutput(file: string | undefined): void {
  if (file === undefined) return
  try {
    const old = statSync(file, { throwIfNoEntry: false })
    if (old?.isDirectory()) throw Object.assign(new Error(), { code: 'EISDIR' })
    if (old === undefined || old.isFile()) {
      // It is replaced, so the directory is what is written; the dot makes sure that it is one.
      const directory = dirname(old === undefined ? file : realpathSync(file))
      accessSync(`${directory}/.`, constants.W_OK | constants.X_OK)
    } else accessSync(file, constants.W_OK)
  } catch (error) {
    throw cannotWrite(file, error)
  }
}

/**
 * Writes a file whole or not at all, and says so; standard output where none is named.
 * @throws CommandError where it cannot be written
 */
export function writeOutput(file: string | undefined, text: string): void {
  if (file === undefined) {
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

export function cannotWrite(file: string, error: unknown): CommandError {
  const { code } = error as NodeJS.ErrnoException
  return new CommandError(`${file}: cannot be written (${code})`, exitStatus.usage)
}
