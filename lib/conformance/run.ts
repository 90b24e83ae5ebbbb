import type { Backend } from '../backend.js'
import { type Kvm, KvmError, openKvm } from '../kvm/index.js'
import { type Check, type CheckGroup, type CheckResult, Ruling } from './check.js'
import { checkGroups } from './checks/index.js'

export interface ConformanceOptions {
  /** Checks to run: those whose group or name holds this text, in any case. Default: all. */
  only?: string
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
  using kvm = openKvm(backend, { ordering: 'kernel' })
  return selectChecks(options).flatMap(({ title, checks }) =>
    checks.map((check) => ({ group: title, ...runCheck(kvm, check) })),
  )
}

function runCheck(kvm: Kvm, { experiment, ...check }: Check): Omit<CheckResult, 'group'> {
  try {
    return { ...check, verdict: 'passes', did: experiment(kvm) }
  } catch (error) {
    if (error instanceof Ruling) return { ...check, verdict: error.verdict, did: error.message }
    // What the experiment took for granted was refused, or no kernel is known to answer so. The other checks go on.
    return { ...check, verdict: 'fails', did: error instanceof KvmError ? error.message : String(error) }
  }
}
