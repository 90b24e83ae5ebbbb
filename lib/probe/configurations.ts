/** Reads the registers of a vCPU with a set of features, and finds out which values they accept. */
import type { SystemFd, VcpuFd } from '../backend.js'
import { check, errnoName } from '../kvm/errors.js'
import {
  decodeRegister,
  hex,
  isFeatureIdRegister,
  registerName,
  registerWidth,
  setClearPairs,
  timerCounters,
} from '../registers/index.js'
import type { Configuration, Refusal, ReportedRegister } from '../report/report.js'
import {
  namedReplacements,
  namedSets,
  type NibblesRule,
  nibblesRule,
  type WriteRule,
} from '../report/write-rule.js'
import { capabilities, errnos, type ErrnoName, type VcpuFeature } from '../uapi.js'
import { freeze, initialise, listRegisters, onVcpu, onVm, readRegister } from './rig.js'

/** The configuration to which all others are relative. */
export const BASE: readonly VcpuFeature[] = ['psci-0.2']

/** A vCPU to be probed. */
interface Made {
  features: readonly VcpuFeature[]
  /** In a VM with memory tagging. */
  mte: boolean
}

/** Returns how the registers of a vCPU differ from `base`, those of the base configuration. */
export function probeRelative(
  kvm: SystemFd,
  type: bigint,
  made: Made,
  base: readonly ReportedRegister[],
): Configuration | Refusal {
  const found = probeConfiguration(kvm, type, made, base)
  return 'refused' in found ? found : relativeTo(base, made, found)
}

/**
 * Returns the registers of a vCPU. With `base`, those of the base configuration, it skips experiments whose result `base` already
 * holds.
 */
export function probeConfiguration(
  kvm: SystemFd,
  type: bigint,
  made: Made,
  base?: readonly ReportedRegister[],
): ReportedRegister[] | Refusal {
  return onVm(kvm, type, (vm) => {
    if (made.mte) check(vm.enableCap(capabilities.KVM_CAP_ARM_MTE, 0, []), { syscall: 'KVM_ENABLE_CAP' })
    return onVcpu(vm, 0, (vcpu) => {
      const outcome = initialise(vm, vcpu, made.features)
      if (outcome < 0) return { ...entries(made), refused: errnoName(outcome) as ErrnoName }
      const known = new Map(base?.map((register) => [register.id, register]))
      const registers: ReportedRegister[] = [...listRegisters(vcpu)].map((id) => {
        const name = registerName(id)
        return { id: hex(id), name, value: timerCounters.has(id) ? null : hex(readRegister(vcpu, id)) }
      })
      // All values are read before the first write, because a write may change other registers too.
      for (const register of registers) {
        const before = known.get(register.id)
        const write = canInherit(register, before) ? before.write : tryWrites(vcpu, register)
        if (write !== undefined) register.write = write
      }
      if (base === undefined) noteInvalidAfterRun(vcpu, registers)
      else inheritInvalidAfterRun(registers, known)
      return registers
    })
  })
}

function entries({ features, mte }: Made): Pick<Configuration, 'features' | 'mte'> {
  return { features: [...features], ...(mte && { mte: true }) }
}

/** The values a feature ID register may hold depend on its initial value: equal values have equal rules. */
function canInherit(
  { id, value }: ReportedRegister,
  before: ReportedRegister | undefined,
): before is ReportedRegister {
  return before !== undefined && (before.value === value || !isFeatureIdRegister(BigInt(id)))
}

/** Returns how a configuration differs from the base. */
function relativeTo(
  base: readonly ReportedRegister[],
  made: Made,
  registers: readonly ReportedRegister[],
): Configuration {
  const before = new Map(base.map((register) => [register.id, register]))
  const ids = new Set(registers.map(({ id }) => id))
  return {
    ...entries(made),
    removed: base.filter(({ id }) => !ids.has(id)).map(({ id }) => id),
    added: registers.map((register, index) => ({ ...register, index })).filter(({ id }) => !before.has(id)),
    changed: registers.filter((register) => {
      const old = before.get(register.id)
      return old !== undefined && (old.value !== register.value || !isSameRule(old.write, register.write))
    }),
  }
}

function isSameRule(one: WriteRule | undefined, other: WriteRule | undefined): boolean {
  return JSON.stringify(one) === JSON.stringify(other)
}

/** Registers that need other experiments: firmware registers, PSTATE's modes, counters. */
function isTriedElsewhere({ id, name, value }: ReportedRegister): boolean {
  const { space } = decodeRegister(BigInt(id))
  return space === 'firmware' || space === 'bitmap' || name === 'pstate' || value === null
}

/** Derives a register's rule from what it holds after a write of all ones and of all zeros; no rule if it keeps both. */
function tryWrites(vcpu: VcpuFd, register: ReportedRegister): WriteRule | undefined {
  if (isTriedElsewhere(register)) return undefined
  if (isFeatureIdRegister(BigInt(register.id))) return featureIdRule(vcpu, register)
  const id = BigInt(register.id)
  const original = BigInt(register.value!)
  const ones = (1n << BigInt(registerWidth(id))) - 1n
  const pair = setClearPairs.find((ids) => ids.includes(id))
  if (pair !== undefined) {
    const [setId, clearId] = pair
    vcpu.setOneReg(clearId, ones)
    if (readRegister(vcpu, setId) === 0n) {
      vcpu.setOneReg(setId, ones)
      const bits = hex(readRegister(vcpu, setId))
      vcpu.setOneReg(clearId, ones)
      vcpu.setOneReg(setId, original)
      return { rule: id === setId ? 'sets' : 'clears', bits }
    }
  }
  const [afterOnes, afterZeros] = [ones, 0n].map((value) => {
    if (value === original) return value
    const outcome = vcpu.setOneReg(id, value)
    const found = outcome < 0 ? outcome : readRegister(vcpu, id)
    vcpu.setOneReg(id, original)
    return found
  }) as [bigint | number, bigint | number]
  const refusals = [afterOnes, afterZeros].filter((found) => typeof found === 'number')
  if (refusals.length > 0) {
    const sets = nibblesWith(0, tryNibbles(vcpu, id, original))
    const errno = errnoName(refusals[0]!) as ErrnoName
    if (sets.every((set) => set === 0)) return { rule: 'refused', errno }
    const rule = nibblesRule(withinWidth(id, sets), original)
    return rule.rule === 'fixed' ? { rule: 'fixed', errno } : rule
  }
  const kept = (afterOnes as bigint) & ~(afterZeros as bigint)
  return kept === ones ? undefined : { rule: 'bits', bits: hex(kept) }
}

/** Bits beyond the register's width are 0. */
function withinWidth(id: bigint, sets: readonly number[]): number[] {
  return sets.map((set, nibble) => (4 * nibble < registerWidth(id) ? set : 1))
}

/** Finds out which values a feature ID register accepts, and which it then holds. */
function featureIdRule(vcpu: VcpuFd, register: ReportedRegister): WriteRule {
  const id = BigInt(register.id)
  const original = BigInt(register.value!)
  const sets = nibblesWith(0, tryNibbles(vcpu, id, original))
  // No feature register is free in every bit: if KVM accepts any value, it ignores the write.
  if (sets.every((set) => set === 0xffff)) return { rule: 'bits', bits: '0x0' }
  const replaced: { nibble: number; written: number; stored: number }[] = []
  for (const [nibble, set] of sets.entries()) {
    const shift = BigInt(4 * nibble)
    for (let written = 0; written < 16; written++) {
      if (((set >> written) & 1) === 0) continue
      vcpu.setOneReg(id, (original & ~(0xfn << shift)) | (BigInt(written) << shift))
      const stored = Number((readRegister(vcpu, id) >> shift) & 0xfn)
      if (stored !== written) replaced.push({ nibble, written, stored })
    }
    vcpu.setOneReg(id, original)
  }
  return nibblesRule(sets, original, replaced.length > 0 ? { storedAs: namedReplacements(replaced) } : {})
}

/**
 * For each nibble of a register of at most 64 bits, with all others unchanged, returns the outcome of each of the sixteen values: 0
 * or `-errno`. Before the first run this finds the kernel's rule for each field (lower is safe, higher is safe, exact), whatever it
 * is, without a table of fields. Restores the register.
 */
function tryNibbles(vcpu: VcpuFd, id: bigint, original: bigint): Int32Array[] {
  const count = Math.min(16, registerWidth(id) / 4)
  const ids = new BigUint64Array(16 * count + 1).fill(id)
  const values = new BigUint64Array(ids.length).fill(original)
  // There are tens of thousands of these values: as two 32-bit words they need no bigint arithmetic.
  const words = new Uint32Array(values.buffer)
  for (let index = 0; index < 16 * count; index++) {
    const nibble = index >> 4
    const word = 2 * index + (nibble >> 3)
    const shift = 4 * (nibble & 7)
    words[word] = (words[word]! & ~(0xf << shift)) | ((index & 0xf) << shift)
  }
  const outcomes = new Int32Array(ids.length)
  vcpu.setRegs(ids, values, outcomes)
  return Array.from({ length: count }, (_, nibble) => outcomes.subarray(16 * nibble, 16 * (nibble + 1)))
}

/** For each nibble the set of values with this outcome, sixteen sets in all; those beyond the register's width are empty. */
function nibblesWith(outcome: number, tried: readonly Int32Array[]): number[] {
  return Array.from(
    { length: 16 },
    (_, nibble) =>
      tried[nibble]?.reduce((bits, found, value) => (found === outcome ? bits | (1 << value) : bits), 0) ?? 0,
  )
}

/** Freezes the VM. If different values then fail with `EBUSY`, notes the values that still fail with `EINVAL`. */
function noteInvalidAfterRun(vcpu: VcpuFd, registers: readonly ReportedRegister[]): void {
  freeze(vcpu)
  for (const register of registers) {
    const id = BigInt(register.id)
    // A register that takes no other value before the run takes none after it, and KVM then checks nothing first.
    if (!isFeatureIdRegister(id) || register.write?.rule !== 'nibbles') continue
    // The first run itself changes some of them.
    const value = readRegister(vcpu, id)
    if (!isAnyInvalid(vcpu, id, value)) continue
    const tried = tryNibbles(vcpu, id, value)
    const invalidAfterRun = namedSets(nibblesWith(-errnos.EINVAL, tried), () => 0)
    const isBusy = nibblesWith(-errnos.EBUSY, tried).some((set) => set !== 0)
    if (isBusy && Object.keys(invalidAfterRun).length > 0) {
      register.write = withInvalidAfterRun(register.write, invalidAfterRun)
    }
  }
}

function withInvalidAfterRun(
  { storedAs, ...rule }: NibblesRule,
  invalidAfterRun: NonNullable<NibblesRule['invalidAfterRun']>,
): NibblesRule {
  return { ...rule, invalidAfterRun, ...(storedAs && { storedAs }) }
}

/**
 * Returns whether any of fifteen writes fails with `EINVAL`. Each write changes every nibble, and together they try every other
 * value of each nibble. KVM refuses a value if one of its fields is wrong, so most registers need no further test by nibble.
 * Restores the register.
 */
function isAnyInvalid(vcpu: VcpuFd, id: bigint, value: bigint): boolean {
  const mask = (1n << BigInt(registerWidth(id))) - 1n
  const isInvalid = Array.from({ length: 15 }, (_, index) => BigInt(index + 1) * 0x1111_1111_1111_1111n).some(
    (change) => vcpu.setOneReg(id, (value ^ change) & mask) === -errnos.EINVAL,
  )
  vcpu.setOneReg(id, value)
  return isInvalid
}

function inheritInvalidAfterRun(
  registers: readonly ReportedRegister[],
  base: ReadonlyMap<string, ReportedRegister>,
): void {
  for (const register of registers) {
    const before = base.get(register.id)?.write
    const { write } = register
    if (before?.rule !== 'nibbles' || before.invalidAfterRun === undefined) continue
    if (write?.rule === 'nibbles') register.write = withInvalidAfterRun(write, before.invalidAfterRun)
    else if (write?.rule === 'fixed') {
      register.write = withInvalidAfterRun({ rule: 'nibbles', accepts: {} }, before.invalidAfterRun)
    }
  }
}
