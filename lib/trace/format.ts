/**
 * The trace: a sequence of KVM's ioctls with their outcomes, as NDJSON. The first line is the head, every other one call. This
 * file is its only definition: types, reader and writer follow it.
 *
 * VMs, vCPUs, devices and memories are numbered by the trace, each kind from 0, and no number is used again before a `reset`.
 */
import * as v from 'valibot'
import { checkShape, FormatError, parseJson } from '../documents/document.js'
import { hex, hex64, int32, uint32 } from '../documents/entries.js'
import { registerWidth } from '../registers/index.js'

const bytes = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER))
const hex32 = v.pipe(
  v.string(),
  v.regex(/^0x(0|[1-9a-f][0-9a-f]{0,7})$/, 'is not a 32-bit 0x… number in lower case without leading zeros'),
)
/** A payload, two digits a byte. Nothing KVM takes on arm64 is longer. */
const payload = v.pipe(
  v.string(),
  v.regex(/^([0-9a-f]{2}){0,4096}$/, 'is not an even number of lower-case hex digits'),
)
const errno = v.pipe(v.string(), v.regex(/^E[A-Z0-9]+$|^ERRNO_[0-9]+$/, 'is no name of an errno'))

const ret = { ret: v.optional(int32) }
/** A call of the guest: x0 to x6, what is missing 0; x0 to x3 once it came back, or the exit it ended with. */
const guestCall = described(
  { vcpu: uint32, args: v.pipe(v.array(hex64), v.maxLength(7)) },
  { x: v.optional(v.pipe(v.array(hex64), v.length(4))), exit: v.optional(uint32) },
)
const attribute = {
  vm: v.optional(uint32),
  vcpu: v.optional(uint32),
  device: v.optional(uint32),
  group: uint32,
  attr: hex64,
}

function described<Args extends v.ObjectEntries>(args: Args, results: v.ObjectEntries = {}) {
  return { args: v.strictObject(args), results }
}

/** By `op`: its arguments, and what it may answer beside `errno`. */
const operations = {
  /** `KVM_GET_API_VERSION` */
  api_version: described({}, { value: v.optional(int32) }),
  /** `KVM_GET_VCPU_MMAP_SIZE` */
  vcpu_mmap_size: described({}, { value: v.optional(int32) }),
  /** `KVM_CHECK_EXTENSION`, on `/dev/kvm` or on a VM. */
  check_extension: described({ vm: v.optional(uint32), cap: uint32 }, { value: v.optional(int32) }),
  create_vm: described({ vm: uint32, type: hex64 }, ret),
  /** Memory to back a guest with, of `size` bytes. */
  create_memory: described({ memory: uint32, size: bytes }, ret),
  enable_cap: described(
    { vm: uint32, cap: uint32, flags: v.optional(uint32), args: v.pipe(v.array(hex64), v.maxLength(4)) },
    ret,
  ),
  /** `vcpu` is the trace's number, `id` KVM's. */
  create_vcpu: described({ vm: uint32, vcpu: uint32, id: uint32 }, ret),
  /** `KVM_ARM_PREFERRED_TARGET`: the words of `struct kvm_vcpu_init`. */
  preferred_target: described({ vm: uint32 }, { words: v.optional(v.pipe(v.array(uint32), v.length(8))) }),
  /** `KVM_ARM_GET_REG_WRITABLE_MASKS`: the masks other than 0, by index. */
  writable_masks: described(
    { vm: uint32, range: v.optional(uint32) },
    { masks: v.optional(v.record(v.pipe(v.string(), v.regex(/^[0-9]{1,3}$/)), hex64)) },
  ),
  set_user_memory_region: described(
    {
      vm: uint32,
      slot: uint32,
      flags: uint32,
      address: hex64,
      memory: v.nullable(uint32),
      offset: bytes,
      size: bytes,
    },
    ret,
  ),
  create_device: described({ vm: uint32, device: uint32, type: uint32, flags: uint32 }, ret),
  /** On a VM, a vCPU or a device. */
  has_device_attr: described(attribute, ret),
  get_device_attr: described(
    { ...attribute, size: v.pipe(uint32, v.maxValue(4096)) },
    { data: v.optional(payload) },
  ),
  /** `data` null is a null address. */
  set_device_attr: described({ ...attribute, data: v.nullable(payload) }, ret),
  /** `KVM_SET_DEVICE_ATTR` of `KVM_ARM_VM_SMCCC_FILTER`, with pads of zero. */
  smccc_filter: described(
    { vm: uint32, base: uint32, nr: uint32, action: v.pipe(uint32, v.maxValue(255)) },
    ret,
  ),
  /** `target` "preferred" is what `KVM_ARM_PREFERRED_TARGET` answers. */
  vcpu_init: described(
    {
      vcpu: uint32,
      target: v.union([v.literal('preferred'), uint32]),
      features: v.pipe(v.array(hex32), v.maxLength(7)),
    },
    ret,
  ),
  vcpu_finalize: described({ vcpu: uint32, feature: uint32 }, ret),
  /** `n_in` is the room given, `n` the count answered, with `E2BIG` too; `regs` in KVM's order. */
  get_reg_list: described(
    { vcpu: uint32, n_in: hex64 },
    { n: v.optional(hex64), regs: v.optional(v.array(hex64)) },
  ),
  /** `addr` "bad" is a pointer that faults. */
  get_one_reg: described(
    { vcpu: uint32, id: hex64, addr: v.optional(v.literal('bad')) },
    { value: v.optional(hex) },
  ),
  set_one_reg: described(
    { vcpu: uint32, id: hex64, value: v.optional(hex), addr: v.optional(v.literal('bad')) },
    ret,
  ),
  get_mp_state: described({ vcpu: uint32 }, { value: v.optional(int32) }),
  set_mp_state: described({ vcpu: uint32, state: uint32 }, ret),
  get_vcpu_events: described({ vcpu: uint32 }, { data: v.optional(payload) }),
  set_vcpu_events: described({ vcpu: uint32, data: payload }, ret),
  /** `KVM_RUN`; `exit` is `kvm_run.exit_reason`. */
  run: described({ vcpu: uint32, immediate_exit: v.boolean() }, { exit: v.optional(uint32) }),
  /** The guest calls its hypervisor or firmware: see `lib/kvm/guest-call.ts`. */
  hvc: guestCall,
  smc: guestCall,
  close: described(
    {
      vm: v.optional(uint32),
      vcpu: v.optional(uint32),
      device: v.optional(uint32),
      memory: v.optional(uint32),
    },
    {},
  ),
  /** Closes everything; numbers start anew. */
  reset: described({}, {}),
} as const

type Operations = typeof operations
export type Op = keyof Operations
/** The calls of one op, without their outcome. */
export type CallOf<K extends Op> = { op: K } & v.InferOutput<Operations[K]['args']>
/** An ioctl with its arguments. */
export type Call = { [K in Op]: CallOf<K> }[Op]

/** What KVM answered: one of the op's results, or the name of an errno; `n` stands beside `E2BIG` too. */
export interface Outcome {
  ret?: number
  /** A register's value as `0x…`, or a number. */
  value?: string | number
  n?: string
  regs?: readonly string[]
  words?: readonly number[]
  masks?: Readonly<Record<string, string>>
  data?: string
  exit?: number
  x?: readonly string[]
  errno?: string
}

export interface TraceEntry {
  call: Call
  outcome: Outcome
}

export interface TraceHead {
  /** `uname -r` of the host that answered. For readers. */
  host: string
}

export const TRACE_FORMAT = 'kvm-arm64'
export const TRACE_VERSION = 1

const headSchema = v.strictObject({
  trace: v.literal(TRACE_FORMAT),
  version: v.literal(TRACE_VERSION),
  host: v.pipe(v.string(), v.maxLength(1000)),
})

interface Operation {
  schema: v.GenericSchema<Record<string, unknown>>
  arguments: ReadonlySet<string>
}

const byName = new Map<string, Operation>(
  Object.entries(operations).map(([op, { args, results }]) => [
    op,
    {
      schema: v.strictObject({ op: v.literal(op), ...args.entries, ...results, errno: v.optional(errno) }),
      arguments: new Set(['op', ...Object.keys(args.entries)]),
    },
  ]),
)

export function formatHead({ host }: TraceHead): string {
  return `${JSON.stringify({ trace: TRACE_FORMAT, version: TRACE_VERSION, host })}\n`
}

export function formatEntry({ call, outcome }: TraceEntry): string {
  return `${JSON.stringify({ ...call, ...outcome })}\n`
}

/**
 * Reads a trace's first line; `source` is what errors call the place.
 * @throws FormatError
 */
export function parseHead(text: string, source: string): TraceHead {
  const data = parseJson(text, source) as { trace?: unknown; version?: unknown } | null
  if (data === null || typeof data !== 'object' || data.trace !== TRACE_FORMAT) {
    throw new FormatError(source, '$.trace', `is not a trace: expected "${TRACE_FORMAT}"`)
  }
  if (data.version !== TRACE_VERSION) {
    const found = typeof data.version === 'number' ? `is ${data.version}` : 'is no number'
    throw new FormatError(
      source,
      '$.version',
      `${found}, and this version of kvm-arm64 reads ${TRACE_VERSION}`,
    )
  }
  const { host } = checkShape(headSchema, data, source)
  return { host }
}

/**
 * Reads any other line.
 * @throws FormatError
 */
export function parseEntry(text: string, source: string): TraceEntry {
  const data = parseJson(text, source) as Record<string, unknown> | null
  if (data === null || typeof data !== 'object') throw new FormatError(source, '$', 'is no call')
  const operation = typeof data.op === 'string' ? byName.get(data.op) : undefined
  if (operation === undefined) {
    throw new FormatError(source, '$.op', `${JSON.stringify(data.op)} is no operation of this version`)
  }
  const entry = split(checkShape(operation.schema, data, source), operation.arguments)
  checkRegister(entry.call, source)
  checkTarget(entry.call, source)
  checkOutcome(entry, source)
  return entry
}

/** What was asked and what was answered. */
function split(line: Record<string, unknown>, args: ReadonlySet<string>): TraceEntry {
  const call: Record<string, unknown> = {}
  const outcome: Record<string, unknown> = {}
  for (const key in line) (args.has(key) ? call : outcome)[key] = line[key]
  return { call: call as Call, outcome }
}

/** What cannot be handed to any kernel: a width no register has, a value its register cannot hold. */
function checkRegister(call: Call, source: string): void {
  if (call.op !== 'get_one_reg' && call.op !== 'set_one_reg') return
  const width = registerWidth(BigInt(call.id))
  if (width > 2048) throw new FormatError(source, '$.id', `${call.id} is of no width a register has`)
  if (call.op === 'get_one_reg') return
  if ((call.value === undefined) === (call.addr === undefined)) {
    throw new FormatError(source, '$.value', 'or "addr" must be there, and not both')
  }
  if (call.value !== undefined && BigInt.asUintN(width, BigInt(call.value)) !== BigInt(call.value)) {
    throw new FormatError(source, '$.value', `${call.value} does not fit the ${width} bits of ${call.id}`)
  }
}

/** More room than any list needs would only cost memory. */
const MOST_ROOM = 0x1_0000n

function checkTarget(call: Call, source: string): void {
  switch (call.op) {
    case 'get_reg_list':
      if (BigInt.asUintN(32, BigInt(call.n_in)) > MOST_ROOM) {
        throw new FormatError(source, '$.n_in', `${call.n_in} is more room than any list needs (0x10000)`)
      }
      break
    case 'has_device_attr':
    case 'get_device_attr':
    case 'set_device_attr':
      checkOneOf(call, ['vm', 'vcpu', 'device'], source)
      break
    case 'close':
      checkOneOf(call, ['vm', 'vcpu', 'device', 'memory'], source)
      break
  }
}

function checkOneOf(call: object, kinds: readonly string[], source: string): void {
  if (kinds.filter((kind) => kind in call).length !== 1) {
    throw new FormatError(source, '$', `must say on which it is done: exactly one of ${kinds.join(', ')}`)
  }
}

function checkOutcome({ call, outcome }: TraceEntry, source: string): void {
  const answers = Object.keys(outcome).filter((key) => key !== 'n')
  const isSilent = call.op === 'close' || call.op === 'reset'
  if (answers.length !== (isSilent ? 0 : 1)) {
    throw new FormatError(source, '$', isSilent ? 'has an outcome' : 'must have one outcome, or "errno"')
  }
}
