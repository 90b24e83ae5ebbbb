/** What the registers of a vCPU with a set of features are, and what they accept. */
import type { SystemFd, VcpuFd } from '../backend.js'
import { errnoName } from '../kvm/errors.js'
import {
  decodeRegister,
  hex,
  isFeatureIdRegister,
  registerName,
  registerWidth,
  setClearPairs,
  timerCounters,
} from '../registers/index.js'
import type { Accepts, Configuration, Refusal, ReportedRegister, Write } from '../report/report.js'
import { errnos, type ErrnoName, type VcpuFeature } from '../uapi.js'
import { freeze, initialise, listRegisters, onVcpu, onVm, readRegister } from './rig.js'

/** The configuration every other is told relative to. */
export const BASE: readonly VcpuFeature[] = ['psci-0.2']

/** What a vCPU with a set of features has. */
export interface ProbedConfiguration {
  registers: ReportedRegister[]
  /** By id, for each feature ID register. */
  accepts: Map<string, Accepts>
}

/** `base` saves finding out again what the base configuration has already told. */
export function probeConfiguration(
  kvm: SystemFd,
  type: bigint,
  features: readonly VcpuFeature[],
  base?: ProbedConfiguration,
): ProbedConfiguration | Refusal {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      const outcome = initialise(vm, vcpu, features)
      if (outcome < 0) return { features: [...features], refused: errnoName(outcome) as ErrnoName }
      const known = new Map(base?.registers.map((register) => [register.id, register]))
      const registers: ReportedRegister[] = [...listRegisters(vcpu)].map((id) => {
        const name = registerName(id)
        return { id: hex(id), name, value: timerCounters.has(id) ? null : hex(readRegister(vcpu, id)) }
      })
      // Values are read before the first write, which may change other registers than the one it is made to.
      for (const register of registers) {
        const write = known.has(register.id) ? known.get(register.id)!.write : tryWrites(vcpu, register)
        if (write !== undefined) register.write = write
      }
      const featureIds = registers.filter(({ id }) => isFeatureIdRegister(BigInt(id)))
      const accepts = featureIds.map((register) =>
        // What such a register may hold hangs on the value it begins with: the same value, the same answer.
        known.get(register.id)?.value === register.value
          ? base!.accepts.get(register.id)!
          : acceptsOf(vcpu, register),
      )
      const configuration = { registers, accepts: new Map(accepts.map((entry) => [entry.id, entry])) }
      if (base === undefined) noteInvalidAfterRun(vcpu, registers, configuration.accepts)
      else inheritInvalidAfterRun(configuration.accepts, base.accepts)
      return configuration
    }),
  )
}

/** What a configuration does to the base. */
export function relativeTo(
  base: ProbedConfiguration,
  features: VcpuFeature[],
  { registers, accepts }: ProbedConfiguration,
): Configuration {
  const before = new Map(base.registers.map((register) => [register.id, register]))
  const ids = new Set(registers.map(({ id }) => id))
  return {
    features,
    removed: base.registers.filter(({ id }) => !ids.has(id)).map(({ id }) => id),
    added: registers.map((register, index) => ({ ...register, index })).filter(({ id }) => !before.has(id)),
    changed: registers
      .filter(({ id, value }) => before.has(id) && before.get(id)!.value !== value)
      .map(({ id, name, value }) => ({ id, name, value: value! })),
    accepts: [...accepts.values()].filter((entry) => {
      const told = base.accepts.get(entry.id)
      return told === undefined || isFixed(told)
        ? !isFixed(entry)
        : JSON.stringify(told) !== JSON.stringify(entry)
    }),
  }
}

/** Whether every nibble accepts but one value, the one it has, which the register's value tells already. */
export function isFixed({ nibbles, invalidAfterRun }: Accepts): boolean {
  return invalidAfterRun === undefined && nibbles.every((set) => /^0*[1248]0*$/.test(set))
}

/** Registers whose rules are told otherwise: firmware registers, feature ID registers, PSTATE's modes, counters. */
function hasRulesOfItsOwn({ id, name, value }: ReportedRegister): boolean {
  const { space } = decodeRegister(BigInt(id))
  return (
    space === 'firmware' ||
    space === 'bitmap' ||
    name === 'pstate' ||
    value === null ||
    isFeatureIdRegister(BigInt(id))
  )
}

/** What becomes of all ones and of all zeros in a register: nothing to tell where both are kept. */
function tryWrites(vcpu: VcpuFd, register: ReportedRegister): Write | undefined {
  if (hasRulesOfItsOwn(register)) return undefined
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
      return id === setId ? { sets: bits } : { clears: bits }
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
    const nibbles = nibblesWith(0, tryNibbles(vcpu, id, original))
    return isFixed({ id: register.id, nibbles })
      ? { refused: errnoName(refusals[0]!) as ErrnoName }
      : { accepted: nibbles }
  }
  const sticky = (afterOnes as bigint) & ~(afterZeros as bigint)
  return sticky === ones ? undefined : { sticky: hex(sticky) }
}

/** What a feature ID register accepts, and what becomes of it. */
function acceptsOf(vcpu: VcpuFd, register: ReportedRegister): Accepts {
  const id = BigInt(register.id)
  const original = BigInt(register.value!)
  const nibbles = nibblesWith(0, tryNibbles(vcpu, id, original))
  const storedAs: Accepts['storedAs'] = []
  for (const [nibble, set] of nibbles.entries()) {
    const shift = BigInt(4 * nibble)
    for (let written = 0; written < 16; written++) {
      if (((Number.parseInt(set, 16) >> written) & 1) === 0) continue
      vcpu.setOneReg(id, (original & ~(0xfn << shift)) | (BigInt(written) << shift))
      const stored = Number((readRegister(vcpu, id) >> shift) & 0xfn)
      if (stored !== written) storedAs.push({ nibble, written, stored })
    }
    vcpu.setOneReg(id, original)
  }
  return storedAs.length === 0 ? { id: register.id, nibbles } : { id: register.id, nibbles, storedAs }
}

/**
 * For each nibble of a register of at most 64 bits, all others as they are, what each of the sixteen values is answered: 0 or
 * `-errno`. Before the run this finds the kernel's rule for each field (lower is safe, higher is safe, exact), whatever it is,
 * without knowing the field. The register is left as it was.
 */
function tryNibbles(vcpu: VcpuFd, id: bigint, original: bigint): Int32Array[] {
  const count = Math.min(16, registerWidth(id) / 4)
  const ids = new BigUint64Array(16 * count + 1).fill(id)
  const values = new BigUint64Array(ids.length).fill(original)
  // There are tens of thousands of these values: as words they take no arithmetic of bigints.
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

/** Sixteen sets, of the values whose outcome is this one; those of nibbles beyond the register's width are empty. */
function nibblesWith(outcome: number, tried: readonly Int32Array[]): string[] {
  return Array.from({ length: 16 }, (_, nibble) => {
    const set =
      tried[nibble]?.reduce((bits, found, value) => (found === outcome ? bits | (1 << value) : bits), 0) ?? 0
    return set.toString(16).padStart(4, '0')
  })
}

/** Freezes the VM; where differing values are then `EBUSY`, notes the ones that are `EINVAL` all the same. */
function noteInvalidAfterRun(
  vcpu: VcpuFd,
  registers: readonly ReportedRegister[],
  accepts: Map<string, Accepts>,
): void {
  freeze(vcpu)
  for (const register of registers) {
    const entry = accepts.get(register.id)
    // What takes no other value before the run takes none after it, and there is nothing to check first.
    if (entry === undefined || isFixed(entry)) continue
    // The first run itself changes some of them.
    const id = BigInt(register.id)
    const value = readRegister(vcpu, id)
    if (!isAnyInvalid(vcpu, id, value)) continue
    const tried = tryNibbles(vcpu, id, value)
    const invalid = nibblesWith(-errnos.EINVAL, tried)
    const isBusy = nibblesWith(-errnos.EBUSY, tried).some((set) => set !== NONE)
    if (isBusy && invalid.some((set) => set !== NONE)) entry.invalidAfterRun = invalid
  }
}

/**
 * Whether any of fifteen writes is `EINVAL` that change every nibble and among them hold every other value of each: KVM refuses
 * a value if one of its fields is wrong, so this spares most registers the trying of each by itself. The register is left as it was.
 */
function isAnyInvalid(vcpu: VcpuFd, id: bigint, value: bigint): boolean {
  const mask = (1n << BigInt(registerWidth(id))) - 1n
  const isInvalid = Array.from({ length: 15 }, (_, index) => BigInt(index + 1) * 0x1111_1111_1111_1111n).some(
    (change) => vcpu.setOneReg(id, (value ^ change) & mask) === -errnos.EINVAL,
  )
  vcpu.setOneReg(id, value)
  return isInvalid
}

const NONE = '0000'

function inheritInvalidAfterRun(accepts: Map<string, Accepts>, base: ReadonlyMap<string, Accepts>): void {
  for (const [id, entry] of accepts) {
    const invalid = base.get(id)?.invalidAfterRun
    if (invalid !== undefined) entry.invalidAfterRun = invalid
  }
}
