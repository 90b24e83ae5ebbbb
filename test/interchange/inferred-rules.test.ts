/**
 * Holds what is inferred from a fingerprint against recordings of real kernels: the fingerprint of each recorded host, given the
 * behaviour of each other host of the same kernel, must accept, refuse and store what the host itself does, bit for bit. Only bits
 * that the report marks as untried may differ.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import type { VcpuFd, VmFd } from '../../lib/backend.js'
import { type BuiltInHost, builtInHosts, builtInReport, simulator } from '../../lib/hosts/index.js'
import { recordedHosts } from '../lab-kernels/lab-hosts.js'
import type { Fingerprint } from '../../lib/interchange/fingerprint.js'
import { leftOut } from '../../lib/interchange/fingerprint.js'
import { reportFromFingerprint } from '../../lib/interchange/fingerprint-report.js'
import { isFeatureIdRegister, registerWidth } from '../../lib/registers/index.js'
import { checkReport } from '../../lib/report/read.js'
import { configurationOf, registersOf } from '../../lib/report/registers.js'
import type { Report, ReportedRegister } from '../../lib/report/report.js'
import { acceptedNibbles, nibbleOf, nibblePlaces } from '../../lib/report/write-rule.js'
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

/** For every value of every nibble, with the others unchanged: the outcome of the write, and what the register then holds. */
function answers({ vcpu }: Rig, id: bigint, value: bigint): string[][] {
  return nibblePlaces.slice(0, registerWidth(id) / 4).map((_, nibble) => {
    const shift = BigInt(4 * nibble)
    return Array.from({ length: 16 }, (_digit, digit) => {
      const outcome = vcpu.setOneReg(id, (value & ~(0xfn << shift)) | (BigInt(digit) << shift))
      const held = String(vcpu.getOneReg(id))
      vcpu.setOneReg(id, value)
      return `${outcome} ${held}`
    })
  })
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

/** Names of registers with bits that answer otherwise: those marked as untried, and all others. */
function differences(report: Report, imported: Report): { unmarked: string[]; marked: string[] } {
  const [own, inferred] = [rigOf(report), rigOf(imported)]
  const rows = new Map(imported.registers.map((row) => [row.id, row]))
  const marked: string[] = []
  const unmarked: string[] = []
  const compare = (when: string) => {
    for (const { id: text, name, value } of report.registers) {
      const id = BigInt(text)
      if (!isFeatureIdRegister(id) || value === null) continue
      const [real, guessed] = [own, inferred].map((rig) => answers(rig, id, BigInt(value)))
      for (const [nibble, place] of nibblePlaces.slice(0, real!.length).entries()) {
        if (real![nibble]!.join() === guessed![nibble]!.join()) continue
        const isMarked = rows.get(text)?.untried?.includes(place) === true
        ;(isMarked ? marked : unmarked).push(`${name} ${place} ${when}`)
      }
    }
  }
  compare('before the run')
  for (const { vcpu } of [own, inferred]) {
    new Uint8Array(vcpu.runPage)[1] = 1
    vcpu.runSync(0)
  }
  compare('after it')
  const masks = [own, inferred].map(({ vm }) => {
    const found = new BigUint64Array(192)
    return [vm.getRegWritableMasks(0, found), ...found].join()
  })
  if (masks[0] !== masks[1]) unmarked.push('writable masks')
  return { unmarked, marked }
}

/** The hosts whose pairs were tried: every kernel on the same CPUs. */
const recorded = builtInHosts()
  .filter((name) => name === 'seed-v6' || recordedHosts.some((host) => host.name === name))
  .map((name) => ({ name, report: builtInReport(name) }))

describe('vCPU features that somebody vouches for', () => {
  for (const { name, report } of recorded) {
    for (const like of recorded) {
      if (like.name === name || like.report.host.release !== report.host.release) continue
      const shared = report.traits.init.supported.filter((feature) =>
        like.report.traits.init.supported.includes(feature),
      )
      test(`of ${name}, like ${like.name}, have its registers, but for what is marked as untried`, () => {
        const imported = reportFromFingerprint(fingerprintOf(report), like.report, {
          vouched: { features: shared, longestVector: 2048 },
        })
        assert.deepEqual(imported.traits.init.supported, shared)
        assert.deepEqual(checkReport(JSON.parse(JSON.stringify(imported)), 'text'), imported)
        for (const configuration of imported.configurations) {
          const own = configurationOf(report, configuration.features)
          assert.ok(own)
          if ('refused' in configuration || 'refused' in own) {
            assert.deepEqual(configuration, own)
            continue
          }
          const [real, guessed] = [registersOf(report, own), registersOf(imported, configuration)]
          assert.deepEqual(
            guessed.map(({ id }) => id),
            real.map(({ id }) => id),
          )
          const wrong = guessed.filter((row, index) => {
            const { untried = [], ...rest } = row
            const { value, write } = real[index]!
            if (JSON.stringify([rest.value, rest.write]) === JSON.stringify([value, write])) return false
            return (
              4 * untried.length < registerWidth(BigInt(row.id)) && !differsOnlyIn(untried, row, real[index]!)
            )
          })
          assert.deepEqual(
            wrong.map((row) => row.name),
            [],
            configuration.features.join(),
          )
        }
      })
    }
  }
})

/** Whether two rows of an ID register differ in no nibbles but these. */
function differsOnlyIn(places: readonly string[], one: ReportedRegister, other: ReportedRegister): boolean {
  return nibblePlaces.every((place, nibble) => {
    if (places.includes(place)) return true
    const [a, b] = [one, other].map(({ value, write }) => [
      nibbleOf(BigInt(value!), nibble),
      write?.rule === 'nibbles'
        ? acceptedNibbles(write, BigInt(value!))[nibble]
        : 1 << nibbleOf(BigInt(value!), nibble),
    ])
    return String(a) === String(b)
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

describe('the fingerprint of a host, with the behaviour of another one of its kernel,', () => {
  for (const { name, report } of recorded) {
    for (const like of recorded) {
      if (like.name === name || like.report.host.release !== report.host.release) continue
      test(`accepts, refuses and stores what ${name} does: like ${like.name}`, () => {
        const imported = reportFromFingerprint(fingerprintOf(report), like.report)
        assert.deepEqual(differences(report, imported).unmarked, [])
        assert.deepEqual(otherRules(report, imported), [])
        assert.equal(imported.preferredTarget, report.preferredTarget)
        assert.deepEqual(imported.traits.init.targets, report.traits.init.targets)
        for (const [capability, answer] of Object.entries(imported.capabilities)) {
          assert.deepEqual(answer, report.capabilities[capability as Capability], capability)
        }
      })
    }
  }
})
