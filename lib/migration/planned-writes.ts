/** The writes of a restore, prepared: a state that is tried on many hosts has the same ones on each. */
import {
  decodeRegister,
  encodeRegister,
  featureIdIndex,
  hex,
  registerWidth,
  setClearPairs,
  timerCounters,
} from '../registers/index.js'
import type { CapturedRegister, VcpuCapture } from './state.js'

/** What every outcome for a register says. */
export interface OutcomeBase {
  /** KVM's id of the vCPU. */
  vcpu: number
  id: string
  name: string
  /** The value in the state. */
  value: string
}

/** A register of the state that is to be written. */
export interface PlannedWrite {
  id: bigint
  value: bigint
  /** Its outcome if it reads back the same, which is that of most registers. */
  same: OutcomeBase & { outcome: 'same' }
}

/** The writes of one phase. */
interface Phase {
  /** Registers of at most 64 bits, written in one batch. */
  words: readonly PlannedWrite[]
  ids: BigUint64Array
  values: BigUint64Array
  /** Wider registers. */
  wide: readonly PlannedWrite[]
}

/** The writes to one vCPU. */
export interface PlannedWrites {
  /** In the state's order. */
  all: readonly PlannedWrite[]
  /** Their ids, for the batch that reads them back. */
  ids: BigUint64Array
  /** The same as a set. */
  has: ReadonlySet<bigint>
  /** In the order of the writes. */
  phases: readonly Phase[]
}

/** Decides which registers are restored, and whether vector registers are converted if only one of the VMs has SVE. */
export interface WriteChoice {
  carries?: (id: bigint) => boolean
  convertsVectors?: boolean
}

/** The writes that restore a state. They are prepared when first needed. */
export class RestorePlan {
  readonly #choice: WriteChoice
  /** By vCPU, and by whether the destination's vCPU has SVE. */
  readonly #known = new Map<VcpuCapture, [without?: PlannedWrites, withSve?: PlannedWrites]>()

  constructor(choice: WriteChoice = {}) {
    this.#choice = choice
  }

  writesTo(from: VcpuCapture, hasSve: boolean): PlannedWrites {
    const known = this.#known.get(from) ?? []
    this.#known.set(from, known)
    // Without a conversion both are the same.
    const which = this.#choice.convertsVectors && hasSve ? 1 : 0
    return (known[which] ??= plan(from, hasSve, this.#choice))
  }
}

function plan(
  { id: vcpu, registers }: VcpuCapture,
  hasSve: boolean,
  { carries = () => true, convertsVectors = false }: WriteChoice,
): PlannedWrites {
  const rows = convertsVectors ? convertVectors(registers, hasSve) : registers
  const all = rows
    .map(({ id: text, name, value }): PlannedWrite => {
      const id = BigInt(text)
      return { id, value: BigInt(value), same: { vcpu, id: hex(id), name, value, outcome: 'same' } }
    })
    .filter(({ id }) => carries(id))
  const byPhase: PlannedWrite[][] = phases.map(() => [])
  for (const write of all) {
    // The vector lengths are written before all others.
    if (write.id !== SVE_VLS) byPhase[phases.findIndex((takes) => takes(write.id))]!.push(write)
  }
  return {
    all,
    ids: BigUint64Array.from(all, ({ id }) => id),
    has: new Set(all.map(({ id }) => id)),
    phases: byPhase.map(phaseOf),
  }
}

function phaseOf(writes: readonly PlannedWrite[]): Phase {
  const words = writes.filter(({ id }) => registerWidth(id) <= 64)
  return {
    words,
    ids: BigUint64Array.from(words, ({ id }) => id),
    values: BigUint64Array.from(words, ({ id, value }) =>
      clearing.has(id) ? bitsToClear(id, value) : value,
    ),
    wide: writes.filter(({ id }) => registerWidth(id) > 64),
  }
}

/**
 * Returns what to write to the clearing register of a pair so that the bitmap ends with the state's value. If KVM clears the bits
 * written, that is the complement; if KVM stores the value, the later write of the setting register overwrites it.
 */
function bitsToClear(id: bigint, value: bigint): bigint {
  return BigInt.asUintN(registerWidth(id), ~value)
}

/** V0 to V31 are the low 128 bits of Z0 to Z31, and a vCPU has registers of only one kind. */
function convertVectors(registers: readonly CapturedRegister[], toSve: boolean): CapturedRegister[] {
  return registers.flatMap((register): CapturedRegister[] => {
    const { value } = register
    const { name, space } = decodeRegister(BigInt(register.id))
    const [, kind, number] = /^([vz])(\d+)$/.exec(name) ?? []
    if (kind === 'v' && toSve) return [{ ...named(`z${number}`), value }]
    if (toSve || space !== 'sve') return [register]
    return kind === 'z' ? [{ ...named(`v${number}`), value: hex(BigInt.asUintN(128, BigInt(value))) }] : []
  })
}

function named(name: string): { id: string; name: string } {
  return { id: hex(encodeRegister(name)), name }
}

export const SVE_VLS = encodeRegister('KVM_REG_ARM64_SVE_VLS')
const PSTATE = encodeRegister('pstate')
const PMCR_EL0 = encodeRegister('PMCR_EL0')

/** The setting register of each pair, by the clearing one. */
const clearing = new Map(setClearPairs.map(([set, clear]) => [clear, set]))

/** The order of writes; a register belongs to the first group that matches it. */
const phases: readonly ((id: bigint) => boolean)[] = [
  (id) => featureIdIndex(id) !== undefined,
  (id) => ['firmware', 'bitmap'].includes(decodeRegister(id).space),
  // PMCR_EL0.N decides how many counters the other registers have bits for.
  (id) => id === PSTATE || id === PMCR_EL0,
  (id) => clearing.has(id),
  (id) => !timerCounters.has(id),
  () => true,
]

/** The number of groups. */
export const PHASES = phases.length
