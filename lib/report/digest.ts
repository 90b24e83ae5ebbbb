import { createHash } from 'node:crypto'
import type { Report } from './report.js'

/**
 * What equal hosts have in common, as canonical JSON text: a report without when, on which build and by what it was made, without the
 * census, which a probe makes only on request, and without how many CPUs are online: the numbers of CPUs of a kind and
 * `KVM_CAP_NR_VCPUS`. Its keys are in alphabetical order.
 *
 * It leaves out `format` and `version` as well, so that a class keeps its identity when a later version of the format records a host
 * like it in the same entries. A version that records more about a host gives it another class: equal hosts could differ in that.
 */
export function commonText(report: Report): string {
  const { format: _f, version: _v, probedAt: _when, host: _build, origin: _who, ...more } = report
  const { census: _onRequest, ...common } = more
  const { KVM_CAP_NR_VCPUS: _online, ...capabilities } = report.capabilities
  return canonicalJson({ ...common, capabilities, cpus: cpuKinds(report) })
}

/** JSON text that does not depend on the order of the keys of objects. */
export function canonicalJson(data: unknown): string {
  return JSON.stringify(data, (_key, value: unknown) => (isRecord(value) ? sorted(value) : value))
}

/**
 * The identity of a host class: the first 16 hexadecimal digits of the SHA-256 of what its reports have in common. Tables, documents,
 * the page, labels and metrics all use it.
 */
export function classOf(report: Report): string {
  return classOfText(commonText(report))
}

/** The identity of the class that has this in common. */
export function classOfText(common: string): string {
  return sha256(common).slice(0, CLASS_DIGITS)
}

/** 64 bits: two of a million classes have the same with a probability of 1 in 37 million. */
export const CLASS_DIGITS = 16

/** The SHA-256 of a host's behaviour according to its report, whole: see {@link commonText}. */
export function reportDigest(report: Report): string {
  return sha256(commonText(report))
}

export function sha256(text: string | Buffer): string {
  return createHash('sha256').update(text).digest('hex')
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
