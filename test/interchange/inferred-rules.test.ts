/**
 * Holds what is inferred from a fingerprint against recordings of real kernels: the fingerprint of each recorded host, given the
 * behaviour of each other host of the same kernel, must accept, refuse and store what the host itself does, bit for bit. Only bits
 * that the report marks as untried may differ.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import type { VcpuFd, VmFd } from '../../lib/backend.js'
import { type BuiltInHost, builtInHosts, builtInReport, simulator } from '../../lib/hosts/index.js'
import type { Fingerprint } from '../../lib/interchange/fingerprint.js'
import { leftOut } from '../../lib/interchange/fingerprint.js'
import { reportFromFingerprint } from '../../lib/interchange/fingerprint-report.js'
import { featureIdIndex, isFeatureIdRegister, registerWidth } from '../../lib/registers/index.js'
import { checkReport } from '../../lib/report/read.js'
import { configurationOf, registersOf } from '../../lib/report/registers.js'
import type { Report, ReportedRegister } from '../../lib/report/report.js'
import { acceptedNibbles, nibbleOf, nibblePlaces, sixteen } from '../../lib/report/write-rule.js'
import { type Capability, featureWord } from '../../lib/uapi.js'

/** What cpu-template-helper would write on this host. */
function fingerprintOf({ host, registers }: Report): Fingerprint {
  return {
    firecrackerVersion: '1.16.0',
    kernelVersion: host.release,
    microcodeVersion: '0x0',
    biosVersion: '1.0',
    biosRevision: '1.0',
    registers: registers.flatMap(({ id: text, value }) => {
      const id = BigInt(text)
      return value === null || leftOut.has(id) || registerWidth(id) > 128
        ? []
        : [{ id, value: BigInt(value) }]
    }),
  }
}

interface Rig {
  vcpu: VcpuFd
  vm: VmFd
}

function rigOf(report: Report): Rig {
  const vm = simulator(report).open()
  assert.ok(typeof vm !== 'number')
  const made = vm.createVm(0n)
  assert.ok(typeof made !== 'number')
  const vcpu = made.createVcpu(0)
  assert.ok(typeof vcpu !== 'number')
  assert.equal(vcpu.init(report.preferredTarget, [featureWord(['psci-0.2'])]), 0)
  return { vcpu, vm: made }
}

/** For every value of every nibble, with the others unchanged: the outcome of the write, and what the nibble then holds. */
function answers({ vcpu }: Rig, id: bigint, value: bigint): string[] {
  return nibblePlaces.slice(0, registerWidth(id) / 4).map((_, nibble) => {
    const shift = BigInt(4 * nibble)
    const outcomes = sixteen.map((digit) => {
      const outcome = vcpu.setOneReg(id, (value & ~(0xfn << shift)) | (BigInt(digit) << shift))
      if (outcome !== 0) return outcome
      const held = vcpu.getOneReg(id)
      assert.ok(typeof held === 'bigint' && ((held ^ value) & ~(0xfn << shift)) === 0n)
      vcpu.setOneReg(id, value)
      return `kept ${nibbleOf(held, nibble)}`
    })
    assert.equal(vcpu.getOneReg(id), value)
    return outcomes.join()
  })
}

/** What a host shows of its feature ID registers: before the first run, and after it. */
interface Behaviour {
  before: Map<bigint, string[]>
  /** Answers to values that differ in one nibble from the one the register then holds. */
  after: Map<bigint, string[]>
  held: Map<bigint, bigint>
  masks: BigUint64Array
}

function behaviourOf(report: Report, registers = report.registers): Behaviour {
  const rig = rigOf(report)
  const ids = registers
    .filter(({ id, value }) => value !== null && isFeatureIdRegister(BigInt(id)))
    .map(({ id }) => BigInt(id))
  const held = () =>
    new Map(
      ids.map((id) => {
        const value = rig.vcpu.getOneReg(id)
        assert.ok(typeof value === 'bigint')
        return [id, value]
      }),
    )
  const all = (values: Map<bigint, bigint>) =>
    new Map([...values].map(([id, value]) => [id, answers(rig, id, value)]))
  const before = all(held())
  new Uint8Array(rig.vcpu.runPage)[1] = 1
  rig.vcpu.runSync(0)
  const values = held()
  const masks = new BigUint64Array(192)
  rig.vm.getRegWritableMasks(0, masks)
  return { before, held: values, after: all(values), masks }
}

/** Names of the other registers whose rule is not the recorded one, although the report does not mark them as untried. */
function otherRules(report: Report, imported: Report): string[] {
  const rows = new Map(report.registers.map((row) => [row.id, row]))
  return imported.registers
    .filter(({ id, write, mask, untried }) => {
      const real = rows.get(id)
      const isSame = JSON.stringify([write, mask]) === JSON.stringify([real?.write, real?.mask])
      return !isFeatureIdRegister(BigInt(id)) && untried === undefined && !isSame
    })
    .map(({ name }) => name)
}

/** Registers with bits that answer otherwise, although the imported report does not mark them as untried. */
function differences(report: Report, real: Behaviour, imported: Report): string[] {
  const rows = new Map(report.registers.map((row) => [row.id, JSON.stringify(row)]))
  // The simulator answers alike for rows that are alike.
  const others = imported.registers.filter((row) => rows.get(row.id) !== JSON.stringify(row))
  const guessed = behaviourOf(imported, others)
  return others.flatMap(({ id: text, name, untried = [] }) => {
    const id = BigInt(text)
    if (!real.held.has(id)) return []
    const places = nibblePlaces.slice(0, registerWidth(id) / 4)
    const wrong = places.filter((place, nibble) => {
      if (untried.includes(place)) return false
      const shown = [real, guessed].map(({ before, after, held }) => [
        before.get(id)![nibble],
        after.get(id)![nibble],
        nibbleOf(held.get(id)!, nibble),
      ])
      return shown[0]!.join(' ') !== shown[1]!.join(' ')
    })
    const index = featureIdIndex(id)
    const isOther = index !== undefined && real.masks[index] !== guessed.masks[index]
    if (isOther && untried.length < places.length) wrong.push('mask')
    return wrong.map((place) => `${name} ${place}`)
  })
}

const recorded = builtInHosts().map((name) => ({ name, report: builtInReport(name) }))

const pairs = recorded.flatMap((host) =>
  recorded
    .filter((like) => like !== host && like.report.host.release === host.report.host.release)
    .map((like) => ({ host, like })),
)

/** The longest SVE vectors of a host, in bits. */
function longestVector(report: Report): number | undefined {
  const sve = configurationOf(report, ['sve'])
  if (!sve || 'refused' in sve) return undefined
  const lengths = sve.added.find(({ name }) => name === 'KVM_REG_ARM64_SVE_VLS')
  return 128 * BigInt(lengths!.value!).toString(2).length
}

describe('vCPU features that somebody vouches for', () => {
  for (const { host, like } of pairs) {
    const { report } = host
    const shared = report.traits.init.supported.filter((feature) =>
      like.report.traits.init.supported.includes(feature),
    )
    test(`of ${host.name}, like ${like.name}, have its registers, but for what is marked as untried`, () => {
      const longest = longestVector(report)
      const imported = reportFromFingerprint(fingerprintOf(report), like.report, {
        vouched: { features: shared, ...(longest !== undefined && { longestVector: longest }) },
      })
      assert.deepEqual(imported.traits.init.supported, shared)
      assert.deepEqual(checkReport(JSON.parse(JSON.stringify(imported)), 'text'), imported)
      const wrong = imported.configurations.flatMap((configuration) => {
        const own = configurationOf(report, configuration.features, configuration.mte)
        if (own === undefined) return [`${configuration.features.join()}: not recorded`]
        if (own === null || 'refused' in configuration || 'refused' in own) {
          assert.deepEqual(configuration, own)
          return []
        }
        return otherRows(registersOf(report, own), registersOf(imported, configuration)).map(
          (name) => `${configuration.features.join()}: ${name}`,
        )
      })
      assert.deepEqual(wrong, [])
    })
  }
})

/** Names of registers that are only in one list, or differ in nibbles not marked as untried. */
function otherRows(real: readonly ReportedRegister[], guessed: readonly ReportedRegister[]): string[] {
  const rows = new Map(real.map((row) => [row.id, row]))
  const ids = new Set(guessed.map(({ id }) => id))
  const wrong = guessed.filter((row) => {
    const other = rows.get(row.id)
    return other === undefined || !differsOnlyIn(row.untried, row, other)
  })
  return [...wrong, ...real.filter(({ id }) => !ids.has(id))].map(({ name }) => name)
}

/** Whether two rows differ in no nibbles but these. */
function differsOnlyIn(
  places: readonly string[] = [],
  one: ReportedRegister,
  other: ReportedRegister,
): boolean {
  if (JSON.stringify([one.value, one.write]) === JSON.stringify([other.value, other.write])) return true
  const width = registerWidth(BigInt(one.id)) / 4
  if (places.length >= width) return true
  return nibblePlaces.slice(0, width).every((place, nibble) => {
    if (places.includes(place)) return true
    const [a, b] = [one, other].map(({ value: text, write }) => {
      const value = BigInt(text!)
      const digit = nibbleOf(value, nibble)
      if (write?.rule === 'fixed') return [digit, 1 << digit, undefined, undefined]
      // What is open of a value that is looked at whole leaves the rule open.
      if (write?.rule !== 'nibbles') return [digit, places.length > 0 || write]
      return [
        digit,
        acceptedNibbles(write, value)[nibble],
        write.storedAs?.[place],
        write.invalidAfterRun?.[place],
      ]
    })
    return JSON.stringify(a) === JSON.stringify(b)
  })
}

describe('what is inferred from a fingerprint', () => {
  // With evidence of CPUs like its own little stays open; what does is listed, not guessed.
  const open: [host: BuiltInHost, like: BuiltInHost, untried: number][] = [
    ['linux-6.18-neoverse-n1', 'linux-6.18-max', 0],
    ['linux-6.18-neoverse-n1', 'linux-6.18-cortex-a57', 31],
    ['linux-6.18-max', 'linux-6.18-neoverse-n1', 40],
    ['linux-6.1-max', 'linux-6.1-neoverse-n1', 0],
  ]
  for (const [host, like, untried] of open) {
    test(`of ${host} like ${like} leaves ${untried} nibbles untried`, () => {
      const imported = reportFromFingerprint(fingerprintOf(builtInReport(host)), builtInReport(like))
      assert.equal(imported.registers.flatMap((row) => row.untried ?? []).length, untried)
    })
  }
})

/** Traits that follow from registers, or from the interrupt controller they show. */
function traitsOfRegisters({ traits }: Report, id: string) {
  return {
    changes: [traits.changedByFirstRun, traits.changedByVgic].map((bits) =>
      bits?.find((entry) => entry.id === id),
    ),
    hides: (traits.hiddenRegisters ?? []).filter(({ hides }) => hides.some((hidden) => hidden.id === id)),
    isKept: traits.init.kept?.includes(id),
  }
}

/** Capabilities, targets and traits that the imported report claims, and the host has not. */
function otherFacts(report: Report, imported: Report): string[] {
  const capabilities = Object.entries(imported.capabilities)
    .filter(([name, answer]) => String(answer) !== String(report.capabilities[name as Capability]))
    .map(([name]) => name)
  const registers = imported.registers
    .filter(({ id, untried }) => {
      const facts = [report, imported].map((one) => JSON.stringify(traitsOfRegisters(one, id)))
      return untried === undefined && facts[0] !== facts[1]
    })
    .map(({ name }) => `traits of ${name}`)
  const targets = [report, imported].map((one) => [one.preferredTarget, ...one.traits.init.targets].join())
  // `visible` was found by vCPUs with el1-32bit, of which a fingerprint says nothing.
  const narrowed = [report, imported].map(({ traits }) =>
    traits.narrowedRegisters === 'visible' ? undefined : traits.narrowedRegisters,
  )
  return [
    ...capabilities,
    ...registers,
    ...(targets[0] === targets[1] ? [] : ['targets']),
    ...(narrowed[0] === narrowed[1] ? [] : ['narrowed registers']),
  ]
}

describe('the fingerprint of a host, with the behaviour of another one of its kernel,', () => {
  const behaviours = new Map(recorded.map(({ name, report }) => [name, behaviourOf(report)]))
  for (const { host, like } of pairs) {
    test(`accepts, refuses and stores what ${host.name} does: like ${like.name}`, () => {
      const imported = reportFromFingerprint(fingerprintOf(host.report), like.report)
      assert.deepEqual(differences(host.report, behaviours.get(host.name)!, imported), [])
      assert.deepEqual(otherRules(host.report, imported), [])
      assert.deepEqual(otherFacts(host.report, imported), [])
    })
  }

  for (const { name, report } of recorded) {
    const others = pairs.filter(({ host }) => host.name === name).map(({ like }) => like.report)
    if (others.length < 2) continue
    test(`accepts, refuses and stores what ${name} does: like all others`, () => {
      const imported = reportFromFingerprint(fingerprintOf(report), others[0]!, { sameKernel: others })
      assert.deepEqual(differences(report, behaviours.get(name)!, imported), [])
      assert.deepEqual(otherRules(report, imported), [])
      assert.deepEqual(otherFacts(report, imported), [])
    })
  }
})
