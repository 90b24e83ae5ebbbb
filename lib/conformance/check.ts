/** Defines what a check is, and how it ends. */
import type { Kvm } from '../kvm/index.js'

/**
 * `promised`: a document or an in-tree selftest of the kernel says so. `observed`: every release so far does it, but no document
 * requires it.
 */
export type Mark = 'promised' | 'observed'

/**
 * `deviates`: the kernel differs from its own document, in a way known of releases. `not applicable`: this host lacks the subject
 * of the check.
 */
export type Verdict = 'passes' | 'fails' | 'deviates' | 'not applicable'

export interface Check {
  /** A sentence about behaviour; its subject is KVM or the name it begins with. */
  name: string
  /** What the source says, paraphrased. */
  promise: string
  /** Document and section (below `Documentation/virt/kvm/`), Arm's document, or `selftest` and its name (`tools/testing/selftests/kvm/arm64/`). */
  source: string
  mark: Mark
  /**
   * Makes the experiment on VMs of its own and returns what the kernel did. The text contains nothing that differs between runs. If
   * the check does not pass, it ends by `violated`, `deviates` or `notApplicable`.
   */
  experiment: (kvm: Kvm) => string
}

/** Checks about one subject, from one part of the contract. */
export interface CheckGroup {
  title: string
  checks: readonly Check[]
}

/** The result of a check. */
export interface CheckResult extends Omit<Check, 'experiment'> {
  /** Title of its group. */
  group: string
  verdict: Verdict
  /** What the kernel did; for `not applicable`, the reason. */
  did: string
  /** How long the check took. */
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

/** Ends a check: the kernel violates it. */
export function violated(did: string): never {
  throw new Ruling('fails', did)
}

/** Ends a check: the kernel differs from its document, in a way known of releases and observed just now. */
export function deviates(did: string): never {
  throw new Ruling('deviates', did)
}

/** Ends a check: this host lacks its subject. */
export function notApplicable(reason: string): never {
  throw new Ruling('not applicable', reason)
}
