/** What answered KVM's calls when a report was made: a file must not pass a simulation off as a machine. */
import * as v from 'valibot'
import type { Backend } from '../backend.js'
import { text } from '../documents/entries.js'

export const originSchema = v.variant('kind', [
  /** The KVM of a kernel. */
  v.strictObject({ kind: v.literal('kernel') }),
  /** A simulation of another report: the name of a built-in host, or what `uname -r` says in that report. */
  v.strictObject({ kind: v.literal('simulation'), of: text }),
  /**
   * No host: register values are those of a cpu-template-helper fingerprint, behaviour is that of another host, named by its `uname
   * -r`.
   */
  v.strictObject({ kind: v.literal('fingerprint'), like: text }),
  /** No host: derived from the report of another host. */
  v.strictObject({ kind: v.literal('derivation'), from: text }),
  /** Not recorded: the report is of version 1, or the state was written without it. */
  v.strictObject({ kind: v.literal('unknown') }),
])

export type Origin = v.InferOutput<typeof originSchema>

const phrases: { readonly [K in Origin['kind']]: (origin: Extract<Origin, { kind: K }>) => string } = {
  kernel: () => 'a kernel',
  simulation: ({ of }) => `a simulation of ${of}`,
  fingerprint: ({ like }) => `nobody: a fingerprint with the behaviour of ${like}`,
  derivation: ({ from }) => `nobody: derived from ${from}`,
  unknown: () => 'not recorded',
}

/** Describes what answered, as a phrase: `a kernel`, `a simulation of linux-6.12-max`. */
export function originText({ origin }: { readonly origin: Origin }): string {
  return (phrases[origin.kind] as (of: Origin) => string)(origin)
}

/** Returns what a document says of the backend whose answers it holds. */
export function answeredBy({ name, simulates, host: { release, build } }: Backend): {
  host: { release: string; build: string }
  origin: Origin
} {
  const origin: Origin =
    name === 'kernel' ? { kind: 'kernel' } : { kind: 'simulation', of: simulates ?? release }
  return { host: { release, build }, origin }
}
