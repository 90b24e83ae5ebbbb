/**
 * Reports of version 1: they hold what a register accepts in six places (`write`, `accepts`, `bitmaps`, `workarounds`,
 * `writableMasks` and two traits), and record neither what answered KVM's calls nor the VM types, the unnamed capabilities, the
 * registers a guest reads from the CPU and the machine's CPUs. Nor do they record how `KVM_IRQ_LINE` finds a vCPU and what it checks
 * first, and what a first run does with PMCR_EL0: they are read as if it found the vCPU by its id and checked number and vCPU first,
 * and as if the run left the register alone.
 */
import * as v from 'valibot'
import { checkShape, refuseDuplicateIds } from '../documents/document.js'
import { hex, hex64, int32, registerId, text } from '../documents/entries.js'
import { checkRegisterRows, requireListed } from '../documents/registers.js'
import { encodeRegister, hex as toHex, isFeatureIdRegister, registerWidth } from '../registers/index.js'
import { errnos, type ErrnoName, type VcpuFeature } from '../uapi.js'
import { feature, type Configuration, type Report, type ReportedRegister, reportSchema } from './report.js'
import { namedReplacements, namedSets, nibblesRule, type WriteRule } from './write-rule.js'

const errno = v.picklist(Object.keys(errnos) as ErrnoName[])

/** Sixteen nibbles from bits 3:0 upwards; bit n of each says whether value n is accepted there. */
const nibbles = v.pipe(v.array(v.pipe(v.string(), v.regex(/^[0-9a-f]{4}$/))), v.length(16))
const write = v.union([
  v.strictObject({ refused: errno }),
  v.strictObject({ sticky: hex }),
  v.strictObject({ sets: hex }),
  v.strictObject({ clears: hex }),
  v.strictObject({ accepted: nibbles }),
])
const register = v.strictObject({
  id: registerId,
  name: text,
  value: v.nullable(hex),
  write: v.optional(write),
})
const accepts = v.strictObject({
  id: registerId,
  nibbles,
  invalidAfterRun: v.optional(nibbles),
  storedAs: v.optional(v.array(v.strictObject({ nibble: int32, written: int32, stored: int32 }))),
})
const level = { value: hex64, accepted: v.array(hex64) }

const {
  origin: _origin,
  otherCapabilities: _capabilities,
  vmTypes: _types,
  guestReads: _reads,
  cpus: _cpus,
  ...entries
} = reportSchema.entries
const version1 = v.strictObject({
  ...entries,
  version: v.literal(1),
  writableMasks: v.nullable(v.array(v.strictObject({ id: registerId, name: text, mask: hex64 }))),
  registers: v.pipe(v.array(register), v.minLength(1), v.maxLength(10_000)),
  accepts: v.array(accepts),
  bitmaps: v.array(v.strictObject({ id: registerId, name: text, reset: hex64, mask: hex64 })),
  workarounds: v.array(v.strictObject({ id: registerId, name: text, ...level })),
  configurations: v.array(
    v.union([
      v.strictObject({
        features: v.array(feature),
        removed: v.array(registerId),
        added: v.array(v.strictObject({ ...register.entries, index: int32 })),
        changed: v.array(v.strictObject({ id: registerId, name: text, value: hex })),
        accepts: v.array(accepts),
      }),
      v.strictObject({ features: v.array(feature), refused: errno }),
    ]),
  ),
  traits: v.strictObject({
    ...entries.traits.entries,
    psciVersions: v.array(hex64),
    workaround2WithoutSsbs: v.nullable(v.strictObject(level)),
  }),
})

type Version1 = v.InferOutput<typeof version1>
type Version1Register = v.InferOutput<typeof register>
type Accepts = v.InferOutput<typeof accepts>

const PSCI_VERSION = toHex(encodeRegister('KVM_REG_ARM_PSCI_VERSION'))
const WORKAROUND_2 = toHex(encodeRegister('KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2'))

/**
 * Checks a report of version 1 and converts it.
 * @throws FormatError
 */
export function readVersion1(data: unknown, source: string): Report {
  const report = checkShape(version1, data, source)
  checkLists(report, source)
  const { writableMasks, accepts: ofBase, bitmaps, workarounds, configurations, traits, ...same } = report
  const { psciVersions, workaround2WithoutSsbs, ...otherTraits } = traits
  const masks = new Map(writableMasks?.map(({ id, mask }) => [id, mask]))
  const subsets = new Map(
    bitmaps.map(({ id, mask }): [string, WriteRule] => [id, { rule: 'subset', of: mask }]),
  )
  const checked = new Map(
    workarounds.map(({ id, accepted }): [string, WriteRule] => {
      const withoutSsbs = id === WORKAROUND_2 && workaround2WithoutSsbs
      const rule = { rule: 'checked', accepts: accepted } as const
      if (!withoutSsbs) return [id, rule]
      return [id, { ...rule, withoutSsbs: { value: withoutSsbs.value, accepts: withoutSsbs.accepted } }]
    }),
  )
  const ruleOf = (row: Version1Register, of: ReadonlyMap<string, Accepts>): WriteRule | undefined => {
    if (row.id === PSCI_VERSION) return { rule: 'values', accepts: psciVersions }
    const isId = isFeatureIdRegister(BigInt(row.id)) && row.value !== null
    return (
      subsets.get(row.id) ?? checked.get(row.id) ?? (isId ? idRule(row, of.get(row.id)) : ordinaryRule(row))
    )
  }
  const rowOf = (
    row: Version1Register,
    of: ReadonlyMap<string, Accepts>,
    mask?: string,
  ): ReportedRegister => {
    const { id, name, value } = row
    const rule = ruleOf(row, of)
    return { id, name, value, ...(mask !== undefined && { mask }), ...(rule && { write: rule }) }
  }
  const base = byId(ofBase)
  return {
    ...same,
    version: 2,
    origin: { kind: 'unknown' },
    registers: report.registers.map((row) => rowOf(row, base, masks.get(row.id))),
    configurations: configurations.filter(isStillRecorded).map((configuration) => {
      if ('refused' in configuration) return configuration
      const { features, removed, added, changed, accepts: ofConfiguration } = configuration
      const merged = byId([...ofBase, ...ofConfiguration])
      const values = new Map(changed.map(({ id, value }) => [id, value]))
      const inBase = new Set([...values.keys(), ...ofConfiguration.map(({ id }) => id)])
      return {
        features,
        removed,
        added: added.map(({ index, ...row }) => Object.assign(rowOf(row, merged), { index })),
        changed: report.registers
          .filter(({ id }) => inBase.has(id))
          .map((row) => rowOf({ ...row, value: values.get(row.id) ?? row.value }, merged)),
      } satisfies Configuration
    }),
    traits: otherTraits,
  }
}

/** Without EL2, `has-el2-e2h0` changes nothing, and is no longer tried. */
function isStillRecorded({ features }: { features: readonly VcpuFeature[] }): boolean {
  return !features.includes('has-el2-e2h0') || features.includes('has-el2')
}

function byId<T extends { id: string }>(list: readonly T[]): Map<string, T> {
  return new Map(list.map((entry) => [entry.id, entry]))
}

/** Returns the rule of a feature ID register, which accepts one value if nothing else is recorded. */
function idRule({ value }: Version1Register, accepted: Accepts | undefined): WriteRule {
  if (accepted === undefined) return { rule: 'fixed', errno: 'EINVAL' }
  const sets = accepted.nibbles.map((set) => Number.parseInt(set, 16))
  // No feature register is free in every bit: if KVM accepts any value, it ignores the write.
  if (sets.every((set) => set === 0xffff)) return { rule: 'bits', bits: '0x0' }
  const { invalidAfterRun, storedAs } = accepted
  return nibblesRule(sets, BigInt(value!), {
    ...(invalidAfterRun && {
      invalidAfterRun: namedSets(
        invalidAfterRun.map((set) => Number.parseInt(set, 16)),
        () => 0,
      ),
    }),
    ...(storedAs && storedAs.length > 0 && { storedAs: namedReplacements(storedAs) }),
  })
}

function ordinaryRule({ id, value, write: rule }: Version1Register): WriteRule | undefined {
  if (rule === undefined) return undefined
  if ('refused' in rule) return { rule: 'fixed', errno: rule.refused }
  if ('sticky' in rule) return { rule: 'bits', bits: rule.sticky }
  if ('sets' in rule) return { rule: 'sets', bits: rule.sets }
  if ('clears' in rule) return { rule: 'clears', bits: rule.clears }
  // Of all registers of any kernel, only KVM_REG_ARM64_SVE_VLS refuses everything, once the vCPU is finalized.
  if (rule.accepted.every((set) => set === '0000')) return { rule: 'refused', errno: 'EPERM' }
  const places = registerWidth(BigInt(id)) / 4
  // Bits beyond the register's width are 0.
  const sets = rule.accepted.map((set, nibble) => (nibble < places ? Number.parseInt(set, 16) : 1))
  return nibblesRule(sets, BigInt(value ?? 0))
}

/** Checks that the schema cannot make, on lists that version 2 does not have. */
function checkLists(report: Version1, source: string): void {
  checkRegisterRows(report.registers, '$.registers', source)
  const listed = new Set(report.registers.map(({ id }) => id))
  for (const list of ['accepts', 'bitmaps', 'workarounds', 'writableMasks'] as const) {
    const rows = report[list] ?? []
    refuseDuplicateIds(rows, `$.${list}`, source)
    requireListed(rows, listed, `$.${list}`, source)
  }
  for (const [index, configuration] of report.configurations.entries()) {
    if ('refused' in configuration) continue
    const present = new Set([...listed, ...configuration.added.map(({ id }) => id)])
    const path = `$.configurations[${index}]`
    checkRegisterRows(configuration.changed, `${path}.changed`, source)
    requireListed(configuration.changed, listed, `${path}.changed`, source)
    refuseDuplicateIds(configuration.accepts, `${path}.accepts`, source)
    requireListed(configuration.accepts, present, `${path}.accepts`, source)
  }
}
