/** The rules by the names of VMMs. */
import { cloudHypervisor, crosvm, firecracker } from './others.js'
import { qemu10, qemu11 } from './qemu.js'
import { strict, type VmmRules } from './rules.js'

const rules = {
  strict,
  'qemu@11.1': qemu11,
  'qemu@10.0': qemu10,
  firecracker,
  'cloud-hypervisor': cloudHypervisor,
  crosvm,
  /** The newest version known. */
  qemu: qemu11,
} as const satisfies Record<string, VmmRules>

/** A name {@link vmmRules} accepts. */
export type VmmName = keyof typeof rules

/** Names {@link vmmRules} accepts; a VMM without a version is its newest one. */
export function vmmNames(): VmmName[] {
  return Object.keys(rules) as VmmName[]
}

/** Whether text known only at run time is a name {@link vmmRules} accepts. */
export function isVmmName(text: string): text is VmmName {
  return Object.hasOwn(rules, text)
}

/**
 * The rules of a VMM by its name.
 * @throws RangeError for a name that is none of `vmmNames()`
 */
export function vmmRules(name: VmmName): VmmRules {
  if (isVmmName(name)) return rules[name]
  throw new RangeError(`unknown VMM ${JSON.stringify(name)}; expected one of ${vmmNames().join(', ')}`)
}
