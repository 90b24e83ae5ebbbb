/** What is told of a VM's way to a host, in words: what each thing means to the guest, and what would have prevented it. */
import {
  decodePsciVersion,
  encodePsciVersion,
  psciFunctions,
  type PsciVersion,
  type ServiceBitmap,
  serviceBitmapOf,
  type Workaround,
} from '../hypercalls/index.js'
import { decodeRegister, type Field, fieldValue, hex, registerName } from '../registers/index.js'
import { meaningOf } from '../registers/differing-fields.js'
import type { StepRefusal } from './restore.js'

/** Gravest first. */
export const severities = [
  /** The destination does not take the value, or the VM. */
  'refused',
  /** The destination has no such register. */
  'missing-at-destination',
  /** A hypercall service the guest may have discovered is gone. */
  'service-lost',
  /** The destination takes the value, and then shows the guest another. */
  'reads-differently',
  /** The guest sees the destination's own value, and no error says so. */
  'silent-default',
  /** Different, and of no consequence to the guest. */
  'notice',
] as const

export type Severity = (typeof severities)[number]

/** One thing in the way of a VM, or changed by the way. */
export interface Finding {
  severity: Severity
  /** Whether the move fails by it. */
  stops: boolean
  /** KVM's ids of the vCPUs it is about; none where it is about the VM. */
  vcpus: number[]
  /** Absent where it is not about a register. */
  register?: { id: string; name: string }
  /** The field, or the bits, of the register; absent where it is about the whole of it. */
  field?: string
  /** What the VM has. */
  source: string
  /** What the destination has, or would take. */
  destination: string
  /** What it means to the guest. */
  meaning: string
  /** What would have prevented it. */
  remedy: string
}

/** What a finding says of one register, before it is known whether it stops the move. */
export type Told = Pick<Finding, 'source' | 'destination' | 'meaning' | 'remedy'> & {
  severity?: Severity
  field?: string
}

export const stepMeanings: Readonly<Record<StepRefusal['step'], (missing: readonly string[]) => string>> = {
  'create-vm': () => 'the guest’s memory may lie where the destination cannot address it',
  'enable-capability': () => 'the VM was made with a capability the destination does not have',
  'smccc-filter': () => 'calls of the guest that userspace takes over would reach KVM',
  'create-vcpu': () => 'the destination does not have as many vCPUs',
  init: (missing) =>
    missing.length === 0
      ? 'the destination does not have these vCPU features together'
      : `the guest may use ${missing.join(', ')}; the destination has no vCPU with it`,
  finalize: () => 'the vector lengths cannot be settled',
  'mp-state': () => 'the destination does not know the state the vCPU sleeps in',
  events: () => 'an error that is pending for the guest would be lost',
}

export const stepRemedies: Readonly<Record<StepRefusal['step'], (missing: readonly string[]) => string>> = {
  'create-vm': () => 'make the VM with an address space every host has (KVM_CAP_ARM_VM_IPA_SIZE)',
  'enable-capability': () => 'make the VM without the capability',
  'smccc-filter': () => 'make the VM without a filter, or a destination with KVM_ARM_VM_SMCCC_FILTER',
  'create-vcpu': () => 'make the VM with fewer vCPUs',
  init: (missing) =>
    missing.length === 0 ? 'make the VM with one of them' : `make the VM without ${missing.join(', ')}`,
  finalize: () => 'make the VM without sve',
  'mp-state': () => 'wake the guest before it is moved',
  events: () => 'move the guest when nothing is pending',
}

/** What becomes of a register that the state lacks, or the VMM does not carry. */
export function unsetText(
  id: bigint,
  held: string | undefined,
  value: bigint,
  vmm: string,
): Pick<Finding, 'meaning' | 'remedy'> {
  const bitmap = serviceBitmapOf(id)
  const why = held === undefined ? 'the state lacks it' : `${vmm} does not carry it`
  if (bitmap !== undefined) {
    const offered = bitmap.services.filter(({ bit }) => (value >> BigInt(bit)) & 1n).map(({ name }) => name)
    return offered.length === 0
      ? { meaning: `${why}; at the destination’s 0 nothing changes for the guest`, remedy: 'none is needed' }
      : {
          meaning: `${why}; the guest may from now on discover ${offered.join(', ')}, and loses it again on the way back`,
          remedy: `write ${bitmap.name} = 0x0 on the destination before the first run`,
        }
  }
  return {
    meaning: `${why}; the guest sees what the destination begins with`,
    remedy:
      held === undefined
        ? 'a source whose kernel lists the register, or write it on the destination before the first run'
        : 'a VMM that carries it',
  }
}

/** The destination lacks a register that is no bitmap of services. */
export function registerAbsent(id: bigint, source: bigint): Told {
  const name = registerName(id)
  const told = { source: hex(source), destination: 'no such register' }
  if (name.startsWith('PM')) {
    return {
      ...told,
      meaning: 'the source lists the PMU’s registers; the destination lists them only of a VM with a PMU',
      remedy: 'a VMM that leaves the PMU’s registers out of the state of a VM without a PMU',
    }
  }
  if (decodeRegister(id).space === 'demux') {
    return {
      ...told,
      meaning:
        'the destination does not describe this cache, of which the guest learns only if CLIDR_EL1 has it',
      remedy: 'a VMM that leaves the register out where CLIDR_EL1 does not have the cache',
    }
  }
  if (decodeRegister(id).space === 'timer') {
    return {
      ...told,
      meaning: 'the destination has the timer and no register for it: for the guest it begins anew',
      remedy: 'a VMM that leaves the register out, for a guest that uses its virtual timer',
    }
  }
  return {
    ...told,
    meaning: 'the guest may use the register; the destination has none',
    remedy:
      'a VMM that leaves the register out where the destination has none, if the guest was not told of its feature',
  }
}

/** The destination lacks a bitmap of services; `answers` tells which of them it answers all the same. */
export function bitmapAbsent(
  bitmap: ServiceBitmap,
  source: bigint,
  answers: (service: string) => boolean,
): Told[] {
  const short = bitmap.name.replace('KVM_REG_ARM_', '')
  const shown = bitmap.services.filter(({ bit }) => (source >> BigInt(bit)) & 1n)
  const told: Told[] = shown.map(({ name, bit, gated, kernelName }) => {
    const isAnswered = gated && answers(name)
    return {
      severity: isAnswered ? ('missing-at-destination' as const) : ('service-lost' as const),
      field: kernelName.replace('KVM_REG_ARM_', ''),
      source: '1',
      destination: 'no such register',
      meaning: isAnswered
        ? `the guest may have discovered ${name}; the destination answers it, and has no register to say so`
        : `the guest may have discovered ${name}; the destination does not offer it`,
      remedy: isAnswered
        ? `a VMM that leaves out ${short} where the destination has none`
        : `elect without ${short} bit ${bit} before the first run, and a VMM that leaves out ${short} where the destination has none`,
    }
  })
  const hidden = bitmap.services.filter(
    ({ name, bit, gated }) => gated && !((source >> BigInt(bit)) & 1n) && answers(name),
  )
  for (const { name, kernelName } of hidden) {
    told.push({
      severity: 'silent-default',
      field: kernelName.replace('KVM_REG_ARM_', ''),
      source: '0',
      destination: 'no such register',
      meaning: `${name} was hidden from the guest; the destination answers it, and has no register to hide it`,
      remedy: 'a destination whose kernel has the register',
    })
  }
  if (told.length > 0) return told
  return [
    {
      source: hex(source),
      destination: 'no such register',
      meaning: 'no service was shown to the guest, and the destination has none to show',
      remedy: `a VMM that leaves out ${short} while it is 0`,
    },
  ]
}

/** The destination does not take some bits of a bitmap of services: those in `lost`. */
export function bitmapRefused(bitmap: ServiceBitmap, lost: readonly number[]): Told[] {
  return lost.map((bit) => {
    const service = bitmap.services[bit]
    const name = service?.name ?? `service ${bit}`
    return {
      severity: 'service-lost',
      field: service?.kernelName.replace('KVM_REG_ARM_', '') ?? `bit ${bit}`,
      source: '1',
      destination: 'only 0',
      meaning: `the guest may have discovered ${name}; the destination does not offer it`,
      remedy: `elect without ${bitmap.name.replace('KVM_REG_ARM_', '')} bit ${bit} before the first run`,
    }
  })
}

/** The destination takes none but these versions of PSCI, the oldest first. */
export function psciRefused(source: bigint, accepted: readonly PsciVersion[]): Told {
  const newest = accepted.findLast((version) => encodePsciVersion(version) <= source)
  const told = psciText(source)
  const lost = psciFunctions.filter(
    ({ since, kvm }) =>
      kvm &&
      newest !== undefined &&
      encodePsciVersion(since) > encodePsciVersion(newest) &&
      encodePsciVersion(since) <= source,
  )
  const uses = lost.length === 0 ? '' : ` and may use ${lost.map(({ name }) => name).join(', ')}`
  return {
    source: `${hex(source)} (PSCI ${told})`,
    destination: `accepts ${accepted.map((version) => `${hex(encodePsciVersion(version))} (${version})`).join(', ')}`,
    meaning: `the guest was told PSCI ${told}${uses}; the destination speaks ${accepted.at(-1)} at most`,
    remedy:
      newest === undefined
        ? 'make the VM with other vCPU features'
        : `write KVM_REG_ARM_PSCI_VERSION = ${hex(encodePsciVersion(newest))} (${newest}) before the first run`,
  }
}

function psciText(value: bigint): string {
  return value <= 0xffff_ffffn ? decodePsciVersion(value) : hex(value)
}

/** Bits. */
function longestVector(lengths: bigint): number {
  return lengths.toString(2).length * 128
}

export function lengthsRefused(source: bigint, destination: bigint): Told {
  let common = source & destination
  // Lengths can be cut above a maximum, not taken out one by one.
  for (let bit = 511n; bit >= 0n; bit--) {
    const below = (1n << (bit + 1n)) - 1n
    if ((source & below) === (destination & below)) {
      common = source & below
      break
    }
  }
  return {
    source: `${hex(source)} (up to ${longestVector(source)} bits)`,
    destination: `${hex(destination)} (up to ${longestVector(destination)} bits)`,
    meaning: 'the guest may use vectors of a length the destination does not have',
    remedy:
      common === 0n
        ? 'make the VM without sve'
        : `write KVM_REG_ARM64_SVE_VLS = ${hex(common)} before KVM_ARM_VCPU_FINALIZE`,
  }
}

/** The destination shows another CPU; `isWritable` where it could be told to show this one. */
export function identityRefused(source: bigint, destination: bigint, isWritable: boolean): Told {
  return {
    source: hex(source),
    destination: hex(destination),
    meaning:
      'the guest chose its workarounds for errata, and some software its code, by the CPU it was told of',
    remedy: isWritable
      ? 'enable KVM_CAP_ARM_WRITABLE_IMP_ID_REGS before the first vCPU'
      : 'a destination of the same CPU, or one with KVM_CAP_ARM_WRITABLE_IMP_ID_REGS',
  }
}

/** The destination does not take a field's value, but those of `taken`, as bits. */
export function fieldRefused(
  id: bigint,
  field: Field,
  source: bigint,
  destination: bigint,
  taken: readonly bigint[],
): Told {
  const asField = (bits: bigint) => fieldValue(field, bits << BigInt(field.lsb))
  const name = registerName(id)
  const offers = taken.map(asField).toSorted((a, b) => Number(a - b))
  const value = fieldValue(field, source)
  // Nearest below what the guest has, or whatever there is.
  const pin = offers.findLast((offer) => offer < value) ?? offers[0]
  return {
    field: field.name,
    source: meaningOf(field, source),
    destination: `${meaningOf(field, destination)}${offers.length > 1 ? `, accepts ${offers.join(', ')}` : ''}`,
    meaning: `the guest may rely on ${field.name} = ${meaningOf(field, source)}; the destination cannot show it that`,
    remedy:
      pin === undefined
        ? 'a destination of the same CPU and kernel'
        : `write ${name}.${field.name} = ${pin} before the first run, if the source lets it`,
  }
}

export function fieldDiffers(id: bigint, field: Field, source: bigint, destination: bigint): Told {
  return {
    field: field.name,
    source: meaningOf(field, source),
    destination: meaningOf(field, destination),
    meaning: 'the destination takes the value and shows the guest its own',
    remedy: `write ${registerName(id)}.${field.name} = ${fieldValue(field, destination)} before the first run, if the source lets it`,
  }
}

export function mitigationDiffers(
  { levels }: Workaround,
  outcome: 'refused' | 'differs',
  source: bigint,
  destination: bigint,
): Told {
  const level = (value: bigint) =>
    `${hex(value)} ${levels.find((entry) => entry.value === value)?.name ?? ''}`.trim()
  const isRefused = outcome === 'refused'
  return {
    source: level(source),
    destination: level(destination),
    meaning: isRefused
      ? 'the guest may rely on a mitigation that the destination does not give it'
      : 'the guest was told of less protection than the destination gives it, and need not know',
    remedy: isRefused ? 'a destination with the mitigation; it cannot be elected' : 'none is needed',
  }
}

/** An AArch32 ID register of a guest without AArch32. */
export function unknownDiffers(source: bigint, destination: bigint): Told {
  return {
    severity: 'notice',
    source: hex(source),
    destination: hex(destination),
    meaning: 'the guest has no AArch32 at EL0, and what AArch32 ID registers then read is UNKNOWN',
    remedy: 'none is needed',
  }
}

export function cachesDiffer(source: bigint, destination: bigint): Told {
  return {
    source: hex(source),
    destination: hex(destination),
    meaning:
      'the guest was told of other caches than the destination will describe, and may clean them by that',
    remedy: 'a destination whose kernel lets caches be described, or one of the same CPU',
  }
}

/** Refused, and no field by itself is to blame. */
export function valueRefused(source: bigint, destination: bigint): Told {
  return {
    source: hex(source),
    destination: hex(destination),
    meaning: 'the destination does not take this value',
    remedy: 'a destination of the same CPU and kernel',
  }
}
