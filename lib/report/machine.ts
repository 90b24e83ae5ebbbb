/**
 * What a report says about the machine and the VMs KVM makes on it, beyond the registers of a vCPU. Undefined means that the report
 * does not record it, never that the host lacks it.
 */
import { encodeRegister, hex } from '../registers/index.js'
import { capabilities, type Capability, type DeviceType } from '../uapi.js'
import { midrName } from './cpu.js'
import { isInRanges } from './ranges.js'
import type { Report } from './report.js'

/** The number of capabilities a probe asks for, from 0. */
export const CAPABILITY_NUMBERS = 1024

/** A size of the guest physical address space that no VM can have: KVM accepts it only if it ignores the size. */
export const NO_IPA_SIZE = 0x7f

export const CNTFRQ_EL0 = encodeRegister('CNTFRQ_EL0')
/** What a guest is made to read from the CPU; no KVM register holds the first and the third. */
export const guestReadIds: readonly bigint[] = [
  CNTFRQ_EL0,
  ...['CTR_EL0', 'DCZID_EL0', 'MIDR_EL1'].map(encodeRegister),
]

const numbers: ReadonlyMap<number, Capability> = new Map(
  Object.entries(capabilities).map(([name, number]) => [number, name as Capability]),
)

/** Returns the name of a capability, or its number if it has none here. */
export function capabilityName(number: number): string {
  return numbers.get(number) ?? String(number)
}

/** Returns the answers of `KVM_CHECK_EXTENSION` on `/dev/kvm` and on a VM. */
export function capabilityAnswers(
  { capabilities: named, otherCapabilities }: Report,
  number: number,
): readonly [system: number, vm: number] | undefined {
  const name = numbers.get(number)
  const answers = name === undefined ? undefined : named[name]
  if (answers !== undefined) return answers
  // KVM answers 0 for every number it does not know, and those beyond the recorded ones belong to nobody.
  return otherCapabilities === undefined ? undefined : (otherCapabilities[number] ?? [0, 0])
}

/** Returns the bytes of a page of the host's kernel. */
export function pageSizeOf({ vcpuMmapSize, capabilities: named, origin }: Report): number | undefined {
  // A fingerprint says nothing about it, and the host whose behaviour it was given may have another.
  if (origin.kind === 'fingerprint') return undefined
  // The mapping consists of kvm_run and, if the capability says so, the page of the coalesced MMIO ring behind it.
  return Math.max(4096, vcpuMmapSize / (1 + Math.max(0, named.KVM_CAP_COALESCED_MMIO?.[1] ?? 0)))
}

/** Returns the most bits of guest physical address space a VM may have. */
export function ipaLimitOf({ capabilities: named }: Report): number | undefined {
  return named.KVM_CAP_ARM_VM_IPA_SIZE?.[1]
}

/** Returns whether VMs can have memory tagging. */
export function hasMte({ capabilities: named }: Report): boolean | undefined {
  const answer = named.KVM_CAP_ARM_MTE?.[1]
  return answer === undefined ? undefined : answer > 0
}

/**
 * Returns whether KVM runs at EL2 apart from its kernel (pKVM). False also where it does so without a difference that userspace
 * sees, as up to Linux 6.12.
 */
export function isProtectedKvm({ vmTypes }: Report): boolean | undefined {
  return vmTypes && isInRanges(vmTypes.ipaSizes, NO_IPA_SIZE)
}

/** Returns what a guest reads from a register of the CPU itself. */
export function guestRead({ guestReads }: Report, id: bigint): bigint | undefined {
  const text = hex(id)
  const value = guestReads?.find((read) => read.id === text)?.value
  return value === undefined ? undefined : BigInt(value)
}

/** Those KVM can make on arm64. */
export const interruptControllers = ['gic-v2', 'gic-v3', 'gic-v3-its', 'gic-v5'] as const

export type InterruptController = (typeof interruptControllers)[number]

const controllers: readonly (readonly [DeviceType, InterruptController])[] = [
  ['KVM_DEV_TYPE_ARM_VGIC_V2', 'gic-v2'],
  ['KVM_DEV_TYPE_ARM_VGIC_V3', 'gic-v3'],
  ['KVM_DEV_TYPE_ARM_VGIC_ITS', 'gic-v3-its'],
  ['KVM_DEV_TYPE_ARM_VGIC_V5', 'gic-v5'],
]

/** Returns the interrupt controllers KVM can make for a VM. */
export function interruptControllersOf({ traits: { devices } }: Report): InterruptController[] | undefined {
  return devices && controllers.filter(([type]) => devices.includes(type)).map(([, name]) => name)
}

/** Returns the kinds of CPU the machine has, by name, with the numbers of the CPUs if there are several kinds. */
export function cpuKindNames({ cpus }: Report): string[] | undefined {
  return cpus?.kinds.map(({ midr, cpus: list }) => {
    const name = midrName(BigInt(midr))
    return cpus.kinds.length === 1 ? name : `${name} (CPU ${list})`
  })
}

function yesOrNo(is: boolean | undefined): string | undefined {
  if (is === undefined) return undefined
  return is ? 'yes' : 'no'
}

/** One fact about the machine; `value` undefined means not recorded. */
export interface MachineFact {
  readonly name: string
  readonly value: string | undefined
}

/** Returns the facts that two hosts can be compared by, for readers. */
export function machineFacts(report: Report): MachineFact[] {
  const { vmTypes } = report
  return [
    { name: 'interrupt controllers', value: interruptControllersOf(report)?.join(' ') },
    { name: 'page size', value: pageSizeOf(report)?.toString() },
    { name: 'IPA sizes', value: vmTypes?.ipaSizes },
    { name: 'memory tagging', value: yesOrNo(hasMte(report)) },
    { name: 'pKVM', value: yesOrNo(isProtectedKvm(report)) },
    { name: 'protected VMs', value: yesOrNo(vmTypes?.protected) },
    { name: 'CPU kinds', value: cpuKindNames(report)?.join(', ') },
  ]
}
