import { encodeRegister, hasAArch32, hex } from '../registers/index.js'
import type { Configuration, Report, Traits } from '../report/report.js'
import { capabilities, type Capability, errnos, vcpuFeatures } from '../uapi.js'
import { buildRegisterFile } from './configuration.js'
import { SimulatorError } from './errors.js'
import { featureBit, featureBits } from './features.js'
import type { RegisterFile } from './state.js'

/** Features that change neither the list nor the value of any register but `PSCI_VERSION`. */
const WITHOUT_REGISTERS = featureBit('power-off') | featureBit('psci-0.2')

/** A report, prepared for answering from it. */
export class Host {
  readonly report: Report
  readonly traits: Traits
  /** Feature bits the host has. */
  readonly supportedFeatures: number
  /** Whether AArch32 code can run at EL0, which decides over modes PSTATE may be given. */
  readonly hasAArch32El0: boolean
  /** Of the host, bytes. */
  readonly pageSize: bigint
  readonly #capabilities: ReadonlyMap<number, readonly [system: number, vm: number]>
  readonly #configurations = new Map<number, Report['configurations'][number]>()
  readonly #files = new Map<number, RegisterFile>()

  constructor(report: Report) {
    this.report = report
    this.traits = report.traits
    this.#capabilities = new Map(
      Object.entries(report.capabilities).map(([name, answers]) => [
        capabilities[name as Capability],
        answers,
      ]),
    )
    for (const configuration of report.configurations) {
      this.#configurations.set(featureBits(configuration.features) & ~WITHOUT_REGISTERS, configuration)
    }
    this.supportedFeatures = featureBits(report.traits.init.supported)
    const pfr0 = hex(encodeRegister('ID_AA64PFR0_EL1'))
    const value = BigInt(report.registers.find(({ id }) => id === pfr0)?.value ?? 0)
    this.hasAArch32El0 = hasAArch32(value)
    // The mapping is kvm_run and, where the capability says so, the page of the ring for coalesced MMIO behind it.
    const ring = this.capability('KVM_CAP_COALESCED_MMIO')
    this.pageSize = BigInt(Math.max(4096, report.vcpuMmapSize / (1 + Math.max(0, ring))))
  }

  /** `KVM_CHECK_EXTENSION` on `/dev/kvm`: an unknown capability is 0. */
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

  /** Why the host refuses a combination of features it supports one by one: 0 or `-errno`. */
  refusal(features: number): number {
    const configuration = this.#configurations.get(features & ~WITHOUT_REGISTERS)
    return configuration !== undefined && 'refused' in configuration ? -errnos[configuration.refused] : 0
  }

  /**
   * The registers of a vCPU with these feature bits.
   * @throws SimulatorError `ERR_KVM_SIMULATOR_NOT_RECORDED` if the report does not say
   */
  registerFile(features: number): RegisterFile {
    const key = features & ~WITHOUT_REGISTERS
    const known = this.#files.get(key)
    if (known !== undefined) return known
    const file = buildRegisterFile(this.report, key === 0 ? null : this.#recorded(key))
    this.#files.set(key, file)
    return file
  }

  #recorded(features: number): Configuration {
    const configuration = this.#configurations.get(features)
    if (configuration === undefined || 'refused' in configuration) {
      const names = Object.entries(vcpuFeatures).filter(([, bit]) => (features >> bit) & 1)
      throw new SimulatorError(
        'ERR_KVM_SIMULATOR_NOT_RECORDED',
        `The report of ${this.report.host.release} does not record a vCPU with the features ` +
          `${names.map(([name]) => name).join(', ')}. Probe the host again with all features.`,
      )
    }
    return configuration
  }
}
