import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import {
  checkGroups,
  type CheckResult,
  conformance,
  selectChecks,
  type Verdict,
} from '../../lib/conformance/index.js'
import { builtInHosts, builtInReport, simulator } from '../../lib/hosts/index.js'
import { reportFromFingerprint } from '../../lib/interchange/fingerprint-report.js'
import { graviton, gravitonCpus, gravitonKernels } from '../interchange/graviton.js'
import { withRows } from '../report/rows.js'

const all = checkGroups.flatMap(({ title, checks }) => checks.map((check) => ({ title, ...check })))

const resultsOf = memoize((host) => conformance(simulator(host)))

/** Results as JSON, without how long they took. */
function timeless(results: readonly CheckResult[]): string[] {
  return results.map((result) => JSON.stringify({ ...result, seconds: 0 }))
}

function memoize(ask: (host: string) => CheckResult[]): (host: string) => CheckResult[] {
  const known = new Map<string, CheckResult[]>()
  return (host) => {
    const results = known.get(host) ?? ask(host)
    known.set(host, results)
    return results
  }
}

function named(results: readonly CheckResult[], verdict: Verdict): string[] {
  return results.filter((result) => result.verdict === verdict).map(({ name }) => name)
}

/** What differs in the host of the seed from every release. */
const SEED_FAILURES = [
  'The three bitmap registers of the series come together',
  'A bitmap register of a wrong width is refused before the value is read',
  'KVM_REG_ARM_STD_BMAP accepts the value it holds once a vCPU has run',
]

const BITMAPS = ['STD_BMAP', 'STD_HYP_BMAP', 'VENDOR_HYP_BMAP', 'VENDOR_HYP_BMAP_2']

function refusesAnyWrite(count: number): string[] {
  return BITMAPS.slice(0, count).map(
    (name) => `KVM_REG_ARM_${name} refuses any write once a vCPU has run, also of the value it holds`,
  )
}

const EVERYWHERE = [
  'The register is there only for a vCPU with the feature PSCI_0_2',
  'Every listed firmware register is documented',
  'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1 reads as written',
  'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2 accepts every level that is defined',
  'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2 reads as written',
  'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3 accepts every level that is defined',
  'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3 reads as written',
  'The room of a list is a number of 64 bits',
  'Another init sets a vCPU’s registers to what they were after the first',
]
const SINCE_SMC = [
  'What was read in the order of KVM_GET_REG_LIST can be restored in that order',
  'KVM answers hypercalls by hvc alone',
  'KVM_CAP_VM_ATTRIBUTES announces the attributes of VMs',
]
const SINCE_DISCOVER = [
  'KVM_REG_ARM_VENDOR_HYP_BMAP_2 shows every service it has in a fresh VM',
  'The functions of discover-impl-ver are answered while KVM_REG_ARM_VENDOR_HYP_BIT_DISCOVER_IMPL_VER is set',
  'The functions of discover-impl-cpus are answered while KVM_REG_ARM_VENDOR_HYP_BIT_DISCOVER_IMPL_CPUS is set',
  'HAS_EL2_E2H0 without HAS_EL2 is EINVAL',
]
const EMPTY_AT_ZERO = 'A range without functions at 0 is EINVAL too'

/** By host, the checks in which it does otherwise than its documents. */
const deviations: Readonly<Record<string, readonly string[]>> = {
  'linux-5.10-neoverse-n1': [
    ...EVERYWHERE,
    'CPU_ON of an affinity with other bits of MPIDR_EL1 is INVALID_PARAMETERS',
    'The registers of the PMU are listed for a vCPU that has it, and for no other',
  ],
  'linux-6.1-neoverse-n1': [...EVERYWHERE, ...refusesAnyWrite(3)],
  'linux-6.12-neoverse-n1': [...EVERYWHERE, ...refusesAnyWrite(3), ...SINCE_SMC],
  'linux-6.18-neoverse-n1': [
    ...EVERYWHERE,
    ...refusesAnyWrite(4),
    ...SINCE_SMC,
    ...SINCE_DISCOVER,
    EMPTY_AT_ZERO,
    'A version of the PMU that does not exist is EINVAL',
  ],
  'linux-7.2-neoverse-n1': [...EVERYWHERE, ...refusesAnyWrite(4), ...SINCE_SMC, ...SINCE_DISCOVER],
  'seed-v6': EVERYWHERE,
}

function titlesOf(only: string): string[] {
  return selectChecks({ only }).map(({ title }) => title)
}

describe('conformance', () => {
  test('has many checks, each with a name of its own, a promise and a source', () => {
    assert.ok(all.length >= 200, `${all.length} checks`)
    assert.equal(new Set(all.map(({ name }) => name)).size, all.length)
    for (const { name, promise, source, mark } of all) {
      assert.ok(promise.length > 0 && source.length > 0, name)
      assert.ok(mark === 'promised' || mark === 'observed', name)
      assert.match(name, /^\S.*[^.\s]$/)
      // A line of the output is one line.
      assert.doesNotMatch(`${name}${promise}${source}`, /\n/)
    }
    for (const selftest of ['hypercalls', 'psci_test', 'get-reg-list', 'set_id_regs', 'smccc_filter']) {
      const restated = all.filter(({ source }) => source.includes(`selftest ${selftest}`))
      assert.ok(restated.length >= 3, `${restated.length} checks of ${selftest}`)
    }
  })

  for (const host of builtInHosts().filter((name) => name !== 'seed-v6')) {
    test(`finds nothing broken in ${host}`, () => {
      const results = resultsOf(host)
      assert.deepEqual(named(results, 'fails'), [])
      assert.ok(named(results, 'passes').length >= 90)
      for (const { name, did, verdict } of results) {
        assert.doesNotMatch(did, /\n/, name)
        assert.ok(did.length > 0, `${name} ${verdict} without a word`)
      }
    })
  }

  for (const kernel of gravitonKernels) {
    for (const cpu of gravitonCpus) {
      test(`judges the fingerprint of Neoverse ${cpu} under ${kernel} as the recorded host it is like`, () => {
        const like = `linux-${kernel}-neoverse-n1` as const
        const results = conformance(
          simulator(reportFromFingerprint(graviton(cpu, kernel), builtInReport(like))),
        )
        assert.deepEqual(named(results, 'fails'), [])
        const recorded = new Map(resultsOf(like).map(({ name, verdict }) => [name, verdict]))
        const others = results.filter(({ name, verdict }) => recorded.get(name) !== verdict)
        // Whether the host has a PMU, and which GIC, is not known.
        for (const { name, verdict } of others) {
          assert.equal(verdict, 'not applicable', name)
          assert.match(name, /PMU|GIC/)
        }
      })
    }
  }

  test('fails in the host of the seed exactly where that differs', () => {
    const results = resultsOf('seed-v6')
    assert.deepEqual(named(results, 'fails'), SEED_FAILURES)
    const promised = results.filter(({ verdict, mark }) => verdict === 'fails' && mark === 'promised')
    assert.deepEqual(
      promised.map(({ name }) => name),
      SEED_FAILURES.slice(0, 1),
    )
  })

  for (const [host, expected] of Object.entries(deviations)) {
    test(`tells the known deviations of ${host}`, () => {
      assert.deepEqual(named(resultsOf(host), 'deviates').toSorted(), expected.toSorted())
    })
  }

  test('tells for each check that does not apply what is missing', () => {
    const reasons = new Set(
      resultsOf('linux-5.10-cortex-a57')
        .filter(({ verdict }) => verdict === 'not applicable')
        .map(({ did }) => did),
    )
    for (const reason of [
      'this kernel has no SMCCC filter',
      'this kernel has no KVM_REG_ARM_STD_BMAP',
      'this kernel has no TRNG service',
      'this kernel has no writable masks of ID registers',
      'this host has no vCPU with sve (EINVAL)',
      'SYSTEM_RESET2 came with PSCI 1.1, this kernel has 0x10000',
    ]) {
      assert.ok(
        [...reasons].some((text) => text.includes(reason)),
        `${reason}, of: ${[...reasons].join('; ')}`,
      )
    }
  })

  test('says the same each time', () => {
    assert.deepEqual(timeless(conformance(simulator('linux-7.2-max'))), timeless(resultsOf('linux-7.2-max')))
  })

  for (const [name, only] of [
    ['linux-6.1-neoverse-n1', 'Where no masks say otherwise'],
    ['linux-6.12-neoverse-n1', 'No bit outside the writable masks'],
  ] as const) {
    test(`takes it for right that a host without AArch32 ignores its registers: ${name}`, () => {
      const report = builtInReport(name)
      const ignoring = withRows(report, (row) =>
        row.name === 'ID_PFR0_EL1' ? { ...row, write: { rule: 'bits', bits: '0x0' } } : row,
      )
      assert.deepEqual(named(conformance(simulator(ignoring), { only }), 'fails'), [])
    })
  }

  test('runs only what it is asked for', () => {
    assert.deepEqual(titlesOf('smccc FILTER'), ['SMCCC filter'])
    assert.deepEqual(titlesOf('nothing is called so'), [])
    const results = conformance(simulator('seed-v6'), { only: 'STD_BMAP accepts the value it holds' })
    assert.deepEqual(named(results, 'fails'), SEED_FAILURES.slice(2))
    assert.equal(results.length, 1)
  })
})
