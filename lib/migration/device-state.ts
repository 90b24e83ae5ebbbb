/** The devices' part of a state: the GICv3, and the attributes of vCPUs. */
import * as v from 'valibot'
import { hex64, int32, text, uint32 } from '../documents/entries.js'

const word = v.pipe(
  v.string(),
  v.regex(/^0x(0|[1-9a-f][0-9a-f]{0,7})$/, 'is not a 32-bit 0x… number in lower case without leading zeros'),
)

/** Words of 32 bits that lie behind each other in a frame. */
const bankSchema = v.strictObject({
  /** For readers; programs use the offset. */
  name: text,
  /** Of the first word in its frame, as `KVM_DEV_ARM_VGIC_GRP_DIST_REGS` and `…_REDIST_REGS` take it. */
  offset: word,
  values: v.pipe(v.array(word), v.minLength(1), v.maxLength(2048)),
})

const interfaceRegisterSchema = v.strictObject({
  /** For readers; programs use the number. */
  name: text,
  /** Bits 15:0 of the attribute in `KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS`. */
  number: word,
  value: hex64,
})

/** A GICv3. */
export const gicSchema = v.strictObject({
  version: v.literal(3),
  /** Guest physical address of the distributor; null if it was not set. */
  distributor: v.nullable(hex64),
  /** Regions of redistributors, with room for `count` vCPUs; `count` is 0 for one that has room for all. */
  redistributors: v.pipe(v.array(v.strictObject({ address: hex64, count: uint32 })), v.maxLength(4096)),
  /** Interrupts in all, the 32 of each vCPU included. */
  irqs: v.pipe(uint32, v.maxValue(1024)),
  /** Whether it was initialised; if not, it has no registers. */
  initialised: v.boolean(),
  /** Of the distributor, in the order in which they are restored. */
  registers: v.pipe(v.array(bankSchema), v.maxLength(32)),
  /** Levels of the lines of shared interrupts, 32 a word, from interrupt 32 on. */
  lines: v.pipe(v.array(word), v.maxLength(31)),
})

/** A vCPU's part of a GICv3. */
export const vcpuGicSchema = v.strictObject({
  redistributor: v.pipe(v.array(bankSchema), v.maxLength(32)),
  cpuInterface: v.pipe(v.array(interfaceRegisterSchema), v.maxLength(32)),
  /** Levels of the lines of its private interrupts, in bits 31:16. */
  lines: word,
})

/** What userspace set of a vCPU's PMU (`KVM_ARM_VCPU_PMU_V3_CTRL`), one call each. */
const pmuSettingSchema = v.variant('set', [
  v.strictObject({ set: v.literal('irq'), intid: uint32 }),
  v.strictObject({ set: v.literal('init') }),
  v.strictObject({
    set: v.literal('filter'),
    base: v.pipe(uint32, v.maxValue(0xffff)),
    count: v.pipe(uint32, v.maxValue(0xffff)),
    action: v.picklist(['allow', 'deny']),
  }),
  v.strictObject({ set: v.literal('pmu'), id: uint32 }),
  v.strictObject({ set: v.literal('counters'), count: uint32 }),
])

const timerNames = ['virtual', 'physical', 'hypervisorVirtual', 'hypervisorPhysical'] as const

/** Parts of a VM that KVM holds and a state has no place for; `gic-el2`: what a GICv3 keeps for guests with EL2. */
export const notCarried = ['gic-v2', 'gic-el2', 'its', 'mte-tags', 'other-device'] as const

/** Entries of the VM that version 1 did not have; one that is absent is not known. */
export const vmDeviceEntries = {
  /** Null if the VM has no GICv3. */
  gic: v.exactOptional(v.nullable(gicSchema)),
  /** What `KVM_ARM_SET_COUNTER_OFFSET` set; null if it was not called. */
  counterOffset: v.exactOptional(v.nullable(hex64)),
  /** The layout of guest memory; its content is not in the state. */
  memory: v.exactOptional(
    v.pipe(
      v.array(
        v.strictObject({
          slot: uint32,
          address: hex64,
          /** Bytes. */
          size: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(Number.MAX_SAFE_INTEGER)),
          readonly: v.boolean(),
        }),
      ),
      v.maxLength(32_768),
    ),
  ),
  /** What the VM has and this state does not hold. */
  notCarried: v.exactOptional(v.array(v.picklist(notCarried))),
} as const

/** Entries of a vCPU that version 1 did not have; one that is absent is not known. */
export const vcpuDeviceEntries = {
  /** Null if the VM has no GICv3, or one that is not initialised. */
  gic: v.exactOptional(v.nullable(vcpuGicSchema)),
  /** Numbers of the timers' interrupts; those a kernel lacks are absent. */
  timers: v.exactOptional(v.strictObject(v.entriesFromList(timerNames, v.exactOptional(int32)))),
  /** In the order of the calls. */
  pmu: v.exactOptional(v.pipe(v.array(pmuSettingSchema), v.maxLength(10_000))),
  /** Guest physical address of the stolen-time structure; null if it was not set. */
  stolenTime: v.exactOptional(v.nullable(hex64)),
} as const

export type GicState = v.InferOutput<typeof gicSchema>
export type VcpuGicState = v.InferOutput<typeof vcpuGicSchema>
export type RegisterBank = v.InferOutput<typeof bankSchema>
export type InterfaceRegister = v.InferOutput<typeof interfaceRegisterSchema>
export type PmuSetting = v.InferOutput<typeof pmuSettingSchema>
export type NotCarried = (typeof notCarried)[number]
