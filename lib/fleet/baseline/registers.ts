/** The registers of a baseline: for each, a value that every host accepts. */
import {
  allBits,
  decodeRegister,
  encodeRegister,
  fieldMask,
  hex,
  implementationIds,
  registerField,
} from '../../registers/index.js'
import { type Candidate, grouped, unreconciledIn } from './candidate.js'
import { choose, intersect } from './choose.js'
import type { PinnedRegister, Unreconciled } from './format.js'
import { mitigationsOf } from '../../report/registers.js'
import { hasAll, sixteen } from '../../report/write-rule.js'
import { hasWritableImplementationIds, type Possible } from './possible.js'

const SVE_VLS = encodeRegister('KVM_REG_ARM64_SVE_VLS')
const ID_AA64PFR1_EL1 = encodeRegister('ID_AA64PFR1_EL1')
const CLIDR_EL1 = encodeRegister('CLIDR_EL1')
const SSBS = fieldMask(registerField(ID_AA64PFR1_EL1, 'SSBS'))

/** Whether the identities of the hosts differ and every host lets a VM have another. */
export function needsImplementationIds(hosts: readonly Candidate[]): boolean {
  if (!hosts.every(({ report }) => hasWritableImplementationIds(report))) return false
  return implementationIds.some((id) => {
    const values = new Set(hosts.map((host) => host.possible(['psci-0.2'], false).get(id)?.initial))
    return values.size > 1
  })
}

/** Registers that some hosts lack: a VMM that saves all registers cannot restore them there. */
export function absences(
  hosts: readonly Candidate[],
  possible: readonly ReadonlyMap<bigint, Possible>[],
): Unreconciled[] {
  const ids = new Set(possible.flatMap((registers) => [...registers.keys()]))
  return [...ids].flatMap((id) => {
    if (possible.every((registers) => registers.has(id))) return []
    const having = new Map(hosts.map((host, index) => [host, possible[index]!.has(id)]))
    const found = grouped(hosts, (host) => (having.get(host) ? 'present' : 'absent'))
    return [{ ...unreconciledIn('absent', id, []), found }]
  })
}

export interface SettledRegisters {
  idRegisters: PinnedRegister[]
  others: PinnedRegister[]
  unreconciled: Unreconciled[]
}

/** Registers that every host has, except those of the firmware, the timers and the vector lengths. */
export function settleRegisters(
  hosts: readonly Candidate[],
  possible: readonly ReadonlyMap<bigint, Possible>[],
): SettledRegisters {
  const settled: SettledRegisters = { idRegisters: [], others: [], unreconciled: [] }
  for (const { id, name, identifies } of possible[0]!.values()) {
    if (isSettledElsewhere(id)) continue
    const here = possible.map((registers) => registers.get(id))
    if (!here.every((register) => register !== undefined)) continue
    if (here.some(({ initial, ignored }) => initial === null || ignored)) continue
    const initial = here.map((register) => register.initial!)
    const nibbles = intersect(here.map((register) => register.nibbles ?? anything))
    // A value no host refuses moves with the VM.
    const isSame = new Set(initial).size === 1
    const moves = isSame || initial.every((value) => hasAll(nibbles, value))
    if (!identifies && moves) continue
    const {
      value,
      mask: settledBits,
      conflicts,
    } = isSame
      ? { value: initial[0]!, mask: allBits(id), conflicts: [] }
      : choose({ id, initial, nibbles, ...(id === CLIDR_EL1 && { admits: cleansLike(initial) }) })
    // choose() settles sixteen nibbles, of which a narrow register has fewer.
    const mask = settledBits & allBits(id)
    const pinned = { id: hex(id), name, value: hex(value), mask: hex(mask) }
    if (mask !== 0n) (identifies ? settled.idRegisters : settled.others).push(pinned)
    if (conflicts.length > 0) {
      const values = new Map(hosts.map((host, index) => [host, hex(initial[index]!)]))
      const found = grouped(hosts, (host) => values.get(host)!)
      settled.unreconciled.push({ ...unreconciledIn('value', id, conflicts), found })
    }
  }
  return settled
}

/**
 * If CTR_EL0.IDC does not say that no cache needs cleaning, CLIDR_EL1 may not say so either; no single field says this
 * (`arch/arm64/kvm/sys_regs.c:set_clidr`). The value in a host's fresh VM shows whether that host has this rule.
 */
function cleansLike(initial: readonly bigint[]): (value: bigint) => boolean {
  return (value) => !needsNoCleaning(value) || initial.every(needsNoCleaning)
}

/** LoC is 0, or both LoUIS and LoUU are. */
function needsNoCleaning(clidr: bigint): boolean {
  return (clidr & (7n << 24n)) === 0n || (clidr & ((7n << 21n) | (7n << 27n))) === 0n
}

const anything = sixteen.map(() => 0xffff)

function isSettledElsewhere(id: bigint): boolean {
  const { space } = decodeRegister(id)
  return space === 'firmware' || space === 'bitmap' || space === 'timer' || id === SVE_VLS
}

/**
 * The states of mitigations in which hosts differ: KVM does not store what is written there. On some hosts the state of variant 4
 * depends on whether the VM has SSBS.
 */
export function workaroundConflicts(
  hosts: readonly Candidate[],
  idRegisters: readonly PinnedRegister[],
): Unreconciled[] {
  const features = idRegisters.find(({ id }) => BigInt(id) === ID_AA64PFR1_EL1)
  const losesSsbs =
    features !== undefined &&
    (BigInt(features.mask) & SSBS) === SSBS &&
    (BigInt(features.value) & SSBS) === 0n
  const ids = new Set(hosts.flatMap(({ report }) => mitigationsOf(report).map(({ id }) => id)))
  return [...ids].flatMap((id) => {
    const valueOn = ({ report }: Candidate): string => {
      const found = mitigationsOf(report).find((entry) => entry.id === id)
      if (found === undefined) return 'absent'
      return hex((losesSsbs && found.withoutSsbs ? found.withoutSsbs : found).value)
    }
    const found = grouped(
      hosts.filter((host) => valueOn(host) !== 'absent'),
      valueOn,
    )
    return found.length > 1 ? [{ ...unreconciledIn('value', BigInt(id), []), found }] : []
  })
}

/** KVM lets userspace remove vector lengths only from the longest down. */
export function commonVectorLengths(possible: readonly ReadonlyMap<bigint, Possible>[]): bigint | null {
  const lengths = possible.map((registers) => registers.get(SVE_VLS)!.initial!)
  const [first] = lengths
  for (let bits = first!.toString(2).length; bits > 0; bits--) {
    const upTo = BigInt.asUintN(bits, first!)
    if ((upTo >> BigInt(bits - 1)) & 1n && lengths.every((value) => BigInt.asUintN(bits, value) === upTo))
      return upTo
  }
  return null
}
