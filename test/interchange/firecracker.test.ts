import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import * as fc from 'fast-check'
import { computeBaseline } from '../../lib/fleet/baseline/baseline.js'
import { checkBaseline } from '../../lib/fleet/baseline/format.js'
import { baselineConfiguration, baselineOfTemplate } from '../../lib/interchange/baseline.js'
import { guestConfiguration } from '../../lib/interchange/configuration.js'
import {
  type CpuTemplate,
  firecrackerTemplate,
  formatCpuTemplate,
  parseCpuTemplate,
} from '../../lib/interchange/firecracker.js'
import { openKvm } from '../../lib/kvm/index.js'
import { encodeRegister, registerWidth } from '../../lib/registers/index.js'
import { builtInHosts, builtInReport, simulator } from '../../lib/hosts/index.js'

const read = (data: unknown) => parseCpuTemplate(JSON.stringify(data), 'template.json')
const register = (bitmap: string, addr = '0x603000000013c020') => ({ reg_modifiers: [{ addr, bitmap }] })

describe('reading a CPU template of Firecracker', () => {
  test('every key may be missing', () => {
    assert.deepEqual(read({}), {
      template: { kvmCapabilities: [], vcpuFeatures: [], registers: [] },
      warnings: [],
    })
  })

  test('capabilities, features and registers are understood', () => {
    const { template, warnings } = read({
      kvm_capabilities: ['171', '!172'],
      vcpu_features: [{ index: 0, bitmap: '0b111xxxx' }],
      reg_modifiers: [{ addr: '0x603000000013c020', bitmap: '0bx_01x' }],
    })
    assert.deepEqual(template, {
      kvmCapabilities: [
        { number: 171, required: true },
        { number: 172, required: false },
      ],
      vcpuFeatures: [{ index: 0, filter: 0x70n, value: 0x70n }],
      registers: [{ id: encodeRegister('ID_AA64PFR0_EL1'), filter: 0b110n, value: 0b010n }],
    })
    assert.deepEqual(warnings, [])
  })

  const accepted: [what: string, data: unknown, filter: bigint, value: bigint][] = [
    ['a bitmap without 0b', register('10x'), 0b110n, 0b100n],
    ['an empty bitmap', register('0b'), 0n, 0n],
    ['separators anywhere', register('0b_1_x_'), 0b10n, 0b10n],
    ['a binary id', register('1', `0b${0x603000000013c020n.toString(2)}`), 1n, 1n],
    ['an id in capitals', register('1', '0x603000000013C020'), 1n, 1n],
  ]
  for (const [what, data, filter, value] of accepted) {
    test(`accepts ${what}`, () => {
      assert.deepEqual(read(data).template.registers, [{ id: 0x603000000013c020n, filter, value }])
    })
  }

  const refused: [what: string, data: unknown, path: string, problem: RegExp][] = [
    ['a key of x86', { cpuid_modifiers: [] }, '$.cpuid_modifiers', /is no key of a CPU template for aarch64/],
    ['a number for a capability', { kvm_capabilities: [171] }, '$.kvm_capabilities[0]', /string/],
    [
      'a capability of letters',
      { kvm_capabilities: ['!a2'] },
      '$.kvm_capabilities[0]',
      /"!a2" is no capability/,
    ],
    ['a capability of 33 bits', { kvm_capabilities: ['4294967296'] }, '$.kvm_capabilities[0]', /32 bits/],
    [
      'an eighth word of features',
      { vcpu_features: [{ index: 7, bitmap: '1' }] },
      '$.vcpu_features[0].index',
      /6/,
    ],
    [
      '33 digits of features',
      { vcpu_features: [{ index: 0, bitmap: '1'.repeat(33) }] },
      '$.vcpu_features[0].bitmap',
      /more than 32 digits/,
    ],
    ['a decimal id', register('1', '69'), '$.reg_modifiers[0].addr', /"69" is no register id: 0x/],
    ['an id of 65 bits', register('1', '0x16030000000140000'), '$.reg_modifiers[0].addr', /64 bits/],
    ['a digit X', register('0bX'), '$.reg_modifiers[0].bitmap', /digit "X"/],
    ['129 digits', register('x'.repeat(129)), '$.reg_modifiers[0].bitmap', /more than 128 digits/],
    [
      'a bit beyond the register',
      register(`1${'0'.repeat(64)}`),
      '$.reg_modifiers[0].bitmap',
      /beyond the 64/,
    ],
    [
      'vector lengths',
      register('1', `0x${encodeRegister('KVM_REG_ARM64_SVE_VLS').toString(16)}`),
      '$.reg_modifiers[0].addr',
      /KVM_REG_ARM64_SVE_VLS has 512 bits/,
    ],
  ]
  for (const [what, data, path, problem] of refused) {
    test(`refuses ${what}, naming the entry`, () => {
      assert.throws(() => read(data), { name: 'FormatError', path, message: problem })
    })
  }

  test('a dump, whose bitmaps all have 128 digits, is read with a warning', () => {
    const { template, warnings } = read(register('0'.repeat(127) + '1'))
    assert.deepEqual(template.registers, [{ id: 0x603000000013c020n, filter: (1n << 64n) - 1n, value: 1n }])
    assert.match(warnings.join(), /longer than their registers.*Firecracker refuses/)
  })

  test('a register modified twice is told of', () => {
    const { warnings } = read({
      reg_modifiers: [...register('1').reg_modifiers, ...register('0').reg_modifiers],
    })
    assert.match(warnings.join(), /ID_AA64PFR0_EL1 is modified twice/)
  })
})

describe('writing a CPU template of Firecracker', () => {
  const modifier = fc
    .constantFrom('KVM_REG_ARM_STD_BMAP', 'ID_AA64PFR0_EL1', 'MIDR_EL1', 'CCSIDR_EL1[0]', 'v7', 'x3')
    .chain((name) => {
      const id = encodeRegister(name)
      const word = fc.bigInt({ min: 0n, max: (1n << BigInt(registerWidth(id))) - 1n })
      return fc.tuple(word, word).map(([filter, value]) => ({ id, filter, value: value & filter }))
    })
  const anyTemplate: fc.Arbitrary<CpuTemplate> = fc.record(
    {
      kvmCapabilities: fc.array(
        fc.tuple(fc.nat(0xffff_ffff), fc.boolean()).map(([number, required]) => ({ number, required })),
      ),
      vcpuFeatures: fc.array(
        fc.tuple(fc.nat(6), fc.nat(0xffff_ffff), fc.nat(0xffff_ffff)).map(([index, filter, value]) => ({
          index,
          filter: BigInt(filter),
          value: BigInt(filter) & BigInt(value),
        })),
      ),
      registers: fc.uniqueArray(modifier, { selector: ({ id }) => id }),
    },
    { noNullPrototype: true },
  )

  test('what was written is read as it was, registers by ascending id', () => {
    fc.assert(
      fc.property(anyTemplate, (template) => {
        const { template: found, warnings } = parseCpuTemplate(formatCpuTemplate(template), 'text')
        const registers = template.registers.toSorted((a, b) => (a.id < b.id ? -1 : 1))
        assert.deepEqual(found, { ...template, registers })
        assert.deepEqual(warnings, [])
      }),
    )
  })

  const wrong: [what: string, registers: CpuTemplate['registers'], problem: RegExp][] = [
    ['a register twice', [1n, 2n].map((value) => ({ id: 0x603000000013c020n, filter: 3n, value })), /twice/],
    ['vector lengths', [{ id: encodeRegister('KVM_REG_ARM64_SVE_VLS'), filter: 1n, value: 1n }], /512 bits/],
    ['a bit too high', [{ id: encodeRegister('fpcr'), filter: 1n << 32n, value: 0n }], /beyond its 32 bits/],
  ]
  for (const [what, registers, problem] of wrong) {
    test(`refuses ${what}`, () => {
      assert.throws(() => formatCpuTemplate({ kvmCapabilities: [], vcpuFeatures: [], registers }), problem)
    })
  }
})

describe('a CPU template that pins a host', () => {
  for (const name of builtInHosts().filter((host) => host !== 'seed-v6')) {
    test(`is accepted by ${name} when written as Firecracker does`, () => {
      using kvm = openKvm(simulator(name))
      const { text } = firecrackerTemplate(guestConfiguration(kvm))
      const { template, warnings } = parseCpuTemplate(text, 'text')
      assert.deepEqual(warnings, [])
      assert.ok(template.registers.length > 10)
      using vm = kvm.createVm()
      const vcpus = [0, 1].map((id) => vm.createVcpu(id, { features: ['psci-0.2'] }))
      for (const { id, filter, value } of template.registers) {
        const modified = (vcpus[0]!.registers.get(id) & ~filter) | value
        for (const vcpu of vcpus) vcpu.registers.set(id, modified)
      }
    })
  }

  test('asks for features as Firecracker’s own template for SVE and pointer authentication does', () => {
    using kvm = openKvm(simulator('linux-6.12-max'))
    const features = ['psci-0.2', 'sve', 'ptrauth-address', 'ptrauth-generic'] as const
    const { text, inexpressible } = firecrackerTemplate(guestConfiguration(kvm, features))
    const { kvm_capabilities, vcpu_features } = JSON.parse(text) as Record<string, unknown>
    assert.deepEqual(kvm_capabilities, ['170', '171', '172'])
    assert.deepEqual(vcpu_features, [{ index: 0, bitmap: `0b${'x'.repeat(25)}111xxxx` }])
    assert.match(inexpressible.join('\n'), /SVE vector lengths 128, .*2048: .*512 bits/)
  })

  test('says that Firecracker has no PMU', () => {
    using kvm = openKvm(simulator('linux-6.12-max'))
    const { inexpressible, template } = firecrackerTemplate(guestConfiguration(kvm, ['psci-0.2', 'pmu-v3']))
    assert.match(inexpressible.join('\n'), /pmu-v3: Firecracker refuses/)
    assert.deepEqual(template.vcpuFeatures, [])
  })

  test('each bitmap has as many digits as its register', () => {
    using kvm = openKvm(simulator('linux-6.1-cortex-a57'))
    const { text } = firecrackerTemplate(guestConfiguration(kvm))
    const { reg_modifiers } = JSON.parse(text) as { reg_modifiers: { addr: string; bitmap: string }[] }
    for (const { addr, bitmap } of reg_modifiers) {
      assert.match(addr, /^0x[1-9a-f][0-9a-f]*$/)
      assert.match(bitmap, /^0b[01x]+$/)
      assert.equal(bitmap.length - 2, registerWidth(BigInt(addr)))
    }
  })
})

describe('a CPU template that pins a baseline', () => {
  const sets: string[][] = [
    ['linux-6.18-neoverse-n1', 'linux-7.2-max'],
    ['linux-6.12-neoverse-n1', 'linux-6.18-max', 'linux-7.2-cortex-a57'],
    ['linux-5.10-neoverse-n1', 'linux-6.1-neoverse-n1', 'linux-7.2-neoverse-n1'],
  ]
  for (const hosts of sets) {
    const fleet = computeBaseline(
      hosts.map((name) => ({ name, report: builtInReport(name) })),
      { features: ['psci-0.2'] },
    )
    const { template, inexpressible } = firecrackerTemplate(baselineConfiguration(fleet))
    for (const host of hosts) {
      test(`of ${hosts.join(', ')} is accepted on ${host}`, () => {
        assert.ok(template.registers.length > 0)
        using kvm = openKvm(simulator(host))
        using vm = kvm.createVm()
        const vcpu = vm.createVcpu(0, { features: fleet.features })
        for (const { id, filter, value } of template.registers) {
          vcpu.registers.set(id, (vcpu.registers.get(id) & ~filter) | value)
        }
      })
    }

    test(`of ${hosts.join(', ')} leaves what Firecracker cannot write to the host, and says so`, () => {
      assert.ok(!template.registers.some(({ id }) => id === encodeRegister('MIDR_EL1')))
      assert.match(inexpressible.join('\n'), /MIDR_EL1/)
    })
  }

  test('is a baseline again, of the same registers', () => {
    const fleet = computeBaseline(
      ['linux-6.12-max', 'linux-7.2-max'].map((name) => ({ name, report: builtInReport(name) })),
      { features: ['psci-0.2', 'ptrauth-address', 'ptrauth-generic'] },
    )
    const { template } = firecrackerTemplate(baselineConfiguration(fleet))
    const again = checkBaseline(JSON.parse(JSON.stringify(baselineOfTemplate(template, 'template'))), 'text')
    assert.deepEqual(again.features, ['psci-0.2', 'ptrauth-address', 'ptrauth-generic'])
    assert.equal(again.psciVersion, fleet.psciVersion)
    const { registers } = firecrackerTemplate(baselineConfiguration(again)).template
    const sorted = (of: typeof registers) => of.toSorted((a, b) => (a.id < b.id ? -1 : 1))
    assert.deepEqual(sorted(registers), sorted(template.registers))
  })

  const wrong: [what: string, template: Partial<CpuTemplate>, problem: RegExp][] = [
    ['POWER_OFF', { vcpuFeatures: [{ index: 0, filter: 1n, value: 0n }] }, /POWER_OFF/],
    [
      'an unknown feature',
      { vcpuFeatures: [{ index: 0, filter: 1n << 31n, value: 1n << 31n }] },
      /0x80000000 of features/,
    ],
    ['another word of features', { vcpuFeatures: [{ index: 1, filter: 1n, value: 1n }] }, /features\[1\]/],
    [
      'a vector register',
      { registers: [{ id: encodeRegister('v0'), filter: 1n, value: 1n }] },
      /v0 has 128 bits/,
    ],
  ]
  for (const [what, part, problem] of wrong) {
    test(`that changes ${what} is no baseline`, () => {
      const template = { kvmCapabilities: [], vcpuFeatures: [], registers: [], ...part }
      assert.throws(() => baselineOfTemplate(template, 'template'), {
        name: 'TemplateError',
        message: problem,
      })
    })
  }
})
