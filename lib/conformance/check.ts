/** What a check is, and how it ends. */
import type { Kvm } from '../kvm/index.js'

/** `promised`: a document or an in-tree selftest of the kernel says so. `observed`: every release so far does it, and nothing says it must. */
export type Mark = 'promised' | 'observed'

/**
 * `deviates`: the kernel does otherwise than its own document, as is known of releases. `not applicable`: this host has not what the
 * check is about.
 */
export type Verdict = 'passes' | 'fails' | 'deviates' | 'not applicable'

export interface Check {
  /** A sentence of behaviour whose subject is KVM or what it begins with. */
  name: string
  /** What the source says, in words of ours. */
  promise: string
  /** Document and section (below `Documentation/virt/kvm/`), Arm's document, or `selftest` and its name (`tools/testing/selftests/kvm/arm64/`). */
  source: string
  mark: Mark
  /**
   * Tries it on VMs of its own and tells what the kernel did. Nothing that differs from run to run belongs in the text. Ends by `violated`,
   * `deviates` or `notApplicable` where it does not pass.
   */
  experiment: (kvm: Kvm) => string
}

/** Checks about one thing, from one part of the contract. */
export interface CheckGroup {
  title: string
  checks: readonly Check[]
}

/** What came of a check. */
export interface CheckResult extends Omit<Check, 'experiment'> {
  /** Title of its group. */
  group: string
  verdict: Verdict
  /** What the kernel did; for `not applicable`, why. */
  did: string
  /** How long it took. */
  seconds: number
}

/** Ends an experiment. */
export class Ruling extends Error {
  override readonly name = 'Ruling'
  readonly verdict: Exclude<Verdict, 'passes'>

  constructor(verdict: Exclude<Verdict, 'passes'>, did: string) {
    super(did)
    this.verdict = verdict
  }
}

/** The kernel broke what the check says. */
export function violated(did: string): never {
  throw new Ruling('fails', did)
}

/** The kernel does otherwise than its document, in a way releases are known for and that was seen just now. */
export function deviates(did: string): never {
  throw new Ruling('deviates', did)
}

/** This host has not what the check is about. */
export function notApplicable(reason: string): never {
  throw new Ruling('not applicable', reason)
}
