/** Every code is provoked, is documented, has words, and passes the reader of verdicts. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'vitest'
import { builtInHosts, simulator } from '../../lib/hosts/index.js'
import { openKvm } from '../../lib/kvm/index.js'
import { captureHost, type CaptureHostOptions } from '../../lib/migration/capture.js'
import { type Finding, type FindingCode, findingCodes } from '../../lib/migration/finding.js'
import type { State } from '../../lib/migration/state.js'
import { type MoveVerdict, verdict } from '../../lib/migration/verdict.js'
import { checkVerdict, type VerdictDocument } from '../../lib/migration/verdict-document.js'
import { type VmmName, vmmRules } from '../../lib/migration/vmm/names.js'
import type { VmmVm } from '../../lib/migration/vmm/rules.js'
import { findingSubject, findingWords } from '../../lib/migration/words.js'
import { newHost } from '../simulator/fixture.js'
import type { Report } from '../../lib/report/report.js'
import { packageRoot } from '../../lib/package-root.js'
import { encodeRegister, registerField, withField } from '../../lib/registers/index.js'
import { errnos } from '../../lib/uapi.js'
import { findingsDocument } from '../../tools/findings-doc.js'
import { breakBackend, type Fault } from '../conformance/broken-kernel.js'

/** A VM, and a destination on which it is judged. */
interface Scenario {
  from: string | Report
  options?: CaptureHostOptions
  change?: (state: State) => void
  to: string | Report
  /** What the destination's KVM answers otherwise. */
  fault?: Fault
  vmm?: VmmName
  /** The VM's interrupt controllers on both sides. */
  gics?: [source: VmmVm['gic'], destination: VmmVm['gic']]
  /** The counter's frequencies on both sides, in Hz. */
  counters?: [source: bigint, destination: bigint]
}

const n1 = 'linux-6.1-neoverse-n1'
const withSve: CaptureHostOptions = { features: ['psci-0.2', 'sve'] }

function gicAt(distributor: string): NonNullable<State['vm']['gic']> {
  const redistributors = [{ address: '0x80a0000', count: 0 }]
  return { version: 3, distributor, redistributors, irqs: 64, initialised: true, registers: [], lines: [] }
}

/** A new code without a scenario does not compile. */
const scenarios: Readonly<Record<FindingCode, Scenario>> = {
  'address-space-refused': { from: n1, change: ({ vm }) => (vm.type = '0x40'), to: n1 },
  'capability-refused': {
    from: n1,
    change: ({ vm }) => (vm.capabilities = ['KVM_CAP_ARM_WRITABLE_IMP_ID_REGS']),
    to: n1,
  },
  'smccc-filter-refused': {
    from: n1,
    change: ({ vm }) => (vm.smcccFilter = [{ base: 0xc600_0040, count: 2, action: 'forward' }]),
    to: n1,
  },
  'vcpu-refused': { from: n1, change: ({ vcpus }) => (vcpus[0]!.id = 100_000), to: n1 },
  'features-refused': { from: 'linux-7.2-max', options: withSve, to: 'linux-7.2-neoverse-n1' },
  'finalize-refused': {
    from: 'linux-7.2-max',
    options: withSve,
    to: 'linux-7.2-max',
    fault: { vcpu: { finalize: () => -errnos.EINVAL } },
  },
  'mp-state-refused': {
    from: n1,
    change: ({ vcpus }) => (vcpus[0]!.mpState = 'suspended'),
    to: 'linux-5.10-neoverse-n1',
  },
  'device-refused': {
    from: n1,
    change: ({ vm }) => (vm.gic = gicAt('0x1')),
    to: n1,
  },
  'device-state-differs': {
    from: n1,
    change: ({ vm }) =>
      (vm.gic = {
        ...gicAt('0x8000000'),
        registers: [{ name: 'GICD_CTLR', offset: '0x0', values: ['0xffff'] }],
      }),
    to: n1,
  },
  'device-not-carried': { from: n1, change: ({ vm }) => (vm.notCarried = ['gic-v2']), to: n1 },
  'events-refused': {
    from: n1,
    change: ({ vcpus }) => (vcpus[0]!.events = `0101${'00'.repeat(62)}`),
    to: 'linux-6.1-cortex-a57',
  },
  'save-refused': {
    from: 'linux-7.2-max',
    options: withSve,
    to: 'linux-7.2-max',
    vmm: 'cloud-hypervisor@52',
  },
  'interrupt-controller-missing': { from: n1, to: n1, vmm: 'cloud-hypervisor', gics: ['gic-v3', 'none'] },
  'interrupt-controller-differs': { from: n1, to: n1, vmm: 'firecracker', gics: ['gic-v3', 'gic-v2'] },
  'vector-state-lost': { from: 'linux-7.2-max', options: withSve, to: 'linux-7.2-max', vmm: 'crosvm' },
  'counter-refused': {
    from: n1,
    to: n1,
    vmm: 'cloud-hypervisor',
    gics: ['gic-v3', 'gic-v3'],
    counters: [62_500_000n, 1_000_000_000n],
  },
  'counter-frequency-changes': {
    from: n1,
    to: n1,
    vmm: 'firecracker',
    gics: ['gic-v3', 'gic-v3'],
    counters: [62_500_000n, 1_000_000_000n],
  },
  'psci-version-refused': { from: 'linux-7.2-neoverse-n1', to: n1 },
  'vector-lengths-change': {
    from: 'linux-7.2-max',
    options: withSve,
    change: changing('KVM_REG_ARM64_SVE_VLS', (value) => value | (1n << 20n)),
    to: 'linux-7.2-max',
    vmm: 'qemu',
  },
  'write-back-refused': {
    from: 'linux-5.10-neoverse-n1',
    to: n1,
    fault: {
      vcpu: {
        setOneReg: (real, id, value) =>
          id === encodeRegister('OSLSR_EL1') ? -errnos.ENOENT : real(id, value),
      },
    },
    vmm: 'qemu',
  },
  'vector-lengths-refused': {
    from: 'linux-7.2-max',
    options: withSve,
    change: changing('KVM_REG_ARM64_SVE_VLS', (value) => value | (1n << 20n)),
    to: 'linux-7.2-max',
  },
  'guest-read-differs': { from: newHost, to: whereGuestsRead('DCZID_EL0', '0x5') },
  'page-size-larger': { from: n1, change: ({ machine }) => (machine!.pageSize = 1024), to: n1 },
  'address-space-smaller': { from: n1, change: ({ machine }) => (machine!.ipaLimit = 52), to: n1 },
  'several-cpu-kinds': {
    from: n1,
    change: ({ machine }) =>
      (machine!.cpuKinds = ['0x411fd050', '0x414fd0b0'].map((midr, index) => {
        return { cpus: `${index}`, midr, revidr: '0x0', caches: [] }
      })),
    to: n1,
  },
  'cpu-identity': { from: 'linux-6.1-max', to: n1 },
  'field-refused': { from: 'linux-7.2-max', to: 'linux-7.2-neoverse-n1' },
  'value-refused': {
    from: n1,
    change: changing('TPIDR_EL0', () => 1n),
    to: n1,
    fault: { vcpu: { setRegs: refusing('TPIDR_EL0') } },
  },
  'mitigation-weaker': { from: 'linux-6.1-max', to: 'linux-6.1-cortex-a57' },
  'caches-differ': { from: 'linux-5.10-max', to: 'linux-5.10-cortex-a57' },
  'register-absent': { from: n1, to: 'linux-5.10-neoverse-n1' },
  'unannounced-register-absent': { from: 'linux-6.12-neoverse-n1', to: 'linux-6.18-neoverse-n1' },
  'pmu-register-absent': { from: 'linux-5.10-neoverse-n1', to: n1 },
  'cache-register-absent': { from: 'linux-6.12-neoverse-n1', to: 'linux-5.10-neoverse-n1' },
  'timer-register-absent': { from: 'linux-6.12-neoverse-n1', to: 'linux-5.10-neoverse-n1' },
  'bitmap-absent': { from: n1, options: { elect: { std: [] } }, to: 'linux-5.10-neoverse-n1' },
  'service-unregistered': { from: n1, to: 'linux-5.10-neoverse-n1' },
  'service-lost': { from: n1, to: 'linux-5.10-neoverse-n1' },
  'service-refused': { from: n1, change: changing('KVM_REG_ARM_VENDOR_HYP_BMAP', () => 0x13n), to: n1 },
  'field-differs': {
    from: n1,
    to: n1,
    fault: { vcpu: { getRegs: reading('ID_AA64ISAR0_EL1', (value) => value ^ (1n << 60n)) } },
  },
  'value-differs': {
    from: n1,
    to: n1,
    fault: {
      vcpu: {
        getOneReg: (real, id) => {
          const value = real(id)
          return typeof value === 'bigint' && id === encodeRegister('v0') ? value ^ (1n << 100n) : value
        },
      },
    },
  },
  'service-exposed': { from: n1, options: { elect: { stdHyp: [] } }, to: 'linux-5.10-neoverse-n1' },
  'services-appear': { from: 'linux-5.10-neoverse-n1', to: n1 },
  'register-not-restored': { from: n1, to: 'linux-6.18-neoverse-n1' },
  'bitmap-not-restored': { from: 'linux-6.12-neoverse-n1', to: 'linux-7.2-neoverse-n1' },
  'mitigation-stronger': { from: 'linux-6.1-cortex-a57', to: 'linux-6.1-max' },
  'aarch32-id-differs': {
    from: n1,
    change: changing('ID_AA64PFR0_EL1', (value) => {
      return withField(registerField(encodeRegister('ID_AA64PFR0_EL1'), 'EL0'), value, 1n)
    }),
    to: n1,
    fault: { vcpu: { getRegs: reading('ID_ISAR0_EL1', (value) => value ^ 1n) } },
  },
  'aarch32-id-refused': {
    from: n1,
    change: (state) => {
      changing('ID_AA64PFR0_EL1', withoutAArch32)(state)
      changing('ID_ISAR0_EL1', () => 0n)(state)
    },
    to: n1,
  },
  'aarch32-id-lost': {
    from: n1,
    to: n1,
    fault: {
      vcpu: {
        getRegs: reading('ID_ISAR0_EL1', () => 0n),
        getOneReg: (real, id) => {
          const value = real(id)
          const isIt = typeof value === 'bigint' && id === encodeRegister('ID_AA64PFR0_EL1')
          return isIt ? withoutAArch32(value) : value
        },
      },
    },
  },
}

function withoutAArch32(pfr0: bigint): bigint {
  return withField(registerField(encodeRegister('ID_AA64PFR0_EL1'), 'EL0'), pfr0, 1n)
}

function whereGuestsRead(name: string, value: string): Report {
  const report = structuredClone(newHost)
  report.guestReads!.find((read) => read.name === name)!.value = value
  return report
}

function changing(name: string, change: (value: bigint) => bigint): (state: State) => void {
  const id = encodeRegister(name)
  return ({ vcpus }) => {
    for (const { registers } of vcpus) {
      const register = registers.find((candidate) => BigInt(candidate.id) === id)!
      register.value = `0x${change(BigInt(register.value)).toString(16)}`
    }
  }
}

type Batch = (ids: BigUint64Array, values: BigUint64Array, errors: Int32Array) => number

/** Batches of reads in which one register reads otherwise. */
function reading(name: string, change: (value: bigint) => bigint) {
  const wanted = encodeRegister(name)
  return (real: Batch, ids: BigUint64Array, values: BigUint64Array, errors: Int32Array): number => {
    const answer = real(ids, values, errors)
    for (const [index, id] of ids.entries()) if (id === wanted) values[index] = change(values[index]!)
    return answer
  }
}

/** Batches of writes in which one register is refused. */
function refusing(name: string) {
  const wanted = encodeRegister(name)
  return (real: Batch, ids: BigUint64Array, values: BigUint64Array, errors: Int32Array): number => {
    const answer = real(ids, values, errors)
    for (const [index, id] of ids.entries()) if (id === wanted) errors[index] = errnos.EINVAL
    return answer
  }
}

function play({
  from,
  options,
  change,
  to,
  fault = {},
  vmm = 'strict',
  gics,
  counters,
}: Scenario): MoveVerdict {
  using source = openKvm(simulator(from))
  const state = captureHost(source, options)
  change?.(state)
  using destination = openKvm(breakBackend(simulator(to), fault))
  const features = [...state.vcpus[0]!.features]
  const made = gics?.map((gic, index): VmmVm => ({
    features,
    unknown: [],
    gic,
    counterFrequency: counters?.[index],
  }))
  return verdict(state, destination, vmmRules(vmm), made && { source: made[0]!, destination: made[1]! })
}

function documentOf(...moves: readonly MoveVerdict[]): VerdictDocument {
  const origin = { kind: 'kernel' } as const
  const ends = { from: { name: 'a', origin }, to: { name: 'b', origin }, restoredOn: 'simulation' as const }
  return {
    format: 'kvm-arm64/verdict',
    version: 1,
    moves: moves.map((move) => Object.assign({}, ends, move)),
  }
}

function assertReadable(found: VerdictDocument): void {
  assert.deepEqual(checkVerdict(JSON.parse(JSON.stringify(found)), 'verdict'), found)
}

function assertWords(finding: Finding, vmm: string): void {
  const { source, destination, meaning, remedy } = findingWords(finding, vmm)
  for (const words of [findingSubject(finding), source, destination, meaning, remedy]) {
    assert.match(words, /\S/, finding.code)
    assert.doesNotMatch(words, /undefined|null|NaN|\[object|\$\{|\.$| {2}|, *$/, finding.code)
  }
}

describe('a finding', () => {
  for (const [code, scenario] of Object.entries(scenarios) as [FindingCode, Scenario][]) {
    test(`${code} is provoked, has words and passes the reader`, () => {
      const found = play(scenario)
      const mine = found.findings.filter((finding) => finding.code === code)
      assert.ok(mine.length > 0, `only ${[...new Set(found.findings.map((one) => one.code))].join(', ')}`)
      for (const finding of mine) assertWords(finding, found.vmm)
      assertReadable(documentOf(found))
      const row = findingCodes.find((one) => one.code === code)!
      for (const { severity } of mine) if (row.severity !== 'outcome') assert.equal(severity, row.severity)
    })
  }

  test('has words for a register that a VMM does not carry', () => {
    const found = play({ from: n1, options: { elect: { std: [] } }, to: n1, vmm: 'crosvm' })
    const finding = found.findings.find(({ code }) => code === 'services-appear')
    assert.match(findingWords(finding!, found.vmm).meaning, /^crosvm does not carry it; .* trng-v1\.0/)
  })
})

describe('docs/findings.md', () => {
  const text = readFileSync(new URL('docs/findings.md', packageRoot), 'utf8')

  test('has a section for each code, and for nothing else', () => {
    const sections = [...text.matchAll(/^### `(.*)`$/gm)].map(([, code]) => code)
    assert.deepEqual(
      sections,
      findingCodes.map(({ code }) => code),
    )
  })

  test('is as the code has it (npm run schema writes it)', () => {
    assert.equal(text, findingsDocument())
  })
})

describe('the verdict of every move between built-in hosts', () => {
  const hosts = builtInHosts()
  const states = hosts.map((host) => {
    using kvm = openKvm(simulator(host))
    return captureHost(kvm)
  })

  for (const to of hosts) {
    test(`passes its reader and has words, to ${to}`, () => {
      using kvm = openKvm(simulator(to))
      const moves = states.map((state) => verdict(state, kvm))
      assertReadable(documentOf(...moves))
      for (const { findings, vmm } of moves) for (const finding of findings) assertWords(finding, vmm)
    }, 60_000)
  }
})
