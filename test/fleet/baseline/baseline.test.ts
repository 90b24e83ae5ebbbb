import assert from 'node:assert/strict'
import { describe, it, test } from 'vitest'
import { apply } from '../../../lib/fleet/baseline/apply.js'
import { computeBaseline } from '../../../lib/fleet/baseline/baseline.js'
import type { NamedReport } from '../../../lib/fleet/baseline/candidate.js'
import type { Baseline } from '../../../lib/fleet/baseline/format.js'
import { openKvm } from '../../../lib/kvm/index.js'
import { decodeFields, encodeRegister, fieldValue, registerFields } from '../../../lib/registers/index.js'
import type { Report } from '../../../lib/report/report.js'
import { builtInReport, simulator } from '../../../lib/hosts/index.js'
import { cpus, kernels, recordedHosts } from '../../lab-kernels/lab-hosts.js'
import { parseDocument } from '../../../lib/documents/document.js'
import { baselineFormat, checkBaseline } from '../../../lib/fleet/baseline/format.js'
import { watchVms } from '../../migration/open-vms.js'
import { rowOf } from '../../report/rows.js'

const hosts: readonly NamedReport[] = recordedHosts.map(({ name }) => ({ name, report: builtInReport(name) }))

function named(...names: string[]): NamedReport[] {
  return names.map((name) => ({ name, report: builtInReport(name) }))
}

/** All hosts, those of each kernel and those of each CPU. */
const subsets: readonly { what: string; members: readonly NamedReport[] }[] = [
  { what: 'all fifteen hosts', members: hosts },
  ...kernels.map((kernel) => ({
    what: `the hosts of Linux ${kernel}`,
    members: hosts.filter(({ name }) => name.startsWith(`linux-${kernel}-`)),
  })),
  ...cpus.map((cpu) => ({
    what: `the hosts on ${cpu}`,
    members: hosts.filter(({ name }) => name.endsWith(`-${cpu}`)),
  })),
]

function pinned(found: Baseline, name: string): bigint {
  const entry = [...found.idRegisters, ...found.registers].find((register) => register.name === name)
  assert.ok(entry, name)
  return BigInt(entry.value)
}

function bitmaps(found: Baseline): string[] {
  return found.bitmaps.map(({ name, value }) => `${name.replace('KVM_REG_ARM_', '')} ${value}`)
}

function changed(report: Report, change: (copy: Report) => void): Report {
  const copy = structuredClone(report)
  change(copy)
  return copy
}

describe('a baseline', () => {
  for (const { what, members } of subsets) {
    it(`of ${what} is accepted by each of them`, () => {
      const found = computeBaseline(members)
      for (const { name, report } of members) {
        const { vm, registers, refused } = apply(openKvm(simulator(report)), found, { vcpus: 2 })
        vm.close()
        assert.deepEqual(refused, [], name)
        assert.ok(registers.length > 100, name)
      }
    })
  }

  it('of one host is what its fresh VM has', () => {
    for (const host of hosts) {
      const found = computeBaseline([host])
      assert.deepEqual(found.unreconciled, [], host.name)
      assert.deepEqual(found.classes, [[host.name]])
      for (const { id, value } of found.bitmaps) {
        assert.equal(value, host.report.registers.find((entry) => entry.id === id)?.value)
      }
    }
  })

  it('hides what one host does not have, and leaves on what one cannot hide', () => {
    const everything = ['STD_BMAP 0x1', 'STD_HYP_BMAP 0x1', 'VENDOR_HYP_BMAP 0x3']
    // VENDOR_HYP_BMAP_2 tells of calls that userspace answers: KVM shows none unless asked.
    const cases: [string[], string[], string | null][] = [
      [['linux-6.1-max', 'linux-6.12-max'], everything, '0x10001'],
      [['linux-6.18-max', 'linux-7.2-max'], [...everything, 'VENDOR_HYP_BMAP_2 0x0'], '0x10003'],
      [
        ['linux-5.10-max', 'linux-6.1-max'],
        ['STD_BMAP 0x0', 'STD_HYP_BMAP 0x1', 'VENDOR_HYP_BMAP 0x0'],
        '0x10000',
      ],
      [['linux-5.10-max', 'linux-5.10-cortex-a57'], [], '0x10000'],
    ]
    for (const [names, expected, psci] of cases) {
      const found = computeBaseline(named(...names))
      assert.deepEqual(bitmaps(found), expected, names.join())
      assert.equal(found.psciVersion, psci)
    }
  })

  it('says that a service which one host always answers is not to be had on another', () => {
    const old = builtInReport('linux-5.10-max')
    const without = changed(old, ({ traits }) => {
      traits.hypercalls.services = []
    })
    const newer = changed(builtInReport('linux-6.1-max'), (copy) => {
      for (const { write } of copy.registers) if (write?.rule === 'subset') write.of = '0x0'
    })
    for (const other of [without, newer]) {
      const found = computeBaseline([
        { name: 'old', report: old },
        { name: 'other', report: other },
      ])
      assert.deepEqual(
        found.unreconciled
          .filter(({ kind }) => kind === 'service')
          .map(({ fields, found: ways }) => [fields, ways]),
        [
          [
            ['pv-time'],
            [
              { value: 'always', hosts: ['old'] },
              { value: 'never', hosts: ['other'] },
            ],
          ],
        ],
      )
    }
  })

  it('of hosts with one kernel and one CPU leaves nothing unreconciled', () => {
    const found = computeBaseline(named('linux-6.18-max', 'linux-7.2-max'))
    assert.deepEqual(found.unreconciled, [])
    assert.deepEqual(found.features, ['psci-0.2', 'pmu-v3', 'sve', 'ptrauth-address', 'ptrauth-generic'])
    assert.equal(found.vectorLengths, '0xffff')
  })

  it('puts hosts that can be reconciled into one class, the largest first', () => {
    const found = computeBaseline(hosts).classes
    assert.deepEqual(
      found.map((group) => group.length),
      [2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    )
    assert.deepEqual(
      new Set(found.slice(0, 3).map((group) => group.join(' '))),
      new Set(cpus.map((cpu) => `linux-6.18-${cpu} linux-7.2-${cpu}`)),
    )
  })

  it('takes equal hosts for one', () => {
    const report = builtInReport('linux-6.1-max')
    const many = Array.from({ length: 300 }, (_, index) => ({ name: `max-${index}`, report }))
    const { classes } = computeBaseline([...many, ...named('linux-6.1-neoverse-n1')])
    assert.deepEqual(
      classes.map((group) => group.length),
      [300, 1],
    )
  })

  it('names the hosts that cause what stays unreconciled', () => {
    const found = computeBaseline(named('linux-6.12-neoverse-n1', 'linux-7.2-neoverse-n1'))
    const absent = found.unreconciled.find(({ name }) => name === 'KVM_REG_ARM_VENDOR_HYP_BMAP_2')
    assert.deepEqual(absent, {
      kind: 'absent',
      id: '0x6030000000160003',
      name: 'KVM_REG_ARM_VENDOR_HYP_BMAP_2',
      fields: [],
      found: [
        { value: 'absent', hosts: ['linux-6.12-neoverse-n1'] },
        { value: 'present', hosts: ['linux-7.2-neoverse-n1'] },
      ],
    })
    const midr = computeBaseline(named('linux-6.12-max', 'linux-6.12-neoverse-n1')).unreconciled.find(
      ({ name }) => name === 'MIDR_EL1',
    )
    assert.equal(midr?.kind, 'value')
    assert.ok(midr?.fields.includes('PartNum'))
  })

  it('lets a VM have another MIDR_EL1 where every host allows it', () => {
    const found = computeBaseline(named('linux-7.2-max', 'linux-7.2-neoverse-n1'))
    assert.deepEqual(found.capabilities, ['KVM_CAP_ARM_WRITABLE_IMP_ID_REGS'])
    assert.ok(!found.unreconciled.some(({ name }) => name === 'MIDR_EL1'))
    assert.deepEqual(computeBaseline(named('linux-7.2-max', 'linux-6.18-max')).capabilities, [])
  })

  it('shows in each field no more than any host has, by the order of the field', () => {
    const members = named('linux-7.2-max', 'linux-7.2-neoverse-n1', 'linux-7.2-cortex-a57')
    const found = computeBaseline(members, { features: ['psci-0.2'] })
    let compared = 0
    for (const { id, value, mask } of found.idRegisters) {
      for (const field of registerFields(BigInt(id))) {
        const bits = ((1n << BigInt(field.width)) - 1n) << BigInt(field.lsb)
        if ((BigInt(mask) & bits) !== bits) continue
        const chosen = fieldValue(field, BigInt(value))
        const limits = members.map((host) => fieldValue(field, initial(host, id)))
        if (field.safe === 'lower')
          assert.ok(
            limits.every((limit) => chosen <= limit),
            field.name,
          )
        if (field.safe === 'higher')
          assert.ok(
            limits.every((limit) => chosen >= limit),
            field.name,
          )
        if (new Set(limits).size === 1) assert.equal(chosen, limits[0], field.name)
        compared++
      }
    }
    assert.ok(compared > 200, `${compared}`)
    // A signed field: -1 is less than 0.
    assert.equal(
      decodeFields(encodeRegister('ID_AA64MMFR0_EL1'), pinned(found, 'ID_AA64MMFR0_EL1')).find(
        ({ field }) => field.name === 'TGRAN4',
      )?.value,
      0n,
    )
    assert.equal(pinned(found, 'ID_AA64ISAR0_EL1') & 0xf000n, 0x1000n)
  })

  it('takes the vector lengths up to which all hosts have the same', () => {
    const cases: [string, string, string | null][] = [
      ['0xffff', '0xf', '0xf'],
      ['0xffff', '0xb', '0x3'],
      ['0xb', '0xb', '0xb'],
      ['0x3', '0x2', null],
    ]
    for (const [one, other, common] of cases) {
      const members = [one, other].map((lengths, index) => ({
        name: `${index}`,
        report: withLengths(lengths),
      }))
      const found = computeBaseline(members)
      assert.equal(found.vectorLengths, common, `${one} ${other}`)
      assert.equal(found.features.includes('sve'), common !== null)
      if (common === null) {
        assert.deepEqual(found.withoutFeatures, [{ feature: 'sve', reason: 'unreconciled', hosts: [] }])
      }
      const [vm, outcome] = applyOn(members[1]!.report, found)
      assert.deepEqual(outcome, [])
      vm.close()
    }
  })

  it('keeps a feature out that one host lacks, and says which', () => {
    const found = computeBaseline(named('linux-6.1-max', 'linux-6.1-neoverse-n1'))
    assert.ok(!found.features.includes('sve'))
    assert.deepEqual(
      found.withoutFeatures.find(({ feature }) => feature === 'sve'),
      { feature: 'sve', reason: 'lacking', hosts: ['linux-6.1-neoverse-n1'] },
    )
  })

  it('says of which hosts a feature is not known, rather than that they lack it', () => {
    const known = builtInReport('linux-7.2-max')
    const unsure = structuredClone(known)
    const { init } = unsure.traits
    init.supported = init.supported.filter((feature) => feature !== 'sve')
    init.unknown = ['sve']
    unsure.configurations = unsure.configurations.filter(({ features }) => !features.includes('sve'))
    const members = [
      { name: 'known', report: known },
      { name: 'unsure', report: unsure },
    ]
    assert.deepEqual(
      computeBaseline(members).withoutFeatures.find(({ feature }) => feature === 'sve'),
      { feature: 'sve', reason: 'unknown', hosts: ['unsure'] },
    )
    assert.throws(
      () => computeBaseline(members, { features: ['sve'] }),
      /it is not known whether unsure has sve/,
    )
  })

  it('leaves the AArch32 registers alone where a host has no AArch32', () => {
    const without = changed(builtInReport('linux-7.2-max'), (copy) => {
      const row = rowOf(copy, 'ID_PFR0_EL1')
      row.write = { rule: 'bits', bits: '0x0' }
      row.value = '0x0'
    })
    const found = computeBaseline([{ name: 'without', report: without }, ...named('linux-7.2-max')])
    assert.deepEqual(found.unreconciled, [])
    assert.ok(!found.idRegisters.some(({ name }) => name === 'ID_PFR0_EL1'))
  })

  it('is refused to hosts that have no vCPU with the features asked for', () => {
    assert.throws(
      () => computeBaseline(named('linux-6.1-max', 'linux-6.1-cortex-a57'), { features: ['sve'] }),
      {
        name: 'RangeError',
        message: 'linux-6.1-cortex-a57 has no vCPU with the features psci-0.2, sve',
      },
    )
    assert.throws(() => computeBaseline([]), RangeError)
    assert.throws(
      () => computeBaseline(named('linux-6.1-max', 'linux-6.1-max')),
      /two hosts are called linux-6.1-max/,
    )
  })
})

function applyOn(report: Report, found: Baseline): [vm: { close(): void }, refused: string[]] {
  const { vm, refused } = apply(openKvm(simulator(report)), found)
  return [vm, refused.map(({ name }) => name)]
}

/** Of a fresh VM. */
function initial({ report }: NamedReport, id: string): bigint {
  return BigInt(report.registers.find((register) => register.id === id)!.value!)
}

function withLengths(lengths: string): Report {
  return changed(builtInReport('linux-7.2-max'), ({ configurations }) => {
    for (const configuration of configurations) {
      if (!('added' in configuration)) continue
      for (const register of configuration.added) {
        if (register.name === 'KVM_REG_ARM64_SVE_VLS') register.value = lengths
      }
    }
  })
}

test('applying tells every bit that is refused, by its field', () => {
  const found = computeBaseline(named('linux-6.18-neoverse-n1', 'linux-7.2-neoverse-n1'))
  const { vm, refused } = apply(openKvm(simulator('linux-6.1-max')), found)
  vm.close()
  const isar0 = refused.find(({ name }) => name === 'ID_AA64ISAR0_EL1')
  assert.equal(isar0?.errno, 'EINVAL')
  assert.equal(isar0?.refused, isar0.reads! ^ isar0.value)
  assert.deepEqual(isar0?.fields.slice(0, 2), ['RNDR', 'TLB'])
  const second = refused.find(({ name }) => name === 'KVM_REG_ARM_VENDOR_HYP_BMAP_2')
  assert.equal(second?.reads, null)
  assert.ok(refused.some(({ name }) => name === 'KVM_REG_ARM_PSCI_VERSION'))
})

test('applying takes of a refused value what is accepted', () => {
  const found = computeBaseline(named('linux-7.2-neoverse-n1'))
  const isar0 = found.idRegisters.find(({ name }) => name === 'ID_AA64ISAR0_EL1')!
  // DP is bits 47:44: 1 and less are accepted; AES, bits 7:4, cannot be more than 2.
  isar0.value = '0x11130'
  const { vm, registers } = apply(openKvm(simulator('linux-7.2-neoverse-n1')), found)
  vm.close()
  const applied = registers.find(({ name }) => name === 'ID_AA64ISAR0_EL1')!
  assert.deepEqual(applied.fields, ['AES'])
})

test('no VM is left behind where the baseline’s vCPUs cannot be', () => {
  const { backend, open } = watchVms(simulator('linux-7.2-neoverse-n1'))
  const found = { ...computeBaseline(named('linux-7.2-max')), ipaSize: 40 }
  assert.throws(() => apply(openKvm(backend), found), { code: 'EINVAL', syscall: 'KVM_ARM_VCPU_INIT' })
  assert.deepEqual([...open], [])
})

test('every baseline of the recorded hosts is one that its reader accepts', () => {
  for (const { what, members } of subsets) {
    const found = computeBaseline(members)
    assert.deepEqual(checkBaseline(JSON.parse(JSON.stringify(found)), what), found, what)
  }
})

// oxlint-disable-next-line typescript/no-explicit-any -- what is broken on purpose has no type
type Broken = any

for (const [what, change, path, problem] of [
  [
    'a value wider than its register',
    ({ registers }) => (registers[0] = { ...registers[0], id: '0x6020000000110000', value: '0xffffffffff' }),
    '$.registers[0].value',
    /0xffffffffff is wider than the 32 bits of CCSIDR_EL1\[0\]/,
  ],
  [
    'a mask wider than its register',
    ({ registers }) =>
      (registers[0] = { ...registers[0], id: '0x6020000000110000', value: '0x0', mask: '0x1ffffffff' }),
    '$.registers[0].mask',
    /wider than the 32 bits/,
  ],
  [
    'a register twice',
    ({ idRegisters }) => idRegisters.push(idRegisters[0]),
    '$.idRegisters[1].id',
    /is already at \$\.idRegisters\[0\]/,
  ],
  [
    'a wide firmware register',
    (document) => (document.bitmaps[0].id = '0x6040000000160000'),
    '$.bitmaps[0].id',
    /a firmware register has 64 bits, and this id says 128/,
  ],
] as readonly [string, (document: Broken) => unknown, string, RegExp][]) {
  test(`a baseline with ${what} is refused, naming the entry`, () => {
    const document: Broken = structuredClone(computeBaseline(named('linux-6.12-max', 'linux-7.2-max')))
    document.idRegisters.splice(1)
    document.registers.push(document.idRegisters[0])
    change(document)
    assert.throws(() => checkBaseline(document, 'b.json'), { name: 'FormatError', path, message: problem })
  })
}

test('a baseline with a key twice is refused', () => {
  const json = JSON.stringify(computeBaseline(named('linux-6.12-max'))).replace(
    '"ipaSize":',
    '"ipaSize":40,"ipaSize":',
  )
  assert.throws(() => parseDocument(json, 'b.json', baselineFormat), {
    path: '$.ipaSize',
    message: /appears twice/,
  })
})
