/** Registers whose value belongs to each vCPU: core and system registers, SVE, counters. */
import { decodeRegister, encodeRegister, registerWidth, U64 } from '../registers/index.js'
import type { ReportedRegister } from '../report/report.js'
import { WriteInterpreter } from '../report/write-rule.js'
import { errnos, featureWord } from '../uapi.js'
import { generalRegisters, PC } from './guest-registers.js'
import type { Register, VcpuState, VmState } from './state.js'

/** Keeps every value written to it. */
export class StoredRegister implements Register {
  readonly limit: bigint
  protected readonly slot: number

  constructor(slot: number, width: number) {
    this.slot = slot
    this.limit = (1n << BigInt(width)) - 1n
  }

  read(vcpu: VcpuState): bigint | number {
    return vcpu.values[this.slot]!
  }

  write(vcpu: VcpuState, value: bigint): number {
    vcpu.values[this.slot] = value
    return 0
  }
}

/** A system register for which KVM has no rule: it copies the value from userspace directly into the register. */
class PlainSystemRegister extends StoredRegister {
  zero(vcpu: VcpuState): void {
    vcpu.values[this.slot] = 0n
  }
}

/** A register with the rule found by experiment. */
class RuledRegister extends StoredRegister {
  readonly #rule: WriteInterpreter

  constructor(slot: number, width: number, rule: WriteInterpreter) {
    super(slot, width)
    this.#rule = rule
  }

  override write(vcpu: VcpuState, value: bigint): number {
    const outcome = this.#rule.write(vcpu.values[this.slot]!, value)
    return typeof outcome === 'number' ? outcome : super.write(vcpu, outcome)
  }
}

/** Makes a register from its row of the report; without a rule it keeps every value written. */
export function recordedRegister({ id, value, write }: ReportedRegister, slot: number): Register {
  const number = BigInt(id)
  const width = registerWidth(number)
  if (write !== undefined) {
    return new RuledRegister(slot, width, new WriteInterpreter(write, BigInt(value ?? 0)))
  }
  return new (decodeRegister(number).space === 'sysreg' ? PlainSystemRegister : StoredRegister)(slot, width)
}

/** PSTATE.nRW: the vCPU is in AArch32 state. */
const AARCH32 = 0x10n
const MODE = 0x1fn

const PSTATE = encodeRegister('pstate')

/**
 * A core register. Any write to one truncates the registers that AArch32 code can see to 32 bits if PSTATE then says AArch32
 * (`arch/arm64/kvm/guest.c:set_core_reg`).
 */
export class CoreRegister extends StoredRegister {
  override write(vcpu: VcpuState, value: bigint): number {
    vcpu.values[this.slot] = value
    const pstate = vcpu.file!.slots.get(PSTATE)
    if (pstate !== undefined && (vcpu.values[pstate]! & AARCH32) !== 0n) {
      narrow(vcpu, vcpu.values[pstate]!)
    }
    return 0
  }
}

/** The registers among x0 to x30 that hold r13 and r14 of a mode. User and System mode use x13 and x14. */
const bankedRegisters = new Map([
  [0x11, [29, 30]], // FIQ
  [0x12, [17, 16]], // IRQ
  [0x13, [19, 18]], // Supervisor
  [0x17, [21, 20]], // Abort
  [0x1b, [23, 22]], // Undefined
])

function narrow(vcpu: VcpuState, pstate: bigint): void {
  const { slots } = vcpu.file!
  for (const id of [...narrowedRegisters(vcpu, pstate).map((n) => generalRegisters[n]!), PC]) {
    const slot = slots.get(id)
    if (slot !== undefined) vcpu.values[slot] = BigInt.asUintN(32, vcpu.values[slot]!)
  }
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, n) => n)
}

/** Returns which of x0 to x30 a write truncates to 32 bits. */
function narrowedRegisters(vcpu: VcpuState, pstate: bigint): number[] {
  const mode = Number(pstate & MODE)
  const banked = bankedRegisters.get(mode)
  const { narrowedRegisters: which } = vcpu.vm.host.traits
  if (banked === undefined) return upTo(which === 'by-flags' && (pstate & ~MODE) !== 0n ? 31 : 15)
  if (which !== 'visible') return upTo(31)
  // FIQ also has its own r8 to r12, in x24 to x28.
  return mode === 0x11 ? [...upTo(8), 24, 25, 26, 27, 28, ...banked] : [...upTo(13), ...banked]
}

/** PSTATE: the vCPU must support its mode. */
export class PstateRegister extends CoreRegister {
  override write(vcpu: VcpuState, value: bigint): number {
    return isPossibleMode(vcpu, Number(value & MODE)) ? super.write(vcpu, value) : -errnos.EINVAL
  }
}

function isPossibleMode(vcpu: VcpuState, mode: number): boolean {
  const is32Bit = (vcpu.features & featureWord(['el1-32bit'])) !== 0
  switch (mode) {
    // EL0t, EL1t, EL1h
    case 0x0:
    case 0x4:
    case 0x5:
      return !is32Bit
    // EL2t, EL2h
    case 0x8:
    case 0x9:
      return !is32Bit && (vcpu.features & featureWord(['has-el2'])) !== 0
    // User
    case 0x10:
      return vcpu.vm.host.hasAArch32El0
    // FIQ, IRQ, Supervisor, Abort, Undefined, System
    case 0x11:
    case 0x12:
    case 0x13:
    case 0x17:
    case 0x1b:
    case 0x1f:
      return is32Bit
    default:
      return false
  }
}

/** `KVM_REG_ARM64_SVE_VLS`: bit n stands for vectors of (n + 1) × 128 bits. */
export class VectorLengthsRegister extends StoredRegister {
  check(vcpu: VcpuState): number {
    return vcpu.sveFinalised ? -errnos.EPERM : 0
  }

  override write(vcpu: VcpuState, value: bigint): number {
    if (vcpu.sveFinalised) return -errnos.EPERM
    const available = vcpu.file!.reset[this.slot]!
    // Userspace cannot hide single lengths, only all above a maximum, which must be one of the host's lengths.
    const isPrefix = value === BigInt.asUintN(value.toString(2).length, available)
    return value === 0n || !isPrefix ? -errnos.EINVAL : super.write(vcpu, value)
  }
}

/** A Z, P or FFR register: exists once the vCPU's vector lengths are final, and is as long as the longest vector. */
export class VectorRegister extends StoredRegister {
  readonly #lengths: number
  /** Bits of the longest vector for one bit of this register: 1 for Z, 8 for P and FFR. */
  readonly #scale: number

  constructor(slot: number, width: number, lengths: number) {
    super(slot, width)
    this.#lengths = lengths
    this.#scale = 2048 / width
  }

  check(vcpu: VcpuState): number {
    return vcpu.sveFinalised ? 0 : -errnos.EPERM
  }

  override read(vcpu: VcpuState): bigint | number {
    return vcpu.sveFinalised ? vcpu.values[this.slot]! : -errnos.EPERM
  }

  override write(vcpu: VcpuState, value: bigint): number {
    if (!vcpu.sveFinalised) return -errnos.EPERM
    const bits = (vcpu.values[this.#lengths]!.toString(2).length * 128) / this.#scale
    vcpu.values[this.slot] = BigInt.asUintN(bits, value)
    return 0
  }
}

/** A counter of the VM: runs at 1 GHz, the frequency Armv8.6 fixes, from 0 at the VM's creation or from the value written. */
export class CounterRegister implements Register {
  readonly limit = U64
  readonly #id: bigint

  constructor(id: bigint) {
    this.#id = id
  }

  read({ vm }: VcpuState): bigint {
    return counterValue(vm, this.#id)
  }

  write({ vm }: VcpuState, value: bigint): number {
    if (vm.counterOffset === null) vm.counterOffsets.set(this.#id, value - elapsed(vm.createdAt))
    return 0
  }
}

/** Returns the current value of a VM's counter, `KVM_REG_ARM_TIMER_CNT` or `KVM_REG_ARM_PTIMER_CNT`. */
export function counterValue(vm: VmState, id: bigint): bigint {
  if (vm.counterOffset !== null) return BigInt.asUintN(64, process.hrtime.bigint() - vm.counterOffset)
  return BigInt.asUintN(64, elapsed(vm.createdAt) + (vm.counterOffsets.get(id) ?? 0n))
}

function elapsed(since: bigint): bigint {
  return process.hrtime.bigint() - since
}
