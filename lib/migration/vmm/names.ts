/** The rules of VMMs by name. */
import type { RuntimeText } from '../../literals.js'
import { cloudHypervisor, cloudHypervisor52, crosvm, firecracker, firecracker6 } from './others.js'
import { qemu10, qemu11 } from './qemu.js'
import { strict, type VmmRules } from './rules.js'

const rules = {
  strict,
  'qemu@11.1': qemu11,
  'qemu@10.0': qemu10,
  'firecracker@1.7': firecracker,
  'firecracker@1.6': firecracker6,
  'cloud-hypervisor@53': cloudHypervisor,
  'cloud-hypervisor@52': cloudHypervisor52,
  crosvm,
  // The newest versions known.
  qemu: qemu11,
  firecracker,
  'cloud-hypervisor': cloudHypervisor,
} as const satisfies Record<string, VmmRules>

/** A name {@link vmmRules} accepts. */
export type VmmName = keyof typeof rules

/** Names that {@link vmmRules} accepts; the name of a VMM without a version means its newest one. */
export function vmmNames(): VmmName[] {
  return Object.keys(rules) as VmmName[]
}

/**
 * Returns the rules of a VMM by its name.
 * @throws RangeError for a name that `vmmNames()` does not list
 */
export function vmmRules<Given extends string>(name: VmmName | RuntimeText<Given>): VmmRules {
  if (Object.hasOwn(rules, name)) return rules[name as VmmName]
  throw new RangeError(`unknown VMM ${JSON.stringify(name)}; expected one of ${vmmNames().join(', ')}`)
}
