/** Calls about registers: `KVM_{GET,SET}_ONE_REG` and `KVM_GET_REG_LIST`. */
import { functionIds } from '../../hypercalls/index.js'
import { hex, idFromParts, idParts, registerWidth, withSize } from '../../registers/index.js'
import type { Call } from '../../trace/index.js'
import type { Context, KnownVcpu } from '../model.js'
import type { Random } from '../random.js'
import {
  DBGVCR32_EL2,
  FIRMWARE,
  FIRMWARE_SPACES,
  FIRMWARE_VALUES,
  fit,
  ID_REGISTERS,
  isHeldByCpu,
  SPACES,
  UNUSED_BY_GUEST,
} from '../vocabulary.js'

export function list({ random }: Context, { vcpu }: KnownVcpu): Call {
  const room = random.oneIn(4) ? random.pick([0n, 1n, 200n, 1n << 32n]) : 0x1000n
  return { op: 'get_reg_list', vcpu, n_in: hex(room) }
}

export function get(context: Context, vcpu: KnownVcpu): Call {
  return { op: 'get_one_reg', vcpu: vcpu.vcpu, id: hex(idOn(context, vcpu)) }
}

export function getAtNull(context: Context, vcpu: KnownVcpu): Call {
  return { op: 'get_one_reg', vcpu: vcpu.vcpu, id: hex(idOn(context, vcpu)), addr: 'bad' }
}

export function set(context: Context, vcpu: KnownVcpu): Call {
  const { random, model } = context
  const number = vcpu.vcpu
  const id = idOn(context, vcpu)
  const before = vcpu.values.get(id) ?? model.seen.get(id)
  // A value near the current one reaches further than any other.
  if (before === undefined && !random.oneIn(3)) return { op: 'get_one_reg', vcpu: number, id: hex(id) }
  const value = valueFor(random, id, before ?? 0n)
  // Read back the result, and what a sibling sees.
  if (random.oneIn(2)) model.plan({ op: 'get_one_reg', vcpu: number, id: hex(id) })
  if (random.oneIn(3)) {
    const { vcpu: sibling } = random.pick(vcpu.vm.vcpus)
    model.plan({ op: 'get_one_reg', vcpu: sibling, id: hex(id) })
  }
  if (ID_REGISTERS.has(id) && random.oneIn(3)) {
    model.plan({ op: 'get_one_reg', vcpu: number, id: hex(random.pick(FIRMWARE)) })
  }
  // The CPU may not hold all of it. Not on a VM that has yet to start: afterwards it would refuse many calls.
  if (isHeldByCpu(id) && id !== DBGVCR32_EL2 && vcpu.vm.hasRun && random.oneIn(3)) {
    const isLoaded = UNUSED_BY_GUEST.has(id) && !vcpu.isOdd
    model.plan(
      isLoaded
        ? { op: 'hvc', vcpu: number, args: [hex(BigInt(functionIds.SMCCC_VERSION))] }
        : { op: 'run', vcpu: number, immediate_exit: true },
      { op: 'get_one_reg', vcpu: number, id: hex(id) },
    )
  }
  return { op: 'set_one_reg', vcpu: number, id: hex(id), value: hex(value) }
}

export function setAtNull(context: Context, vcpu: KnownVcpu): Call {
  const { random, model } = context
  const to = { vcpu: vcpu.vcpu, id: hex(idOn(context, vcpu)) }
  // Some kernels write the register although they cannot read its value.
  if (random.oneIn(2)) model.plan({ op: 'get_one_reg', ...to })
  return { op: 'set_one_reg', ...to, addr: 'bad' }
}

function idOn({ random, model }: Context, { ids, vm }: KnownVcpu): bigint {
  const choice = random.below(20)
  if (choice < 5) return random.pick(FIRMWARE)
  if (choice < 7) return oddId(random, random.oneIn(3) ? random.pick(FIRMWARE) : random.pick(ids))
  if (choice < 13) {
    const identity = ids.filter((id) => ID_REGISTERS.has(id) && model.seen.get(id) !== 0n)
    if (identity.length > 0) return random.pick(identity)
  }
  if (choice === 13 && vm.hasRun) {
    const held = ids.filter((id) => UNUSED_BY_GUEST.has(id))
    if (held.length > 0) return random.pick(held)
  }
  const id = random.pick(ids)
  // QEMU's CPUs do not write the register into which DBGVCR32_EL2 is read: once it was loaded it can have any value.
  return vm.hasRun && id === DBGVCR32_EL2 ? random.pick(FIRMWARE) : id
}

/** Returns an id next to one that exists. */
function oddId(random: Random, id: bigint): bigint {
  switch (random.below(6)) {
    case 0:
      return fit(withSize(id, random.below(9)))
    case 1:
      return fit(idFromParts({ ...idParts(id), coproc: random.pick(SPACES) }))
    case 2:
      return id ^ (1n << BigInt(28 + random.below(4)))
    case 3:
      return id ^ (1n << BigInt(random.pick([32, 40, 51, 56, 60, 61])))
    case 4:
      return (id & ~0xffffn) | random.bits(16)
    default:
      return id ^ (1n << BigInt(random.below(16)))
  }
}

/** Returns a value that fits the register, mostly one near `before`. */
function valueFor(random: Random, id: bigint, before: bigint): bigint {
  const width = registerWidth(id)
  if (FIRMWARE_SPACES.has(idParts(id).coproc) && random.below(4) > 0) {
    if (random.oneIn(2)) return BigInt(random.below(4))
    return BigInt.asUintN(width, random.pick(FIRMWARE_VALUES))
  }
  const nibble = nibbleIn(random, width, before)
  const one = BigInt.asUintN(width, 1n << BigInt(random.below(width)))
  // Every nibble of an ID register accepts values of its own.
  switch (ID_REGISTERS.has(id) && random.below(4) > 0 ? 2 + random.below(4) : random.below(9)) {
    case 0:
      return before
    case 1:
      return before ^ one
    case 2:
      return BigInt.asUintN(width, before + (1n << nibble))
    case 3:
      return BigInt.asUintN(width, before - (1n << nibble))
    case 4:
      return before & ~(0xfn << nibble)
    case 5:
      return (before & ~(0xfn << nibble)) | (random.bits(4) << nibble)
    case 6:
      return BigInt(random.below(5))
    case 7:
      return random.oneIn(2) ? one : BigInt.asUintN(width, -1n)
    default:
      return random.bits(width)
  }
}

/** Returns the place of a nibble, mostly of one that is not 0. */
function nibbleIn(random: Random, width: number, value: bigint): bigint {
  for (let attempt = 0; ; attempt++) {
    const nibble = BigInt(4 * random.below(width / 4))
    if (attempt === 4 || ((value >> nibble) & 0xfn) !== 0n) return nibble
  }
}
