import assert from 'node:assert/strict'
import { test } from 'vitest'
import { probe } from '../../lib/probe/probe.js'
import { openKvm } from '../../lib/kvm/index.js'
import { checkReport, parseReport } from '../../lib/report/read.js'
import { builtInHosts, builtInReport, simulator } from '../../lib/hosts/index.js'
import { simulatorBackend } from '../../lib/simulator/index.js'
import { newHost, oldestHost, oldHost } from './fixture.js'
import { seedV6 } from '../hosts/seed-v6.js'

test('fixtures are reports', () => {
  for (const report of [oldestHost, oldHost, newHost]) checkReport(report, report.host.release)
})

for (const name of builtInHosts()) {
  test(`probing the simulator of ${name} gives its report again, and says what it simulated`, () => {
    const report = builtInReport(name)
    using kvm = openKvm(simulator(name))
    const found = probe(kvm, { now: new Date(report.probedAt) })
    const origin = { kind: 'simulation', of: name }
    assert.deepEqual(parseReport(JSON.stringify(found), 'probe'), { ...report, origin })
  })
}

for (const report of [oldestHost, oldHost, newHost, seedV6(oldHost), seedV6(newHost)]) {
  test(`probing the simulator of the ${report.host.release} fixture gives its report again`, () => {
    using kvm = openKvm(simulatorBackend(report))
    const found = parseReport(JSON.stringify(probe(kvm, { now: new Date(report.probedAt) })), 'probe')
    // The fixtures tell of the capabilities that matter; all others are 0, or not recorded.
    const capabilities = { ...found.capabilities, ...report.capabilities }
    const origin = { kind: 'simulation', of: report.host.release }
    assert.deepEqual(found, { ...report, capabilities, origin })
  })
}
