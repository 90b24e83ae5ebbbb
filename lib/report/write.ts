import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Report } from './report.js'

/** The report as JSON text a person can read and `diff` can compare: one line for each register. */
export function formatReport(report: Report): string {
  return `${layOut(report, '')}\n`
}

/** Writes a file so that a reader, or a crash, sees the old content or the new one whole, and never a part. */
export function writeFileAtomically(file: string, content: string): void {
  const temporary = join(dirname(file), `.${basename(file)}.${process.pid}.tmp`)
  try {
    const descriptor = openSync(temporary, 'wx')
    try {
      writeSync(descriptor, content)
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
    renameSync(temporary, file)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
}

/** Objects and arrays go on several lines where they hold objects or arrays themselves, on one where they are flat. */
function layOut(value: unknown, indent: string): string {
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  const isFlat = Object.values(value).every((entry) => entry === null || typeof entry !== 'object')
  const flat = JSON.stringify(value, null, 1).replaceAll(/\n\s*/g, ' ')
  if (flat.length < 100 || (isFlat && !Array.isArray(value))) return flat
  const inner = `${indent}  `
  if (Array.isArray(value)) {
    return `[\n${value.map((entry) => inner + layOut(entry, inner)).join(',\n')}\n${indent}]`
  }
  const entries = Object.entries(value).map(
    ([key, entry]) => `${inner}${JSON.stringify(key)}: ${layOut(entry, inner)}`,
  )
  return `{\n${entries.join(',\n')}\n${indent}}`
}
