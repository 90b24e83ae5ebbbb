/** Which values a host lets userspace give the registers of a fresh VM, from what its report found out. */
import { implementationIds, isFeatureIdRegister, registerWidth } from '../../registers/index.js'
import { registersOf } from '../../report/registers.js'
import type { Configuration, Report, ReportedRegister } from '../../report/report.js'

/** Sixteen sets of a nibble's values, from bits 3:0 upwards; bit n of each stands for n. */
export type Nibbles = readonly number[]

export interface Possible {
  readonly id: bigint
  readonly name: string
  /** Of a fresh VM; null where it counts time. */
  readonly initial: bigint | null
  /** The values it can be brought to; null for a register that keeps whatever is written. */
  readonly nibbles: Nibbles | null
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
  const accepts = new Map(
    [...report.accepts, ...(configuration?.accepts ?? [])].map((entry) => [entry.id, entry]),
  )
  const masks = new Map(report.writableMasks?.map(({ id, mask }) => [id, BigInt(mask)]))
  const entries = registersOf(report, configuration).map((register): [bigint, Possible] => {
    const id = BigInt(register.id)
    const initial = register.value === null ? null : BigInt(register.value)
    const isImplementationId = implementationIds.includes(id)
    const isId = isFeatureIdRegister(id)
    const nibbles = isId
      ? identificationNibbles(initial!, accepts.get(register.id))
      : isImplementationId && withImplementationIds
        ? within(initial!, masks.get(register.id) ?? 0n)
        : ordinaryNibbles(register, initial)
    // What KVM takes whole in an identification register it drops.
    const ignored = isId && (accepts.get(register.id)?.nibbles.every((set) => set === 'ffff') ?? false)
    const identifies = isId || isImplementationId
    return [id, { id, name: register.name, initial, nibbles, identifies, ignored }]
  })
  return new Map(entries)
}

function identificationNibbles(initial: bigint, accepts: Report['accepts'][number] | undefined): Nibbles {
  if (accepts === undefined) return exactly(initial)
  const sets = accepts.nibbles.map((set) => Number.parseInt(set, 16))
  for (const { nibble, written } of accepts.storedAs ?? []) sets[nibble]! &= ~(1 << written)
  return sets
}

function ordinaryNibbles({ id, write }: ReportedRegister, initial: bigint | null): Nibbles | null {
  if (write === undefined || initial === null || registerWidth(BigInt(id)) > 64) return null
  const places = registerWidth(BigInt(id)) / 4
  // What lies beyond the register's width is 0.
  if ('accepted' in write) {
    return write.accepted.map((set, nibble) => (nibble < places ? Number.parseInt(set, 16) : 1))
  }
  if ('refused' in write) return exactly(initial)
  if ('sticky' in write) return within(initial, BigInt(write.sticky))
  return within(0n, BigInt('sets' in write ? write.sets : write.clears))
}

/** The one value. */
export function exactly(value: bigint): Nibbles {
  return within(value, 0n)
}

/** Values that differ from this one in no bit outside the mask. */
function within(value: bigint, mask: bigint): Nibbles {
  return Array.from({ length: 16 }, (_, nibble) => {
    const fixed = nibbleOf(~mask, nibble)
    const bits = nibbleOf(value, nibble) & fixed
    return sixteen.reduce(
      (set, candidate) => ((candidate & fixed) === bits ? set | (1 << candidate) : set),
      0,
    )
  })
}

export const sixteen: readonly number[] = Array.from({ length: 16 }, (_, value) => value)

export function nibbleOf(value: bigint, nibble: number): number {
  return Number((value >> BigInt(4 * nibble)) & 0xfn)
}

/** Whether a register can be brought to a value. */
export function isPossible(nibbles: Nibbles, value: bigint): boolean {
  return nibbles.every((set, nibble) => (set >> nibbleOf(value, nibble)) & 1)
}
