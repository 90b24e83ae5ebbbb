/** On a host with pKVM the checks leave out vCPUs created after their VM has run, which make the kernel warn. */
import assert from 'node:assert/strict'
import { test } from 'vitest'
import { conformance } from '../../lib/conformance/index.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import type { Report } from '../../lib/report/report.js'
import { breakBackend } from './broken-kernel.js'

/** Counts the vCPUs created in VMs that have run. */
function lateVcpus(report: Report): number {
  let ran = false
  let late = 0
  const watched = breakBackend(simulator(report), {
    system: {
      createVm: (real, type) => {
        // Only tried, not used.
        if (type !== 0x7fn) ran = false
        return real(type)
      },
    },
    vm: {
      createVcpu: (real, id) => {
        if (ran) late++
        return real(id)
      },
    },
    vcpu: {
      runSync: (real, timeout) => {
        const outcome = real(timeout)
        if (outcome !== -8) ran = true
        return outcome
      },
    },
  })
  const results = conformance(watched)
  assert.deepEqual(
    results.filter(({ verdict }) => verdict === 'fails').map(({ name, did }) => `${name}: ${did}`),
    [],
  )
  return late
}

test('the checks create vCPUs in VMs that have run, but not with pKVM', () => {
  const report = builtInReport('linux-6.18-neoverse-n1')
  assert.ok(lateVcpus(report) > 0)
  assert.equal(lateVcpus({ ...report, vmTypes: { ipaSizes: '0-64,127' } }), 0)
})
