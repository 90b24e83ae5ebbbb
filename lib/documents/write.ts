import {
  closeSync,
  constants,
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
import { patiently } from './input.js'
import { printableJson } from './printable.js'

/** A document as JSON text that a person can read and `diff` can compare: one line for each register, nothing a terminal obeys. */
export function formatDocument(document: object): string {
  return `${printableJson(layOut(document, ''))}\n`
}

/**
 * Writes a file so that a reader, or a crash, sees the old content or the new one whole, and never a part. A symbolic link
 * stays one: the file it leads to is replaced. What is no regular file (a terminal, a pipe, `/dev/null`) is written to.
 * @throws the error of `node:fs` for a file that cannot be written
 */
export function writeFileAtomically(file: string, content: string): void {
  const draft = openDraft(file)
  try {
    draft.write(content)
    draft.publish()
  } catch (error) {
    draft.discard()
    throw error
  }
}

/** The coming content of a file, which keeps the old one until it is published. */
export interface Draft {
  write(text: string): void
  /** Puts what was written in the file's place. */
  publish(): void
  /** Leaves the file as it was. */
  discard(): void
}

/**
 * Opens a file to be written as {@link writeFileAtomically} does, piece by piece.
 * @throws the error of `node:fs` for a file that cannot be written
 */
export function openDraft(file: string): Draft {
  const old: Stats | undefined = statSync(file, { throwIfNoEntry: false })
  if (old !== undefined && !old.isFile()) return openDirectly(file)
  const target = old === undefined ? file : realpathSync(file)
  const temporary = join(dirname(target), `.${basename(target)}.${Math.random().toString(36).slice(2)}.tmp`)
  const descriptor = openSync(temporary, 'wx')
  return {
    // Unlike writeSync, it goes on where the system wrote only a part.
    write: (text) => writeFileSync(descriptor, text),
    publish: () => {
      if (old !== undefined) fchmodSync(descriptor, old.mode)
      fsyncSync(descriptor)
      renameSync(temporary, target)
      closeSync(descriptor)
    },
    discard: () => {
      rmSync(temporary, { force: true })
      closeSync(descriptor)
    },
  }
}

function openDirectly(file: string): Draft {
  // A FIFO that no process reads would block without end, so what opens first is a descriptor that does not.
  const first = patiently('ENXIO', () => openSync(file, constants.O_WRONLY | constants.O_NONBLOCK))
  const descriptor = openSync(file, 'w')
  closeSync(first)
  const close = () => closeSync(descriptor)
  return { write: (text) => writeFileSync(descriptor, text), publish: close, discard: close }
}

/** Lists, and what holds one, go on several lines where one would be long; all else, and a register's row, goes on one. */
function layOut(value: unknown, indent: string): string {
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  const flat = JSON.stringify(value, null, 1).replaceAll(/\n\s*/g, ' ')
  if (flat.length < 100 || !holdsList(value)) return flat
  const inner = `${indent}  `
  if (Array.isArray(value)) {
    const rows = value.map((entry) => {
      const row = JSON.stringify(entry, null, 1).replaceAll(/\n\s*/g, ' ')
      return inner + (row.length < 500 && isRow(entry) ? row : layOut(entry, inner))
    })
    return `[\n${rows.join(',\n')}\n${indent}]`
  }
  const entries = Object.entries(value)
    .filter(([, entry]) => entry !== undefined)
    .map(([key, entry]) => `${inner}${JSON.stringify(key)}: ${layOut(entry, inner)}`)
  return `{\n${entries.join(',\n')}\n${indent}}`
}

/** Whether it names something by its id, as a register's row does, and holds no list of such. */
function isRow(value: unknown): boolean {
  if (value === null || typeof value !== 'object' || !('id' in value)) return false
  return Object.values(value).every(
    (entry) => !Array.isArray(entry) || entry.every((of) => typeof of !== 'object'),
  )
}

function holdsList(value: unknown): boolean {
  if (value === null || typeof value !== 'object') return false
  return Array.isArray(value) || Object.values(value).some(holdsList)
}
