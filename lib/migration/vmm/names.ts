/** The rules by the names of VMMs. */
import { cloudHypervisor, crosvm, firecracker } from './others.js'
import { qemu10, qemu11 } from './qemu.js'
import { strict, type VmmRules } from './rules.js'

const rules: readonly VmmRules[] = [strict, qemu11, qemu10, firecracker, cloudHypervisor, crosvm]

/** Names that stand for the newest version known. */
const newest: ReadonlyMap<string, VmmRules> = new Map([['qemu', qemu11]])

/** Names `vmmRules` takes. */
export function vmmNames(): string[] {
  return [...rules.map(({ name }) => name), ...newest.keys()]
}

/**
 * The rules of a VMM by its name.
 * @throws RangeError for a name that is none of `vmmNames()`
 */
export function vmmRules(name: string): VmmRules {
  const found = newest.get(name) ?? rules.find((candidate) => candidate.name === name)
  if (found !== undefined) return found
  throw new RangeError(`no VMM called ${JSON.stringify(name)} is known; there are: ${vmmNames().join(', ')}`)
}
