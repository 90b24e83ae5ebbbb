/** Registers whose value is each vCPU's own: core and system registers, SVE, counters. */
import { decodeRegister, encodeRegister, U64 } from '../registers/index.js'
import type { Write } from '../report/report.js'
import { errnos, featureWord } from '../uapi.js'
import { NibbleSets } from './nibbles.js'
import { generalRegisters, PC } from './guest-registers.js'
import type { Register, VcpuState, VmState } from './state.js'

/** Keeps whatever is written to it. */
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

/** A system register KVM has no rule for: the value is copied from userspace right into it. */
class PlainSystemRegister extends StoredRegister {
  zero(vcpu: VcpuState): void {
    vcpu.values[this.slot] = 0n
  }
}

/** Keeps some of the bits written to it. */
class PartlyStoredRegister extends StoredRegister {
  readonly #sticky: bigint

  constructor(slot: number, width: number, sticky: bigint) {
    super(slot, width)
    this.#sticky = sticky
  }

  override write(vcpu: VcpuState, value: bigint): number {
    const { slot } = this
    vcpu.values[slot] = (vcpu.values[slot]! & ~this.#sticky) | (value & this.#sticky)
    return 0
  }
}

/** Takes no value but the one it has. */
class FixedRegister extends StoredRegister {
  readonly #refusal: number

  constructor(slot: number, width: number, refusal: number) {
    super(slot, width)
    this.#refusal = refusal
  }

  override write(vcpu: VcpuState, value: bigint): number {
    return value === vcpu.values[this.slot] ? 0 : this.#refusal
  }
}

/** Shows a bitmap of the PMU, and sets or clears those of its bits that are written as one. */
class BitmapRegister extends StoredRegister {
  readonly #bits: bigint
  readonly #isSet: boolean

  constructor(slot: number, width: number, bits: bigint, isSet: boolean) {
    super(slot, width)
    this.#bits = bits
    this.#isSet = isSet
  }

  override write({ values }: VcpuState, value: bigint): number {
    const bits = value & this.#bits
    values[this.slot] = this.#isSet ? values[this.slot]! | bits : values[this.slot]! & ~bits
    return 0
  }
}

/** Takes a value all of whose nibbles are among those accepted. */
class SelectiveRegister extends StoredRegister {
  readonly #accepted: NibbleSets

  constructor(slot: number, width: number, accepted: NibbleSets) {
    super(slot, width)
    this.#accepted = accepted
  }

  override write(vcpu: VcpuState, value: bigint): number {
    return this.#accepted.hasAll(value) ? super.write(vcpu, value) : -errnos.EINVAL
  }
}

/** A register with the rule an experiment found; without one it keeps what is written. */
export function recordedRegister(id: bigint, slot: number, width: number, rule: Write | undefined): Register {
  if (rule === undefined) {
    return new (decodeRegister(id).space === 'sysreg' ? PlainSystemRegister : StoredRegister)(slot, width)
  }
  if ('refused' in rule) return new FixedRegister(slot, width, -errnos[rule.refused])
  if ('sticky' in rule) return new PartlyStoredRegister(slot, width, BigInt(rule.sticky))
  if ('accepted' in rule)
    return new SelectiveRegister(slot, width, new NibbleSets(rule.accepted.slice(0, width / 4)))
  const isSet = 'sets' in rule
  return new BitmapRegister(slot, width, BigInt(isSet ? rule.sets : rule.clears), isSet)
}

/** PSTATE.nRW: the vCPU is in AArch32 state. */
const AARCH32 = 0x10n
const MODE = 0x1fn

const PSTATE = encodeRegister('pstate')

/**
 * A core register. Any write to one leaves the registers AArch32 code can see 32 bits wide if PSTATE then says AArch32
 * (`arch/arm64/kvm/guest.c:set_core_reg`).
 */
export class CoreRegister extends StoredRegister {
  override write(vcpu: VcpuState, value: bigint): number {
    vcpu.values[this.slot] = value
    const pstate = vcpu.file!.slots.get(PSTATE)
    if (pstate !== undefined && (vcpu.values[pstate]! & AARCH32) !== 0n) {
      narrow(vcpu, Number(vcpu.values[pstate]! & MODE))
    }
    return 0
  }
}

/** Of x0 to x30, the ones that hold r13 and r14 of a mode. User and System mode have those of x13 and x14. */
const bankedRegisters = new Map([
  [0x11, [29, 30]], // FIQ
  [0x12, [17, 16]], // IRQ
  [0x13, [19, 18]], // Supervisor
  [0x17, [21, 20]], // Abort
  [0x1b, [23, 22]], // Undefined
])

function narrow(vcpu: VcpuState, mode: number): void {
  const { slots } = vcpu.file!
  for (const id of [...narrowedRegisters(vcpu, mode).map((n) => generalRegisters[n]!), PC]) {
    const slot = slots.get(id)
    if (slot !== undefined) vcpu.values[slot] = BigInt.asUintN(32, vcpu.values[slot]!)
  }
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, n) => n)
}

/** Which of x0 to x30 a write cuts to 32 bits. */
function narrowedRegisters(vcpu: VcpuState, mode: number): number[] {
  const banked = bankedRegisters.get(mode)
  if (banked === undefined) return upTo(15)
  if (vcpu.vm.host.traits.narrowedRegisters !== 'visible') return upTo(31)
  // FIQ has r8 to r12 of its own too, in x24 to x28.
  return mode === 0x11 ? [...upTo(8), 24, 25, 26, 27, 28, ...banked] : [...upTo(13), ...banked]
}

/** PSTATE, whose mode must be one that the vCPU can be in. */
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
    // Lengths cannot be hidden one by one, only all above a maximum, which must be one of the host's.
    const isPrefix = value === BigInt.asUintN(value.toString(2).length, available)
    return value === 0n || !isPrefix ? -errnos.EINVAL : super.write(vcpu, value)
  }
}

/** A Z, P or FFR register: exists once the vCPU's vector lengths are final, and is as long as the longest. */
export class VectorRegister extends StoredRegister {
  readonly #lengths: number
  /** Bits of the longest vector to one bit of this register: 1 for Z, 8 for P and FFR. */
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

/** A counter of the VM: runs at 1 GHz, the frequency Armv8.6 fixes, from 0 at the VM's creation or from what is written. */
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
    vm.counterOffsets.set(this.#id, value - elapsed(vm.createdAt))
    return 0
  }
}

/** What a counter of the VM, `KVM_REG_ARM_TIMER_CNT` or `KVM_REG_ARM_PTIMER_CNT`, shows now. */
export function counterValue(vm: VmState, id: bigint): bigint {
  return BigInt.asUintN(64, elapsed(vm.createdAt) + (vm.counterOffsets.get(id) ?? 0n))
}

function elapsed(since: bigint): bigint {
  return process.hrtime.bigint() - since
}
