import {
  closeSync,
  fchmodSync,
  fsyncSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'

/** A document as JSON text a person can read and `diff` can compare: one line for each register. */
export function formatDocument(document: object): string {
  return `${layOut(document, '')}\n`
}

/**
 * Writes a file so that a reader, or a crash, sees the old content or the new one whole, and never a part. A symbolic link
 * stays one: the file it leads to is replaced. What is no regular file (a terminal, a pipe, `/dev/null`) is written to.
 * @throws the error of `node:fs` for a file that cannot be written
 */
export function writeFileAtomically(file: string, content: string): void {
  const old: Stats | undefined = statSync(file, { throwIfNoEntry: false })
  if (old !== undefined && !old.isFile()) {
    writeFileSync(file, content)
    return
  }
  const target = old === undefined ? file : realpathSync(file)
  const temporary = join(dirname(target), `.${basename(target)}.${Math.random().toString(36).slice(2)}.tmp`)
  const descriptor = openSync(temporary, 'wx')
  try {
    try {
      if (old !== undefined) fchmodSync(descriptor, old.mode)
      writeFileSync(descriptor, content)
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
    renameSync(temporary, target)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
}

/** Lists, and what holds one, go on several lines where one would be long; all else goes on one. */
function layOut(value: unknown, indent: string): string {
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  const flat = JSON.stringify(value, null, 1).replaceAll(/\n\s*/g, ' ')
  if (flat.length < 100 || !holdsList(value)) return flat
  const inner = `${indent}  `
  if (Array.isArray(value)) {
    return `[\n${value.map((entry) => inner + layOut(entry, inner)).join(',\n')}\n${indent}]`
  }
  const entries = Object.entries(value)
    .filter(([, entry]) => entry !== undefined)
    .map(([key, entry]) => `${inner}${JSON.stringify(key)}: ${layOut(entry, inner)}`)
  return `{\n${entries.join(',\n')}\n${indent}}`
}

function holdsList(value: unknown): boolean {
  if (value === null || typeof value !== 'object') return false
  return Array.isArray(value) || Object.values(value).some(holdsList)
}
