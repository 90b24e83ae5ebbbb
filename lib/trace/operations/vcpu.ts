/** Ioctls of a vCPU except `KVM_RUN`. */
import * as v from 'valibot'
import { FormatError } from '../../documents/document.js'
import { hex as hexDigits, hex64, uint32 } from '../../documents/entries.js'
import { hex, registerWidth } from '../../registers/index.js'
import { errnos, GUEST_DEBUG_WORDS, KVM_VCPU_EVENTS_SIZE } from '../../uapi.js'
import { nonZeroMasks, number, type Outcome, plain, refused, toHex } from '../outcome.js'
import { filled, hex32, payload, ret, toBytes, value } from './entries.js'
import { Operation } from './operation.js'

/** The most ids a list may have room for: more than enough for any list, and a bound on memory. */
const MOST_ROOM = 0x1_0000n

/** `addr` "bad" is a pointer that faults. */
const register = { vcpu: uint32, id: hex64, addr: v.optional(v.literal('bad')) }

export const vcpuOperations = {
  /** `KVM_ARM_VCPU_INIT`; `target` "preferred" means the result of `KVM_ARM_PREFERRED_TARGET`. */
  vcpu_init: new Operation(
    {
      vcpu: uint32,
      target: v.union([v.literal('preferred'), uint32]),
      features: v.pipe(v.array(hex32), v.maxLength(7)),
    },
    ret,
  ).by('vcpu', 'init', {
    toCall: ([target, features]) => ({ target, features: features.map(hex) }),
    toArguments: ({ vcpu, target, features }, handles) => {
      if (target !== 'preferred') return [target, features.map(Number)]
      const words = new Uint32Array(8)
      const errno = handles.vmOf(vcpu)?.getPreferredTarget(words) ?? -errnos.EBADF
      return errno < 0 ? errno : [words[0]!, features.map(Number)]
    },
  }),

  /** `KVM_ARM_VCPU_FINALIZE` */
  vcpu_finalize: new Operation({ vcpu: uint32, feature: uint32 }, ret).by('vcpu', 'finalize', {
    toCall: ([feature]) => ({ feature }),
    toArguments: ({ feature }) => [feature],
  }),

  /** `KVM_GET_REG_LIST`; `n_in` is the room given, `n` the count returned, with `E2BIG` too; `regs` are in KVM's order. */
  get_reg_list: new Operation(
    { vcpu: uint32, n_in: hex64 },
    { n: v.optional(hex64), regs: v.optional(v.array(hex64)) },
  )
    .checked(({ n_in }, _, source) => {
      if (BigInt.asUintN(32, BigInt(n_in)) <= MOST_ROOM) return
      throw new FormatError(source, '$.n_in', `${n_in} is more room than any list needs (0x10000)`)
    })
    .by('vcpu', 'getRegList', {
      toCall: ([list]) => ({ n_in: hex(list[0]!) }),
      toArguments: ({ n_in }) => {
        const room = BigInt(n_in)
        const list = new BigUint64Array(1 + Number(BigInt.asUintN(32, room)))
        list[0] = room
        return [list]
      },
      toOutcome: (answer, [list]) => {
        const n = hex(list[0]!)
        if (answer === -errnos.E2BIG) return { n, errno: 'E2BIG' }
        if (answer < 0) return refused(answer)
        return { n, regs: Array.from(list.subarray(1, 1 + Number(list[0])), hex) }
      },
    }),

  /** `KVM_GET_ONE_REG` */
  get_one_reg: new Operation(register, { value: v.optional(hexDigits) })
    .checked(({ id }, { value: read }, source) =>
      checkFits(id, typeof read === 'string' ? read : '0x0', source),
    )
    .by('vcpu', 'getOneReg', {
      toCall: ([id]) => ({ id: hex(id) }),
      toArguments: ({ id, addr }) => (addr === undefined ? [BigInt(id)] : null),
      toOutcome: registerOutcome,
    })
    .by('vcpu', 'getOneRegAtNull', {
      toCall: ([id]) => ({ id: hex(id), addr: 'bad' }),
      toArguments: ({ id }) => [BigInt(id)],
    })
    .recorded('vcpu', 'getRegs', ({ fd }, [ids, values, errnoOf], begin) => {
      const failures = fd.getRegs(ids, values, errnoOf)
      forEachAsked(ids, errnoOf, (id, index, errno) =>
        begin({ id: hex(id) })(registerOutcome(errno === 0 ? values[index]! : errno)),
      )
      return failures
    }),

  /** `KVM_SET_ONE_REG` */
  set_one_reg: new Operation({ ...register, value: v.optional(hexDigits) }, ret)
    .checked(({ id, value: written, addr }, _, source) => {
      if ((written === undefined) === (addr === undefined)) {
        throw new FormatError(source, '$.value', 'expected "value" or "addr", and not both')
      }
      checkFits(id, written ?? '0x0', source)
    })
    .by('vcpu', 'setOneReg', {
      toCall: ([id, written]) => ({ id: hex(id), value: hex(written) }),
      toArguments: ({ id, value: digits }) => (digits === undefined ? null : [BigInt(id), BigInt(digits)]),
    })
    .by('vcpu', 'setOneRegAtNull', {
      toCall: ([id]) => ({ id: hex(id), addr: 'bad' }),
      toArguments: ({ id }) => [BigInt(id)],
    })
    .recorded('vcpu', 'setRegs', ({ fd }, [ids, values, errnoOf], begin) => {
      const failures = fd.setRegs(ids, values, errnoOf)
      forEachAsked(ids, errnoOf, (id, index, errno) =>
        begin({ id: hex(id), value: hex(values[index]!) })(plain(errno)),
      )
      return failures
    }),

  /** `KVM_GET_MP_STATE` */
  get_mp_state: new Operation({ vcpu: uint32 }, value).by('vcpu', 'getMpState', {
    toCall: () => ({}),
    toArguments: () => [],
    toOutcome: number,
  }),

  /** `KVM_SET_MP_STATE` */
  set_mp_state: new Operation({ vcpu: uint32, state: uint32 }, ret).by('vcpu', 'setMpState', {
    toCall: ([state]) => ({ state }),
    toArguments: ({ state }) => [state],
  }),

  /** `KVM_GET_VCPU_EVENTS` */
  get_vcpu_events: new Operation({ vcpu: uint32 }, { data: v.optional(payload) }).by(
    'vcpu',
    'getVcpuEvents',
    {
      toCall: () => ({}),
      toArguments: () => [new Uint8Array(KVM_VCPU_EVENTS_SIZE)],
      toOutcome: filled(([events]) => ({ data: toHex(events.subarray(0, KVM_VCPU_EVENTS_SIZE)) })),
    },
  ),

  /** `KVM_SET_VCPU_EVENTS` */
  set_vcpu_events: new Operation({ vcpu: uint32, data: payload }, ret).by('vcpu', 'setVcpuEvents', {
    toCall: ([events]) => ({ data: toHex(events.subarray(0, KVM_VCPU_EVENTS_SIZE)) }),
    toArguments: ({ data }) => [toBytes(data)],
  }),

  /** `KVM_SET_GUEST_DEBUG`: the registers other than 0, by their place in `struct kvm_guest_debug_arch`. */
  set_guest_debug: new Operation(
    {
      vcpu: uint32,
      control: hex32,
      registers: v.record(v.pipe(v.string(), v.regex(/^([1-5]?[0-9]|6[0-3])$/)), hex64),
    },
    ret,
  ).by('vcpu', 'setGuestDebug', {
    toCall: ([control, registers]) => ({
      control: hex(control),
      registers: nonZeroMasks(registers.subarray(0, GUEST_DEBUG_WORDS)),
    }),
    toArguments: ({ control, registers: given }) => {
      const registers = new BigUint64Array(GUEST_DEBUG_WORDS)
      for (const [place, word] of Object.entries(given)) registers[Number(place)] = BigInt(word)
      return [Number(control), registers]
    },
  }),
}

/** Refuses an id whose width no register has, and a value wider than the id says. */
function checkFits(id: string, digits: string, source: string): void {
  const width = registerWidth(BigInt(id))
  if (width > 2048)
    throw new FormatError(source, '$.id', `${id} has a width of ${width} bits, more than any register`)
  if (BigInt.asUintN(width, BigInt(digits)) !== BigInt(digits)) {
    throw new FormatError(source, '$.value', `${digits} does not fit the ${width} bits of ${id}`)
  }
}

function registerOutcome(answer: bigint | number): Outcome {
  return typeof answer === 'bigint' ? { value: hex(answer) } : refused(answer)
}

/** Returns the registers of a batch that reached KVM: none wider than 64 bits, and none on a closed handle. */
function forEachAsked(
  ids: BigUint64Array,
  errnoOf: Int32Array,
  work: (id: bigint, index: number, errno: number) => void,
): void {
  for (const [index, id] of ids.entries()) {
    const errno = errnoOf[index]!
    if (registerWidth(id) <= 64 && errno !== -errnos.EBADF) work(id, index, errno)
  }
}
