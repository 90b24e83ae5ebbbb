/**
 * The registers of a vCPU's GICv3 CPU interface as userspace accesses them (`arch/arm64/kvm/vgic-sys-reg-v3.c`). Reports do not
 * record how many priorities and interrupt numbers the CPU interface of their machine has: these are those of QEMU, on which the
 * built-in hosts were recorded.
 */
import { encodeRegister, idParts } from '../registers/index.js'
import { errnos } from '../uapi.js'

/** Bits of a priority, and of the part of it that decides whether an interrupt interrupts another. */
const PRIORITY_BITS = 5
/** 24 bits of interrupt number (`ICC_CTLR_EL1.IDbits`). */
const NUMBER_BITS = 1n
/** `ICC_CTLR_EL1.A3V`: affinity level 3 may be other than 0. */
const A3V = 1n << 15n
const SEIS = 1n << 14n
/** The binary points the CPU can hold, which it raises smaller ones to. */
const SMALLEST_POINT = 7 - PRIORITY_BITS

/** What KVM keeps of a CPU interface. */
export class CpuInterface {
  priorityMask = 0n
  binaryPoints: [bigint, bigint] = [0n, 0n]
  /** Group 1 uses the binary point of group 0. */
  commonPoint = false
  /** `EOImode`: ending an interrupt does not deactivate it. */
  splitEnd = false
  groupEnabled: [bigint, bigint] = [0n, 0n]
  /** Active priorities by group, 32 bits each. */
  activePriorities: [bigint[], bigint[]] = [
    [0n, 0n, 0n, 0n],
    [0n, 0n, 0n, 0n],
  ]
  priorityBits = PRIORITY_BITS
  numberBits = NUMBER_BITS

  /** Loads the registers into the CPU, which cannot hold small binary points. */
  load(): void {
    const [zero, one] = this.binaryPoints
    this.binaryPoints = [atLeast(zero, SMALLEST_POINT), atLeast(one, SMALLEST_POINT + 1)]
  }
}

function atLeast(value: bigint, least: number): bigint {
  return value < BigInt(least) ? BigInt(least) : value
}

interface InterfaceRegister {
  /** Returns the value, or `-errno`. */
  read(cpu: CpuInterface): bigint | number
  /** Returns 0 or `-errno`. */
  write(cpu: CpuInterface, value: bigint): number
}

const COMMON_POINT = 1n
const SPLIT_END = 2n

const control: InterfaceRegister = {
  read: (cpu) =>
    A3V |
    (cpu.numberBits << 11n) |
    (BigInt(cpu.priorityBits - 1) << 8n) |
    (cpu.splitEnd ? SPLIT_END : 0n) |
    (cpu.commonPoint ? COMMON_POINT : 0n),
  write(cpu, value) {
    const priorityBits = Number((value >> 8n) & 7n) + 1
    if (priorityBits > cpu.priorityBits) return -errnos.EINVAL
    cpu.priorityBits = priorityBits
    const numberBits = (value >> 11n) & 7n
    if (numberBits > cpu.numberBits) return -errnos.EINVAL
    cpu.numberBits = numberBits
    if ((value & (SEIS | A3V)) !== A3V) return -errnos.EINVAL
    cpu.commonPoint = (value & COMMON_POINT) !== 0n
    cpu.splitEnd = (value & SPLIT_END) !== 0n
    return 0
  },
}

const priorityMask: InterfaceRegister = {
  read: (cpu) => cpu.priorityMask,
  write(cpu, value) {
    cpu.priorityMask = value & 0xffn
    return 0
  },
}

const binaryPoint0: InterfaceRegister = {
  read: (cpu) => cpu.binaryPoints[0],
  write(cpu, value) {
    cpu.binaryPoints[0] = value & 7n
    return 0
  },
}

const binaryPoint1: InterfaceRegister = {
  read(cpu) {
    if (!cpu.commonPoint) return cpu.binaryPoints[1]
    const point = cpu.binaryPoints[0] + 1n
    return point > 7n ? 7n : point
  },
  write(cpu, value) {
    if (!cpu.commonPoint) cpu.binaryPoints[1] = value & 7n
    return 0
  },
}

const ENABLED_SYSTEM_REGISTERS = 7n
const systemRegisters: InterfaceRegister = {
  read: () => ENABLED_SYSTEM_REGISTERS,
  write: (_, value) => ((value & 1n) === 0n ? -errnos.EINVAL : 0),
}

function groupEnable(group: 0 | 1): InterfaceRegister {
  return {
    read: (cpu) => cpu.groupEnabled[group],
    write(cpu, value) {
      cpu.groupEnabled[group] = value & 1n
      return 0
    },
  }
}

/** Registers of active priorities, of which five bits of priority need one for each group. */
const ACTIVE_REGISTERS = 1

function activePriorities(group: 0 | 1, index: number): InterfaceRegister {
  return {
    read: (cpu) => (index < ACTIVE_REGISTERS ? cpu.activePriorities[group][index]! : -errnos.EINVAL),
    write(cpu, value) {
      if (index >= ACTIVE_REGISTERS) return -errnos.EINVAL
      cpu.activePriorities[group][index] = BigInt.asUintN(32, value)
      return 0
    },
  }
}

const registers = new Map<bigint, InterfaceRegister>(
  Object.entries({
    ICC_PMR_EL1: priorityMask,
    ICC_BPR0_EL1: binaryPoint0,
    ICC_BPR1_EL1: binaryPoint1,
    ICC_CTLR_EL1: control,
    ICC_SRE_EL1: systemRegisters,
    ICC_IGRPEN0_EL1: groupEnable(0),
    ICC_IGRPEN1_EL1: groupEnable(1),
    ...Object.fromEntries(
      [0, 1, 2, 3].flatMap((index) => [
        [`ICC_AP0R${index}_EL1`, activePriorities(0, index)],
        [`ICC_AP1R${index}_EL1`, activePriorities(1, index)],
      ]),
    ),
  }).map(([name, register]) => [BigInt(idParts(encodeRegister(name)).index), register]),
)

/** The register with an attribute's number, of which bits 15:0 count; undefined if there is none. */
export function interfaceRegister(attribute: bigint): InterfaceRegister | undefined {
  return registers.get(attribute & 0xffffn)
}
