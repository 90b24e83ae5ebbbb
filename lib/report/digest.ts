import { createHash } from 'node:crypto'
import type { Report } from './report.js'

/**
 * The SHA-256 of a host's behaviour according to its report. It ignores when, on which build and by what the report was made, the
 * numbers of CPUs of a kind, and the order of its entries.
 */
export function reportDigest(report: Report): string {
  const { probedAt: _when, host: _build, origin: _who, ...common } = report
  const behaviour = { ...common, cpus: cpuKinds(report) }
  return createHash('sha256')
    .update(JSON.stringify(behaviour, (_key, value: unknown) => (isRecord(value) ? sorted(value) : value)))
    .digest('hex')
}

/** Returns the kinds of CPU a report knows, and the one probed, without the numbers of the CPUs. */
export function cpuKinds({ cpus }: Report): object | undefined {
  return cpus && { probed: cpus.probed, kinds: cpus.kinds.map(({ cpus: _numbers, ...kind }) => kind) }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value)
}

function sorted(record: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).toSorted(([a], [b]) => (a < b ? -1 : 1)))
}
