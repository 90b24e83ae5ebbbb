import type { Traits } from '../report/report.js'
import { mpStates } from '../uapi.js'
import type { Host } from './host.js'
import type { SimulatedMemory } from './memory.js'

/** One register of a configuration: where its value comes from and what may be written to it. */
export interface Register {
  /** The largest value of its width. */
  readonly limit: bigint
  /** The value, or `-errno`. */
  read(vcpu: VcpuState): bigint | number
  /** 0 or `-errno`; `value` fits the width. */
  write(vcpu: VcpuState, value: bigint): number
  /** What KVM checks before it reads the value to be written: 0 or `-errno`. Absent where that is nothing. */
  check?(vcpu: VcpuState): number
  /** Zeroes the register. Absent where KVM copies the value to be written somewhere else first. */
  zero?(vcpu: VcpuState): void
}

/** The registers of a vCPU with a set of features. */
export interface RegisterFile {
  /** In `KVM_GET_REG_LIST`'s order. A register's place in it is its slot in `VcpuState.values`. */
  readonly ids: BigUint64Array
  readonly byId: ReadonlyMap<bigint, Register>
  /** Registers KVM looks up in any space it does not know, by their index, the lowest 16 bits of the id. */
  readonly everywhere: ReadonlyMap<bigint, Register>
  readonly slots: ReadonlyMap<bigint, number>
  /** Values after `KVM_ARM_VCPU_INIT`, by slot. */
  readonly reset: readonly bigint[]
}

/** Bits of a register that belong to the VM, over those its vCPUs have from their configuration. */
interface VmBits {
  mask: bigint
  value: bigint
}

export interface MemorySlot {
  /** Guest physical, bytes. */
  address: bigint
  size: bigint
  flags: number
  memory: SimulatedMemory
  /** Of the slot's first byte in `memory`. */
  offset: number
}

/** vCPUs by those bits of their affinities in which they differed when they were looked at. */
export interface AffinityTable {
  mask: bigint
  byBits: ReadonlyMap<bigint, VcpuState>
}

/** A VGICv3, as far as the first run of a vCPU depends on it. */
export class Gic {
  distributor: bigint | null = null
  redistributor: bigint | null = null
  /** Shared interrupts; 0 until set, or until the initialisation takes a default. */
  spis = 0
  initialised = false
  /** Whose the shared interrupts are, by their numbers. */
  readonly interruptOwners = new Map<number, string>()

  /** What a kernel that lets the VM live leaves of it (`arch/arm64/kvm/vgic/vgic-init.c:kvm_vgic_dist_destroy`). */
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
  /** Whether any vCPU has run, which nothing takes back. */
  hasRun = false
  /** Every ioctl on the VM and what belongs to it answers `EIO`. */
  dead = false
  /** Feature bits the first init fixed for all vCPUs, on hosts where it does. */
  features: number | null = null
  /** Register width the first init fixed for all vCPUs, on hosts where features are each vCPU's own. */
  is32Bit: boolean | null = null
  /** What userspace wrote to `PSCI_VERSION`. */
  psciVersion: bigint | null = null
  /** What userspace wrote to the bitmap registers. */
  readonly bitmaps = new Map<bigint, bigint>()
  /** What userspace, or the first run, changed in ID registers. */
  readonly idRegisters = new Map<bigint, VmBits>()
  /** How many event counters userspace left its PMUs. */
  eventCounters: number | null = null
  /** Id of the host's PMU that userspace chose. */
  pmu: number | null = null
  /** Userspace has told which events its PMUs count. */
  hasEventFilter = false
  /** `KVM_CAP_ARM_WRITABLE_IMP_ID_REGS` is enabled. */
  writableImplementationIds = false
  /** `KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE`, bytes. */
  eagerSplitChunkSize: bigint | null = null
  /** SMCCC function ids userspace put into the filter, first and last, and what becomes of a call (`smcccFilterActions`). */
  readonly filteredRanges: { first: number; last: number; action: number }[] = []
  /** `KVM_CAP_ARM_SYSTEM_SUSPEND` is enabled. */
  systemSuspend = false
  /** Where a vCPU's affinity is looked up first. */
  affinityTable: AffinityTable | null = null
  readonly memorySlots = new Map<number, MemorySlot>()
  gic: Gic | null = null
  /** Private interrupts of the timers, where they are the VM's. */
  timerInterrupts: readonly number[]
  /** With its GIC a vCPU came so far towards its first run that they stay. */
  timerInterruptsFixed = false
  /** What to add to the time since the VM's creation, by counter. */
  readonly counterOffsets = new Map<bigint, bigint>()
  readonly createdAt = process.hrtime.bigint()

  constructor(host: Host, ipaBits: number) {
    this.host = host
    this.ipaBits = ipaBits
    this.timerInterrupts = host.traits.timers.interrupts
  }

  /** Makes those bits of ID registers the VM's own that KVM changes by itself. */
  overrideIdRegisters(changes: Traits['changedByFirstRun'] = []): void {
    for (const { id, mask, value } of changes) {
      this.overrideIdRegister(BigInt(id), BigInt(mask), BigInt(value))
    }
  }

  /** Makes bits of an ID register the VM's own. */
  overrideIdRegister(id: bigint, mask: bigint, value: bigint): void {
    const before = this.idRegisters.get(id) ?? { mask: 0n, value: 0n }
    this.idRegisters.set(id, { mask: before.mask | mask, value: (before.value & ~mask) | (value & mask) })
  }
}

export class VcpuState {
  readonly vm: VmState
  readonly id: number
  initialised = false
  /** Bits of `KVM_ARM_VCPU_INIT`; some kernels keep those of a refused init. */
  features = 0
  /** An init that was refused left it SVE, which `features` do not tell. */
  leakedSve = false
  /** The registers of the features it was last initialised with. */
  file: RegisterFile | null = null
  values: bigint[] = []
  sveFinalised = false
  /** A region of the GIC's redistributors had room for its own, which it keeps when KVM destroys the GIC. */
  hasRedistributor: boolean
  /** The checks before a vCPU's first run are behind it. */
  hasRun = false
  mpState: number = mpStates.runnable
  /** Whose the private interrupts are, by their numbers. */
  readonly interruptOwners = new Map<number, string>()
  timerInterrupts: readonly number[]
  /** The timers are as the first run needs them. */
  timersEnabled = false
  pmuInterrupt: number | null = null
  pmuInitialised = false
  /** Guest physical address of the stolen-time structure. */
  stolenTimeBase: bigint | null = null
  /** What PSCI's CPU_ON leaves for the vCPU to begin with, until it is looked at or runs. */
  pendingReset: { pc: bigint; x0: bigint } | null = null
  /** The last run ended with a store to a device, which the next one steps over. */
  storePending = false
  /** Lets a run in flight go on after the vCPU was stopped. Null where none is. */
  wake: (() => void) | null = null
  /** Syndrome of a pending SError. */
  pendingSError: bigint | null = null

  constructor(vm: VmState, id: number) {
    this.vm = vm
    this.id = id
    this.hasRedistributor = vm.gic !== null && vm.gic.redistributor !== null
    const { scope, interrupts } = vm.host.traits.timers
    this.timerInterrupts = scope === 'vm' ? vm.timerInterrupts : interrupts
  }
}
