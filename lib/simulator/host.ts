import { encodeRegister, featureIdIndex, hasAArch32 } from '../registers/index.js'
import { bitmapsOf, configurationOf, registerValue } from '../report/registers.js'
import type { Report, Traits } from '../report/report.js'
import { capabilities, type Capability, errnos, featureWord } from '../uapi.js'
import { featureNames } from './features.js'

/** A report, prepared for the simulation. */
export class Host {
  readonly report: Report
  readonly traits: Traits
  /** Feature bits the host has. */
  readonly supportedFeatures: number
  /** Whether AArch32 code can run at EL0, which decides the modes PSTATE may have. */
  readonly hasAArch32El0: boolean
  /** Whether the space of bitmap registers exists. */
  readonly hasBitmaps: boolean
  /** Masks other than 0 of `KVM_ARM_GET_REG_WRITABLE_MASKS`, by their place in its answer; null if the ioctl does not exist. */
  readonly writableMasks: ReadonlyMap<number, bigint> | null
  /** Page size of the host, in bytes. */
  readonly pageSize: bigint
  readonly #capabilities: ReadonlyMap<number, readonly [system: number, vm: number]>

  constructor(report: Report) {
    this.report = report
    this.traits = report.traits
    this.#capabilities = new Map(
      Object.entries(report.capabilities).map(([name, answers]) => [
        capabilities[name as Capability],
        answers,
      ]),
    )
    this.supportedFeatures = featureWord(report.traits.init.supported)
    this.hasAArch32El0 = hasAArch32(registerValue(report, encodeRegister('ID_AA64PFR0_EL1')) ?? 0n)
    this.hasBitmaps = bitmapsOf(report).length > 0
    const hasMasks = this.vmCapability(capabilities.KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES) > 0
    this.writableMasks = hasMasks ? writableMasks(report) : null
    // The mapping consists of kvm_run and, if the capability says so, the page of the coalesced MMIO ring behind it.
    const ring = this.capability('KVM_CAP_COALESCED_MMIO')
    this.pageSize = BigInt(Math.max(4096, report.vcpuMmapSize / (1 + Math.max(0, ring))))
  }

  /** `KVM_CHECK_EXTENSION` on `/dev/kvm`: returns 0 for an unknown capability. */
  systemCapability(number: number): number {
    return this.#capabilities.get(number)?.[0] ?? 0
  }

  /** `KVM_CHECK_EXTENSION` on a VM. */
  vmCapability(number: number): number {
    return this.#capabilities.get(number)?.[1] ?? 0
  }

  /** `KVM_CHECK_EXTENSION` on a VM, by name. */
  capability(name: Capability): number {
    return this.vmCapability(capabilities[name])
  }

  /** Checks a combination of features that the host supports individually: returns 0 or `-errno`. */
  refusal(features: number): number {
    const configuration = configurationOf(this.report, featureNames(features))
    return configuration && 'refused' in configuration ? -errnos[configuration.refused] : 0
  }
}

function writableMasks({ registers }: Report): Map<number, bigint> {
  return new Map(
    registers.flatMap(({ id, mask }): [number, bigint][] => {
      const index = mask === undefined ? undefined : featureIdIndex(BigInt(id))
      return index === undefined ? [] : [[index, BigInt(mask!)]]
    }),
  )
}
