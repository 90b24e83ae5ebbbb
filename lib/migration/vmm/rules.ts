/**
 * What the VM of a VMM is made of, and how the VMM moves it, as far as that decides whether the move succeeds and what the guest then
 * sees.
 */
import { workarounds } from '../../hypercalls/index.js'
import type { Support } from '../../report/registers.js'
import type { VcpuFeature } from '../../uapi.js'
import type { NotCarried } from '../device-state.js'

/** The ways in which one register can differ. */
export type Obstacle =
  /** The state has it, the destination does not. */
  | 'absent'
  /** The destination refuses the value. */
  | 'refused'
  /** The destination has it, the state does not. */
  | 'missing'
  /** The destination accepts the value and then reads back another. */
  | 'differs'

/** The reaction: the move fails; it continues without any report; it continues because the VMM explicitly allows the difference. */
export type Reaction = 'fails' | 'silent' | 'tolerated'

/** One thing a VMM does, and the source that shows it. */
export interface VmmRow {
  readonly rule: string
  readonly source: string
  /** `run` on real kernels, or read in the VMM's source or documentation. */
  readonly known: 'run' | 'read'
}

/** An interrupt controller that a VMM lets KVM emulate. */
export type Gic = 'gic-v2' | 'gic-v3'

/** A property of a VM that a VMM cannot save. */
export type Unsavable = 'sve' | 'gic-v2' | 'has-el2' | 'its' | 'mte-tags'

/** What becomes of a part of a VM when its VMM moves it: the VMM carries it, or leaves it behind and goes on. */
export type PartMove = 'carried' | 'left'

/** The answers of a host's KVM that a VMM looks at before it makes a VM. */
export interface HostFacts {
  feature(name: VcpuFeature): Support
  gic(version: Gic): Support
  /** CNTFRQ_EL0 as a guest reads it, in Hz; undefined if it is not known. */
  readonly counterFrequency?: bigint | undefined
  /** Whether it is not known if KVM accepts a register's value, because nobody tried the bits in which it differs from the host's. */
  readonly isUntried?: ((id: string, value: bigint) => boolean) | undefined
  /** Whether the machine has CPUs of several kinds, and these facts are those of one. */
  readonly hasOtherCpus?: boolean
  /** Whether VMs can have memory tagging; undefined if it is not known. */
  readonly hasMte?: boolean | undefined
}

/** Something that could be set differently when a VM is created. */
export type Setting =
  | { what: 'without'; feature: OptionalFeature }
  | { what: 'psci'; version: string }
  /** Bits of the longest vector. */
  | { what: 'vectors'; longest: number }

/** Features that VMMs switch on and off. */
export type OptionalFeature = 'pmu' | 'sve' | 'ptrauth'

/** The vCPU features behind each. */
export const optionalFeatures: Readonly<Record<OptionalFeature, readonly VcpuFeature[]>> = {
  pmu: ['pmu-v3'],
  sve: ['sve'],
  ptrauth: ['ptrauth-address', 'ptrauth-generic'],
}

export interface VmmRules {
  readonly name: string
  /** For readers. */
  readonly rows: readonly VmmRow[]
  /** Features of its VM with default options, beside `psci-0.2`, on every host that has them. */
  readonly wants: readonly OptionalFeature[]
  /** The interrupt controllers it tries to make, in this order; empty if the caller makes it. */
  readonly gics: readonly Gic[]
  /** Features of the VM that it makes to restore into: those of the saved VM, or again its own on the destination. */
  readonly restoresInto: 'saved' | 'own'
  /** What it cannot save. */
  readonly cannotSave: readonly Unsavable[]
  /** Parts of a VM that a state of this library does not hold; it is not known what becomes of one that is absent here. */
  readonly parts: Readonly<Partial<Record<NotCarried, PartMove>>>
  /**
   * Vector registers: moved as they are; converted between those of SVE and V0 to V31 if only one of the VMs has SVE; or lost if the VM
   * has SVE.
   */
  readonly vectors: 'moved' | 'converted' | 'lost'
  /** Whether it writes a register that only the destination has back, with the value of its new VM, after the state's registers. */
  readonly writesBack: boolean
  /**
   * Whether, of the registers that the destination lacks, only the last in the order of ids decides: if the VMM tolerates its absence,
   * it continues without those before it.
   */
  readonly lastAbsentDecides?: boolean
  /** Whether it refuses a restore where the counter has another frequency. */
  readonly comparesCounters: boolean
  /** How a value can be given to a register before the first run. */
  readonly pins: 'write' | 'template' | 'none'
  /** Whether registers can be removed from a state it has saved. */
  readonly dropsRegisters: boolean
  /** Returns the option that makes a setting; undefined if it has none. */
  option(setting: Setting): string | undefined
  /** Whether the VMM saves and restores the register at all. */
  carries(id: bigint): boolean
  /** `value` is the state's, or the destination's if the state has none. */
  on(obstacle: Obstacle, id: bigint, value: bigint): Reaction
}

/** The vCPU features of a VM, and those of which it is not known whether its host has them. */
export interface VmFeatures {
  features: VcpuFeature[]
  unknown: VcpuFeature[]
}

/** Returns the features that the VM of a VMM has on a host with default options. */
export function vmFeatures({ wants }: VmmRules, facts: HostFacts): VmFeatures {
  const features: VcpuFeature[] = ['psci-0.2']
  const unknown: VcpuFeature[] = []
  for (const want of wants) {
    const names = optionalFeatures[want]
    const support = names.map((name) => facts.feature(name))
    if (support.every((answer) => answer === 'yes')) features.push(...names)
    else if (support.includes('unknown')) unknown.push(...names)
  }
  return { features, unknown }
}

/** Returns the interrupt controller that a VMM makes on a host: `none` if it can make none of its own, undefined if that is unknown. */
export function vmGic({ gics }: VmmRules, facts: HostFacts): Gic | 'none' | undefined {
  for (const gic of gics) {
    const support = facts.gic(gic)
    if (support === 'yes') return gic
    if (support === 'unknown') return undefined
  }
  return 'none'
}

/** A VM as a VMM makes it on a host. */
export interface VmmVm extends VmFeatures {
  gic: Gic | 'none' | undefined
  /** In Hz; undefined if it is not known. */
  counterFrequency?: bigint | undefined
  /** Of its host, as in {@link HostFacts}. */
  isUntried?: HostFacts['isUntried']
  hasOtherCpus?: boolean
  hasMte?: boolean | undefined
}

/**
 * Returns the VM that a VMM makes on a host.
 * @param features features to use instead of its defaults
 */
export function vmOn(rules: VmmRules, facts: HostFacts, features?: readonly VcpuFeature[]): VmmVm {
  const found = features === undefined ? vmFeatures(rules, facts) : { features: [...features], unknown: [] }
  const { counterFrequency, isUntried, hasOtherCpus = false, hasMte } = facts
  const untried = isUntried && { isUntried }
  return { ...found, gic: vmGic(rules, facts), counterFrequency, hasOtherCpus, hasMte, ...untried }
}

/** The reaction of a VMM that stops at KVM's first error and reads nothing back. */
export function unforgiving(obstacle: Obstacle): Reaction {
  return obstacle === 'absent' || obstacle === 'refused' ? 'fails' : 'silent'
}

const workaroundIds = new Set(workarounds.map(({ register }) => register))

/**
 * The rules of no VMM: everything in the state must be there after the restore. They are the default of this library's `restore`.
 */
export const strict: VmmRules = {
  name: 'strict',
  rows: [
    {
      rule: 'every register of the state must be accepted and read back the same',
      source: 'KVM_SET_ONE_REG, then KVM_GET_ONE_REG (Documentation/virt/kvm/api.rst)',
      known: 'run',
    },
    {
      rule: 'a mitigation’s state that the destination accepts is good enough: KVM checks it and keeps its own',
      source: 'arch/arm64/kvm/hypercalls.c:kvm_arm_set_fw_reg',
      known: 'run',
    },
    {
      rule: 'what the state does not hold keeps the destination’s value',
      source: 'KVM_ARM_VCPU_INIT (Documentation/virt/kvm/api.rst)',
      known: 'run',
    },
    {
      rule: 'a state holds no GICv2, nothing that a GICv3 keeps for EL2, no ITS, no memory tags, and no other device',
      source: 'lib/migration/device-state.ts:notCarried',
      known: 'run',
    },
    {
      rule: 'the VM has psci-0.2 and no optional feature, and the destination’s has the features of the state',
      source: 'KVM_ARM_VCPU_INIT (Documentation/virt/kvm/api.rst)',
      known: 'run',
    },
  ],
  wants: [],
  gics: [],
  restoresInto: 'saved',
  cannotSave: [],
  parts: { 'gic-v2': 'left', 'gic-el2': 'left', its: 'left', 'mte-tags': 'left', 'other-device': 'left' },
  vectors: 'moved',
  writesBack: false,
  comparesCounters: false,
  pins: 'write',
  dropsRegisters: true,
  option: () => undefined,
  carries: () => true,
  on(obstacle, id) {
    if (obstacle === 'missing') return 'silent'
    return obstacle === 'differs' && workaroundIds.has(id) ? 'tolerated' : 'fails'
  },
}
