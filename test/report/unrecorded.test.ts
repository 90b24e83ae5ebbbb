/** What a report lacks is named as not recorded, and nothing else is. */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { builtInReport } from '../../lib/hosts/index.js'
import type { Report } from '../../lib/report/report.js'
import { type ReportedFact, reportedFacts, unrecordedFacts } from '../../lib/report/unrecorded.js'

const HOST = 'linux-7.2-max'

const removals: { readonly [Fact in ReportedFact]: (report: Report) => void } = {
  'vcpu-features': ({ traits }) => (traits.init.unknown = ['sve']),
  'interrupt-controllers': ({ traits }) => delete traits.devices,
  'guest-reads': (report) => delete report.guestReads,
  'page-size': (report) => (report.origin = { kind: 'fingerprint', like: HOST }),
  'address-space': ({ capabilities }) => delete capabilities.KVM_CAP_ARM_VM_IPA_SIZE,
  'memory-tagging': ({ capabilities }) => delete capabilities.KVM_CAP_ARM_MTE,
  'vm-types': (report) => delete report.vmTypes,
  'other-capabilities': (report) => delete report.otherCapabilities,
  'cpu-kinds': (report) => delete report.cpus,
  'id-fields': ({ registers }) =>
    (registers.find(({ name }) => name === 'ID_AA64PFR0_EL1')!.untried = ['3:0']),
}

describe('a report', () => {
  test('that records everything has no unrecorded fact', () => {
    assert.deepEqual(unrecordedFacts(builtInReport(HOST)), [])
  })

  for (const fact of reportedFacts) {
    test(`that does not record ${fact} says so, and nothing else`, () => {
      const report = builtInReport(HOST)
      removals[fact](report)
      assert.deepEqual(unrecordedFacts(report), [fact])
    })
  }
})
