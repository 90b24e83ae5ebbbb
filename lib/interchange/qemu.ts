/** QEMU's `-cpu` option under KVM (`docs/system/arm/cpu-features.rst`; `target/arm/kvm.c` and `cpu64.c` read it). */
import { bitmapOfServices, decodePsciVersion, serviceBitmapOf, serviceBitmaps } from '../hypercalls/index.js'
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
      `${idRegisters.length} ID registers (${registerName(idRegisters[0]!.id)} …): QEMU shows the host's, but for what pmu, sve and pauth change`,
    )
  }
  return { text: `-cpu ${options.join(',')}\n`, inexpressible }
}

function onOff(isOn: boolean): string {
  return isOn ? 'on' : 'off'
}
