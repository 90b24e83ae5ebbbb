/**
 * Numbers of KVM's userspace ABI for arm64: `include/uapi/linux/kvm.h` and `arch/arm64/include/uapi/asm/kvm.h`.
 * Only numbers that cross the border to the kernel live here; the code that uses them explains what they mean.
 */

/** `KVM_GET_API_VERSION`: frozen at 12 since Linux 2.6.22. */
export const KVM_API_VERSION = 12

/** Capabilities, in the order of the numbers `KVM_CHECK_EXTENSION` takes. Those that mean something on arm64, up to Linux 7.3. */
export const capabilities = {
  KVM_CAP_IRQCHIP: 0,
  KVM_CAP_USER_MEMORY: 3,
  KVM_CAP_NR_VCPUS: 9,
  KVM_CAP_NR_MEMSLOTS: 10,
  KVM_CAP_MP_STATE: 14,
  KVM_CAP_COALESCED_MMIO: 15,
  KVM_CAP_SYNC_MMU: 16,
  KVM_CAP_DESTROY_MEMORY_REGION_WORKS: 21,
  KVM_CAP_SET_GUEST_DEBUG: 23,
  KVM_CAP_IRQ_ROUTING: 25,
  KVM_CAP_JOIN_MEMORY_REGIONS_WORKS: 30,
  KVM_CAP_IRQFD: 32,
  KVM_CAP_IOEVENTFD: 36,
  KVM_CAP_INTERNAL_ERROR_DATA: 40,
  KVM_CAP_VCPU_EVENTS: 41,
  KVM_CAP_MAX_VCPUS: 66,
  KVM_CAP_ONE_REG: 70,
  KVM_CAP_SIGNAL_MSI: 77,
  KVM_CAP_READONLY_MEM: 81,
  KVM_CAP_ARM_PSCI: 87,
  KVM_CAP_ARM_SET_DEVICE_ADDR: 88,
  KVM_CAP_DEVICE_CTRL: 89,
  KVM_CAP_ARM_EL1_32BIT: 93,
  KVM_CAP_ENABLE_CAP_VM: 98,
  KVM_CAP_VM_ATTRIBUTES: 101,
  KVM_CAP_ARM_PSCI_0_2: 102,
  KVM_CAP_CHECK_EXTENSION_VM: 105,
  KVM_CAP_GUEST_DEBUG_HW_BPS: 119,
  KVM_CAP_GUEST_DEBUG_HW_WPS: 120,
  KVM_CAP_IOEVENTFD_ANY_LENGTH: 122,
  KVM_CAP_ARM_PMU_V3: 126,
  KVM_CAP_VCPU_ATTRIBUTES: 127,
  KVM_CAP_MAX_VCPU_ID: 128,
  KVM_CAP_MSI_DEVID: 131,
  KVM_CAP_IMMEDIATE_EXIT: 136,
  KVM_CAP_ARM_USER_IRQ: 144,
  KVM_CAP_ARM_INJECT_SERROR_ESR: 158,
  KVM_CAP_ARM_VM_IPA_SIZE: 165,
  KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: 168,
  KVM_CAP_ARM_SVE: 170,
  KVM_CAP_ARM_PTRAUTH_ADDRESS: 171,
  KVM_CAP_ARM_PTRAUTH_GENERIC: 172,
  KVM_CAP_ARM_IRQ_LINE_LAYOUT_2: 174,
  KVM_CAP_ARM_NISV_TO_USER: 177,
  KVM_CAP_ARM_INJECT_EXT_DABT: 178,
  KVM_CAP_HALT_POLL: 182,
  KVM_CAP_STEAL_TIME: 187,
  KVM_CAP_DIRTY_LOG_RING: 192,
  KVM_CAP_PTP_KVM: 198,
  KVM_CAP_EXIT_HYPERCALL: 201,
  KVM_CAP_BINARY_STATS_FD: 203,
  KVM_CAP_ARM_MTE: 205,
  KVM_CAP_VM_GPA_BITS: 207,
  KVM_CAP_SYSTEM_EVENT_DATA: 215,
  KVM_CAP_ARM_SYSTEM_SUSPEND: 216,
  KVM_CAP_DIRTY_LOG_RING_ACQ_REL: 223,
  KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP: 225,
  KVM_CAP_COUNTER_OFFSET: 227,
  KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE: 228,
  KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES: 229,
  KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES: 230,
  KVM_CAP_USER_MEMORY2: 231,
  KVM_CAP_MEMORY_FAULT_INFO: 232,
  KVM_CAP_MEMORY_ATTRIBUTES: 233,
  KVM_CAP_GUEST_MEMFD: 234,
  KVM_CAP_PRE_FAULT_MEMORY: 236,
  KVM_CAP_ARM_WRITABLE_IMP_ID_REGS: 239,
  KVM_CAP_ARM_EL2: 240,
  KVM_CAP_ARM_EL2_E2H0: 241,
  KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED: 243,
  KVM_CAP_GUEST_MEMFD_FLAGS: 244,
  KVM_CAP_ARM_SEA_TO_USER: 245,
  KVM_CAP_ARM_PMU_V3_STRICT: 251,
} as const

export type Capability = keyof typeof capabilities

/** Bit 31 of the type that `KVM_CREATE_VM` takes: a VM whose memory the host cannot read. */
export const KVM_VM_TYPE_ARM_PROTECTED = 1n << 31n

/** Targets ever given a number (`KVM_ARM_TARGET_AEM_V8` 0 … `KVM_ARM_TARGET_GENERIC_V8` 5). */
export const KVM_ARM_NUM_TARGETS = 6

/** Bits of `struct kvm_vcpu_init.features[0]` (`KVM_ARM_VCPU_*`), under the names this library gives them. */
export const vcpuFeatures = {
  'power-off': 0,
  'el1-32bit': 1,
  'psci-0.2': 2,
  'pmu-v3': 3,
  sve: 4,
  'ptrauth-address': 5,
  'ptrauth-generic': 6,
  'has-el2': 7,
  'has-el2-e2h0': 8,
  'pmu-v3-strict': 9,
} as const

export type VcpuFeature = keyof typeof vcpuFeatures

/** `kvm_vcpu_init.features[0]` for features by name. */
export function featureWord(features: readonly VcpuFeature[]): number {
  return features.reduce((word, feature) => word | (1 << vcpuFeatures[feature]), 0)
}

/** The features of a word of `kvm_vcpu_init.features`, the inverse of `featureWord`. */
export function featureNames(word: number): VcpuFeature[] {
  return (Object.keys(vcpuFeatures) as VcpuFeature[]).filter((name) => (word & featureWord([name])) !== 0)
}

/** `KVM_ARM_VCPU_FINALIZE` takes the feature's number; SVE is the only one there is. */
export const KVM_ARM_VCPU_SVE = 4

/** `kvm_run.exit_reason`. */
export const exitReasons = {
  KVM_EXIT_UNKNOWN: 0,
  KVM_EXIT_HYPERCALL: 3,
  KVM_EXIT_DEBUG: 4,
  KVM_EXIT_MMIO: 6,
  KVM_EXIT_SHUTDOWN: 8,
  KVM_EXIT_FAIL_ENTRY: 9,
  KVM_EXIT_INTR: 10,
  KVM_EXIT_INTERNAL_ERROR: 17,
  KVM_EXIT_SYSTEM_EVENT: 24,
  KVM_EXIT_ARM_NISV: 28,
  KVM_EXIT_DIRTY_RING_FULL: 31,
  KVM_EXIT_MEMORY_FAULT: 39,
  KVM_EXIT_ARM_SEA: 41,
  KVM_EXIT_ARM_LDST64B: 42,
} as const

/** Byte offsets in `struct kvm_run`, by field. Groups are members of the union that starts at 32. */
export const kvmRun = {
  immediate_exit: 1,
  exit_reason: 8,
  debug: { hsr: 32, hsr_high: 36, far: 40 },
  fail_entry: { hardware_entry_failure_reason: 32, cpu: 40 },
  mmio: { phys_addr: 32, data: 40, len: 48, is_write: 52 },
  hypercall: { nr: 32, args: [40, 48, 56, 64, 72, 80], ret: 88, flags: 96 },
  internal: { suberror: 32, ndata: 36, data: 40 },
  /** Before 5.19 there is no `ndata`, and `data` is a word of flags. */
  system_event: { type: 32, ndata: 36, data: 40 },
  arm_nisv: { esr_iss: 32, fault_ipa: 40 },
  memory_fault: { flags: 32, gpa: 40, size: 48 },
  arm_sea: { flags: 32, esr: 40, gva: 48, gpa: 56 },
} as const

/** `KVM_HYPERCALL_EXIT_SMC`, of `kvm_run.hypercall.flags`. */
export const KVM_HYPERCALL_EXIT_SMC = 1n

/** `KVM_SYSTEM_EVENT_*`. */
export const systemEvents = {
  shutdown: 1,
  reset: 2,
  crash: 3,
  wakeup: 4,
  suspend: 5,
} as const

/** `KVM_MP_STATE_*` that arm64 knows. */
export const mpStates = {
  runnable: 0,
  stopped: 5,
  suspended: 10,
} as const

export type MpState = keyof typeof mpStates

/** `KVM_DEV_TYPE_*` with an arm64 implementation. */
export const deviceTypes = {
  KVM_DEV_TYPE_VFIO: 4,
  KVM_DEV_TYPE_ARM_VGIC_V2: 5,
  KVM_DEV_TYPE_ARM_VGIC_V3: 7,
  KVM_DEV_TYPE_ARM_VGIC_ITS: 8,
  KVM_DEV_TYPE_ARM_PV_TIME: 10,
  KVM_DEV_TYPE_ARM_VGIC_V5: 12,
} as const

export type DeviceType = keyof typeof deviceTypes

/** `kvm_create_device.flags`: only checks that the type exists, and creates nothing. */
export const KVM_CREATE_DEVICE_TEST = 1

/** `kvm_userspace_memory_region.flags`. */
export const KVM_MEM_LOG_DIRTY_PAGES = 1
export const KVM_MEM_READONLY = 2

/** Arguments of `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`; the second needs the first. */
export const KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1n
export const KVM_DIRTY_LOG_INITIALLY_SET = 2n

/** `kvm_arm_copy_mte_tags.flags`. */
export const KVM_ARM_TAGS_TO_GUEST = 0
export const KVM_ARM_TAGS_FROM_GUEST = 1
/** Bytes of memory that share a tag (`MTE_GRANULE_SIZE`). */
export const MTE_GRANULE = 16

/** Bytes of an entry of a dirty ring, `struct kvm_dirty_gfn`. */
export const DIRTY_GFN_SIZE = 16
/** Entries that a ring keeps free: a run ends with `KVM_EXIT_DIRTY_RING_FULL` before they are used. */
export const KVM_DIRTY_RING_RSVD_ENTRIES = 64

/** Attribute groups of a VM (`KVM_{HAS,SET}_DEVICE_ATTR` on its fd). */
export const KVM_ARM_VM_SMCCC_CTRL = 0
export const KVM_ARM_VM_SMCCC_FILTER = 0n

/** `KVM_SMCCC_FILTER_*`, under the names this library gives them. */
export const smcccFilterActions = { handle: 0, deny: 1, forward: 2 } as const

/** `sizeof(struct kvm_smccc_filter)`: u32 base, u32 nr_functions, u8 action, u8 pad[15]. */
export const SMCCC_FILTER_SIZE = 24
/** Offset of its padding. */
export const SMCCC_FILTER_PAD = 9

/** `struct kvm_smccc_filter`, without its padding. */
export interface SmcccFilter {
  /** The first function id, 32 bits. */
  base: number
  /** The number of function ids from there on, 32 bits. */
  nr: number
  /** One of `smcccFilterActions`; 8 bits. */
  action: number
}

/** Returns the bytes of a filter; truncates numbers to the widths of its fields. */
export function packSmcccFilter({ base, nr, action }: SmcccFilter): Uint8Array {
  const bytes = new Uint8Array(SMCCC_FILTER_SIZE)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, base, true)
  view.setUint32(4, nr, true)
  view.setUint8(8, action)
  return bytes
}

/** The inverse of `packSmcccFilter`, for 24 bytes or more; null if the padding is not 0. */
export function unpackSmcccFilter(bytes: Uint8Array): SmcccFilter | null {
  if (bytes.subarray(SMCCC_FILTER_PAD, SMCCC_FILTER_SIZE).some((byte) => byte !== 0)) return null
  const view = new DataView(bytes.buffer, bytes.byteOffset, SMCCC_FILTER_SIZE)
  return { base: view.getUint32(0, true), nr: view.getUint32(4, true), action: view.getUint8(8) }
}

/** Attribute groups of a vCPU. */
export const KVM_ARM_VCPU_PMU_V3_CTRL = 0
export const KVM_ARM_VCPU_PMU_V3_IRQ = 0n
export const KVM_ARM_VCPU_PMU_V3_INIT = 1n
export const KVM_ARM_VCPU_PMU_V3_FILTER = 2n
export const KVM_ARM_VCPU_PMU_V3_SET_PMU = 3n
export const KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS = 4n
/** `kvm_pmu_event_filter.action`: the last of them. */
export const KVM_PMU_EVENT_DENY = 1
export const KVM_ARM_VCPU_TIMER_CTRL = 1
export const KVM_ARM_VCPU_PVTIME_CTRL = 2
export const KVM_ARM_VCPU_PVTIME_IPA = 0n

/** Attribute groups of a VGIC device. */
export const KVM_DEV_ARM_VGIC_GRP_ADDR = 0
export const KVM_DEV_ARM_VGIC_GRP_DIST_REGS = 1
export const KVM_DEV_ARM_VGIC_GRP_NR_IRQS = 3
export const KVM_DEV_ARM_VGIC_GRP_CTRL = 4
export const KVM_DEV_ARM_VGIC_GRP_REDIST_REGS = 5
export const KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS = 6
export const KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO = 7
export const KVM_VGIC_V2_ADDR_TYPE_DIST = 0n
export const KVM_VGIC_V2_ADDR_TYPE_CPU = 1n
export const KVM_VGIC_V3_ADDR_TYPE_DIST = 2n
export const KVM_VGIC_V3_ADDR_TYPE_REDIST = 3n
export const KVM_VGIC_ITS_ADDR_TYPE = 4n
export const KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION = 5n
export const KVM_DEV_ARM_VGIC_CTRL_INIT = 0n
export const KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES = 3n
export const KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ = 9

/** Entries of the array `KVM_ARM_GET_REG_WRITABLE_MASKS` fills for range 0, the ID space. */
export const KVM_ARM_FEATURE_ID_RANGE_SIZE = 192

/** `KVM_ARM_IRQ_TYPE_*`: an input of a vCPU without a GIC, a shared interrupt of the GIC, a private one of a vCPU. */
export const irqTypes = { cpu: 0, spi: 1, ppi: 2 } as const

/** Inputs of a vCPU: `KVM_ARM_IRQ_CPU_IRQ`, `KVM_ARM_IRQ_CPU_FIQ`. */
export const cpuInputs = { irq: 0, fiq: 1 } as const

/** `kvm_irq_level.irq`. */
export interface Irq {
  /** One of `irqTypes`; 4 bits. */
  type: number
  /** 12 bits; 0 for a shared interrupt. */
  vcpu: number
  /** The GIC's number of the interrupt, or one of `cpuInputs`; 16 bits. */
  number: number
}

/** Returns the word of an interrupt; bits 31:28 hold bits 11:8 of the vCPU. Truncates numbers to the widths of its fields. */
export function packIrq({ type, vcpu, number }: Irq): number {
  const words =
    (((vcpu >>> 8) & 0xf) << 28) | ((type & 0xf) << 24) | ((vcpu & 0xff) << 16) | (number & 0xffff)
  return words >>> 0
}

/** The inverse of `packIrq`. */
export function unpackIrq(irq: number): Irq {
  const vcpu = ((irq >>> 28) << 8) | ((irq >>> 16) & 0xff)
  return { type: (irq >>> 24) & 0xf, vcpu, number: irq & 0xffff }
}

/** `kvm_msi.flags` and `kvm_irq_routing_entry.flags`: the message names the device that sent it. */
export const KVM_MSI_VALID_DEVID = 1
/** `KVM_IRQ_ROUTING_*` that arm64 has. */
export const routeTypes = { irqchip: 1, msi: 2 } as const
/** Routes that a VM can have, and numbers of interrupts (GSIs) that they can route. */
export const KVM_MAX_IRQ_ROUTES = 4096
/** Pins of the GIC, its shared interrupts from 32 on. */
export const KVM_IRQCHIP_NUM_PINS = 1020 - 32

/** `struct kvm_irq_routing_entry`, with the members of both types. */
export interface GsiRoute {
  gsi: number
  /** One of `routeTypes`. */
  type: number
  flags: number
  /** `irqchip`: the number of the interrupt controller, and its pin. `msi`: the lower and upper half of the address, the data, the device. */
  words: number[]
}

/** Words of `struct kvm_irq_routing_entry`: gsi, type, flags, padding, and 8 of its union. */
export const GSI_ROUTE_WORDS = 12
const ROUTE_UNION = 4

/** Returns the words of routes; each number has 32 bits. */
export function packGsiRoutes(routes: readonly GsiRoute[]): Uint32Array {
  const packed = new Uint32Array(routes.length * GSI_ROUTE_WORDS)
  for (const [index, { gsi, type, flags, words }] of routes.entries()) {
    const at = index * GSI_ROUTE_WORDS
    packed.set([gsi, type, flags], at)
    packed.set(words, at + ROUTE_UNION)
  }
  return packed
}

/** The inverse of `packGsiRoutes`, for whole routes. */
export function unpackGsiRoutes(packed: Uint32Array): GsiRoute[] {
  return Array.from({ length: packed.length / GSI_ROUTE_WORDS }, (_, index) => {
    const [gsi, type, flags, , ...words] = packed.subarray(
      index * GSI_ROUTE_WORDS,
      (index + 1) * GSI_ROUTE_WORDS,
    ) as unknown as [number, number, number, number, ...number[]]
    return { gsi, type, flags, words: words.slice(0, 4) }
  })
}

/** `kvm_ioeventfd.flags`. */
export const KVM_IOEVENTFD_FLAG_DATAMATCH = 1
export const KVM_IOEVENTFD_FLAG_PIO = 2
export const KVM_IOEVENTFD_FLAG_DEASSIGN = 4
export const KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY = 8
export const KVM_IOEVENTFD_VALID_FLAG_MASK = 0x1f
/** `kvm_irqfd.flags`. */
export const KVM_IRQFD_FLAG_DEASSIGN = 1
export const KVM_IRQFD_FLAG_RESAMPLE = 2

/** Bytes of `struct kvm_stats_header`, and of `struct kvm_stats_desc` before its name. */
export const STATS_HEADER_SIZE = 24
export const STATS_DESCRIPTOR_SIZE = 16
/** `KVM_STATS_TYPE_*` and `KVM_STATS_UNIT_*`, under the names this library gives them, and the base of `KVM_STATS_BASE_*`. */
export const statsTypes = {
  cumulative: 0,
  instant: 1,
  peak: 2,
  'linear-histogram': 3,
  'logarithmic-histogram': 4,
} as const
export const statsUnits = { none: 0, bytes: 1, seconds: 2, cycles: 3, boolean: 4 } as const
export const statsBases: readonly number[] = [10, 2]

/** `struct kvm_stats_header`: offsets in bytes. */
export interface StatsHeader {
  nameSize: number
  count: number
  idOffset: number
  descriptorOffset: number
  dataOffset: number
}

/** Returns the bytes of a header without flags. */
export function packStatsHeader(header: StatsHeader): Uint8Array {
  const { nameSize, count, idOffset, descriptorOffset, dataOffset } = header
  return new Uint8Array(Uint32Array.of(0, nameSize, count, idOffset, descriptorOffset, dataOffset).buffer)
}

/** The inverse of `packStatsHeader`. */
export function unpackStatsHeader(bytes: Uint8Array): StatsHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, STATS_HEADER_SIZE)
  const [nameSize, count, idOffset, descriptorOffset, dataOffset] = [4, 8, 12, 16, 20].map((at) =>
    view.getUint32(at, true),
  ) as [number, number, number, number, number]
  return { nameSize, count, idOffset, descriptorOffset, dataOffset }
}

/** `struct kvm_stats_desc`. */
export interface StatsDescriptor {
  name: string
  /** The type in bits 3:0, the unit in 7:4, the base in 11:8. */
  flags: number
  exponent: number
  /** 64-bit numbers. */
  size: number
  /** Bytes from the first number of the first statistic. */
  offset: number
  bucketSize: number
}

/** Returns the bytes of a descriptor whose name has `nameSize` bytes. */
export function packStatsDescriptor(descriptor: StatsDescriptor, nameSize: number): Uint8Array {
  const { name, flags, exponent, size, offset, bucketSize } = descriptor
  const bytes = new Uint8Array(STATS_DESCRIPTOR_SIZE + nameSize)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, flags, true)
  view.setInt16(4, exponent, true)
  view.setUint16(6, size, true)
  view.setUint32(8, offset, true)
  view.setUint32(12, bucketSize, true)
  bytes.set(new TextEncoder().encode(name), STATS_DESCRIPTOR_SIZE)
  return bytes
}

/** The inverse of `packStatsDescriptor`. */
export function unpackStatsDescriptor(bytes: Uint8Array): StatsDescriptor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return {
    name: unpackText(bytes.subarray(STATS_DESCRIPTOR_SIZE)),
    flags: view.getUint32(0, true),
    exponent: view.getInt16(4, true),
    size: view.getUint16(6, true),
    offset: view.getUint32(8, true),
    bucketSize: view.getUint32(12, true),
  }
}

/** Returns the text before the first byte of 0. */
export function unpackText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end))
}

/** `kvm_guest_debug.control`. */
export const KVM_GUESTDBG_ENABLE = 1
export const KVM_GUESTDBG_SINGLESTEP = 2
export const KVM_GUESTDBG_USE_SW_BP = 0x1_0000
export const KVM_GUESTDBG_USE_HW = 0x2_0000
/** Words of `struct kvm_guest_debug_arch`: four kinds of register, 16 of each. */
export const GUEST_DEBUG_WORDS = 64
/** Where each kind begins in them. */
export const guestDebugRegisters = { dbg_bcr: 0, dbg_bvr: 16, dbg_wcr: 32, dbg_wvr: 48 } as const

/** Exception classes (ESR_EL2.EC) of `KVM_EXIT_DEBUG`. */
export const debugClasses = {
  breakpoint: 0x30,
  step: 0x32,
  watchpoint: 0x34,
  'bkpt-aarch32': 0x38,
  brk: 0x3c,
} as const

/** `sizeof(struct kvm_vcpu_events)` on arm64, in bytes. */
export const KVM_VCPU_EVENTS_SIZE = 64

/** The Linux errno values that KVM returns on arm64. */
export const errnos = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  ENOEXEC: 8,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  ENOSYS: 38,
  EOPNOTSUPP: 95,
  EHWPOISON: 133,
} as const

export type ErrnoName = keyof typeof errnos
