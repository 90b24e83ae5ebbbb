/**
 * The report: everything one host's arm64 KVM shows to userspace, as data. `probe` writes it, the simulator runs it, the
 * compatibility tools compare it. This file is its only definition: the TypeScript types and the published JSON Schema
 * (`report.schema.json`) are both derived from it.
 *
 * Nothing in it is looked up by kernel version. What cannot be read is found out by experiment on scratch VMs (`traits`, and
 * `write` of a register), because stable kernels carry backports and behaviour is not even monotonic in the version.
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
import { hex, hex64, host, int32, registerId, text } from '../documents/entries.js'
import { originSchema } from './origin.js'
import { writeRuleSchema } from './write-rule.js'

const errno = v.picklist(Object.keys(errnos) as ErrnoName[])
/** Services KVM itself answers, as `vm.services` names them. */
const service = v.picklist(gatedServices.map(({ name }) => name))
export const feature = v.picklist(Object.keys(vcpuFeatures) as VcpuFeature[])

const register = v.strictObject({
  id: registerId,
  /** For readers; the id decides. */
  name: text,
  /** After `KVM_ARM_VCPU_INIT` (and `KVM_ARM_VCPU_FINALIZE`) on vCPU 0 of a fresh VM; null where it counts time. */
  value: v.nullable(hex),
  /** What `KVM_ARM_GET_REG_WRITABLE_MASKS` reports of it; absent for 0, and where the ioctl does not exist. */
  mask: v.optional(hex64),
  /** What a write does before the first run; absent where the register keeps any value. */
  write: v.optional(writeRuleSchema),
})
const { mask: _ofVm, ...vcpuRegister } = register.entries

/** What a set of vCPU features does to the base configuration. */
const configuration = v.strictObject({
  features: v.array(feature),
  /** Ids no longer listed. */
  removed: v.array(registerId),
  /** Registers that join the list, in its order, each with its place in this configuration's list. */
  added: v.array(v.strictObject({ ...vcpuRegister, index: int32 })),
  /** Registers whose value or rule differs from the base's, each whole. */
  changed: v.array(v.strictObject(vcpuRegister)),
})

/** A combination of vCPU features the host supports one by one but not together. */
const refusal = v.strictObject({ features: v.array(feature), refused: errno })

const afterRun = v.picklist([
  /** `EBUSY` whatever the value: the series up to v7 and no release. */
  'busy',
  /** `EBUSY` where the value differs, success where it is the one already there. */
  'busy-if-changed',
  /** As before the run. */
  'unguarded',
])

/** The bits of the mask become those of the value. */
const changedBits = v.strictObject({ id: registerId, name: text, mask: hex64, value: hex64 })

const traits = v.strictObject({
  /** `KVM_ARM_VCPU_INIT` */
  init: v.strictObject({
    /** Targets accepted for vCPU 0, of 0…15. */
    targets: v.array(int32),
    /** How many bits of `features[0]` the kernel knows, from bit 0; any other is `ENOENT`. */
    knownFeatures: int32,
    /** Features this host supports, each with what it needs beside it; a known feature outside is `EINVAL`. */
    supported: v.array(feature),
    /** Whether the first init fixes the features of the whole VM. */
    scope: v.picklist(['vm', 'vcpu']),
    /** Whether `power-off` must be repeated on every init of a vCPU. */
    powerOff: v.picklist(['sticky', 'ephemeral']),
    /** Whether an init refused for an unknown feature leaves the lower bits set, so that the next one inherits them. */
    leaksRefusedFeatures: v.boolean(),
    /**
     * What an init with `sve` may be refused for, of pointer authentication and register width, and yet leave the vCPU with SVE, whatever
     * the next asks for. Absent where nothing.
     */
    leaksSve: v.optional(v.array(v.picklist(['ptrauth', 'register-width']))),
    /**
     * Where features are each vCPU's own: whether `el1-32bit` is nevertheless the VM's (`vm`: fixed by the first init;
     * `every-vcpu`: compared with every vCPU created, also with those not yet initialised) or not (`vcpu`). Absent where the features
     * are the VM's anyway, and where the host has no AArch32 at EL1, unless an init refused for another feature leaves it a vCPU and
     * others are compared with that.
     */
    registerWidth: v.optional(v.picklist(['vm', 'every-vcpu', 'vcpu'])),
    /** Registers of the vCPU that keep what was written to them when the vCPU is initialised again. Absent where there are none. */
    kept: v.optional(v.array(registerId)),
    /** Whether an SError stays pending when a vCPU that has run is initialised again. */
    keepsSError: v.boolean(),
  }),
  /** Write to a bitmap register after the first run; null where there is none. */
  bitmapAfterRun: v.nullable(afterRun),
  /** Write to a feature ID register after the first run. */
  idRegisterAfterRun: afterRun,
  /** Bits of feature ID registers that the first run of a VM without a GIC changes, and to what. Absent where it changes none. */
  changedByFirstRun: v.optional(v.array(changedBits)),
  /** Bits of feature ID registers that creating a GICv3 sets, whatever userspace had written. Absent where it leaves all alone. */
  changedByVgic: v.optional(v.array(changedBits)),
  /**
   * System registers that come back from the CPU changed, though the guest left them alone: the bits kept of what userspace wrote. `by`
   * tells what loads them into the CPU: every `KVM_RUN` (`run`), one without `immediate_exit`, also of a stopped vCPU (`load`), or one
   * that executes guest code (`guest`).
   */
  lossyRegisters: v.array(
    v.strictObject({ id: registerId, name: text, by: v.picklist(['run', 'load', 'guest']), kept: hex64 }),
  ),
  /** Whether `KVM_SET_ONE_REG` refuses a width other than 64 bits in the firmware spaces before it reads the value. */
  firmwareWidthChecked: v.boolean(),
  /** Whether `KVM_SET_ONE_REG` reads the value before it looks up a system register, or an id of an unknown space. */
  setReadsValueFirst: v.strictObject({ systemRegister: v.boolean(), unknownSpace: v.boolean() }),
  /** Whether `KVM_SET_ONE_REG` with a bad address zeroes a plain system register before it answers `EFAULT`. */
  faultingSetZeroes: v.boolean(),
  /**
   * Which core registers a write to one of them cuts to 32 bits on a vCPU in AArch32 state: those its mode sees (`visible`: r0 to r14
   * and no other mode's). Absent where it is all that hold AArch32 registers, or where the host has no AArch32 at EL1.
   */
  narrowedRegisters: v.optional(v.literal('visible')),
  /** Whether `KVM_GET_VCPU_EVENTS` is refused before the vCPU's init. */
  vcpuEventsNeedInit: v.boolean(),
  /** Whether a pending SError ends a vCPU's wait for an interrupt, also one that its guest masks. */
  sErrorWakes: v.boolean(),
  /** `KVM_ARM_VM_SMCCC_FILTER`: null where there is none, else what base 0 with no functions is answered. */
  smcccFilter: v.nullable(v.strictObject({ emptyRangeAtZero: errno })),
  /** Calls of a guest, which a guest made for the question tried. */
  hypercalls: v.strictObject({
    /** Services KVM answers in a fresh VM, of those a bit can hide; also where the host has no register for the bit. */
    services: v.array(service),
    /** Whether `smc` reaches the same handler as `hvc`; where not, it is `NOT_SUPPORTED` in x0 and leaves x1 to x3. */
    smc: v.boolean(),
    /** Whether PSCI drops the bits an affinity cannot have, rather than refuse them. */
    affinityMasked: v.boolean(),
    /**
     * Which of several vCPUs that userspace gave one affinity PSCI means: the `first` created, or the `last` of those there were when a
     * vCPU of the VM began its first run.
     */
    sameAffinity: v.picklist(['first', 'last']),
  }),
  /** Types `KVM_CREATE_DEVICE_TEST` says there are. */
  devices: v.array(v.picklist(Object.keys(deviceTypes) as DeviceType[])),
  /** `KVM_ARM_VCPU_TIMER_CTRL` */
  timers: v.strictObject({
    /** The private interrupt of each timer that has an attribute, by the attribute's number. */
    interrupts: v.array(int32),
    /** Whether they are the VM's, or each vCPU's own: a vCPU created later then has these again. */
    scope: v.picklist(['vm', 'vcpu']),
  }),
  /** `KVM_ARM_VCPU_PMU_V3_CTRL` beyond the interrupt and the initialisation; null where the host has no PMU. */
  pmu: v.nullable(
    v.strictObject({
      /** `KVM_ARM_VCPU_PMU_V3_FILTER`: null where there is none. */
      filter: v.nullable(
        v.strictObject({
          /** How many event numbers may be filtered, from 0. */
          events: int32,
          /** Whether it may still be changed after the VM's first run. */
          afterRun: v.boolean(),
        }),
      ),
      /** Ids of PMUs `KVM_ARM_VCPU_PMU_V3_SET_PMU` accepts, of 0…63, the one a VM has by default first; null where there is none. */
      ids: v.nullable(v.array(int32)),
      /** Most counters `KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS` accepts; null where there is none. */
      counters: v.nullable(int32),
    }),
  ),
  /** First `KVM_RUN` of a vCPU whose PMU was requested but not initialised; null where it is accepted or there is no PMU. */
  runWithoutPmuInit: v.nullable(errno),
  /**
   * Whether an address of a GIC that already has one is looked at all the same, and refused for what is wrong with it before `EEXIST`.
   * Absent where `EEXIST` comes first, or where there is no GICv3.
   */
  vgicAddressCheckedFirst: v.optional(v.literal(true)),
  /**
   * First `KVM_RUN` with a GICv3 created but not configured: its errno, and whether every later ioctl on the VM is `EIO`.
   * null where the host has no GICv3.
   */
  runWithoutVgicInit: v.nullable(v.strictObject({ errno, killsVm: v.boolean() })),
})

/** A call of a guest of a fresh VM that found something: not `NOT_SUPPORTED` in x0. */
const discovery = v.strictObject({
  conduit: v.picklist(['hvc', 'smc']),
  functionId: hex64,
  /** For readers; the id decides. */
  name: text,
  /** x1; the other arguments are 0. */
  argument: hex64,
  /** x0 to x3; null where they tell the time. */
  x: v.nullable(v.tuple([hex64, hex64, hex64, hex64])),
  /** Why the run ended, where the call did not come back. */
  exit: v.optional(text),
})

/** The entries of a report; see the file's head. */
export const reportSchema = v.strictObject({
  format: v.literal('kvm-arm64/report'),
  version: v.literal(2),
  /** ISO 8601. The only entry in which two probes of one host differ. */
  probedAt: v.pipe(v.string(), v.isoTimestamp()),
  host,
  /** Who answered; digests and comparisons leave it out, as they do `probedAt` and `host`. */
  origin: originSchema,
  /** `KVM_CHECK_EXTENSION` on `/dev/kvm` and on a VM; a negative number is `-errno`. */
  capabilities: v.record(v.picklist(Object.keys(capabilities) as Capability[]), v.tuple([int32, int32])),
  /** `KVM_GET_VCPU_MMAP_SIZE`, bytes. */
  vcpuMmapSize: v.pipe(int32, v.minValue(4096), v.maxValue(0x100000)),
  /** `KVM_ARM_PREFERRED_TARGET` */
  preferredTarget: int32,
  /** Registers of the base configuration, a vCPU with `psci-0.2` alone, in `KVM_GET_REG_LIST`'s order. */
  registers: v.pipe(v.array(register), v.minLength(1), v.maxLength(10_000)),
  /** Every other combination of the optional features the host supports. */
  configurations: v.array(v.union([configuration, refusal])),
  traits,
  /** What a guest of a fresh VM discovers, where the probe was asked for it (`--census`). The simulator does not look at it. */
  census: v.optional(v.array(discovery)),
})

export type Report = v.InferOutput<typeof reportSchema>
export type ReportedRegister = v.InferOutput<typeof register>
export type Configuration = v.InferOutput<typeof configuration>
export type Refusal = v.InferOutput<typeof refusal>
export type Discovery = v.InferOutput<typeof discovery>
export type Traits = v.InferOutput<typeof traits>
