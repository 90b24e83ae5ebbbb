/**
 * Fingerprints of Firecracker's cpu-template-helper (`src/cpu-template-helper/src/fingerprint`): the register values of a vCPU with
 * `psci-0.2` alone. That is a part of a report: a fingerprint does not say which writes a host accepts.
 */
import * as v from 'valibot'
import { decodeRegister, encodeRegister, hex, isFeatureIdRegister, registerName } from '../registers/index.js'
import { checkShape, FormatError, parseDocumentJson } from '../documents/document.js'
import { text } from '../documents/entries.js'
import { psciVersionsOf } from '../report/registers.js'
import type { Report, ReportedRegister } from '../report/report.js'
import {
  acceptedNibbles,
  namedReplacements,
  nibbleOf,
  type NibblesRule,
  nibblesRule,
  replacedNibbles,
} from '../report/write-rule.js'
import { type Capability, vcpuFeatures, type VcpuFeature } from '../uapi.js'
import { checkCpuTemplate } from './firecracker.js'

export interface Fingerprint {
  firecrackerVersion: string
  /** `uname -r` */
  kernelVersion: string
  /** On arm64 the content of `revidr_el1` in sysfs. */
  microcodeVersion: string
  biosVersion: string
  biosRevision: string
  /** In the order of the file. */
  registers: { id: bigint; value: bigint }[]
}

const fingerprintShape = v.object({
  firecracker_version: text,
  kernel_version: text,
  microcode_version: text,
  bios_version: text,
  bios_revision: text,
  guest_cpu_config: v.unknown(),
})

/**
 * Registers the helper leaves out of every dump, because their values change all the time. Each is paired with a register that
 * hosts list if, and only if, they list the omitted one: so a dump shows whether its host has it.
 */
const leftOut: ReadonlyMap<bigint, bigint> = new Map(
  [
    ['pc', 'pstate'],
    ['KVM_REG_ARM_TIMER_CNT', 'KVM_REG_ARM_TIMER_CTL'],
    ['KVM_REG_ARM_PTIMER_CNT', 'KVM_REG_ARM_PTIMER_CTL'],
  ].map(([name, companion]) => [encodeRegister(name!), encodeRegister(companion!)]),
)

/**
 * Reads a fingerprint from JSON text; errors call the text `source`.
 * @throws FormatError for anything but a fingerprint of an arm64 host, naming the entry
 */
export function parseFingerprint(json: string, source: string): Fingerprint {
  return checkFingerprint(parseDocumentJson(json, source, 'fingerprint'), source)
}

/** Returns whether data looks like a fingerprint; `checkFingerprint` checks it fully. */
export function isFingerprint(data: unknown): boolean {
  return typeof data === 'object' && data !== null && 'guest_cpu_config' in data
}

/**
 * Checks that data is a fingerprint.
 * @throws FormatError as `parseFingerprint`
 */
export function checkFingerprint(data: unknown, source: string): Fingerprint {
  if (!isFingerprint(data)) {
    throw new FormatError(source, '$', 'is no fingerprint of cpu-template-helper: it has no guest_cpu_config')
  }
  const output = checkShape(fingerprintShape, data, source)
  const path = '$.guest_cpu_config'
  const { template } = checkCpuTemplate(output.guest_cpu_config, source, path)
  const registers = template.registers.map(({ id, filter, value }, index) => {
    const { width } = decodeRegister(id)
    if (filter !== (1n << BigInt(width)) - 1n) {
      throw new FormatError(
        source,
        `${path}.reg_modifiers[${index}].bitmap`,
        `leaves bits of ${registerName(id)} open, so this is a template and no dump of a host`,
      )
    }
    return { id, value }
  })
  const seen = new Set<bigint>()
  for (const [index, { id }] of registers.entries()) {
    if (seen.has(id)) {
      const at = `${path}.reg_modifiers[${index}].addr`
      throw new FormatError(source, at, `${registerName(id)} stands there already`)
    }
    seen.add(id)
  }
  const lacking = ['ID_AA64PFR0_EL1', 'MIDR_EL1', 'KVM_REG_ARM_PSCI_VERSION'].find(
    (name) => !seen.has(encodeRegister(name)),
  )
  if (lacking !== undefined) {
    throw new FormatError(source, path, `holds no ${lacking}, which the dump of every arm64 host has`)
  }
  return {
    firecrackerVersion: output.firecracker_version,
    kernelVersion: output.kernel_version,
    microcodeVersion: output.microcode_version,
    biosVersion: output.bios_version,
    biosRevision: output.bios_revision,
    registers,
  }
}

/** Returns how the register list of a fingerprint differs from a host's, ignoring the registers the helper leaves out. */
export function compareLists(fingerprint: Fingerprint, host: Report): { missing: bigint[]; added: bigint[] } {
  const listed = new Set(host.registers.map(({ id }) => BigInt(id)))
  const dumped = new Set(fingerprint.registers.map(({ id }) => id))
  return {
    missing: [...listed].filter((id) => !dumped.has(id) && !leftOut.has(id)),
    added: [...dumped].filter((id) => !listed.has(id)),
  }
}

/** Thrown if a fingerprint cannot come from a host that behaves like the given one. */
export class UnlikeHostError extends Error {
  override readonly name = 'UnlikeHostError'
  readonly code = 'ERR_KVM_UNLIKE_HOST'
}

const version = encodeRegister('KVM_REG_ARM_PSCI_VERSION')

/**
 * Combines the values of a fingerprint with the behaviour of another host, whose kernel must be alike: same firmware registers and
 * PSCI. The resulting report makes it possible to compare and simulate a host of which only a fingerprint exists.
 *
 * `like` provides writable values, capabilities and traits. Ranges of accepted values end at the fingerprint's own value. Only
 * vCPUs without optional features are known: the report has no other configuration, its capabilities omit those of vCPU features,
 * and these features and the devices are unknown in it.
 *
 * @throws UnlikeHostError if the kernels cannot be alike
 */
export function reportFromFingerprint(fingerprint: Fingerprint, like: Report): Report {
  refuseUnlike(fingerprint, like)
  const values = new Map(fingerprint.registers.map(({ id, value }) => [id, value]))
  const likeById = new Map(like.registers.map((register) => [BigInt(register.id), register]))
  const midr = values.get(encodeRegister('MIDR_EL1'))!
  const registers = like.registers.flatMap((register): ReportedRegister[] => {
    const id = BigInt(register.id)
    const value = values.get(id)
    if (value !== undefined) return [tolerant(withValue(register, value), midr)]
    const companion = leftOut.get(id)
    return companion !== undefined && values.has(companion) ? [register] : []
  })
  for (const [id, value] of values) {
    if (likeById.has(id)) continue
    const row = { id: hex(id), name: registerName(id), value: hex(value) }
    registers.push(isFeatureIdRegister(id) ? { ...row, write: { rule: 'fixed', errno: 'EINVAL' } } : row)
  }
  for (const [id, companion] of leftOut) {
    if (!likeById.has(id) && values.has(companion)) {
      registers.push({ id: hex(id), name: registerName(id), value: null })
    }
  }
  const { devices: _unknown, ...traits } = like.traits
  return {
    ...like,
    host: {
      release: fingerprint.kernelVersion,
      build: `values of a fingerprint by Firecracker ${fingerprint.firecrackerVersion}, behaviour of ${like.host.release}`,
    },
    origin: { kind: 'fingerprint', like: like.host.release },
    capabilities: Object.fromEntries(
      Object.entries(like.capabilities).filter(([name]) => !ofOptionalFeatures.has(name as Capability)),
    ),
    registers,
    configurations: [],
    traits: {
      ...traits,
      init: {
        ...traits.init,
        supported: traits.init.supported.filter((name) => ofEveryVcpu.has(name)),
        unknown: (Object.keys(vcpuFeatures) as VcpuFeature[]).filter(
          (name) => vcpuFeatures[name] < traits.init.knownFeatures && !ofEveryVcpu.has(name),
        ),
      },
    },
  }
}

/** Features that every host supports. */
const ofEveryVcpu: ReadonlySet<VcpuFeature> = new Set<VcpuFeature>(['power-off', 'psci-0.2'])

/** Capabilities of vCPU features about which a fingerprint says nothing. */
const ofOptionalFeatures: ReadonlySet<Capability> = new Set([
  'KVM_CAP_ARM_EL1_32BIT',
  'KVM_CAP_ARM_PMU_V3',
  'KVM_CAP_ARM_PMU_V3_STRICT',
  'KVM_CAP_ARM_SVE',
  'KVM_CAP_ARM_PTRAUTH_ADDRESS',
  'KVM_CAP_ARM_PTRAUTH_GENERIC',
  'KVM_CAP_ARM_EL2',
  'KVM_CAP_ARM_EL2_E2H0',
])

function isFirmware(id: bigint): boolean {
  return ['firmware', 'bitmap'].includes(decodeRegister(id).space)
}

function refuseUnlike(fingerprint: Fingerprint, like: Report): void {
  const { missing, added } = compareLists(fingerprint, like)
  const unlike = [...missing, ...added].find(isFirmware)
  if (unlike !== undefined) {
    const host = `the host ${like.host.release}`
    const dump = `the fingerprint of ${fingerprint.kernelVersion}`
    const [has, lacks] = missing.includes(unlike) ? [host, dump] : [dump, host]
    throw new UnlikeHostError(
      `${has} has ${registerName(unlike)}, which ${lacks} lacks: take a host whose kernel has the same firmware registers`,
    )
  }
  const psci = fingerprint.registers.find(({ id }) => id === version)!.value
  if (!psciVersionsOf(like).includes(psci)) {
    throw new UnlikeHostError(
      `the fingerprint has PSCI_VERSION ${hex(psci)}, which the host ${like.host.release} does not accept`,
    )
  }
}

function withValue(register: ReportedRegister, value: bigint): ReportedRegister {
  const { name, write, mask = '0x0' } = register
  const old = register.value === null ? undefined : BigInt(register.value)
  const changed = { ...register, value: hex(value) }
  if (old === undefined || old === value) return changed
  switch (write?.rule) {
    case 'checked':
      return { ...changed, write: { ...write, accepts: acceptedLevels(name, value) } }
    case 'nibbles': {
      const sets = acceptedNibbles(write, old).map((set, n) => limited(set, n, old, value, BigInt(mask)))
      const more = rest(write, (nibble) => nibbleOf(old, nibble) === nibbleOf(value, nibble))
      return { ...changed, write: nibblesRule(sets, value, more) }
    }
    default:
      return changed
  }
}

/** Returns the parts of a rule besides the accepted values; omits replacement values of nibbles that are left out. */
function rest(
  { invalidAfterRun, storedAs }: NibblesRule,
  isKept: (nibble: number) => boolean,
): Pick<NibblesRule, 'invalidAfterRun' | 'storedAs'> {
  const kept = replacedNibbles(storedAs).filter(({ nibble }) => isKept(nibble))
  return {
    ...(invalidAfterRun && { invalidAfterRun }),
    ...(kept.length > 0 && { storedAs: namedReplacements(kept) }),
  }
}

/**
 * Returns the values a nibble accepts if the host's own value is not the recorded one: a range that ended at the old value ends at
 * the new one.
 */
function limited(bits: number, nibble: number, old: bigint, value: bigint, mask: bigint): number {
  const [from, to] = [nibbleOf(old, nibble), nibbleOf(value, nibble)]
  if (from === to) return bits
  const lowest = bits & -bits
  const isRange = bits === upTo(from) - (lowest - 1)
  // For a field of value 0, only its mask can show that it is writable.
  const writable = bits !== lowest || (from === 0 && nibbleOf(mask, nibble) === 0xf)
  if (!isRange) return bits | (1 << to)
  return writable ? (upTo(to) & ~(lowest - 1)) | (1 << to) : 1 << to
}

/** Returns the set of 0 to `value`. */
function upTo(value: number): number {
  return (2 << value) - 1
}

function acceptedLevels(name: string, level: bigint): string[] {
  if (name.endsWith('WORKAROUND_2'))
    return level === 3n ? ['0x0', '0x1', '0x2', '0x3', '0x12'] : ['0x0', '0x1']
  return Array.from({ length: Number(level) + 1 }, (_, accepted) => hex(BigInt(accepted)))
}

/**
 * Fields KVM showed by mistake and has hidden since, with the values that CPUs have there. KVM still accepts the value and stores
 * 0, so that VMs of the older kernels can be restored (`set_id_aa64pfr0_el1` and `set_id_aa64mmfr2_el1` in
 * `arch/arm64/kvm/sys_regs.c`, Linux 6.18). A fingerprint of the newer kernel shows 0. The CPUs are those whose fingerprints with
 * older kernels show the value.
 */
const hiddenAgain: readonly { register: string; nibble: number; value: number; parts: readonly bigint[] }[] =
  [
    // MPAM of Neoverse V1 and V2
    { register: 'ID_AA64PFR0_EL1', nibble: 10, value: 1, parts: [0xd40n, 0xd4fn] },
    // NV of Neoverse V1 and V2
    { register: 'ID_AA64MMFR2_EL1', nibble: 6, value: 2, parts: [0xd40n, 0xd4fn] },
  ]

function tolerant(register: ReportedRegister, midr: bigint): ReportedRegister {
  const { id, value, mask, write } = register
  if (write?.rule !== 'nibbles' || value === null || mask === undefined) return register
  const fields = hiddenAgain.filter(
    ({ register: name, nibble, parts }) =>
      encodeRegister(name) === BigInt(id) &&
      parts.includes((midr >> 4n) & 0xfffn) &&
      midr >> 24n === 0x41n &&
      nibbleOf(BigInt(value), nibble) === 0,
  )
  if (fields.length === 0) return register
  const accepted = acceptedNibbles(write, BigInt(value)).map((set, nibble) =>
    fields.filter((field) => field.nibble === nibble).reduce((bits, field) => bits | (1 << field.value), set),
  )
  const stored = fields.map((field) => ({ nibble: field.nibble, written: field.value, stored: 0 }))
  const more = {
    ...rest(write, () => false),
    storedAs: namedReplacements([...replacedNibbles(write.storedAs), ...stored]),
  }
  return { ...register, write: nibblesRule(accepted, BigInt(value), more) }
}
