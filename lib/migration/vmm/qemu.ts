/** QEMU with `-accel kvm -cpu host` on both ends, the same machine type and the same options. */
import { encodeRegister } from '../../registers/index.js'
import { unforgiving, type VmmRow, type VmmRules } from './rules.js'

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
    rule: 'a register that only the destination has keeps its value',
    source: 'target/arm/machine.c:cpu_post_load',
    known: 'run',
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

/** The versions before the table of tolerances. */
export const qemu10: VmmRules = {
  name: 'qemu@10.0',
  rows: [
    ...all,
    {
      rule: 'more registers in the stream than the destination has end the migration at once, and none is named',
      source: 'target/arm/machine.c:vmstate_arm_cpu (cpreg_vmstate_array_len)',
      known: 'run',
    },
  ],
  carries: () => true,
  on: unforgiving,
}

export const qemu11: VmmRules = {
  name: 'qemu@11.1',
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
  ],
  carries: () => true,
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
