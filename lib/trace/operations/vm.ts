/** Ioctls of a VM. */
import * as v from 'valibot'
import { hex64, uint32 } from '../../documents/entries.js'
import { hex } from '../../registers/index.js'
import {
  errnos,
  KVM_ARM_FEATURE_ID_RANGE_SIZE,
  MTE_GRANULE,
  packGsiRoutes,
  unpackGsiRoutes,
} from '../../uapi.js'
import { nonZeroMasks } from '../outcome.js'
import { bytes, filled, hex32, ret } from './entries.js'
import { type Arguments, Operation } from './operation.js'

/** Room for the pages of a slot of 1 TiB. */
const bitmapWords = v.pipe(uint32, v.maxValue(0x40_0000))
const bitmap = v.record(v.pipe(v.string(), v.regex(/^[0-9]{1,7}$/)), hex64)

const route = v.strictObject({
  gsi: uint32,
  type: uint32,
  flags: uint32,
  words: v.pipe(v.array(uint32), v.maxLength(8)),
})

/** KVM refuses longer ones, or copies part of them. */
const MOST_TAGGED = 0x8000_0000

const zone = { vm: uint32, address: hex64, size: uint32, pio: v.optional(uint32) }
const coalesced = {
  toCall: ([address, size, pio]: readonly [bigint, number, number]) => ({
    address: hex(address),
    size,
    ...(pio !== 0 && { pio }),
  }),
  toArguments: ({ address, size, pio }: Arguments<typeof zone>): [bigint, number, number] => [
    BigInt(address),
    size,
    pio ?? 0,
  ],
}

export const vmOperations = {
  /** `KVM_ENABLE_CAP` */
  enable_cap: new Operation(
    { vm: uint32, cap: uint32, flags: v.optional(uint32), args: v.pipe(v.array(hex64), v.maxLength(4)) },
    ret,
  ).by('vm', 'enableCap', {
    toCall: ([cap, flags, args]) => ({ cap, flags, args: args.map(hex) }),
    toArguments: ({ cap, flags, args }) => [cap, flags ?? 0, args.map(BigInt)],
  }),

  /** `KVM_CREATE_VCPU`; `vcpu` is the trace's number, `id` KVM's. */
  create_vcpu: new Operation({ vm: uint32, vcpu: uint32, id: uint32 }, ret).by('vm', 'createVcpu', {
    creates: 'vcpu',
    toCall: ([id]) => ({ id }),
    toArguments: ({ id }) => [id],
  }),

  /** `KVM_CREATE_DEVICE` */
  create_device: new Operation({ vm: uint32, device: uint32, type: uint32, flags: uint32 }, ret).by(
    'vm',
    'createDevice',
    {
      creates: 'device',
      toCall: ([type, flags]) => ({ type, flags }),
      toArguments: ({ type, flags }) => [type, flags],
    },
  ),

  /** `KVM_ARM_PREFERRED_TARGET`: the words of `struct kvm_vcpu_init`. */
  preferred_target: new Operation(
    { vm: uint32 },
    { words: v.optional(v.pipe(v.array(uint32), v.length(8))) },
  ).by('vm', 'getPreferredTarget', {
    toCall: () => ({}),
    toArguments: () => [new Uint32Array(8)],
    toOutcome: filled(([words]) => ({ words: [...words.subarray(0, 8)] })),
  }),

  /** `KVM_ARM_GET_REG_WRITABLE_MASKS`: the masks other than 0, by index. */
  writable_masks: new Operation(
    { vm: uint32, range: v.optional(uint32) },
    { masks: v.optional(v.record(v.pipe(v.string(), v.regex(/^[0-9]{1,3}$/)), hex64)) },
  ).by('vm', 'getRegWritableMasks', {
    toCall: ([range]) => ({ range }),
    toArguments: ({ range }) => [range ?? 0, new BigUint64Array(KVM_ARM_FEATURE_ID_RANGE_SIZE)],
    toOutcome: filled(([, masks]) => ({ masks: nonZeroMasks(masks) })),
  }),

  /** `KVM_GET_DIRTY_LOG`: `words` is the room given, the bitmap its words other than 0, by index. */
  get_dirty_log: new Operation(
    { vm: uint32, slot: uint32, words: bitmapWords },
    { bitmap: v.optional(bitmap) },
  ).by('vm', 'getDirtyLog', {
    toCall: ([slot, words]) => ({ slot, words: words.length }),
    toArguments: ({ slot, words }) => [slot, new BigUint64Array(words)],
    toOutcome: filled(([, words]) => ({ bitmap: nonZeroMasks(words) })),
  }),

  /** `KVM_CLEAR_DIRTY_LOG` */
  clear_dirty_log: new Operation(
    { vm: uint32, slot: uint32, first_page: bytes, pages: uint32, words: bitmapWords, bitmap },
    ret,
  ).by('vm', 'clearDirtyLog', {
    toCall: ([slot, first_page, pages, words]) => ({
      slot,
      first_page,
      pages,
      words: words.length,
      bitmap: nonZeroMasks(words),
    }),
    toArguments: ({ slot, first_page, pages, words, bitmap: given }) => {
      const filledWords = new BigUint64Array(words)
      for (const [index, word] of Object.entries(given)) filledWords[Number(index)] = BigInt(word)
      return [slot, first_page, pages, filledWords]
    },
  }),

  /** `KVM_ARM_SET_COUNTER_OFFSET` */
  set_counter_offset: new Operation({ vm: uint32, offset: hex64, reserved: v.optional(hex64) }, ret).by(
    'vm',
    'setCounterOffset',
    {
      toCall: ([offset, reserved]) => ({
        offset: hex(offset),
        ...(reserved !== 0n && { reserved: hex(reserved) }),
      }),
      toArguments: ({ offset, reserved }) => [BigInt(offset), BigInt(reserved ?? 0)],
    },
  ),

  /** `KVM_IRQ_LINE` */
  irq_line: new Operation({ vm: uint32, irq: hex32, level: uint32 }, ret).by('vm', 'irqLine', {
    toCall: ([irq, level]) => ({ irq: hex(irq), level }),
    toArguments: ({ irq, level }) => [Number(irq), level],
  }),

  /** `KVM_SIGNAL_MSI` */
  signal_msi: new Operation(
    { vm: uint32, address: hex64, data: hex32, flags: uint32, devid: uint32 },
    ret,
  ).by('vm', 'signalMsi', {
    toCall: ([address, data, flags, devid]) => ({ address: hex(address), data: hex(data), flags, devid }),
    toArguments: ({ address, data, flags, devid }) => [BigInt(address), Number(data), flags, devid],
  }),

  /** `KVM_SET_GSI_ROUTING`: `words` are the first of a route's union. */
  set_gsi_routing: new Operation({ vm: uint32, flags: v.optional(uint32), routes: v.array(route) }, ret).by(
    'vm',
    'setGsiRouting',
    {
      toCall: ([flags, routes]) => ({ ...(flags !== 0 && { flags }), routes: unpackGsiRoutes(routes) }),
      toArguments: ({ flags, routes }) => [flags ?? 0, packGsiRoutes(routes)],
    },
  ),

  /** `KVM_IOEVENTFD` */
  ioeventfd: new Operation(
    { vm: uint32, event: uint32, address: hex64, size: uint32, flags: uint32, datamatch: hex64 },
    ret,
  ).by('vm', 'ioEventFd', {
    toCall: ([event, address, size, flags, datamatch], numbers) => ({
      event: numbers.numberOf(event),
      address: hex(address),
      size,
      flags,
      datamatch: hex(datamatch),
    }),
    toArguments: ({ event: number, address, size, flags, datamatch }, handles) => {
      const event = handles.get('event', number)
      return event === undefined ? -errnos.EBADF : [event, BigInt(address), size, flags, BigInt(datamatch)]
    },
  }),

  /** `KVM_IRQFD` */
  irqfd: new Operation(
    { vm: uint32, event: uint32, gsi: uint32, flags: uint32, resampled: v.optional(uint32) },
    ret,
  ).by('vm', 'irqFd', {
    toCall: ([event, gsi, flags, resampled], numbers) => ({
      event: numbers.numberOf(event),
      gsi,
      flags,
      ...(resampled && { resampled: numbers.numberOf(resampled) }),
    }),
    toArguments: ({ event: number, gsi, flags, resampled }, handles) => {
      const event = handles.get('event', number)
      const second = resampled === undefined ? null : handles.get('event', resampled)
      return event === undefined || second === undefined ? -errnos.EBADF : [event, gsi, flags, second]
    },
  }),

  /** `KVM_REGISTER_COALESCED_MMIO`; a trace does not hold what the ring gets. */
  register_coalesced_mmio: new Operation(zone, ret).by('vm', 'registerCoalescedMmio', coalesced),

  /** `KVM_UNREGISTER_COALESCED_MMIO` */
  unregister_coalesced_mmio: new Operation(zone, ret).by('vm', 'unregisterCoalescedMmio', coalesced),

  /** `KVM_ARM_MTE_COPY_TAGS`; a trace does not hold the tags, as it does not hold memory. */
  mte_copy_tags: new Operation(
    { vm: uint32, address: hex64, length: v.pipe(bytes, v.maxValue(MOST_TAGGED)), flags: uint32 },
    ret,
  ).by('vm', 'copyMteTags', {
    toCall: ([address, length, , flags]) => ({ address: hex(address), length, flags }),
    toArguments: ({ address, length, flags }) => [
      BigInt(address),
      length,
      new Uint8Array(Math.floor(length / MTE_GRANULE)),
      flags,
    ],
  }),

  /** `KVM_RESET_DIRTY_RINGS`; a trace does not hold what was taken from the rings. */
  reset_dirty_rings: new Operation({ vm: uint32 }, ret).by('vm', 'resetDirtyRings', {
    toCall: () => ({}),
    toArguments: () => [],
  }),

  /** `KVM_SET_USER_MEMORY_REGION` */
  set_user_memory_region: new Operation(
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
  ).by('vm', 'setUserMemoryRegion', {
    toCall: ([{ slot, flags, address, memory, offset, size }], numbers) => ({
      slot,
      flags,
      address: hex(address),
      memory: memory && numbers.numberOf(memory),
      offset,
      size,
    }),
    toArguments: ({ slot, flags, address, memory: number, offset, size }, handles) => {
      const memory = number === null ? null : handles.get('memory', number)
      if (memory === undefined) return -errnos.EBADF
      return [{ slot, flags, address: BigInt(address), memory, offset, size }]
    },
  }),
}
