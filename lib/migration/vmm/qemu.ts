/** QEMU with `-accel kvm -M virt -cpu host` on both ends, the same machine type and the same options. */
import { encodeRegister } from '../../registers/index.js'
import { type OptionalFeature, type Setting, unforgiving, type VmmRow, type VmmRules } from './rules.js'

const all: readonly VmmRow[] = [
  {
    rule: 'a register of the stream that the destination lacks ends the migration',
    source: 'target/arm/machine.c:cpu_post_load',
    known: 'run',
  },
  {
    rule: 'a value that the destination refuses ends the migration',
    source: 'target/arm/kvm.c:write_list_to_kvmstate',
    known: 'run',
  },
  {
    rule: 'a register that only the destination has is written back with the value of the destination’s new VM, after the ID registers of the stream; if these have hidden it, the migration fails',
    source: 'target/arm/machine.c:cpu_post_load; target/arm/kvm.c:write_list_to_kvmstate',
    known: 'run',
  },
  {
    rule: 'the VM has a PMU, SVE and pointer authentication where the host has them, on the source as on the destination',
    source: 'target/arm/kvm.c:kvm_arm_get_host_cpu_features, kvm_arch_init_vcpu',
    known: 'run',
  },
  {
    rule: 'the vector lengths are those of the destination; the stream does not carry KVM_REG_ARM64_SVE_VLS',
    source: 'target/arm/kvm.c:kvm_arm_reg_syncs_via_cpreg_list, kvm_arm_sve_set_vls',
    known: 'run',
  },
  {
    rule: 'vector registers are converted if only one of the VMs has SVE',
    source: 'target/arm/kvm.c:kvm_arch_put_sve, kvm_arch_put_fpsimd',
    known: 'read',
  },
  {
    rule: 'without gic-version the VM has a GICv2 where KVM can make one (up to 8 vCPUs), else a GICv3',
    source: 'hw/arm/virt.c:finalize_gic_version_do',
    known: 'read',
  },
  {
    rule: 'GICv2 and GICv3 are different sections of the stream: a VM with one does not load into a VM with the other',
    source: 'hw/intc/arm_gic_common.c:vmstate_gic; hw/intc/arm_gicv3_common.c:vmstate_gicv3',
    known: 'run',
  },
  {
    rule: 'the state of a GICv2, and of an ITS with its tables, is in the stream',
    source:
      'hw/intc/arm_gic_kvm.c:kvm_arm_gic_get; hw/intc/arm_gicv3_its_kvm.c:vm_change_state_handler, kvm_arm_its_pre_save',
    known: 'read',
  },
  {
    rule: 'a VM with memory tagging (mte=on) cannot be migrated',
    source: 'target/arm/kvm.c:kvm_arm_enable_mte (migrate_add_blocker)',
    known: 'read',
  },
  {
    rule: 'a VM with EL2 cannot be migrated',
    source: 'target/arm/kvm.c:kvm_arch_init_vcpu (migrate_add_blocker)',
    known: 'read',
  },
  {
    rule: 'what was accepted is not read back',
    source: 'target/arm/kvm.c:write_list_to_kvmstate',
    known: 'read',
  },
]

/** As in `kvm_arm_set_cpreg_mig_tolerances`: each register may be in the stream and absent at the destination. */
interface Tolerance {
  register: string
  /** The tolerance holds for this value only; for any value if absent. */
  value?: bigint
  /** Whether the register may also be at the destination and absent from the stream. */
  bothWays: boolean
}

const tolerances: readonly Tolerance[] = [
  { register: 'TCR2_EL1', bothWays: true },
  { register: 'PIRE0_EL1', bothWays: true },
  { register: 'PIR_EL1', bothWays: true },
  { register: 'KVM_REG_ARM_VENDOR_HYP_BMAP_2', value: 0n, bothWays: false },
]

const tolerated = new Map(tolerances.map((tolerance) => [encodeRegister(tolerance.register), tolerance]))

const properties: Readonly<Record<OptionalFeature, string>> = { pmu: 'pmu', sve: 'sve', ptrauth: 'pauth' }

function option(setting: Setting): string | undefined {
  switch (setting.what) {
    case 'without':
      return `-cpu host,${properties[setting.feature]}=off`
    case 'vectors':
      return `-cpu host,sve${setting.longest}=on`
    default:
      return undefined
  }
}

const common = {
  wants: ['pmu', 'sve', 'ptrauth'],
  gics: ['gic-v2', 'gic-v3'],
  restoresInto: 'own',
  cannotSave: ['has-el2', 'mte-tags'],
  parts: { 'gic-v2': 'carried', its: 'carried' },
  vectors: 'converted',
  writesBack: true,
  comparesCounters: false,
  pins: 'none',
  dropsRegisters: false,
  carries: (id) => id !== SVE_VLS,
} as const satisfies Partial<VmmRules>

const SVE_VLS = encodeRegister('KVM_REG_ARM64_SVE_VLS')

/** The versions before the table of tolerances. */
export const qemu10: VmmRules = {
  ...common,
  name: 'qemu@10.0',
  rows: [
    ...all,
    {
      rule: 'more registers in the stream than the destination has end the migration at once, and none is named',
      source: 'target/arm/machine.c:vmstate_arm_cpu (cpreg_vmstate_array_len)',
      known: 'run',
    },
  ],
  option,
  on: unforgiving,
}

export const qemu11: VmmRules = {
  ...common,
  name: 'qemu@11.1',
  lastAbsentDecides: true,
  rows: [
    ...all,
    ...tolerances.map(({ register, value, bothWays }): VmmRow => {
      const which = value === undefined ? register : `${register} of value ${value}`
      return {
        rule: `${which} may be missing at ${bothWays ? 'either end' : 'the destination'}`,
        source: 'target/arm/cpu-host.c:kvm_arm_set_cpreg_mig_tolerances',
        known: 'run',
      }
    }),
    {
      rule: 'of the registers of the stream that the destination lacks, only the last in the order of ids decides: if it may be missing, those before it are named as failures and do not end the migration',
      source: 'target/arm/machine.c:cpu_post_load (handle_cpreg_only_in_incoming_stream)',
      known: 'run',
    },
    {
      rule: 'kvm-psci-version chooses the version of PSCI',
      source: 'target/arm/kvm.c:kvm_arm_add_vcpu_properties',
      known: 'run',
    },
  ],
  option: (setting) =>
    setting.what === 'psci' ? `-cpu host,kvm-psci-version=${setting.version}` : option(setting),
  on(obstacle, id, value) {
    const tolerance = tolerated.get(id)
    if (tolerance !== undefined) {
      const isValue = tolerance.value === undefined || tolerance.value === value
      if (obstacle === 'absent' && isValue) return 'tolerated'
      if (obstacle === 'missing' && tolerance.bothWays) return 'tolerated'
    }
    return unforgiving(obstacle)
  },
}
