/** Which values a host lets userspace give the registers of a fresh VM, from what its report found out. */
import { implementationIds, isFeatureIdRegister, registerWidth } from '../../registers/index.js'
import { registersOf } from '../../report/registers.js'
import type { Configuration, Report } from '../../report/report.js'
import { isIgnored, type NibbleSets, reachableNibbles, within } from '../../report/write-rule.js'

export interface Possible {
  readonly id: bigint
  readonly name: string
  /** Of a fresh VM; null where it counts time. */
  readonly initial: bigint | null
  /** The values it can be brought to; null for a register that keeps whatever is written, and for those of the firmware without a mask. */
  readonly nibbles: NibbleSets | null
  /** Whether it tells the guest what it runs on. */
  readonly identifies: boolean
  /** Whether KVM drops what is written: the AArch32 registers of a host without AArch32, whose content means nothing. */
  readonly ignored: boolean
}

/** Whether KVM lets userspace write MIDR_EL1, REVIDR_EL1 and AIDR_EL1 of a VM that asks for it. */
export function hasWritableImplementationIds(report: Report): boolean {
  return (report.capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS?.[1] ?? 0) > 0
}

/**
 * Every register of a vCPU of a configuration, by id.
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
