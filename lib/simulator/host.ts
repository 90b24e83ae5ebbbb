import { encodeRegister, featureIdIndex, hasAArch32 } from '../registers/index.js'
import { capabilityAnswers, isProtectedKvm, pageSizeOf } from '../report/machine.js'
import { bitmapsOf, configurationOf, registerValue } from '../report/registers.js'
import type { Report, Traits } from '../report/report.js'
import { nibblePlaces, parseDigits } from '../report/write-rule.js'
import { capabilities, type Capability, errnos, featureNames, featureWord } from '../uapi.js'
import { SimulatorError } from './errors.js'

/** A nibble of a feature ID register, and the set of its values (bit n for n) with which KVM hides some other register. */
export interface HidingField {
  id: bigint
  shift: bigint
  values: number
}

/** The most vCPUs of a VM of any arm64 host (`VGIC_V3_MAX_CPUS`). */
const KVM_MAX_VCPUS = 512

export interface GicModel {
  /** Revisions in GICD_IIDR that userspace may choose, the initial one last. */
  readonly revisions: readonly number[]
  /** GICR_TYPER shows userspace which redistributor is the last. */
  readonly showsLast: boolean
  /** Redistributors have GICR_INVLPIR, GICR_INVALLR and GICR_SYNCR. */
  readonly invalidatesByRegister: boolean
  /** `KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES` needs an initialised GIC. */
  readonly savesOnlyOnceInitialised: boolean
  /** A write reads its value before it looks for the vCPU. */
  readonly readsValueFirst: boolean
  /** Userspace may choose the interrupt of a guest hypervisor's GIC. */
  readonly hasMaintenanceInterrupt: boolean
  /** GICD_IIDR and GICD_TYPER2 can be accessed before the GIC is initialised. */
  readonly identifiesBeforeInit: boolean
}

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
  /** The fields of ID registers that hide a register, by its id. */
  readonly hiding: ReadonlyMap<bigint, readonly HidingField[]>
  /** KVM runs at EL2 apart from its kernel, and userspace can see it. */
  readonly isProtectedKvm: boolean
  /** Page size of the host, in bytes. */
  readonly pageSize: bigint

  constructor(report: Report) {
    this.report = report
    this.traits = report.traits
    this.supportedFeatures = featureWord(report.traits.init.supported)
    this.hasAArch32El0 = hasAArch32(registerValue(report, encodeRegister('ID_AA64PFR0_EL1')) ?? 0n)
    this.hasBitmaps = bitmapsOf(report).length > 0
    const hasMasks = this.capability('KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES') > 0
    this.writableMasks = hasMasks ? writableMasks(report) : null
    this.hiding = hidingFields(report)
    this.isProtectedKvm = isProtectedKvm(report) === true
    this.pageSize = BigInt(pageSizeOf(report) ?? 4096)
  }

  /**
   * `KVM_CHECK_EXTENSION` on `/dev/kvm` (`system`), or on a VM. 0 for a capability with a name, if the report does not record it.
   * @throws SimulatorError `ERR_KVM_SIMULATOR_NOT_RECORDED` for another that the report does not record
   */
  checkExtension(on: 'system' | 'vm', number: number): number {
    const answers = capabilityAnswers(this.report, number)
    if (answers !== undefined) return answers[on === 'system' ? 0 : 1]
    if (named.has(number)) return 0
    throw new SimulatorError(
      'ERR_KVM_SIMULATOR_NOT_RECORDED',
      `The report of ${this.report.host.release} does not record capability ${number}. Probe the host again.`,
    )
  }

  /** `KVM_CHECK_EXTENSION` on a VM, by name; 0 for a capability that the report does not record. */
  capability(name: Capability): number {
    return this.report.capabilities[name]?.[1] ?? 0
  }

  /** `KVM_CAP_MAX_VCPUS`; where it is not known, the most that KVM allows with any interrupt controller. */
  get maxVcpus(): number {
    return this.report.capabilities.KVM_CAP_MAX_VCPUS?.[1] ?? KVM_MAX_VCPUS
  }

  /**
   * How its kernel's GICv3 differs from others. No report records that; each is inferred from a capability that came with the same
   * or nearly the same Linux release (the revision with 5.19, the maintenance interrupt with 6.16), and compared on real kernels.
   */
  get gic(): GicModel {
    const isNew = this.capability('KVM_CAP_ARM_SYSTEM_SUSPEND') > 0
    const isNewest = this.capability('KVM_CAP_ARM_WRITABLE_IMP_ID_REGS') > 0
    return {
      revisions: isNew ? [2, 3] : [2],
      showsLast: isNew,
      invalidatesByRegister: isNew,
      savesOnlyOnceInitialised: isNew,
      readsValueFirst: !isNew,
      hasMaintenanceInterrupt: isNewest,
      identifiesBeforeInit: isNewest,
    }
  }

  /**
   * Whether the kernel takes the free room of a ring of coalesced writes for a difference of 32 bits modulo the capacity, which is 0 too
   * early. Linux 5.10 and 6.1 do, 6.12 and later do not. No report records it: it is inferred from a capability of Linux 6.8.
   */
  get countsCoalescedRoom(): boolean {
    return this.capability('KVM_CAP_USER_MEMORY2') <= 0
  }

  /** Checks a combination of features that the host supports individually: returns 0 or `-errno`. */
  refusal(features: number, mte: boolean): number {
    const configuration = configurationOf(this.report, featureNames(features), mte)
    return configuration && 'refused' in configuration ? -errnos[configuration.refused] : 0
  }
}

const named: ReadonlySet<number> = new Set(Object.values(capabilities))

function hidingFields({ traits }: Report): Map<bigint, HidingField[]> {
  const fields = new Map<bigint, HidingField[]>()
  for (const { id, nibble, values, hides } of traits.hiddenRegisters ?? []) {
    const field = {
      id: BigInt(id),
      shift: BigInt(4 * nibblePlaces.indexOf(nibble)),
      values: parseDigits(values),
    }
    for (const register of hides) {
      const hidden = BigInt(register.id)
      fields.set(hidden, [...(fields.get(hidden) ?? []), field])
    }
  }
  return fields
}

function writableMasks({ registers }: Report): Map<number, bigint> {
  return new Map(
    registers.flatMap(({ id, mask }): [number, bigint][] => {
      const index = mask === undefined ? undefined : featureIdIndex(BigInt(id))
      return index === undefined ? [] : [[index, BigInt(mask!)]]
    }),
  )
}
