/** The hypercall services and the PSCI version of a baseline. */
import { serviceBitmaps } from '../../hypercalls/index.js'
import { decodeRegister, hex, U64 } from '../../registers/index.js'
import { bitmapsOf, psciVersionsOf } from '../../report/registers.js'
import { type Candidate, grouped, unreconciledIn } from './candidate.js'
import type { BaselineBitmap, Unreconciled } from './format.js'

/**
 * Elects a service that KVM implements if every host can show it, and requires it if a host cannot hide it. A bit that only
 * advertises calls which userspace answers keeps the value of a fresh VM.
 */
export function settleServices(hosts: readonly Candidate[]): {
  bitmaps: BaselineBitmap[]
  conflicts: Unreconciled[]
} {
  const bitmaps: BaselineBitmap[] = []
  const conflicts: Unreconciled[] = []
  const ids = new Set(hosts.flatMap(({ report }) => bitmapsOf(report).map(({ id }) => id)))
  const known = Object.values(serviceBitmaps)
  for (const { register, services } of known) {
    const entries = new Map(
      hosts.map((host) => [host, bitmapsOf(host.report).find(({ id }) => BigInt(id) === register)]),
    )
    const entryOf = (host: Candidate) => entries.get(host)
    const mask = hosts.reduce(
      (common, host) => common & (entryOf(host)?.mask ?? U64),
      ids.has(hex(register)) ? U64 : 0n,
    )
    let gated = 0n
    let offered = mask
    for (const { bit, name, gated: isGated } of services) {
      if (!isGated) continue
      gated |= 1n << BigInt(bit)
      const answers = grouped(hosts, (host) => {
        const entry = entryOf(host)
        if (entry !== undefined) return isSet(entry.mask, bit) ? 'elective' : 'never'
        return host.report.traits.hypercalls.services.some((answered) => answered === name)
          ? 'always'
          : 'never'
      })
      const ways = new Set(answers.map(({ value }) => value))
      if (ways.has('never')) offered &= ~(1n << BigInt(bit))
      if (ways.has('always') && ways.has('never')) {
        conflicts.push({ ...unreconciledIn('service', register, [name]), found: answers })
      }
    }
    if (!ids.has(hex(register))) continue
    const resets = hosts.reduce((bits, host) => bits & (entryOf(host)?.reset ?? U64), U64)
    bitmaps.push({
      id: hex(register),
      name: decodeRegister(register).name,
      value: hex((offered & gated) | (mask & resets & ~gated)),
      mask: hex(mask),
      absentOn: hosts.filter((host) => entryOf(host) === undefined).map(({ name }) => name),
    })
  }
  return { bitmaps, conflicts }
}

function isSet(bits: bigint, bit: number): boolean {
  return ((bits >> BigInt(bit)) & 1n) === 1n
}

export function commonPsciVersion(hosts: readonly Candidate[]): bigint | null {
  const [first, ...others] = hosts.map(({ report }) => psciVersionsOf(report))
  return first!
    .filter((version) => others.every((versions) => versions.includes(version)))
    .reduce<bigint | null>((best, version) => (best === null || version > best ? version : best), null)
}
