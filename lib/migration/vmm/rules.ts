/**
 * How a VMM handles the registers of a VM it moves, as far as it decides whether the move succeeds and what the guest then sees.
 */
import { workarounds } from '../../hypercalls/index.js'

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
  /** `seen` on real kernels, or read in the VMM's source or documentation. */
  readonly known: 'run' | 'read'
}

export interface VmmRules {
  readonly name: string
  /** For readers. */
  readonly rows: readonly VmmRow[]
  /** Whether the VMM saves and restores the register at all. */
  carries(id: bigint): boolean
  /** `value` is the state's, or the destination's if the state has none. */
  on(obstacle: Obstacle, id: bigint, value: bigint): Reaction
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
  ],
  carries: () => true,
  on(obstacle, id) {
    if (obstacle === 'missing') return 'silent'
    return obstacle === 'differs' && workaroundIds.has(id) ? 'tolerated' : 'fails'
  },
}
