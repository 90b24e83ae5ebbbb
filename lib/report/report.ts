/**
 * The report: everything one host's arm64 KVM shows to userspace, as data. `probe` writes it, the simulator runs it, the
 * compatibility tools compare it. This file is its only definition: the TypeScript types and the published JSON Schema
 * (`report.schema.json`) are both derived from it.
 *
 * No kernel version decides anything in it. What cannot be read is found out by experiment on scratch VMs (`traits`, and `write` of
 * a register), because stable kernels carry backports and behaviour is not even monotonic in the version.
 */
import * as v from 'valibot'
import { gatedServices } from '../hypercalls/index.js'
import {
  capabilities,
  deviceTypes,
  errnos,
  vcpuFeatures,
  type Capability,
  type DeviceType,
  type ErrnoName,
  type VcpuFeature,
} from '../uapi.js'
import { hex, hex64, host, int32, registerId, text, uint32 } from '../documents/entries.js'
import { originSchema } from './origin.js'
import { ranges } from './ranges.js'
import { digits, nibblePlace, writeRuleSchema } from './write-rule.js'

const errno = v.picklist(Object.keys(errnos) as ErrnoName[])
/** Services KVM itself implements, as `vm.services` names them. */
const service = v.picklist(gatedServices.map(({ name }) => name))
export const feature = v.picklist(Object.keys(vcpuFeatures) as VcpuFeature[])

const register = v.strictObject({
  id: registerId,
  /** For readers; programs use the id. */
  name: text,
  /** After `KVM_ARM_VCPU_INIT` (and `KVM_ARM_VCPU_FINALIZE`) on vCPU 0 of a fresh VM; null if it counts time. */
  value: v.nullable(hex),
  /** Its mask in `KVM_ARM_GET_REG_WRITABLE_MASKS`; absent if it is 0, and if the ioctl does not exist. */
  mask: v.optional(hex64),
  /** What a write does before the first run; absent if the register keeps any value. */
  write: v.optional(writeRuleSchema),
  /**
   * Bits, by nibble, that were not tried on this host: there `write` and `mask`, and in a configuration `value` too, are inferred from
   * other hosts of the kernel and from its rules; the first run may change them. Absent if there are none.
   */
  untried: v.optional(v.array(nibblePlace)),
})
const { mask: _ofVm, ...vcpuRegister } = register.entries

/** How a set of vCPU features changes the base configuration. */
const configuration = v.strictObject({
  features: v.array(feature),
  /** In a VM with memory tagging: `KVM_CAP_ARM_MTE`, enabled before the first vCPU. */
  mte: v.optional(v.literal(true)),
  /** Ids no longer listed. */
  removed: v.array(registerId),
  /** Registers that join the list, in its order, each with its place in this configuration's list. */
  added: v.array(v.strictObject({ ...vcpuRegister, index: int32 })),
  /** Registers whose value or rule differs from the base's, each whole. */
  changed: v.array(v.strictObject(vcpuRegister)),
})

/** A combination of vCPU features that the host supports individually but not together. */
const refusal = v.strictObject({
  features: v.array(feature),
  mte: v.optional(v.literal(true)),
  refused: errno,
})

const afterRun = v.picklist([
  /** `EBUSY` whatever the value: in the series up to v7, in no release. */
  'busy',
  /** `EBUSY` if the value differs, success if it is the current one. */
  'busy-if-changed',
  /** As before the run. */
  'unguarded',
])

/** Writes the bits of the mask with those of the value. */
const changedBits = v.strictObject({ id: registerId, name: text, mask: hex64, value: hex64 })

const traits = v.strictObject({
  /** `KVM_ARM_VCPU_INIT` */
  init: v.strictObject({
    /** Targets accepted for vCPU 0, of 0…15. */
    targets: v.array(int32),
    /** How many bits of `features[0]` the kernel knows, from bit 0; any other is `ENOENT`. */
    knownFeatures: int32,
    /** Features this host supports, each with the features it requires; any other known feature is `EINVAL`. */
    supported: v.array(feature),
    /**
     * Features of which it is not known whether this host supports them; the simulator refuses them as unsupported. Absent if there are
     * none: every other feature was tried.
     */
    unknown: v.optional(v.array(feature)),
    /** Whether the first init fixes the features of the whole VM. */
    scope: v.picklist(['vm', 'vcpu']),
    /** Whether `power-off` must be repeated on every init of a vCPU. */
    powerOff: v.picklist(['sticky', 'ephemeral']),
    /** Whether an init refused for an unknown feature leaves the lower bits set, so that the next one inherits them. */
    leaksRefusedFeatures: v.boolean(),
    /**
     * What, of pointer authentication and register width, an init with `sve` may be refused for and yet leave the vCPU with SVE,
     * whatever features the next init requests. Absent if there is nothing.
     */
    leaksSve: v.optional(v.array(v.picklist(['ptrauth', 'register-width']))),
    /**
     * If features belong to each vCPU: whether `el1-32bit` nevertheless belongs to the VM (`vm`: fixed by the first init;
     * `every-vcpu`: compared with every vCPU created, including those not yet initialised) or not (`vcpu`). Absent if the features
     * belong to the VM anyway, and if the host has no AArch32 at EL1, unless an init refused for another feature leaves it set on a
     * vCPU and others are compared with that.
     */
    registerWidth: v.optional(v.picklist(['vm', 'every-vcpu', 'vcpu'])),
    /** Registers of the vCPU that keep what was written to them when the vCPU is initialised again. Absent if there are none. */
    kept: v.optional(v.array(registerId)),
    /** Whether an SError stays pending when a vCPU that has run is initialised again. */
    keepsSError: v.boolean(),
  }),
  /** Write to a bitmap register after the first run; null if there is no such register. */
  bitmapAfterRun: v.nullable(afterRun),
  /** Write to a feature ID register after the first run. */
  idRegisterAfterRun: afterRun,
  /**
   * Bits of feature ID registers that the first run of a VM without a GIC changes, with their new values. Absent if it changes
   * none.
   */
  changedByFirstRun: v.optional(v.array(changedBits)),
  /** Bits of feature ID registers that creating a GICv3 sets, whatever userspace wrote before. Absent if it changes none. */
  changedByVgic: v.optional(v.array(changedBits)),
  /**
   * Registers that leave the list, and then answer `ENOENT`, while a nibble of a feature ID register has one of these values: the
   * VM's guest does not know of them. Absent if there are none.
   */
  hiddenRegisters: v.optional(
    v.array(
      v.strictObject({
        id: registerId,
        name: text,
        nibble: nibblePlace,
        values: digits,
        hides: v.pipe(v.array(v.strictObject({ id: registerId, name: text })), v.minLength(1)),
      }),
    ),
  ),
  /**
   * System registers that the CPU returns changed, although the guest did not touch them: the bits kept of what userspace wrote.
   * `by` says what loads them into the CPU: every `KVM_RUN` (`run`), a `KVM_RUN` without `immediate_exit`, even of a stopped vCPU
   * (`load`), or one that executes guest code (`guest`).
   */
  lossyRegisters: v.array(
    v.strictObject({ id: registerId, name: text, by: v.picklist(['run', 'load', 'guest']), kept: hex64 }),
  ),
  /** Whether `KVM_SET_ONE_REG` refuses a width other than 64 bits in the firmware spaces before it reads the value. */
  firmwareWidthChecked: v.boolean(),
  /** Whether `KVM_SET_ONE_REG` reads the value before it looks up a system register, or an id of an unknown space. */
  setReadsValueFirst: v.strictObject({ systemRegister: v.boolean(), unknownSpace: v.boolean() }),
  /** Whether `KVM_SET_ONE_REG` with a bad address zeroes a plain system register before it returns `EFAULT`. */
  faultingSetZeroes: v.boolean(),
  /**
   * Which core registers a write to one of them truncates to 32 bits on a vCPU in AArch32 state: those its mode sees (`visible`: r0
   * to r14 and no other mode's), or in User and System mode r0 to r14 and in the others all that hold AArch32 registers. `by-flags`
   * is the latter, but KVM takes a User or System mode with any other bit of PSTATE set for one of the others. Absent if it does
   * not, or if the host has no AArch32.
   */
  narrowedRegisters: v.optional(v.picklist(['visible', 'by-flags'])),
  /** Whether `KVM_GET_VCPU_EVENTS` is refused before the vCPU's init. */
  vcpuEventsNeedInit: v.boolean(),
  /** Whether a pending SError ends a vCPU's wait for an interrupt, even one that its guest masks. */
  sErrorWakes: v.boolean(),
  /**
   * Whether a run that executes guest code drops a pending SError, and the inputs that `KVM_IRQ_LINE` raised without a GIC: pKVM's
   * copy of HCR_EL2, which lacks them, replaces the kernel's. Absent if an SError stays pending while the guest masks it.
   */
  sErrorDropped: v.optional(v.literal(true)),
  /** `KVM_ARM_VM_SMCCC_FILTER`: null if there is none, else the result for base 0 with a count of 0. */
  smcccFilter: v.nullable(v.strictObject({ emptyRangeAtZero: errno })),
  /** Results of a guest's calls, from experiments with a guest. */
  hypercalls: v.strictObject({
    /** Services that KVM implements in a fresh VM and that a bit can hide, even if the host has no register for the bit. */
    services: v.array(service),
    /** Whether `smc` reaches the same handler as `hvc`; if not, it returns NOT_SUPPORTED in x0 and leaves x1 to x3. */
    smc: v.boolean(),
    /** Whether PSCI drops the bits an affinity cannot have, rather than refusing them. */
    affinityMasked: v.boolean(),
    /**
     * Which vCPU PSCI selects if userspace gave several the same affinity: the `first` created, or the `last` of those that existed
     * when a vCPU of the VM began its first run.
     */
    sameAffinity: v.picklist(['first', 'last']),
  }),
  /** Types for which `KVM_CREATE_DEVICE_TEST` succeeds. Absent if that is not known; the simulator then has none. */
  devices: v.optional(v.array(v.picklist(Object.keys(deviceTypes) as DeviceType[]))),
  /** `KVM_ARM_VCPU_TIMER_CTRL` */
  timers: v.strictObject({
    /** The private interrupt of each timer that has an attribute, by the attribute's number. */
    interrupts: v.array(int32),
    /** Whether they belong to the VM or to each vCPU: a vCPU created later then has these again. */
    scope: v.picklist(['vm', 'vcpu']),
  }),
  /** `KVM_ARM_VCPU_PMU_V3_CTRL` beyond the interrupt and the initialisation; null if the host has no PMU. */
  pmu: v.nullable(
    v.strictObject({
      /** `KVM_ARM_VCPU_PMU_V3_FILTER`: null if there is none. */
      filter: v.nullable(
        v.strictObject({
          /** How many event numbers may be filtered, from 0. */
          events: int32,
          /** Whether it may still be changed after the VM's first run. */
          afterRun: v.boolean(),
        }),
      ),
      /** Ids of PMUs `KVM_ARM_VCPU_PMU_V3_SET_PMU` accepts, of 0…63, a VM's default PMU first; null if there is none. */
      ids: v.nullable(v.array(int32)),
      /** Most counters `KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS` accepts; null if there is none. */
      counters: v.nullable(int32),
      /**
       * A vCPU's first `KVM_RUN` without `immediate_exit` does what PMCR_EL0.C and P ask for, it zeroes counters, and then keeps
       * these bits of the register (`arch/arm64/kvm/pmu-emul.c:kvm_pmu_handle_pmcr`). Absent if it does neither.
       */
      firstRunKeeps: v.optional(hex64),
    }),
  ),
  /** First `KVM_RUN` of a vCPU whose PMU was requested but not initialised; null if it succeeds or there is no PMU. */
  runWithoutPmuInit: v.nullable(errno),
  /**
   * Whether KVM still checks an address of a GIC that already has one, and refuses it for what is wrong with it before `EEXIST`.
   * Absent if `EEXIST` comes first, or if there is no GICv3.
   */
  vgicAddressCheckedFirst: v.optional(v.literal(true)),
  /**
   * Whether an event that raises an interrupt (`KVM_IRQFD`) keeps its count, and wakes whoever waits for it. Absent if KVM takes the
   * count, or if there is no GICv3.
   */
  irqEventKeepsCount: v.optional(v.literal(true)),
  /** Whether `KVM_IRQ_LINE` finds a vCPU by its place in the order of creation. Absent if it finds it by its id. */
  irqLineByIndex: v.optional(v.literal(true)),
  /**
   * Whether `KVM_IRQ_LINE` refuses any interrupt of a GICv3 that is not initialised with `EBUSY`, also one that cannot be. Absent if
   * it checks number and vCPU first, or if there is no GICv3.
   */
  irqLineChecksInitFirst: v.optional(v.literal(true)),
  /**
   * Whether KVM accepts any revision written to the GICD_IIDR of a GICv3, and keeps the one it has. Absent if it takes those it knows,
   * or has only one, and if there is no GICv3.
   */
  gicRevisionKept: v.optional(v.literal(true)),
  /**
   * First `KVM_RUN` with a GICv3 created but not configured: its errno, and whether every later ioctl on the VM is `EIO`. null if
   * the host has no GICv3.
   */
  runWithoutVgicInit: v.nullable(v.strictObject({ errno, killsVm: v.boolean() })),
})

/** A call of a guest of a fresh VM that found something: not `NOT_SUPPORTED` in x0. */
const discovery = v.strictObject({
  conduit: v.picklist(['hvc', 'smc']),
  functionId: hex64,
  /** For readers; programs use the id. */
  name: text,
  /** x1; the other arguments are 0. */
  argument: hex64,
  /** x0 to x3; null if they hold a time. */
  x: v.nullable(v.tuple([hex64, hex64, hex64, hex64])),
  /** Why the run ended, if the call did not return. */
  exit: v.optional(text),
})

/** Answers of `KVM_CHECK_EXTENSION` on `/dev/kvm` and on a VM; a negative number is `-errno`. */
const answers = v.tuple([int32, int32])

/** Which types `KVM_CREATE_VM` accepts. */
const vmTypes = v.strictObject({
  /**
   * Sizes of the guest physical address space that bits 7:0 may hold, in bits, of 0 to 64 and 127; 0 means 40. With pKVM, newer
   * kernels ignore the size and accept all of them: `0-64,127`.
   */
  ipaSizes: ranges,
  /**
   * Whether bit 31, `KVM_VM_TYPE_ARM_PROTECTED`, is accepted. Absent where it was not tried: with pKVM the kernel logs such a VM and
   * taints itself.
   */
  protected: v.optional(v.boolean()),
})

/** What a guest reads from a register of the CPU itself, in a fresh VM. */
export const guestReadSchema = v.strictObject({ id: registerId, name: text, value: hex64 })

const cache = v.strictObject({
  level: v.pipe(int32, v.minValue(1), v.maxValue(7)),
  type: v.picklist(['data', 'instruction', 'unified']),
  /** Bytes. */
  size: v.optional(uint32),
  /** Bytes of a line. */
  line: v.optional(uint32),
  ways: v.optional(uint32),
  sets: v.optional(uint32),
})

/** CPUs of one kind. */
export const cpuKindSchema = v.strictObject({
  /** Numbers as Linux writes them: `0-3,8`. */
  cpus: ranges,
  /** MIDR_EL1 */
  midr: hex64,
  /** REVIDR_EL1 */
  revidr: hex64,
  /** As Linux shows them; entries are absent where neither firmware nor the CPU describes them. */
  caches: v.array(cache),
})

/** The machine's CPUs. */
const cpus = v.strictObject({
  /** Place in `kinds` of the CPU on which the host was probed. The other entries say nothing about CPUs of another kind. */
  probed: uint32,
  /** Online CPUs by kind, in the order of the lowest number of each. */
  kinds: v.pipe(v.array(cpuKindSchema), v.minLength(1), v.maxLength(1000)),
})

/** The entries of a report; see the file's head. */
export const reportSchema = v.strictObject({
  format: v.literal('kvm-arm64/report'),
  version: v.literal(2),
  /** ISO 8601. The only entry in which two probes of one host differ. */
  probedAt: v.pipe(v.string(), v.isoTimestamp()),
  host,
  /** What answered KVM's calls; digests and comparisons ignore it, as they ignore `probedAt` and `host`. */
  origin: originSchema,
  /**
   * Answers about the capabilities that have a name here. One that is absent was not asked for: its answer is not known, and the
   * simulator gives 0.
   */
  capabilities: v.record(v.picklist(Object.keys(capabilities) as Capability[]), answers),
  /** Answers other than 0 about all others, by number, of 0 to 1023. Absent if they were not recorded. */
  otherCapabilities: v.optional(v.record(v.pipe(v.string(), v.regex(/^(0|[1-9]\d{0,3})$/)), answers)),
  /** Absent if not recorded. */
  vmTypes: v.optional(vmTypes),
  /** Absent if not recorded. */
  guestReads: v.optional(v.pipe(v.array(guestReadSchema), v.maxLength(100))),
  /** Absent if not recorded. Digests ignore which CPUs are of a kind. */
  cpus: v.optional(cpus),
  /** `KVM_GET_VCPU_MMAP_SIZE`, bytes. */
  vcpuMmapSize: v.pipe(int32, v.minValue(4096), v.maxValue(0x100000)),
  /** `KVM_ARM_PREFERRED_TARGET` */
  preferredTarget: int32,
  /** Registers of the base configuration, a vCPU with `psci-0.2` alone, in `KVM_GET_REG_LIST`'s order. */
  registers: v.pipe(v.array(register), v.minLength(1), v.maxLength(10_000)),
  /** Every other combination of the optional features the host supports. */
  configurations: v.array(v.union([configuration, refusal])),
  traits,
  /** What a guest of a fresh VM discovers, if the probe ran with `--census`. The simulator ignores it. */
  census: v.optional(v.array(discovery)),
})

export type Report = v.InferOutput<typeof reportSchema>
export type ReportedRegister = v.InferOutput<typeof register>
export type Configuration = v.InferOutput<typeof configuration>
export type Refusal = v.InferOutput<typeof refusal>
export type Discovery = v.InferOutput<typeof discovery>
export type Traits = v.InferOutput<typeof traits>
