import type { Backend } from '../backend.js'
import { type Kvm, KvmError, openKvm } from '../kvm/index.js'
import { steadyBackend } from '../probe/steady.js'
import { type Check, type CheckGroup, type CheckResult, Ruling } from './check.js'
import { checkGroups } from './checks/index.js'

export interface ConformanceOptions {
  /** Checks to run: those whose group or name holds this text, in any case. Default: all. */
  only?: string
  /** Called after each check. */
  progress?: (done: number, of: number) => void
}

/** The checks that `only` means, in their groups. */
export function selectChecks({ only = '' }: ConformanceOptions = {}): CheckGroup[] {
  const text = only.toLowerCase()
  return checkGroups
    .map(({ title, checks }) => ({
      title,
      checks: checks.filter(({ name }) => `${title}\n${name}`.toLowerCase().includes(text)),
    }))
    .filter(({ checks }) => checks.length > 0)
}

/**
 * Holds KVM's userspace contract on arm64 against a backend, check by check, each on VMs made for it.
 *
 * @throws KvmError as `openKvm`
 */
export function conformance(backend: Backend, options: ConformanceOptions = {}): CheckResult[] {
  // It is the kernel that is asked, not this library's own guard of the first run.
  using kvm = openKvm(steadyBackend(backend), { ordering: 'kernel' })
  const selected = selectChecks(options).flatMap(({ title, checks }) =>
    checks.map((check) => ({ group: title, check })),
  )
  const results: CheckResult[] = []
  for (const { group, check } of selected) {
    const { experiment, ...described } = check
    const start = performance.now()
    const found = outcomeOf(kvm, experiment)
    const seconds = (performance.now() - start) / 1000
    results.push({ group, ...described, ...found, seconds })
    options.progress?.(results.length, selected.length)
  }
  return results
}

function outcomeOf(kvm: Kvm, experiment: Check['experiment']): Pick<CheckResult, 'verdict' | 'did'> {
  try {
    return { verdict: 'passes', did: experiment(kvm) }
  } catch (error) {
    if (error instanceof Ruling) return { verdict: error.verdict, did: error.message }
    // The host refused what the experiment took for granted, or answered as no kernel is known to. The other checks go on.
    return { verdict: 'fails', did: error instanceof KvmError ? error.message : String(error) }
  }
}
