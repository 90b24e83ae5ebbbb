import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'vitest'
import { captureHost } from '../../lib/migration/capture.js'
import { parseFingerprint } from '../../lib/interchange/fingerprint.js'
import { reportFromFingerprint } from '../../lib/interchange/fingerprint-report.js'
import { attemptRestore } from '../../lib/migration/attempt.js'
import { reactionTo } from '../../lib/migration/restore.js'
import { verdict } from '../../lib/migration/verdict.js'
import { vmmRules } from '../../lib/migration/vmm/names.js'
import { openKvm } from '../../lib/kvm/index.js'
import {
  decodeFields,
  encodeRegister,
  hex,
  isAArch32IdRegister,
  registerName,
} from '../../lib/registers/index.js'
import { checkReport } from '../../lib/report/read.js'
import type { Report } from '../../lib/report/report.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import {
  graviton,
  type GravitonCpu,
  gravitonCpus,
  gravitonFile,
  type GravitonKernel,
  gravitonKernels,
} from './graviton.js'
import { factsOfReport } from '../../lib/migration/vmm/facts.js'
import { vmOn } from '../../lib/migration/vmm/rules.js'
import { deviceSupport, featureSupport, untriedFields } from '../../lib/report/registers.js'
import { vcpuFeatures, type VcpuFeature } from '../../lib/uapi.js'
import { ruleOf } from '../report/rows.js'

function values(cpu: GravitonCpu, kernel: GravitonKernel): Map<string, bigint> {
  return new Map(graviton(cpu, kernel).registers.map(({ id, value }) => [registerName(id), value]))
}

function drift(old: Map<string, bigint>, later: Map<string, bigint>) {
  return {
    gone: [...old.keys()].filter((name) => !later.has(name)),
    added: [...later.keys()].filter((name) => !old.has(name)),
    changed: [...old.keys()]
      .filter((name) => later.has(name) && later.get(name) !== old.get(name))
      .toSorted(),
  }
}

/** A field of an ID register, before and after. */
function fieldChange(name: string, field: string, ...hosts: Map<string, bigint>[]): bigint[] {
  const id = encodeRegister(name)
  return hosts.map(
    (host) => decodeFields(id, host.get(name)!).find((entry) => entry.field.name === field)!.value,
  )
}

describe('the drift of Graviton hosts, from their fingerprints', () => {
  const firmware = {
    '5.10': { registers: 312, psci: 0x10000n, bitmaps: [undefined, undefined, undefined, undefined] },
    '6.1': { registers: 242, psci: 0x10001n, bitmaps: [1n, 1n, 3n, undefined] },
    '6.18': { registers: 254, psci: 0x10003n, bitmaps: [1n, 1n, 3n, 0n] },
  }
  for (const kernel of gravitonKernels) {
    for (const cpu of gravitonCpus) {
      test(`Neoverse ${cpu} under ${kernel} has the firmware registers of its kernel`, () => {
        const host = values(cpu, kernel)
        const { registers, psci, bitmaps } = firmware[kernel]
        assert.equal(host.size, registers)
        assert.equal(host.get('KVM_REG_ARM_PSCI_VERSION'), psci)
        assert.deepEqual(
          ['STD', 'STD_HYP', 'VENDOR_HYP'].map((name) => host.get(`KVM_REG_ARM_${name}_BMAP`)),
          bitmaps.slice(0, 3),
        )
        assert.equal(host.get('KVM_REG_ARM_VENDOR_HYP_BMAP_2'), bitmaps[3])
        assert.deepEqual(
          [1, 2, 3].map((number) => host.get(`KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_${number}`)),
          [2n, 0n, 1n],
        )
      })
    }
  }

  const changedTo61: Record<GravitonCpu, string[]> = {
    N1: ['ID_AA64DFR0_EL1', 'ID_DFR0_EL1', 'KVM_REG_ARM_PSCI_VERSION'],
    V1: [
      'ID_AA64DFR0_EL1',
      'ID_AA64MMFR2_EL1',
      'ID_AA64PFR0_EL1',
      'ID_DFR0_EL1',
      'ID_MMFR4_EL1',
      'KVM_REG_ARM_PSCI_VERSION',
    ],
    V2: [
      'ID_AA64DFR0_EL1',
      'ID_AA64MMFR1_EL1',
      'ID_AA64MMFR2_EL1',
      'ID_AA64PFR0_EL1',
      'KVM_REG_ARM_PSCI_VERSION',
    ],
  }
  const alwaysChangedTo618 = [
    'CCSIDR_EL1[0]',
    'CCSIDR_EL1[1]',
    'CCSIDR_EL1[2]',
    'CLIDR_EL1',
    'ID_AA64DFR0_EL1',
    'KVM_REG_ARM_PSCI_VERSION',
    'KVM_REG_ARM_PTIMER_CTL',
    'KVM_REG_ARM_TIMER_CTL',
  ]
  for (const cpu of gravitonCpus) {
    test(`Neoverse ${cpu} from 5.10 to 6.1 loses 74 registers of a PMU nobody asked for`, () => {
      const { gone, added, changed } = drift(values(cpu, '5.10'), values(cpu, '6.1'))
      assert.equal(gone.length, 74)
      for (const name of gone) assert.match(name, /^PM/)
      assert.deepEqual(added, [
        'OSLSR_EL1',
        'KVM_REG_ARM_STD_BMAP',
        'KVM_REG_ARM_STD_HYP_BMAP',
        'KVM_REG_ARM_VENDOR_HYP_BMAP',
      ])
      assert.deepEqual(changed, changedTo61[cpu])
    })

    test(`Neoverse ${cpu} from 6.1 to 6.18 loses none and gets twelve`, () => {
      const { gone, added, changed } = drift(values(cpu, '6.1'), values(cpu, '6.18'))
      assert.deepEqual(gone, [])
      const caches = Array.from({ length: 11 }, (_, index) => `CCSIDR_EL1[${index + 3}]`)
      assert.deepEqual(added, [...caches, 'KVM_REG_ARM_VENDOR_HYP_BMAP_2'])
      const hidden = cpu === 'N1' ? [] : ['ID_AA64MMFR2_EL1', 'ID_AA64PFR0_EL1']
      assert.deepEqual(changed, [...alwaysChangedTo618, ...hidden].toSorted())
    })
  }

  const fields: [cpu: GravitonCpu, register: string, field: string, values: bigint[]][] = [
    ['V1', 'ID_AA64PFR0_EL1', 'GIC', [3n, 1n, 1n]],
    ['V2', 'ID_AA64PFR0_EL1', 'GIC', [3n, 1n, 1n]],
    ['V1', 'ID_AA64MMFR2_EL1', 'CCIDX', [1n, 0n, 0n]],
    ['V2', 'ID_AA64MMFR1_EL1', 'ECBHB', [0n, 1n, 1n]],
    ['V1', 'ID_AA64PFR0_EL1', 'MPAM', [1n, 1n, 0n]],
    ['V2', 'ID_AA64MMFR2_EL1', 'NV', [2n, 2n, 0n]],
  ]
  for (const [cpu, name, field, expected] of fields) {
    test(`${name}.${field} of Neoverse ${cpu} is ${expected.join(', ')} under ${gravitonKernels.join(', ')}`, () => {
      assert.deepEqual(
        fieldChange(name, field, ...gravitonKernels.map((kernel) => values(cpu, kernel))),
        expected,
      )
    })
  }

  const models: [a: GravitonCpu, b: GravitonCpu, changed: number][] = [
    ['N1', 'V1', 11],
    ['V1', 'V2', 28],
  ]
  for (const [a, b, count] of models) {
    test(`under 6.18 Neoverse ${a} and ${b} have the same registers and differ in ${count} values`, () => {
      const { gone, added, changed } = drift(values(a, '6.18'), values(b, '6.18'))
      assert.deepEqual([gone, added], [[], []])
      assert.equal(changed.length, count)
    })
  }
})

/** A report of a Graviton host that behaves as the recorded kernel of its series does. */
function imported(cpu: GravitonCpu, kernel: GravitonKernel): Report {
  return reportFromFingerprint(graviton(cpu, kernel), builtInReport(`linux-${kernel}-neoverse-n1`))
}

/** The verdict on the move of a fresh VM between two of them under Firecracker, and the registers that stop it. */
function judged(cpu: GravitonCpu, from: GravitonKernel, to: GravitonKernel) {
  using source = openKvm(simulator(imported(cpu, from)))
  using destination = openKvm(simulator(imported(cpu, to)))
  const state = captureHost(source)
  const rules = vmmRules('firecracker')
  using attempt = attemptRestore(destination, state)
  const failing = attempt.outcomes.filter((outcome) => reactionTo(outcome, rules) === 'fails')
  const names = (kind: string) => failing.filter(({ outcome }) => outcome === kind).map(({ name }) => name)
  return {
    possible: verdict(state, destination, rules).possible,
    absent: names('absent'),
    refused: names('refused'),
  }
}

describe('moving between Graviton hosts of one model', () => {
  for (const cpu of gravitonCpus) {
    test(`Neoverse ${cpu} 5.10 → 6.1 meets the PMU’s registers, which are gone`, () => {
      const { possible, absent, refused } = judged(cpu, '5.10', '6.1')
      assert.ok(!possible)
      assert.equal(absent.length, 74)
      assert.ok(refused.includes('ID_AA64DFR0_EL1'))
    })

    test(`Neoverse ${cpu} 6.1 → 6.18 meets nothing`, () => {
      assert.deepEqual(judged(cpu, '6.1', '6.18'), { possible: true, absent: [], refused: [] })
    })

    test(`Neoverse ${cpu} 6.18 → 6.1 meets twelve unknown ids and PSCI 1.3`, () => {
      const { possible, absent, refused } = judged(cpu, '6.18', '6.1')
      assert.ok(!possible)
      assert.equal(absent.length, 12)
      assert.ok(absent.includes('KVM_REG_ARM_VENDOR_HYP_BMAP_2'))
      assert.ok(refused.includes('KVM_REG_ARM_PSCI_VERSION'))
    })
  }

  test('a field that was hidden again reads 0 after the move', () => {
    using source = openKvm(simulator(imported('V1', '6.1')))
    using destination = openKvm(simulator(imported('V1', '6.18')))
    using attempt = attemptRestore(destination, captureHost(source))
    const differing = attempt.outcomes.filter(({ outcome }) => outcome === 'differs')
    assert.deepEqual(differing.map(({ name }) => name).toSorted(), ['ID_AA64MMFR2_EL1', 'ID_AA64PFR0_EL1'])
  })
})

describe('a report made of a fingerprint', () => {
  for (const cpu of gravitonCpus) {
    for (const kernel of gravitonKernels) {
      test(`of Neoverse ${cpu} under ${kernel} is a valid one, and simulated it reads as the fingerprint says`, () => {
        const report = imported(cpu, kernel)
        assert.deepEqual(checkReport(JSON.parse(JSON.stringify(report)), 'text'), report)
        using kvm = openKvm(simulator(report))
        using vm = kvm.createVm()
        using vcpu = vm.createVcpu(0, { features: ['psci-0.2'] })
        for (const { id, value } of graviton(cpu, kernel).registers) {
          assert.equal(vcpu.registers.get(id), value, registerName(id))
          vcpu.registers.set(id, value)
        }
      })
    }
  }

  test('leaves the vCPU features and devices of its host unknown', () => {
    const report = imported('V1', '6.18')
    // Linux 6.18 supports has-el2-e2h0 on every CPU.
    assert.deepEqual(report.traits.init.supported, ['power-off', 'psci-0.2', 'has-el2-e2h0'])
    const known = Object.keys(vcpuFeatures) as VcpuFeature[]
    assert.deepEqual(
      known.filter((feature) => featureSupport(report, feature) === 'unknown'),
      ['el1-32bit', 'pmu-v3', 'sve', 'ptrauth-address', 'ptrauth-generic', 'has-el2'],
    )
    // The kernel does not know its bit.
    assert.equal(featureSupport(report, 'pmu-v3-strict'), 'no')
    assert.equal(deviceSupport(report, 'KVM_DEV_TYPE_ARM_VGIC_V3'), 'unknown')
    assert.equal(report.capabilities.KVM_CAP_ARM_SVE, undefined)
  })

  test('claims nothing that another interrupt controller decides', () => {
    const v2 = structuredClone(builtInReport('linux-6.18-max'))
    const row = v2.registers.find(({ name }) => name === 'ID_AA64PFR0_EL1')!
    row.value = hex(BigInt(row.value!) & ~(0xfn << 24n))
    v2.capabilities.KVM_CAP_MAX_VCPUS = [8, 8]
    const report = reportFromFingerprint(graviton('N1', '6.18'), v2)
    assert.equal(report.capabilities.KVM_CAP_MAX_VCPUS, undefined)
    assert.ok(untriedFields(report).includes('ID_AA64PFR0_EL1.GIC'))
    using kvm = openKvm(simulator(report))
    using vm = kvm.createVm()
    for (const id of [0, 8, 511]) vm.createVcpu(id, { features: ['psci-0.2'] })
    assert.throws(() => vm.createVcpu(512, { features: ['psci-0.2'] }), { code: 'EINVAL' })
  })

  test('accepts what is lower than the hardware’s, and nothing higher', () => {
    using kvm = openKvm(simulator(imported('V1', '6.18')))
    using vm = kvm.createVm()
    using vcpu = vm.createVcpu(0, { features: ['psci-0.2'] })
    const name = 'ID_AA64ISAR0_EL1'
    const sha3 = 0xfn << 32n
    const value = vcpu.registers.get(name)
    assert.equal((value & sha3) >> 32n, 1n)
    assert.throws(() => vcpu.registers.set(name, (value & ~sha3) | (2n << 32n)), { code: 'EINVAL' })
    vcpu.registers.set(name, value & ~sha3)
    assert.equal(vcpu.registers.get(name), value & ~sha3)
  })

  test('is refused for a host with other firmware registers, and for one with an older PSCI', () => {
    assert.throws(
      () => reportFromFingerprint(graviton('N1', '6.18'), builtInReport('linux-6.1-neoverse-n1')),
      {
        name: 'UnlikeHostError',
        message: /KVM_REG_ARM_VENDOR_HYP_BMAP_2.* lacks/,
      },
    )
    const older = structuredClone(builtInReport('linux-6.18-neoverse-n1'))
    ruleOf(older, 'KVM_REG_ARM_PSCI_VERSION', 'values').accepts = ['0x10000']
    assert.throws(() => reportFromFingerprint(graviton('N1', '6.18'), older), /PSCI_VERSION 0x10003/)
  })
})

/** Values of four bits of a register that a fresh VM of the host accepts, the others unchanged. */
function accepted(report: Report, name: string, lsb: bigint): number[] {
  using kvm = openKvm(simulator(report))
  using vm = kvm.createVm()
  using vcpu = vm.createVcpu(0, { features: ['psci-0.2'] })
  const value = vcpu.registers.get(encodeRegister(name))
  return Array.from({ length: 16 }, (_, content) => content).filter((content) => {
    try {
      vcpu.registers.set(encodeRegister(name), (value & ~(0xfn << lsb)) | (BigInt(content) << lsb))
      return true
    } catch {
      return false
    }
  })
}

describe('the rules of real CPUs that no recorded host has', () => {
  const cases: [
    cpu: GravitonCpu,
    kernel: GravitonKernel,
    register: string,
    lsb: bigint,
    accepts: number[],
  ][] = [
    // DoubleLock of −1 is signed: nothing above it.
    ['V1', '6.18', 'ID_AA64DFR0_EL1', 36n, [8, 9, 10, 11, 12, 13, 14, 15]],
    // TGRAN4_2, TGRAN64_2 and TGRAN16_2 take their own value and the safe one.
    ['V2', '6.18', 'ID_AA64MMFR0_EL1', 40n, [1, 2]],
    ['V2', '6.18', 'ID_AA64MMFR0_EL1', 36n, [1, 2]],
    ['V2', '6.18', 'ID_AA64MMFR0_EL1', 32n, [1, 2]],
    // TGRAN4 is signed.
    ['N1', '6.18', 'ID_AA64MMFR0_EL1', 28n, [0, 8, 9, 10, 11, 12, 13, 14, 15]],
    // MPAM and NV are hidden, and the CPU's own values are still accepted.
    ['V1', '6.18', 'ID_AA64PFR0_EL1', 40n, [0, 1]],
    ['N1', '6.18', 'ID_AA64PFR0_EL1', 40n, [0]],
    ['V2', '6.18', 'ID_AA64MMFR2_EL1', 24n, [0, 2]],
    ['V2', '6.18', 'ID_AA64PFR0_EL1', 0n, [1]],
    // Without rules by field, only CSV2 and CSV3 may be lowered.
    ['V1', '6.1', 'ID_AA64PFR0_EL1', 56n, [0, 1]],
    ['V1', '6.1', 'ID_AA64PFR0_EL1', 40n, [1]],
    ['V1', '6.1', 'ID_AA64ISAR0_EL1', 32n, [1]],
  ]
  for (const [cpu, kernel, name, lsb, accepts] of cases) {
    test(`${name} bits ${lsb + 3n}:${lsb} of Neoverse ${cpu} under ${kernel} accept ${accepts.join(' ')}`, () => {
      assert.deepEqual(accepted(imported(cpu, kernel), name, lsb), accepts)
    })
  }

  for (const kernel of ['6.1', '6.18'] as const) {
    test(`under ${kernel} a CPU without AArch32 ignores writes to AArch32 ID registers`, () => {
      const report = imported('V2', kernel)
      using kvm = openKvm(simulator(report), { ordering: 'kernel' })
      using vm = kvm.createVm()
      const vcpu = vm.createVcpu(0, { features: ['psci-0.2'] })
      const names = ['ID_PFR0_EL1', 'ID_DFR0_EL1', 'ID_MMFR4_EL1', 'ID_ISAR6_EL1', 'MVFR2_EL1', 'ID_PFR2_EL1']
      const check = () => {
        for (const name of names.map(encodeRegister)) {
          for (const value of [0n, 0x1000_0131n, 0xffff_ffffn]) vcpu.registers.set(name, value)
          assert.equal(vcpu.registers.get(name), 0n)
        }
      }
      check()
      vcpu.freeze()
      check()
      const masked = report.registers.filter(({ mask }) => mask !== undefined).map(({ id }) => BigInt(id))
      assert.deepEqual(masked.filter(isAArch32IdRegister), [])
    })
  }

  test('do not follow an emulated CPU of the same name that lacks what the real one has', () => {
    const emulated = structuredClone(builtInReport('linux-6.18-neoverse-n1'))
    const midr = emulated.registers.find(({ name }) => name === 'MIDR_EL1')!
    midr.value = hex(values('V1', '6.18').get('MIDR_EL1')!)
    const found = reportFromFingerprint(graviton('V1', '6.18'), emulated)
    const row = found.registers.find(({ name }) => name === 'ID_AA64PFR0_EL1')!
    assert.ok(row.untried?.includes('43:40'))
    assert.deepEqual(accepted(found, 'ID_AA64PFR0_EL1', 40n), [0, 1])
  })

  test('of Neoverse N1 are those recorded on its kernel', () => {
    const recorded = new Map(builtInReport('linux-6.18-neoverse-n1').registers.map((row) => [row.id, row]))
    const id = hex(encodeRegister('ID_AA64MMFR0_EL1'))
    const found = reportFromFingerprint(graviton('N1', '6.18'), builtInReport('linux-6.18-max'))
    const row = found.registers.find((register) => register.id === id)!
    assert.deepEqual(row, { ...recorded.get(id)!, value: row.value })
  })
})

function isAArch32({ register }: { register: { id: string } }): boolean {
  return isAArch32IdRegister(BigInt(register.id))
}

/** Fields that stop the move under Firecracker, and the codes of findings about AArch32 ID registers. */
function stopped(from: GravitonCpu, to: GravitonCpu, kernel: GravitonKernel) {
  const hosts = (cpu: GravitonCpu) =>
    reportFromFingerprint(graviton(cpu, kernel), builtInReport(`linux-${kernel}-max`))
  using source = openKvm(simulator(hosts(from)))
  using destination = openKvm(simulator(hosts(to)))
  const { findings, possible } = verdict(captureHost(source), destination, vmmRules('firecracker'))
  assert.ok(!possible)
  const registers = findings.filter((finding) => finding.register !== undefined)
  return {
    fields: registers
      .filter((finding) => finding.stops && !isAArch32(finding) && finding.code === 'field-refused')
      .map(({ register, field }) => `${register.name}.${field}`),
    aarch32: [...new Set(registers.filter(isAArch32).map(({ code }) => code))],
  }
}

describe('moving between Graviton hosts of different models', () => {
  const TGRAN = ['TGRAN4_2', 'TGRAN64_2', 'TGRAN16_2'].map((field) => `ID_AA64MMFR0_EL1.${field}`)
  const cases: [
    from: GravitonCpu,
    to: GravitonCpu,
    kernel: GravitonKernel,
    fields: readonly string[] | number,
    aarch32: readonly string[],
  ][] = [
    [
      'V1',
      'V2',
      '6.18',
      ['ID_AA64PFR0_EL1.EL0', 'ID_AA64ISAR0_EL1.SM4', 'ID_AA64ISAR0_EL1.SM3', ...TGRAN],
      ['aarch32-id-lost'],
    ],
    // ID_DFR0_EL1.CopDbg of 0 is refused by every kernel that lets it be written.
    ['V2', 'V1', '6.18', 15, ['aarch32-id-refused']],
    ['V1', 'V2', '6.1', 18, ['aarch32-id-lost']],
    ['V2', 'V1', '6.1', 18, ['aarch32-id-refused']],
    [
      'N1',
      'V1',
      '6.18',
      [
        'ID_AA64DFR0_EL1.DoubleLock',
        // KVM has no rule for these three, so they must be equal.
        'ID_AA64MMFR2_EL1.EVT',
        'ID_AA64MMFR2_EL1.FWB',
        'ID_AA64MMFR2_EL1.IDS',
      ],
      [],
    ],
  ]
  for (const [from, to, kernel, fields, aarch32] of cases) {
    test(`Neoverse ${from} → ${to} under ${kernel} meets what the kernel refuses, and AArch32 once`, () => {
      const found = stopped(from, to, kernel)
      assert.deepEqual(typeof fields === 'number' ? found.fields.length : found.fields, fields)
      assert.deepEqual(found.aarch32, aarch32)
    })
  }
})

function unknown(from: Report, to: Report): readonly string[] {
  using source = openKvm(simulator(from))
  using destination = openKvm(simulator(to))
  const rules = vmmRules('strict')
  return verdict(captureHost(source), destination, rules, {
    destination: vmOn(rules, factsOfReport(to), ['psci-0.2']),
  }).unknown
}

describe('a move that depends on fields nobody tried', () => {
  test('says that it is not known, and only such a move does', () => {
    const graviton2 = imported('N1', '6.18')
    assert.deepEqual(untriedFields(graviton2).includes('ID_AA64PFR0_EL1.EL3'), true)
    // QEMU’s Neoverse N1 has no EL3.
    assert.ok(unknown(builtInReport('linux-6.18-neoverse-n1'), graviton2).includes('destination-id-fields'))
    assert.ok(!unknown(graviton2, graviton2).includes('destination-id-fields'))
    assert.ok(!unknown(graviton2, builtInReport('linux-6.18-neoverse-n1')).includes('destination-id-fields'))
  })
})

describe('reading a fingerprint', () => {
  test('keeps what it says of the host', () => {
    const { firecrackerVersion, kernelVersion, microcodeVersion, biosVersion, biosRevision } = graviton(
      'V1',
      '6.18',
    )
    assert.deepEqual(
      { firecrackerVersion, kernelVersion, microcodeVersion, biosVersion, biosRevision },
      {
        firecrackerVersion: '1.16.0-dev',
        kernelVersion: '6.18.30-61.116.amzn2023.aarch64',
        microcodeVersion: '0x0000000000000001',
        biosVersion: '1.0',
        biosRevision: '1.0',
      },
    )
  })

  const good = JSON.parse(readFileSync(gravitonFile('N1', '6.1'), 'utf8')) as Record<string, unknown>
  const config = good['guest_cpu_config'] as { reg_modifiers: unknown[] }
  const wrong: [what: string, data: unknown, path: string, problem: RegExp][] = [
    ['a template', config, '$', /is not a fingerprint but a CPU template of Firecracker/],
    ['something else', { id: 1 }, '$', /no guest_cpu_config/],
    ['one that lacks a key', { ...good, bios_version: undefined }, '$.bios_version', /string|undefined/i],
    [
      'one whose kernel has a name with terminal commands',
      { ...good, kernel_version: '6.12\u001b[31m' },
      '$.kernel_version',
      /contains control, bidirectional/,
    ],
    [
      'one of an x86 host',
      { ...good, guest_cpu_config: { kvm_capabilities: [], cpuid_modifiers: [], msr_modifiers: [] } },
      '$.guest_cpu_config.cpuid_modifiers',
      /is no key of a CPU template for aarch64/,
    ],
    [
      'one without registers',
      { ...good, guest_cpu_config: {} },
      '$.guest_cpu_config',
      /holds no ID_AA64PFR0_EL1/,
    ],
    [
      'one with open bits',
      { ...good, guest_cpu_config: { reg_modifiers: [{ addr: '0x603000000013c020', bitmap: '0bx' }] } },
      '$.guest_cpu_config.reg_modifiers[0].bitmap',
      /leaves bits of ID_AA64PFR0_EL1 open/,
    ],
    [
      'one with a register twice',
      { ...good, guest_cpu_config: { reg_modifiers: [...config.reg_modifiers, config.reg_modifiers[0]] } },
      '$.guest_cpu_config.reg_modifiers[242].addr',
      /appears twice/,
    ],
  ]
  for (const [what, data, path, problem] of wrong) {
    test(`refuses ${what}, naming the entry`, () => {
      assert.throws(() => parseFingerprint(JSON.stringify(data), 'file'), {
        name: 'FormatError',
        path,
        message: problem,
      })
    })
  }
})
