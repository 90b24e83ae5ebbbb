import type { Traits } from '../report/report.js'
import { GUEST_DEBUG_WORDS, mpStates } from '../uapi.js'
import { CoalescedMmio } from './coalesced-mmio.js'
import { Counts } from './counts.js'
import { CpuInterface } from './gic-cpu-interface.js'
import { type Interrupt, privateInterrupts, sharedInterrupts } from './gic-interrupts.js'
import type { IoEvent, IrqEvent } from './event.js'
import type { GicModel, Host } from './host.js'
import { MmioAnswers } from './mmio.js'
import type { SimulatedMemory } from './memory.js'

/** One register of a configuration: how it is read and what may be written to it. */
export interface Register {
  /** The largest value of its width. */
  readonly limit: bigint
  /** Returns the value, or `-errno`. */
  read(vcpu: VcpuState): bigint | number
  /** Returns 0 or `-errno`; `value` fits the width. */
  write(vcpu: VcpuState, value: bigint): number
  /** The check KVM makes before it reads the value to be written: returns 0 or `-errno`. Absent if there is none. */
  check?(vcpu: VcpuState): number
  /** Zeroes the register. Absent if KVM first copies the value to be written somewhere else. */
  zero?(vcpu: VcpuState): void
}

/** The registers of a vCPU with a set of features. */
export interface RegisterFile {
  /** In `KVM_GET_REG_LIST`'s order. A register's place in the list is its slot in `VcpuState.values`. */
  readonly ids: BigUint64Array
  readonly byId: ReadonlyMap<bigint, Register>
  /** Registers that KVM looks up in any space it does not know, by their index, the lowest 16 bits of the id. */
  readonly everywhere: ReadonlyMap<bigint, Register>
  readonly slots: ReadonlyMap<bigint, number>
  /** Values after `KVM_ARM_VCPU_INIT`, by slot. */
  readonly reset: readonly bigint[]
}

/** Bits of a register that belong to the VM; they replace the bits of its vCPUs' configuration. */
interface VmBits {
  mask: bigint
  value: bigint
}

export interface MemorySlot {
  /** Guest physical address, in bytes. */
  address: bigint
  size: bigint
  flags: number
  memory: SimulatedMemory
  /** Offset of the slot's first byte in `memory`. */
  offset: number
  /** A bit for each page, set if it was written; null if the slot keeps no log. */
  dirty: BigUint64Array | null
  /** Pages that the guest may write without a fault; kept with a dirty ring alone. */
  writable: Set<bigint>
}

/** An entry of a vCPU's dirty ring. */
interface DirtyPage {
  readonly slot: number
  readonly page: bigint
  isTaken: boolean
}

/** vCPUs by the bits in which their affinities differed when the table was made. */
export interface AffinityTable {
  mask: bigint
  byBits: ReadonlyMap<bigint, VcpuState>
}

/** A VGICv3. */
export class Gic {
  distributor: bigint | null = null
  redistributor: bigint | null = null
  /** Shared interrupts; 0 until set, or until the initialisation takes a default. */
  spis = 0
  initialised = false
  /** The shared interrupts, once it is initialised. */
  shared: readonly Interrupt[] = []
  /** It forwards interrupts of group 1. */
  enabled = false
  readonly model: GicModel
  /** In GICD_IIDR. */
  revision: number
  /** Private interrupt for the maintenance of a guest's own virtual interrupts. */
  maintenanceInterrupt = 0
  /** GICR_PROPBASER, which all redistributors share. */
  propertyTable = 0n
  /** Owners of the shared interrupts, by interrupt number. */
  readonly interruptOwners = new Map<number, string>()

  constructor({ gic }: Host) {
    this.model = gic
    this.revision = gic.revisions.at(-1)!
  }

  /** Resets the registers; the number of interrupts is set. */
  initialise(vcpus: Iterable<VcpuState>): void {
    if (this.initialised) return
    this.initialised = true
    this.shared = sharedInterrupts(this.spis)
    for (const vcpu of vcpus) vcpu.resetInterrupts()
  }

  /** Keeps only what a kernel that lets the VM live keeps of it (`arch/arm64/kvm/vgic/vgic-init.c:kvm_vgic_dist_destroy`). */
  destroy(): void {
    this.redistributor = null
    this.spis = 0
    this.initialised = false
    this.interruptOwners.clear()
  }
}

export class VmState {
  readonly host: Host
  readonly ipaBits: number
  /** Every vCPU ever created: closing a vCPU does not free its id. */
  readonly vcpus = new Map<number, VcpuState>()
  /** The vCPUs there were when pKVM took the VM over; null before that, and on other hosts. */
  protectedVcpus: ReadonlySet<VcpuState> | null = null
  /** Whether any vCPU has run; never reset. */
  hasRun = false
  /** Every ioctl on the VM and on its vCPUs and devices returns `EIO`. */
  dead = false
  /** Feature bits that the first init fixed for all vCPUs, on hosts where it does. */
  features: number | null = null
  /** Register width that the first init fixed for all vCPUs, on hosts where features belong to each vCPU. */
  is32Bit: boolean | null = null
  /** What userspace wrote to `PSCI_VERSION`. */
  psciVersion: bigint | null = null
  /** What userspace wrote to the bitmap registers. */
  readonly bitmaps = new Map<bigint, bigint>()
  /** What userspace, or the first run, changed in ID registers. */
  readonly idRegisters = new Map<bigint, VmBits>()
  /** The number of event counters that userspace gave its PMUs. */
  eventCounters: number | null = null
  /** Id of the host's PMU that userspace chose. */
  pmu: number | null = null
  /** Userspace has set which events its PMUs count. */
  hasEventFilter = false
  /** `KVM_CAP_ARM_WRITABLE_IMP_ID_REGS` is enabled. */
  writableImplementationIds = false
  /** `KVM_CAP_ARM_MTE` is enabled. */
  mte = false
  /** `KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE`, bytes. */
  eagerSplitChunkSize: bigint | null = null
  /** The ranges of SMCCC function ids in the filter, first and last, and the action for a call (`smcccFilterActions`). */
  readonly filteredRanges: { first: number; last: number; action: number }[] = []
  /** `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`: its argument. */
  manualDirtyLog = 0n
  /** Each vCPU has a ring of written pages; slots have bitmaps too if `hasBitmap`. */
  dirtyRing: { readonly entries: number; hasBitmap: boolean } | null = null
  /** `KVM_CAP_ARM_SYSTEM_SUSPEND` is enabled. */
  systemSuspend = false
  /** The table in which a vCPU's affinity is looked up first. */
  affinityTable: AffinityTable | null = null
  readonly memorySlots = new Map<number, MemorySlot>()
  readonly mmio = new MmioAnswers()
  readonly coalesced: CoalescedMmio
  /** Places whose writes an event counts. */
  readonly ioEvents: IoEvent[] = []
  /** Pins of the GIC by the interrupts (GSIs) routed to them; null for the routes that its initialisation makes. */
  routes: ReadonlyMap<number, number> | null = null
  /** Interrupts that events raise. */
  irqEvents: readonly IrqEvent[] = []
  gic: Gic | null = null
  /** Private interrupts of the timers, if they belong to the VM. */
  timerInterrupts: readonly number[]
  /** Fixed once a vCPU of a VM with a GIC has got far enough towards its first run. */
  timerInterruptsFixed = false
  /** Offset to the time since the VM's creation, by counter. */
  readonly counterOffsets = new Map<bigint, bigint>()
  readonly createdAt = process.hrtime.bigint()
  /** What userspace set for both counters, which writes to them then change no more; null if it did not. */
  counterOffset: bigint | null = null

  constructor(host: Host, ipaBits: number) {
    this.host = host
    this.ipaBits = ipaBits
    this.coalesced = new CoalescedMmio(host)
    this.timerInterrupts = host.traits.timers.interrupts
  }

  /** Makes the bits of ID registers that KVM changes by itself belong to the VM. */
  overrideIdRegisters(changes: Traits['changedByFirstRun'] = []): void {
    for (const { id, mask, value } of changes) {
      this.overrideIdRegister(BigInt(id), BigInt(mask), BigInt(value))
    }
  }

  /** Makes bits of an ID register belong to the VM. */
  overrideIdRegister(id: bigint, mask: bigint, value: bigint): void {
    const before = this.idRegisters.get(id) ?? { mask: 0n, value: 0n }
    this.idRegisters.set(id, { mask: before.mask | mask, value: (before.value & ~mask) | (value & mask) })
  }
}

/** Inner shareable, cached by reads and writes (`INITIAL_PENDBASER_VALUE`). */
const INITIAL_PENDING_TABLE = (1n << 10n) | (3n << 7n)

export class VcpuState {
  readonly vm: VmState
  readonly id: number
  initialised = false
  /** Bits of `KVM_ARM_VCPU_INIT`; some kernels keep those of a refused init. */
  features = 0
  /** A refused init left it with SVE, which `features` do not show. */
  leakedSve = false
  /** The registers for the features of its last init. */
  file: RegisterFile | null = null
  values: bigint[] = []
  sveFinalised = false
  /** A redistributor region of the GIC had room for its redistributor, which the vCPU keeps when KVM destroys the GIC. */
  hasRedistributor: boolean
  /** The checks before the vCPU's first run have succeeded. */
  hasRun = false
  mpState: number = mpStates.runnable
  /** Its software-generated and private interrupts at a GIC. */
  interrupts = privateInterrupts()
  cpuInterface = new CpuInterface()
  /** GICR_PENDBASER */
  pendingTable = 0n
  /** Owners of the private interrupts, by interrupt number. */
  readonly interruptOwners = new Map<number, string>()
  timerInterrupts: readonly number[]
  /** The timers are ready for the first run. */
  timersEnabled = false
  pmuInterrupt: number | null = null
  pmuInitialised = false
  /** The next run without `immediate_exit` is the first that loads the PMU. */
  pmuReloadIsDue = false
  /** Guest physical address of the stolen-time structure. */
  stolenTimeBase: bigint | null = null
  /** The registers that PSCI's CPU_ON set for the vCPU; pending until an ioctl accesses the vCPU or it runs. */
  pendingReset: { pc: bigint; x0: bigint } | null = null
  /** The last run ended with a store to a device; the next run steps over it. */
  storePending = false
  /** Continues a run in flight after the vCPU was stopped. Null if there is none. */
  wake: (() => void) | null = null
  /** Its inputs (`cpuInputs`) that are raised. */
  readonly raisedInputs = new Set<number>()
  /** `KVM_GUESTDBG_*`; 0 if nobody debugs the guest. */
  debugControl = 0
  /** The last debug registers that userspace set. */
  debugRegisters = new BigUint64Array(GUEST_DEBUG_WORDS)
  /** Its dirty ring, oldest first. */
  readonly dirtyPages: DirtyPage[] = []
  readonly counts = new Counts()
  /** Syndrome of a pending SError. */
  pendingSError: bigint | null = null

  constructor(vm: VmState, id: number) {
    this.vm = vm
    this.id = id
    this.hasRedistributor = vm.gic !== null && vm.gic.redistributor !== null
    const { scope, interrupts } = vm.host.traits.timers
    this.timerInterrupts = scope === 'vm' ? vm.timerInterrupts : interrupts
  }

  resetInterrupts(): void {
    this.interrupts = privateInterrupts()
    this.cpuInterface = new CpuInterface()
    this.pendingTable = INITIAL_PENDING_TABLE
  }
}
