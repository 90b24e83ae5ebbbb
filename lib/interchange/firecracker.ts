/**
 * Firecracker's custom CPU templates for aarch64 (`docs/cpu_templates/cpu-templates.md` and `schema.json` there;
 * `custom_cpu_template.rs`, `templates.rs` and `templates_serde.rs` under `src/vmm/src/cpu_config` decide what is accepted).
 */
import * as v from 'valibot'
import {
  encodeRegister,
  hex,
  implementationIds,
  registerName,
  registerWidth,
  U64,
} from '../registers/index.js'
import { checkShape, FormatError, parseDocumentJson } from '../documents/document.js'
import { capabilities, type Capability, featureWord, type VcpuFeature } from '../uapi.js'
import type { GuestConfiguration } from './configuration.js'
import type { Emitted } from './emitted.js'

/** The bits to change and their new values: `new = (old & ~filter) | value`. */
interface BitModifier {
  filter: bigint
  value: bigint
}

export interface CpuTemplate {
  /**
   * Numbers of KVM capabilities: `required` makes Firecracker insist on one; false makes it skip a check that it does by default.
   */
  kvmCapabilities: { number: number; required: boolean }[]
  /** Changes to `kvm_vcpu_init.features[index]`. */
  vcpuFeatures: ({ index: number } & BitModifier)[]
  registers: ({ id: bigint } & BitModifier)[]
}

export interface ReadTemplate {
  template: CpuTemplate
  /** Entries that can be understood but that Firecracker would refuse or ignore. */
  warnings: string[]
}

/** The most digits a bitmap may have, whatever the register's width. */
const MOST_DIGITS = 128

/** `struct kvm_vcpu_init` has seven words of features. */
const FEATURE_WORDS = 7

const templateShape = v.strictObject(
  {
    kvm_capabilities: v.optional(v.array(v.string()), []),
    vcpu_features: v.optional(
      v.array(
        v.object({
          index: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(FEATURE_WORDS - 1)),
          bitmap: v.string(),
        }),
      ),
      [],
    ),
    reg_modifiers: v.optional(v.array(v.object({ addr: v.string(), bitmap: v.string() })), []),
  },
  'is no key of a CPU template for aarch64: kvm_capabilities, vcpu_features and reg_modifiers are',
)

/**
 * Reads a template from JSON text; errors call the text `source`.
 * @throws FormatError for anything Firecracker would not read as a template, naming the entry
 */
export function parseCpuTemplate(json: string, source: string): ReadTemplate {
  return checkCpuTemplate(parseDocumentJson(json, source, 'CPU template'), source)
}

/**
 * Checks that data is a template; `path` is its place in the source.
 *
 * The bitmaps of cpu-template-helper's dumps have 128 digits for registers of every width. They are accepted, with a warning, if no
 * digit beyond the width is 1: Firecracker refuses them in a template.
 * @throws FormatError as `parseCpuTemplate`
 */
export function checkCpuTemplate(data: unknown, source: string, path = '$'): ReadTemplate {
  const { kvm_capabilities, vcpu_features, reg_modifiers } = checkShape(templateShape, data, source, path)
  const refuse = (at: string, problem: string): never => {
    throw new FormatError(source, `${path}.${at}`, problem)
  }
  const warnings: string[] = []
  const template: CpuTemplate = {
    kvmCapabilities: kvm_capabilities.map((text, index) => {
      const number = Number(text.replace(/^!/, ''))
      if (!/^!?\d+$/.test(text) || number > 0xffff_ffff) {
        refuse(
          `kvm_capabilities[${index}]`,
          `"${text}" is no capability: a decimal number of 32 bits, with ! in front to remove the check`,
        )
      }
      return { number, required: !text.startsWith('!') }
    }),
    vcpuFeatures: vcpu_features.map(({ index, bitmap }, entry) => {
      const at = `vcpu_features[${entry}].bitmap`
      const { filter, value } = parseBitmap(bitmap, 32, (problem) => refuse(at, problem))
      return { index, filter, value }
    }),
    registers: [],
  }
  const seen = new Set<bigint>()
  let tooLong = 0
  for (const [entry, { addr, bitmap }] of reg_modifiers.entries()) {
    const id = parseAddress(addr)
    if (id === undefined) {
      refuse(
        `reg_modifiers[${entry}].addr`,
        `"${addr}" is no register id: 0x and hexadecimal digits, or 0b and binary ones, of 64 bits at most`,
      )
      continue
    }
    const width = registerWidth(id)
    if (width !== 32 && width !== 64 && width !== 128) {
      refuse(
        `reg_modifiers[${entry}].addr`,
        `${registerName(id)} has ${width} bits, and a template can only change registers of 32, 64 and 128`,
      )
    }
    const at = `reg_modifiers[${entry}].bitmap`
    const wide = parseBitmap(bitmap, MOST_DIGITS, (problem) => refuse(at, problem))
    if (wide.value >> BigInt(width) !== 0n) {
      refuse(at, `sets bits beyond the ${width} of ${registerName(id)}`)
    }
    if (wide.filter >> BigInt(width) !== 0n) tooLong++
    if (seen.has(id)) {
      warnings.push(
        `${registerName(id)} is modified twice: Firecracker applies both in order, its helper only the last`,
      )
    }
    seen.add(id)
    template.registers.push({ id, filter: BigInt.asUintN(width, wide.filter), value: wide.value })
  }
  if (tooLong > 0) {
    warnings.push(
      `${tooLong} bitmaps are longer than their registers, as cpu-template-helper dumps them: Firecracker refuses such a template`,
    )
  }
  return { template, warnings }
}

function parseAddress(text: string): bigint | undefined {
  if (!/^0x[0-9a-fA-F]+$/.test(text) && !/^0b[01]+$/.test(text)) return undefined
  const id = BigInt(text)
  return id >> 64n === 0n ? id : undefined
}

/** Least significant digit last; a shorter bitmap leaves the higher bits unchanged. */
function parseBitmap(text: string, most: number, refuse: (problem: string) => never): BitModifier {
  const modifier = { filter: 0n, value: 0n }
  let bit = 0n
  for (const digit of Array.from(text.replace(/^0b/, '')).toReversed()) {
    if (bit === BigInt(most)) refuse(`has more than ${most} digits`)
    if (digit === '_') continue
    if (!'01x'.includes(digit)) refuse(`has the digit ${JSON.stringify(digit)}: 0, 1, x and _ are allowed`)
    if (digit !== 'x') modifier.filter |= 1n << bit
    if (digit === '1') modifier.value |= 1n << bit
    bit++
  }
  return modifier
}

/**
 * Formats a template as JSON text that Firecracker accepts: registers by ascending id, each bitmap as long as its register.
 * @throws RangeError for anything a template cannot hold: a register twice, or of a width other than 32, 64 and 128, or a bit
 * beyond its width
 */
export function formatCpuTemplate(template: CpuTemplate): string {
  const registers = template.registers.toSorted((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))
  for (const [index, { id, filter, value }] of registers.entries()) {
    const width = registerWidth(id)
    const name = registerName(id)
    if (width !== 32 && width !== 64 && width !== 128) {
      throw new RangeError(
        `A template cannot change ${name}, which has ${width} bits; it can change 32, 64 and 128`,
      )
    }
    if ((filter | value) >> BigInt(width) !== 0n) {
      throw new RangeError(`A modifier of ${name} goes beyond its ${width} bits`)
    }
    if (registers[index + 1]?.id === id) throw new RangeError(`A template modifies ${name} twice`)
  }
  const text = {
    kvm_capabilities: template.kvmCapabilities.map(({ number, required }) =>
      required ? `${number}` : `!${number}`,
    ),
    vcpu_features: template.vcpuFeatures.map(({ index, ...modifier }) => ({
      index,
      bitmap: bitmapText(modifier, 32),
    })),
    reg_modifiers: registers.map(({ id, ...modifier }) => ({
      addr: hex(id),
      bitmap: bitmapText(modifier, registerWidth(id)),
    })),
  }
  return `${JSON.stringify(text, null, 2)}\n`
}

function bitmapText({ filter, value }: BitModifier, width: number): string {
  const digits = Array.from({ length: width }, (_, bit) => {
    if (((filter >> BigInt(bit)) & 1n) === 0n) return 'x'
    return `${(value >> BigInt(bit)) & 1n}`
  })
  return `0b${digits.toReversed().join('')}`
}

const psciVersionId = encodeRegister('KVM_REG_ARM_PSCI_VERSION')

/** Features that a template can request from Firecracker, with the capabilities it should insist on for them. */
const featureCapabilities: Readonly<Partial<Record<VcpuFeature, readonly Capability[]>>> = {
  // Firecracker requests PSCI 0.2 by itself.
  'psci-0.2': [],
  'el1-32bit': ['KVM_CAP_ARM_EL1_32BIT'],
  sve: ['KVM_CAP_ARM_SVE'],
  'ptrauth-address': ['KVM_CAP_ARM_PTRAUTH_ADDRESS'],
  'ptrauth-generic': ['KVM_CAP_ARM_PTRAUTH_GENERIC'],
  'has-el2': ['KVM_CAP_ARM_EL2'],
  'has-el2-e2h0': ['KVM_CAP_ARM_EL2_E2H0'],
}

/**
 * Makes a template that gives every guest of Firecracker this configuration: features, PSCI version, services and feature ID
 * registers.
 *
 * Firecracker writes every register a template names, so the host must accept each value: take the configuration from a baseline of
 * the target hosts, or from the host itself.
 */
export function firecrackerTemplate(configuration: GuestConfiguration): Emitted & { template: CpuTemplate } {
  const { features, psciVersion, bitmaps, idRegisters, vectorLengths } = configuration
  const inexpressible = configuration.leftToHosts.map((name) => `${name}: some of the hosts lack it`)
  const asked = features.filter((feature) => feature !== 'psci-0.2' && feature in featureCapabilities)
  for (const feature of features) {
    if (feature in featureCapabilities) continue
    // Firecracker itself clears or sets POWER_OFF: it starts all vCPUs but the first switched off.
    if (feature === 'power-off') continue
    inexpressible.push(`feature ${feature}: Firecracker refuses a vCPU with a PMU`)
  }
  if (vectorLengths.length > 0) {
    inexpressible.push(
      `SVE vector lengths ${vectorLengths.join(', ')}: a template cannot change KVM_REG_ARM64_SVE_VLS, which has 512 bits; guests get all the host has`,
    )
  }
  inexpressible.push(
    'MIDR_EL1, REVIDR_EL1 and AIDR_EL1: left to the host, since few kernels and versions of Firecracker let them be written',
  )
  const bits = BigInt(featureWord(asked))
  const psci = psciVersion === undefined ? [] : [{ id: psciVersionId, value: psciVersion, mask: U64 }]
  const template: CpuTemplate = {
    kvmCapabilities: asked
      .flatMap((feature) => featureCapabilities[feature]!)
      .map((name) => ({ number: capabilities[name], required: true }))
      .toSorted((a, b) => a.number - b.number),
    vcpuFeatures: bits === 0n ? [] : [{ index: 0, filter: bits, value: bits }],
    registers: [...psci, ...bitmaps, ...idRegisters]
      .filter(({ id, mask }) => mask !== 0n && !implementationIds.includes(id))
      .map(({ id, value, mask }) => ({ id, filter: mask, value: value & mask })),
  }
  return { template, text: formatCpuTemplate(template), inexpressible }
}
