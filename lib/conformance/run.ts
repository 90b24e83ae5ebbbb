import type { Backend } from '../backend.js'
import { type Kvm, KvmError, openKvm } from '../kvm/index.js'
import { checkBackend } from '../kvm/kvm.js'
import { steadyBackend } from '../probe/steady.js'
import { type Check, type CheckGroup, type CheckResult, Ruling } from './check.js'
import { checkGroups } from './checks/index.js'

export interface ConformanceOptions {
  /** Selects checks whose group or name contains this text, in any case. Default: all. */
  only?: string
  /** Called after each check. */
  progress?: (done: number, of: number) => void
}

/** Returns the checks that `only` selects, in their groups. */
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
 * Checks a backend against KVM's userspace contract on arm64, each check on VMs made for it.
 *
 * @throws KvmError as `openKvm`
 */
export function conformance(backend: Backend, options: ConformanceOptions = {}): CheckResult[] {
  checkBackend(backend)
  // The kernel itself must answer, so this library's own guard of the first run is off.
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
    // The host refused something the experiment assumes, or gave an answer that no kernel is known to give. The other checks
    // continue.
    return { verdict: 'fails', did: error instanceof KvmError ? error.message : String(error) }
  }
}
