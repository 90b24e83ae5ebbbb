import {
  closeSync,
  constants,
  fchmodSync,
  fsyncSync,
  lstatSync,
  openSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { patiently } from './input.js'
import { printableJson } from './printable.js'

/**
 * Formats a document as JSON text that a person can read and `diff` can compare: one line for each register, and no characters that
 * a terminal interprets.
 */
export function formatDocument(document: object): string {
  return `${printableJson(layOut(document, ''))}\n`
}

/**
 * Writes a file atomically: after a crash too, a reader sees either the old content or the new one, never a part. A symbolic link
 * stays a link: the file it points to is replaced. Anything but a regular file (a terminal, a pipe, `/dev/null`) is written to
 * directly.
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

/** The new content of a file; the file keeps the old one until the new one is published. */
export interface Draft {
  write(content: string | Uint8Array): void
  /** Replaces the file with what was written. */
  publish(): void
  /** Leaves the file unchanged. */
  discard(): void
}

/**
 * Opens a file for writing as {@link writeFileAtomically} does, piece by piece.
 * @throws the error of `node:fs` for a file that cannot be written
 */
export function openDraft(file: string): Draft {
  const old: Stats | undefined = statSync(file, { throwIfNoEntry: false })
  if (old !== undefined && !old.isFile()) return openDirectly(file)
  const target = finalName(file)
  // Without the name of the file, which may be as long as names can be.
  const temporary = join(dirname(target), `.kvm-arm64-${Math.random().toString(36).slice(2)}.tmp`)
  const descriptor = openSync(temporary, 'wx')
  return {
    // Unlike writeSync, it continues if the system wrote only a part.
    write: (content) => writeFileSync(descriptor, content),
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

/**
 * Returns the file to which symbolic links lead, which need not be there yet.
 * @throws the error of `node:fs`
 */
export function finalName(file: string): string {
  if (lstatSync(file, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return file
  return finalName(resolve(realpathSync(dirname(file)), readlinkSync(file)))
}

function openDirectly(file: string): Draft {
  // Opening a FIFO that no process reads would block without end, so the first descriptor is non-blocking.
  const first = patiently('ENXIO', () => openSync(file, constants.O_WRONLY | constants.O_NONBLOCK))
  const descriptor = openSync(file, 'w')
  closeSync(first)
  const close = () => closeSync(descriptor)
  return { write: (content) => writeFileSync(descriptor, content), publish: close, discard: close }
}

/**
 * Puts lists, and entries that hold one, on several lines if one would be long; everything else, including a register's row, on one
 * line.
 */
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

/** Returns whether a value identifies something by its id, as a register's row does, and holds no list of objects. */
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
