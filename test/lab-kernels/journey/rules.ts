import { strict, type VmmRules } from '../../../lib/migration/vmm/rules.js'
import type { Baseline } from '../../../lib/fleet/baseline/format.js'

/** A VMM that knows its fleet: strict, but for registers that the baseline says some host lacks, which it leaves where they are. */
export function carrying(baseline: Baseline | null): VmmRules {
  const absent = new Set(
    baseline?.unreconciled.filter(({ kind }) => kind === 'absent').map(({ id }) => BigInt(id)),
  )
  return { ...strict, name: 'of the fleet', carries: (id) => !absent.has(id) }
}
