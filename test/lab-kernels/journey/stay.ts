/** One stay of a travelling guest on a host: it is started there, or restored as it was where it has been. */
import { apply, configureByBaseline, withBaseline } from '../../../lib/fleet/baseline/apply.js'
import type { Baseline } from '../../../lib/fleet/baseline/format.js'
import { capture } from '../../../lib/migration/capture.js'
import { attemptRestore, type RegisterOutcome } from '../../../lib/migration/attempt.js'
import { strict } from '../../../lib/migration/vmm/rules.js'
import { restore, RestoreError } from '../../../lib/migration/restore.js'
import type { State } from '../../../lib/migration/state.js'
import type { GuestMemory, Kvm, Vcpu, Vm } from '../../../lib/kvm/index.js'
import {
  KVM_ARM_VCPU_PMU_V3_CTRL,
  KVM_ARM_VCPU_PMU_V3_INIT,
  KVM_ARM_VCPU_PMU_V3_IRQ,
  KVM_DEV_ARM_VGIC_CTRL_INIT,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
} from '../../../lib/uapi.js'
import { discovered, giveMemory, live, load } from './guest.js'

const ROUNDS = 20
/** The interrupt of the PMU, of each vCPU: what other VMMs take too. */
const PMU_PPI = 23

/** What travels. */
export interface Luggage {
  state: State
  /** Base64. */
  memory: string
}

export type Errand =
  /** Start the guest in a fresh VM; with a baseline, one configured by it. */
  | { do: 'start'; baseline: Baseline | null }
  /** Restore it and let it live; with a baseline, without the registers that it says some host lacks. */
  | { do: 'resume'; luggage: Luggage; baseline: Baseline | null }
  /** Restore what can be restored, and let it live, as a VMM does that looks away. */
  | { do: 'resume regardless'; luggage: Luggage }

export type Stay =
  | { found: string[]; changed: string[]; luggage: Luggage }
  | { refused: string; outcomes: readonly RegisterOutcome[] }

export function stay(kvm: Kvm, errand: Errand): Stay {
  if (errand.do === 'start') return start(kvm, errand.baseline)
  const { state, memory: contents } = errand.luggage
  let memory: GuestMemory | undefined
  const prepare = (vm: Vm): void => {
    memory = giveMemory(kvm, vm, Buffer.from(contents, 'base64'))
  }
  try {
    if (errand.do === 'resume regardless') {
      using attempt = attemptRestore(kvm, state, { prepare })
      return goOn(kvm, attempt.vm!, attempt.vcpus[0]!, memory!)
    }
    const { baseline } = errand
    using vm = restore(kvm, state, { ...(baseline && { rules: withBaseline(strict, baseline) }), prepare }).vm
    // What the last host could not hide is not in the state it gave, and would come back here.
    if (baseline !== null) configureByBaseline(vm, baseline)
    return goOn(kvm, vm, vm.vcpus[0]!, memory!)
  } catch (error) {
    if (!(error instanceof RestoreError)) throw error
    return { refused: error.message, outcomes: error.outcomes }
  } finally {
    memory?.close()
  }
}

function start(kvm: Kvm, baseline: Baseline | null): Stay {
  using vm = baseline === null ? kvm.createVm() : apply(kvm, baseline).vm
  const vcpu = vm.vcpus[0] ?? vm.createVcpu(0)
  using memory = giveMemory(kvm, vm)
  load(memory, vcpu)
  giveInterrupts(vm, vcpu)
  return goOn(kvm, vm, vcpu, memory)
}

function goOn(kvm: Kvm, vm: Vm, vcpu: Vcpu, memory: GuestMemory): Stay {
  const changed = live(vcpu, memory, ROUNDS)
  return {
    found: discovered(memory),
    changed,
    luggage: { state: capture(kvm, vm), memory: Buffer.from(memory.read(0, memory.size)).toString('base64') },
  }
}

/** A GIC, without which newer kernels take it out of ID_AA64PFR0_EL1 at the first run and older ones do not; and the PMU's interrupt. */
function giveInterrupts(vm: Vm, { attributes, features }: Vcpu): void {
  // A capture reads its registers: it stays open.
  const gic = vm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3')
  gic.attributes.set(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, bytes(0x0800_0000n))
  gic.attributes.set(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, bytes(0x080a_0000n))
  if (features.includes('pmu-v3')) {
    attributes.set(
      KVM_ARM_VCPU_PMU_V3_CTRL,
      KVM_ARM_VCPU_PMU_V3_IRQ,
      new Uint8Array(Int32Array.of(PMU_PPI).buffer),
    )
  }
  gic.attributes.set(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT)
  if (features.includes('pmu-v3')) attributes.set(KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_INIT)
}

function bytes(address: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(address).buffer)
}
