import type { Baseline } from '../fleet/baseline/format.js'
import { encodeRegister, hex, isIdRegister, registerName, registerWidth, U64 } from '../registers/index.js'
import { featureNames, featureWord, type VcpuFeature } from '../uapi.js'
import { type ConfiguredRegister, type GuestConfiguration, vectorLengthsOf } from './configuration.js'
import type { CpuTemplate } from './firecracker.js'

/** What a guest configured by a baseline sees. */
export function baselineConfiguration(baseline: Baseline): GuestConfiguration {
  const { features, psciVersion, bitmaps, idRegisters, registers, vectorLengths, unreconciled } = baseline
  // A template or an option cannot make an exception for hosts that lack a register.
  const absent = new Set(unreconciled.filter(({ kind }) => kind === 'absent').map(({ id }) => id))
  const everywhere = bitmaps.filter(({ absentOn }) => absentOn.length === 0)
  return {
    features,
    ...(psciVersion !== null && { psciVersion: BigInt(psciVersion) }),
    bitmaps: everywhere.map(({ id, value }) => numbers({ id, value, mask: '0xffffffffffffffff' })),
    idRegisters: [...idRegisters, ...registers].filter(({ id }) => !absent.has(id)).map(numbers),
    vectorLengths: vectorLengths === null ? [] : vectorLengthsOf(BigInt(vectorLengths)),
    leftToHosts: bitmaps.filter(({ absentOn }) => absentOn.length > 0).map(({ name }) => name),
  }
}

function numbers({ id, value, mask }: { id: string; value: string; mask: string }): ConfiguredRegister {
  const number = BigInt(id)
  return { id: number, value: BigInt(value), mask: BigInt.asUintN(registerWidth(number), BigInt(mask)) }
}

/** Thrown for a template that contains more than a baseline can express. */
export class TemplateError extends Error {
  override readonly name = 'TemplateError'
  readonly code = 'ERR_KVM_TEMPLATE'
}

const psciVersionId = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
const POWER_OFF = BigInt(featureWord(['power-off']))

/**
 * Returns the baseline that a Firecracker template stands for, so that `apply` reports which of its bits a host refuses.
 * @param name the template's name
 * @throws TemplateError for features KVM does not know, for a change of POWER_OFF, with which vCPUs never start, and for registers
 * wider than 64 bits
 */
export function baselineOfTemplate({ vcpuFeatures: words, registers }: CpuTemplate, name: string): Baseline {
  const pinned = registers.map(({ id, filter, value }) => {
    if (registerWidth(id) > 64) {
      throw new TemplateError(
        `${registerName(id)} has ${registerWidth(id)} bits, and a baseline pins 64 at most`,
      )
    }
    return { id: hex(id), name: registerName(id), value: hex(value), mask: hex(filter) }
  })
  const psci = registers.find(({ id, filter }) => id === psciVersionId && filter === U64)
  const rest = psci === undefined ? pinned : pinned.filter(({ id }) => BigInt(id) !== psciVersionId)
  return {
    format: 'kvm-arm64/baseline',
    version: 1,
    hosts: [name],
    features: featuresOf(words),
    withoutFeatures: [],
    capabilities: [],
    ipaSize: 40,
    psciVersion: psci === undefined ? null : hex(psci.value),
    vectorLengths: null,
    bitmaps: [],
    idRegisters: rest.filter(({ id }) => isIdRegister(BigInt(id))),
    registers: rest.filter(({ id }) => !isIdRegister(BigInt(id))),
    unreconciled: [],
    classes: [[name]],
  }
}

/** The features of a vCPU, starting from those Firecracker requests by itself. */
function featuresOf(words: CpuTemplate['vcpuFeatures']): VcpuFeature[] {
  let bits = BigInt(featureWord(['psci-0.2']))
  for (const { index, filter, value } of words) {
    if (index === 0) bits = (bits & ~filter) | value
    else if (value !== 0n) throw new TemplateError(`it sets bits of features[${index}], where KVM knows none`)
    if (index === 0 && (filter & POWER_OFF) !== 0n) {
      throw new TemplateError(
        'it changes bit 0 of features[0], POWER_OFF: guests with several vCPUs do not come up',
      )
    }
  }
  const names = featureNames(Number(bits))
  const known = BigInt(featureWord(names))
  if (bits !== known)
    throw new TemplateError(`it sets bits ${hex(bits & ~known)} of features[0], which KVM does not know`)
  return names
}
