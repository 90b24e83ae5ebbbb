/** QEMU's `-cpu` option under KVM (`docs/system/arm/cpu-features.rst`; `target/arm/kvm.c` and `cpu64.c` read it). */
import type { Baseline } from '../fleet/baseline/format.js'
import {
  bitmapOfServices,
  decodePsciVersion,
  encodePsciVersion,
  type PsciVersion,
  psciVersions,
  serviceBitmapOf,
  serviceBitmaps,
} from '../hypercalls/index.js'
import { hex, registerName } from '../registers/index.js'
import type { VcpuFeature } from '../uapi.js'
import type { GuestConfiguration } from './configuration.js'
import type { Emitted } from './emitted.js'

/** Versions whose options are known, oldest first; `qemu` means the last. */
export const qemuVersions = ['10.0', '11.1'] as const

export type QemuVersion = (typeof qemuVersions)[number]

/**
 * Returns the option of a QEMU whose guests have this configuration, as far as QEMU offers a choice: `-cpu host,pmu=off,…`.
 *
 * `kvm-psci-version` exists in 11.1 and not in 10.0. The greatest SVE vector length decides the others: KVM insists on all lengths
 * the host has below it.
 */
export function qemuCpuOption(configuration: GuestConfiguration, version: QemuVersion = '11.1'): Emitted {
  const { features, psciVersion, bitmaps, idRegisters, vectorLengths } = configuration
  const inexpressible = configuration.leftToHosts.map((name) => `${name}: some of the hosts lack it`)
  const options = ['host']
  const choose = (option: string, ...needed: VcpuFeature[]) => {
    if (needed.some((feature) => configuration.unknownFeatures?.includes(feature))) {
      inexpressible.push(
        `${option}=on or off: the report does not say whether the host has it, and QEMU then shows what the host has`,
      )
    } else {
      options.push(`${option}=${onOff(needed.every((feature) => features.includes(feature)))}`)
    }
  }
  choose('pmu', 'pmu-v3')
  if (features.includes('el1-32bit')) options.push('aarch64=off')
  choose('sve', 'sve')
  const longest = vectorLengths.at(-1)
  if (longest !== undefined) options.push(`sve${longest}=on`)
  choose('pauth', 'ptrauth-address', 'ptrauth-generic')
  const stdHyp = bitmaps.find(({ id }) => id === serviceBitmaps.stdHyp.register)
  const pvTime = bitmapOfServices('stdHyp', ['pv-time'])
  if (stdHyp !== undefined && (stdHyp.value & pvTime) === 0n) options.push('kvm-steal-time=off')
  if (psciVersion !== undefined) {
    const text = decodePsciVersion(psciVersion)
    if (version === '10.0') {
      inexpressible.push(
        `PSCI ${text}: QEMU 10.0 shows the newest of the host's kernel; later ones have kvm-psci-version`,
      )
    } else {
      options.push(`kvm-psci-version=${text}`)
    }
  }
  for (const feature of features) {
    if (feature === 'has-el2' || feature === 'has-el2-e2h0') {
      inexpressible.push(`feature ${feature}: it is asked for by -M virt,virtualization=on`)
    }
    if (feature === 'pmu-v3-strict') inexpressible.push('feature pmu-v3-strict: QEMU does not know it')
  }
  for (const { id, value } of bitmaps) {
    const reset = serviceBitmapOf(id)?.resetValue
    if (value === reset) continue
    inexpressible.push(
      `${registerName(id)} ${hex(value)}: QEMU has no option for it, and guests find what the host offers by default${
        reset === undefined ? '' : ` (${hex(reset)})`
      }`,
    )
  }
  if (idRegisters.length > 0) {
    inexpressible.push(
      `${idRegisters.length} ID registers (${registerName(idRegisters[0]!.id)} …): QEMU shows the host's, except for what pmu, sve and pauth change`,
    )
  }
  return { text: `-cpu ${options.join(',')}\n`, inexpressible }
}

function onOff(isOn: boolean): string {
  return isOn ? 'on' : 'off'
}

/** Thrown for an option that says less or more than a baseline does. */
export class QemuOptionError extends Error {
  override readonly name = 'QemuOptionError'
  readonly code = 'ERR_KVM_QEMU_OPTION'
}

/** Properties of `-cpu host` that decide vCPU features. */
const featureProperties: Readonly<Record<string, readonly VcpuFeature[]>> = {
  pmu: ['pmu-v3'],
  sve: ['sve'],
  pauth: ['ptrauth-address', 'ptrauth-generic'],
}

/** Returns whether a text is meant as QEMU's `-cpu` option. */
export function isQemuOption(text: string): boolean {
  return /^\s*-cpu\s/.test(text)
}

/**
 * Returns the baseline that QEMU's `-cpu host,…` stands for.
 * @param name for readers
 * @throws QemuOptionError for another CPU or an unknown property, and unless it decides `pmu`, `sve` and `pauth`: QEMU takes what the
 * host has for those it does not name, so the VM would differ from host to host
 */
export function baselineOfQemuOption(text: string, name: string): Baseline {
  const [, option] = /^\s*-cpu\s+(\S+)\s*$/.exec(text) ?? []
  const [model, ...properties] = option?.split(',') ?? []
  if (model !== 'host') throw new QemuOptionError('expected one option, -cpu host,…')
  const features: VcpuFeature[] = ['psci-0.2']
  const undecided = new Set(Object.keys(featureProperties))
  let psci: bigint | null = null
  for (const property of properties) {
    const [key, value] = property.split('=') as [string, string | undefined]
    const behind = Object.hasOwn(featureProperties, key) ? featureProperties[key] : undefined
    if (behind !== undefined && (value === 'on' || value === 'off')) {
      undecided.delete(key)
      if (value === 'on') features.push(...behind)
    } else if (key === 'kvm-psci-version' && psciVersions.some((version) => version === value)) {
      psci = encodePsciVersion(value as PsciVersion)
    } else if (key !== 'kvm-steal-time' && key !== 'kvm-no-adjvtime') {
      throw new QemuOptionError(`${property}: a baseline cannot express it`)
    }
  }
  if (undecided.size > 0) {
    throw new QemuOptionError(
      `it must say ${[...undecided].map((key) => `${key}=on or off`).join(', ')}: without it QEMU takes what each host has`,
    )
  }
  return {
    format: 'kvm-arm64/baseline',
    version: 1,
    hosts: [name],
    features,
    withoutFeatures: [],
    capabilities: [],
    ipaSize: 40,
    psciVersion: psci === null ? null : hex(psci),
    vectorLengths: null,
    bitmaps: [],
    idRegisters: [],
    registers: [],
    unreconciled: [],
    classes: [[name]],
  }
}
