/** Calls that make a guest run, and calls whose effect is visible when it does. */
import { functionIdOf, functionIds } from '../../hypercalls/index.js'
import { hex } from '../../registers/index.js'
import type { Call } from '../../trace/index.js'
import {
  KVM_GUESTDBG_ENABLE,
  KVM_GUESTDBG_SINGLESTEP,
  KVM_GUESTDBG_USE_HW,
  KVM_GUESTDBG_USE_SW_BP,
  mpStates,
} from '../../uapi.js'
import type { Context, KnownVcpu } from '../model.js'
import type { Random } from '../random.js'
import {
  AFFINITIES,
  AFFINITY_INFO,
  CALLED,
  COUNTS,
  CPU_ON,
  LEVELS,
  PSCI,
  QUESTIONS,
  WORDS,
} from '../vocabulary.js'

export function run(_: Context, { vcpu }: KnownVcpu): Call {
  return { op: 'run', vcpu, immediate_exit: true }
}

export function guestCall({ random, model }: Context, { vcpu, vm, isOdd }: KnownVcpu): Call {
  const args = callArguments(random)
  const op = random.oneIn(4) ? 'smc' : 'hvc'
  const call: Call = { op, vcpu, args: args.map(hex) }
  if (random.oneIn(3)) model.plan({ op: 'get_mp_state', vcpu: random.pick(vm.vcpus).vcpu })
  if (!isOdd) return call
  model.planFirst(call)
  return { op: 'vcpu_init', vcpu, target: 'preferred', features: [hex(vm.features)] }
}

/** x0 to x3 or fewer. */
function callArguments(random: Random): bigint[] {
  const high = random.oneIn(20) ? 1n << 32n : 0n
  const called = (ids: readonly number[]): bigint => BigInt(random.pick(ids)) | high
  switch (random.below(8)) {
    case 0:
    case 1:
      return [called(QUESTIONS), BigInt(random.pick(CALLED)) | (random.oneIn(10) ? 1n << 32n : 0n)]
    case 2:
      return [called(CPU_ON), random.pick(AFFINITIES), random.pick(WORDS), random.pick(WORDS)]
    case 3:
      return [called(AFFINITY_INFO), random.pick(AFFINITIES), random.pick(LEVELS)]
    case 4:
      return [called([functionIds.TRNG_RND32, functionIds.TRNG_RND64]), random.pick(COUNTS)]
    case 5:
      return [called(PSCI), random.pick(WORDS), random.pick(WORDS), random.pick(WORDS)]
    default:
      return [called(CALLED), ...Array.from({ length: random.below(4) }, () => random.pick(WORDS))]
  }
}

export function setMpState({ random, model }: Context, { vcpu }: KnownVcpu): Call {
  if (random.oneIn(2)) model.plan({ op: 'get_mp_state', vcpu })
  return { op: 'set_mp_state', vcpu, state: random.pick([...Object.values(mpStates), 0, 1, 7]) }
}

/** Ends at once what it begins: how a debugged guest's calls end depends on the kernel. */
export function setDebug({ random, model }: Context, { vcpu }: KnownVcpu): Call {
  const control = random.oneIn(3)
    ? random.word()
    : KVM_GUESTDBG_ENABLE |
      random.pick([0, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_SW_BP, KVM_GUESTDBG_USE_HW])
  const registers = random.oneIn(2) ? { [random.below(64)]: hex(random.bits(64)) } : {}
  model.planFirst({ op: 'set_guest_debug', vcpu, control: '0x0', registers: {} })
  return { op: 'set_guest_debug', vcpu, control: hex(control), registers }
}

export function setEvents({ random, model }: Context, { vcpu, isOdd }: KnownVcpu): Call {
  const data = new Uint8Array(64)
  data[0] = random.below(2)
  data[1] = random.below(2)
  if (random.oneIn(3)) data[8 + random.below(4)] = random.below(256)
  if (random.oneIn(6)) data[random.below(64)] = 1
  // Reports do not record what an external abort does to the guest.
  data[2] = 0
  // Only a wait shows whether a pending SError ends it.
  if (!isOdd && random.oneIn(3)) {
    model.plan({ op: 'hvc', vcpu, args: [hex(BigInt(functionIdOf('PSCI_CPU_SUSPEND')))] })
  }
  return { op: 'set_vcpu_events', vcpu, data: Buffer.from(data).toString('hex') }
}
