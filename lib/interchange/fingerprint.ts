/**
 * Fingerprints of Firecracker's cpu-template-helper (`src/cpu-template-helper/src/fingerprint`): the register values of a vCPU with
 * `psci-0.2` alone. That is a part of a report: a fingerprint does not say which writes a host accepts.
 */
import * as v from 'valibot'
import { decodeRegister, encodeRegister, registerName } from '../registers/index.js'
import { foreignData } from '../documents/foreign.js'
import { checkShape, FormatError, parseDocumentJson } from '../documents/document.js'
import { text } from '../documents/entries.js'
import type { Report } from '../report/report.js'
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
export const leftOut: ReadonlyMap<bigint, bigint> = new Map(
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
    const foreign = foreignData(data)
    throw new FormatError(
      source,
      '$',
      foreign === undefined
        ? 'is no fingerprint of cpu-template-helper: it has no guest_cpu_config'
        : `is not a fingerprint but ${foreign}`,
    )
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
        `leaves bits of ${registerName(id)} open, so this is a template, not the dump of a host`,
      )
    }
    return { id, value }
  })
  const seen = new Set<bigint>()
  for (const [index, { id }] of registers.entries()) {
    if (seen.has(id)) {
      const at = `${path}.reg_modifiers[${index}].addr`
      throw new FormatError(source, at, `${registerName(id)} appears twice`)
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
