/** Returns which values a host lets userspace write to the registers of a fresh VM, according to its report. */
import { implementationIds, isFeatureIdRegister, registerWidth } from '../../registers/index.js'
import { registersOf } from '../../report/registers.js'
import type { Configuration, Report } from '../../report/report.js'
import { isIgnored, type NibbleSets, reachableNibbles, within } from '../../report/write-rule.js'

export interface Possible {
  readonly id: bigint
  readonly name: string
  /** The value in a fresh VM; null if it counts time. */
  readonly initial: bigint | null
  /**
   * The values userspace can set; null for a register that keeps every value written, and for firmware registers without a mask.
   */
  readonly nibbles: NibbleSets | null
  /** Whether the register shows the guest what it runs on. */
  readonly identifies: boolean
  /** Whether KVM drops writes: true for the AArch32 registers of a host without AArch32, whose content means nothing. */
  readonly ignored: boolean
}

/** Whether KVM lets userspace write MIDR_EL1, REVIDR_EL1 and AIDR_EL1 of a VM that enables the capability for it. */
export function hasWritableImplementationIds(report: Report): boolean {
  return (report.capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS?.[1] ?? 0) > 0
}

/**
 * Returns every register of a vCPU with a configuration, by id.
 * @param options.withImplementationIds whether `KVM_CAP_ARM_WRITABLE_IMP_ID_REGS` is enabled on the VM
 */
export function possibleValues(
  report: Report,
  configuration: Configuration | null,
  { withImplementationIds }: { withImplementationIds: boolean },
): Map<bigint, Possible> {
  const masks = new Map(report.registers.map(({ id, mask }) => [id, BigInt(mask ?? 0)]))
  const entries = registersOf(report, configuration).map((register): [bigint, Possible] => {
    const { name, value, write } = register
    const id = BigInt(register.id)
    const initial = value === null ? null : BigInt(value)
    const isImplementationId = implementationIds.includes(id)
    const isId = isFeatureIdRegister(id)
    const nibbles =
      initial === null || registerWidth(id) > 64
        ? null
        : isImplementationId && withImplementationIds
          ? within(initial, masks.get(register.id) ?? 0n)
          : reachableNibbles(write, initial)
    const identifies = isId || isImplementationId
    return [id, { id, name, initial, nibbles, identifies, ignored: isId && isIgnored(write) }]
  })
  return new Map(entries)
}
