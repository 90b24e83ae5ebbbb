/** Reads and writes the registers of a GICv3, as a state holds them. */
import type { Attributes } from '../kvm/attributes.js'
import { errnoOf } from '../kvm/errors.js'
import { KvmError, type Vcpu } from '../kvm/index.js'
import { encodeRegister, hex, idParts } from '../registers/index.js'
import {
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
} from '../uapi.js'
import type { GicState, InterfaceRegister, RegisterBank, VcpuGicState } from './device-state.js'

interface Bank {
  readonly name: string
  /** Of the first word for shared interrupts, or of the register. */
  readonly offset: number
  /** Words in a GIC with so many shared interrupts. */
  readonly words: (shared: number) => number
}

const one = (): number => 1
const perInterrupt =
  (bits: number) =>
  (shared: number): number =>
    (shared * bits) / 32

/**
 * In the order of restoring: the revision decides what other registers do; while the distributor is off, KVM does not queue an
 * interrupt that becomes pending, and never does later; its route must be known when it is queued.
 */
const distributor: readonly Bank[] = [
  { name: 'GICD_IIDR', offset: 0x8, words: one },
  { name: 'GICD_CTLR', offset: 0x0, words: one },
  { name: 'GICD_IROUTER32', offset: 0x6100, words: perInterrupt(64) },
  { name: 'GICD_IGROUPR1', offset: 0x84, words: perInterrupt(1) },
  { name: 'GICD_IPRIORITYR8', offset: 0x420, words: perInterrupt(8) },
  { name: 'GICD_ICFGR2', offset: 0xc08, words: perInterrupt(2) },
  { name: 'GICD_ISENABLER1', offset: 0x104, words: perInterrupt(1) },
  { name: 'GICD_ISPENDR1', offset: 0x204, words: perInterrupt(1) },
  { name: 'GICD_ISACTIVER1', offset: 0x304, words: perInterrupt(1) },
]

const redistributor: readonly Bank[] = [
  { name: 'GICR_PROPBASER', offset: 0x70, words: () => 2 },
  { name: 'GICR_PENDBASER', offset: 0x78, words: () => 2 },
  { name: 'GICR_IGROUPR0', offset: 0x1_0080, words: one },
  { name: 'GICR_IPRIORITYR0', offset: 0x1_0400, words: () => 8 },
  { name: 'GICR_ICFGR0', offset: 0x1_0c00, words: () => 2 },
  { name: 'GICR_ISENABLER0', offset: 0x1_0100, words: one },
  { name: 'GICR_ISPENDR0', offset: 0x1_0200, words: one },
  { name: 'GICR_ISACTIVER0', offset: 0x1_0300, words: one },
]

const banks = [...distributor, ...redistributor]
/** Names by offset, which no two banks share: the names in a state are for readers. */
const bankNames = new Map(banks.map(({ name, offset }) => [BigInt(offset), name]))
/** Registers whose ones set, and that clear with the register 128 bytes behind: a new GIC enables some interrupts by itself. */
const setting = new Set(banks.flatMap(({ name, offset }) => (/ISENABLER/.test(name) ? [BigInt(offset)] : [])))
const CLEARING_OFFSET = 0x80

/** In the order of restoring: ICC_CTLR_EL1 decides what the binary points are and which active priorities exist. */
const interfaceRegisters = [
  'ICC_SRE_EL1',
  'ICC_CTLR_EL1',
  'ICC_PMR_EL1',
  'ICC_BPR0_EL1',
  'ICC_BPR1_EL1',
  ...[0, 1].flatMap((group) => [0, 1, 2, 3].map((index) => `ICC_AP${group}R${index}_EL1`)),
  'ICC_IGRPEN0_EL1',
  'ICC_IGRPEN1_EL1',
].map((name) => ({ name, number: BigInt(idParts(encodeRegister(name)).index) }))

/** Shared interrupts of a word of levels. */
const LINES = 32
const FIRST_SHARED = 32

/** Bits 63:32 of an attribute: the affinity of the vCPU it is about. */
function affinity({ registers }: Vcpu): bigint {
  const mpidr = registers.get('MPIDR_EL1')
  return (((mpidr >> 32n) & 0xffn) << 56n) | ((mpidr & 0xff_ffffn) << 32n)
}

function read32(gic: Attributes, group: number, attribute: bigint): bigint {
  const data = gic.get(group, attribute, 4)
  return BigInt(new DataView(data.buffer).getUint32(0, true))
}

function write32(gic: Attributes, group: number, attribute: bigint, value: bigint): void {
  gic.set(group, attribute, new Uint8Array(Uint32Array.of(Number(value)).buffer))
}

function readBanks(
  gic: Attributes,
  group: number,
  read: readonly Bank[],
  at: bigint,
  shared: number,
): RegisterBank[] {
  return read.map(({ name, offset, words }) => ({
    name,
    offset: hex(BigInt(offset)),
    values: Array.from({ length: words(shared) }, (_, index) =>
      hex(read32(gic, group, at | BigInt(offset + 4 * index))),
    ),
  }))
}

/**
 * Returns whether a GIC is initialised: its registers cannot be read before.
 * @throws KvmError `EINVAL` for a VM without a vCPU
 */
export function isInitialised(gic: Attributes): boolean {
  try {
    read32(gic, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0n)
    return true
  } catch (error) {
    if (error instanceof KvmError && error.code === 'EBUSY') return false
    throw error
  }
}

/** The distributor's registers and the levels of its lines. */
export function readDistributor(
  gic: Attributes,
  irqs: number,
  first: Vcpu,
): Pick<GicState, 'registers' | 'lines'> {
  const shared = irqs - FIRST_SHARED
  const at = affinity(first)
  return {
    registers: readBanks(gic, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, distributor, 0n, shared),
    lines: Array.from({ length: shared / LINES }, (_, index) =>
      hex(read32(gic, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, at | BigInt(FIRST_SHARED + LINES * index))),
    ),
  }
}

/** What a GIC holds for one vCPU. */
export function readVcpuGic(gic: Attributes, vcpu: Vcpu): VcpuGicState {
  const at = affinity(vcpu)
  return {
    redistributor: readBanks(gic, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, redistributor, at, 0),
    cpuInterface: interfaceRegisters.flatMap(({ name, number }): InterfaceRegister[] => {
      const value = readInterface(gic, at | number)
      return value === undefined ? [] : [{ name, number: hex(number), value: hex(value) }]
    }),
    lines: hex(read32(gic, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, at)),
  }
}

/** Undefined for a register of active priorities that this CPU interface lacks. */
function readInterface(gic: Attributes, attribute: bigint): bigint | undefined {
  try {
    const data = gic.get(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, attribute, 8)
    return new DataView(data.buffer).getBigUint64(0, true)
  } catch (error) {
    if (error instanceof KvmError && error.code === 'EINVAL') return undefined
    throw error
  }
}

/** A register that KVM refused to write. */
export interface RegisterRefusal {
  /** `GICD_IIDR` */
  readonly what: string
  readonly value: string
  readonly errno: string
}

function writeBanks(
  gic: Attributes,
  group: number,
  held: readonly RegisterBank[],
  at: bigint,
): RegisterRefusal[] {
  return held.flatMap(({ name, offset, values }) =>
    values.flatMap((value, index) => {
      const attribute = at | (BigInt(offset) + BigInt(4 * index))
      const errno = errnoOf(() => {
        // A new GIC holds values that KVM changes when they are written, such as a GICR_PROPBASER of 0.
        if (read32(gic, group, attribute) === BigInt(value)) return
        if (setting.has(BigInt(offset))) {
          const cleared = BigInt.asUintN(32, ~BigInt(value))
          write32(gic, group, attribute + BigInt(CLEARING_OFFSET), cleared)
        }
        write32(gic, group, attribute, BigInt(value))
      })
      return errno === undefined ? [] : [{ what: placeName({ name, offset }, index), value, errno }]
    }),
  )
}

/** Names a word of a bank. */
export function placeName({ name, offset }: Pick<RegisterBank, 'name' | 'offset'>, index: number): string {
  const known = bankNames.get(BigInt(offset)) ?? name
  return index === 0 ? known : `${known} + ${4 * index}`
}

/** Names a register of a CPU interface. */
export function interfaceName({ name, number }: Pick<InterfaceRegister, 'name' | 'number'>): string {
  return interfaceRegisters.find((register) => register.number === BigInt(number))?.name ?? name
}

function writeLines(gic: Attributes, attribute: bigint, value: string, what: string): RegisterRefusal[] {
  const errno = errnoOf(() => write32(gic, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, attribute, BigInt(value)))
  return errno === undefined ? [] : [{ what, value, errno }]
}

export function writeDistributor(
  gic: Attributes,
  { registers, lines }: GicState,
  first: Vcpu,
): RegisterRefusal[] {
  const at = affinity(first)
  return [
    ...writeBanks(gic, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, registers, 0n),
    ...lines.flatMap((value, index) => {
      const intid = FIRST_SHARED + LINES * index
      return writeLines(gic, at | BigInt(intid), value, `lines from interrupt ${intid}`)
    }),
  ]
}

export function writeVcpuGic(
  gic: Attributes,
  { redistributor: held, cpuInterface, lines }: VcpuGicState,
  vcpu: Vcpu,
): RegisterRefusal[] {
  const at = affinity(vcpu)
  return [
    ...writeBanks(gic, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, held, at),
    ...writeLines(gic, at, lines, 'lines of private interrupts'),
    ...cpuInterface.flatMap(({ name, number, value }) => {
      const data = new Uint8Array(BigUint64Array.of(BigInt(value)).buffer)
      const errno = errnoOf(() => gic.set(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, at | BigInt(number), data))
      return errno === undefined ? [] : [{ what: interfaceName({ name, number }), value, errno }]
    }),
  ]
}
