import { decodePsciVersion } from '../hypercalls/index.js'
import {
  decodeRegister,
  encodeRegister,
  hasAArch32,
  hex,
  isAArch32IdRegister,
  registerFields,
  registerName,
  withoutIstatus,
} from '../registers/index.js'
import { bitmapsOf, featureSupport, psciVersionsOf, registerValue } from './registers.js'
import { capabilityAnswers, capabilityName, guestRead, guestReadIds, machineFacts } from './machine.js'
import type { Report } from './report.js'
import { capabilities, vcpuFeatures, type VcpuFeature } from '../uapi.js'
import { differingFields, meaningOf } from '../registers/differing-fields.js'

export const differenceKinds = [
  'capability',
  'feature',
  'psci',
  'machine',
  'guest-read',
  'register',
  'accepts',
] as const

/** One difference between two hosts. */
export interface Difference {
  kind: (typeof differenceKinds)[number]
  /** The capability (its number, if it has no name here), the vCPU feature, the PSCI version, the fact, the register. */
  name: string
  /** The field or the bits of a register; absent if the difference is about the whole register. */
  field?: string
  /** The value on each host; null if it has no such register. */
  a: string | null
  b: string | null
}

/**
 * Returns the differences between two hosts, by field, without judging them: capabilities, vCPU features, PSCI versions, the
 * machine, what a guest reads from the CPU, registers of a vCPU with `psci-0.2` alone, services that may be elected. Ignores
 * AArch32 ID registers if a host has no AArch32: they are UNKNOWN there.
 */
export function diffReports(a: Report, b: Report): Difference[] {
  return [
    ...diffCapabilities(a, b),
    ...diffFeatures(a, b),
    ...diffVersions(versions(a), versions(b)),
    ...diffMachines(a, b),
    ...diffGuestReads(a, b),
    ...diffRegisters(a, b),
    ...diffBitmaps(a, b),
  ]
}

function diffCapabilities(a: Report, b: Report): Difference[] {
  const numbers = new Set([...Object.values<number>(capabilities), ...[a, b].flatMap(otherNumbers)])
  return [...numbers].flatMap((number) => {
    // Checked on a VM, whose answer is more precise than that of /dev/kvm.
    const [left, right] = [a, b].map((report) => String(capabilityAnswers(report, number)?.[1] ?? 'unknown'))
    return left === right ? [] : [{ kind: 'capability', name: capabilityName(number), a: left!, b: right! }]
  })
}

function otherNumbers({ otherCapabilities = {} }: Report): number[] {
  return Object.keys(otherCapabilities).map(Number)
}

function diffMachines(a: Report, b: Report): Difference[] {
  const others = machineFacts(b)
  return machineFacts(a).flatMap(({ name, value }, index): Difference[] => {
    const other = others[index]!.value
    return value === other ? [] : [{ kind: 'machine', name, a: value ?? 'unknown', b: other ?? 'unknown' }]
  })
}

/** Registers that KVM shows too are compared as such. */
function diffGuestReads(a: Report, b: Report): Difference[] {
  return guestReadIds.flatMap((id): Difference[] => {
    const isShown = [a, b].every((report) => registerValue(report, id) !== undefined)
    const [left, right] = [a, b].map((report) => guestRead(report, id))
    if (isShown || left === right) return []
    return [{ kind: 'guest-read', name: registerName(id), a: valueText(left), b: valueText(right) }]
  })
}

function valueText(value: bigint | undefined): string {
  return value === undefined ? 'unknown' : hex(value)
}

function versions(report: Report): string[] {
  return psciVersionsOf(report).map(decodePsciVersion)
}

function diffFeatures(a: Report, b: Report): Difference[] {
  return (Object.keys(vcpuFeatures) as VcpuFeature[])
    .map((name) => ({
      kind: 'feature' as const,
      name,
      a: featureSupport(a, name),
      b: featureSupport(b, name),
    }))
    .filter((row) => row.a !== row.b)
}

function diffVersions(a: readonly string[], b: readonly string[]): Difference[] {
  return [...new Set([...a, ...b])]
    .filter((name) => a.includes(name) !== b.includes(name))
    .map((name) => ({
      kind: 'psci',
      name,
      a: a.includes(name) ? 'yes' : 'no',
      b: b.includes(name) ? 'yes' : 'no',
    }))
}

const ID_AA64PFR0_EL1 = encodeRegister('ID_AA64PFR0_EL1')

function isAArch32Host(report: Report): boolean {
  return hasAArch32(registerValue(report, ID_AA64PFR0_EL1) ?? 0n)
}

/** Returns whether a register consists of CPU features, rather than of one number. */
function hasFieldsOfItsOwn(id: bigint): boolean {
  return decodeRegister(id).space === 'sysreg' && registerFields(id).length > 0
}

function diffRegisters(a: Report, b: Report): Difference[] {
  const both = isAArch32Host(a) && isAArch32Host(b)
  const [left, right] = [a, b].map(({ registers }) => new Map(registers.map((entry) => [entry.id, entry])))
  return [...new Map([...left!, ...right!]).values()].flatMap(({ id: text, name }): Difference[] => {
    const id = BigInt(text)
    const [inA, inB] = [left!.get(text), right!.get(text)]
    if (!both && isAArch32IdRegister(id)) return []
    if (inA === undefined || inB === undefined) {
      const has = (entry: typeof inA) => (entry === undefined ? null : (entry.value ?? 'counts time'))
      return [{ kind: 'register', name, a: has(inA), b: has(inB) }]
    }
    if (inA.value === inB.value || inA.value === null || inB.value === null) return []
    const [valueA, valueB] = [BigInt(inA.value), BigInt(inB.value)]
    if (withoutIstatus(id, valueA) === withoutIstatus(id, valueB)) return []
    if (!hasFieldsOfItsOwn(id)) return [{ kind: 'register', name, a: inA.value, b: inB.value }]
    const fields = differingFields(id, valueA, valueB)
    return fields.map((field) => ({
      kind: 'register',
      name,
      field: field.name,
      a: meaningOf(field, valueA),
      b: meaningOf(field, valueB),
    }))
  })
}

/** Bits a bitmap may hold that no register shows, if the bitmap starts at 0. */
function diffBitmaps(a: Report, b: Report): Difference[] {
  return bitmapsOf(a).flatMap(({ id, name, mask }) => {
    const other = bitmapsOf(b).find((entry) => entry.id === id)
    return other === undefined || other.mask === mask
      ? []
      : [{ kind: 'accepts', name, a: hex(mask), b: hex(other.mask) }]
  })
}
