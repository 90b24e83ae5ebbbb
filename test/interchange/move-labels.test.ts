/** Labels and metrics that say which moves are possible: what a scheduler concludes from them is what the fleet predicts. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, it } from 'vitest'
import { analyseFleet } from '../../lib/fleet/analyse.js'
import { readFleet } from '../../lib/fleet/classes.js'
import { type FleetDocument, fleetDocument } from '../../lib/fleet/document.js'
import { FleetGate } from '../../lib/fleet/gate.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { nfdFeatures } from '../../lib/interchange/nfd.js'
import { prometheusMetrics } from '../../lib/interchange/prometheus.js'
import { vmmRules } from '../../lib/migration/vmm/names.js'
import { classOf } from '../../lib/report/digest.js'
import type { Report } from '../../lib/report/report.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-labels-'))
afterAll(() => rmSync(folder, { recursive: true }))

const reports = ['linux-7.2-max', 'linux-6.18-max', 'linux-6.1-max'].map((host) => builtInReport(host))
const file = join(folder, 'reports.ndjson')
writeFileSync(file, reports.map((report) => JSON.stringify(report)).join('\n'))
const fleet = readFleet(file)
const documentOf = (vmm: 'strict' | 'qemu'): FleetDocument =>
  fleetDocument(fleet, analyseFleet(fleet, { rules: vmmRules(vmm) }))
const fleets = [documentOf('strict'), documentOf('qemu')]
const expires = new Date('2027-01-01T00:00:00Z')

function labelsOf(report: Report, of: readonly FleetDocument[] = fleets): Map<string, string> {
  const { text } = nfdFeatures(report, { expires, fleets: of })
  return new Map(
    [...text.matchAll(/^kvm-arm64\.io\/([^=\n]+)=(.*)$/gm)].map(([, name, value]) => [name!, value!]),
  )
}

/** The fleet with each answer made to depend on what no report says. */
function doubted(document: FleetDocument): FleetDocument {
  const unknown = ['source-features' as const]
  return { ...document, predictions: document.predictions.map((one) => ({ ...one, unknown })) }
}

describe('labels of moves', () => {
  for (const [index, vmm] of ['strict', 'qemu-11.1'].entries()) {
    it(`say under ${vmm} what the fleet predicts`, () => {
      const gate = new FleetGate(fleets[index]!)
      for (const source of reports) {
        for (const destination of reports) {
          const [from, to] = [classOf(source), classOf(destination)]
          const { possible } = gate.move(from, to)
          const [here, there] = [labelsOf(source), labelsOf(destination)]
          assert.equal(there.has(`accepts.${vmm}.${from}`), possible)
          const isEqual = here.get(`moves-key.${vmm}`) === there.get(`moves-key.${vmm}`)
          if (isEqual) assert.ok(possible && gate.move(to, from).possible)
          assert.ok(here.get(`moves-key.${vmm}`))
        }
      }
    })
  }

  it('say of hosts that exchange VMs that they do, and of others that they do not', () => {
    const [a, b, c] = reports.map((report) => labelsOf(report).get('moves-key.strict'))
    assert.equal(a, b)
    assert.notEqual(a, c)
  })

  it('say nothing that depends on what no report says, and this is reported', () => {
    const unsure = doubted(fleets[0]!)
    assert.deepEqual(
      [...labelsOf(reports[0]!, [unsure]).keys()].filter((name) => /^(moves-key|accepts)/.test(name)),
      [],
    )
    const { inexpressible } = nfdFeatures(reports[0]!, { expires, fleets: [unsure] })
    assert.match(inexpressible.join('\n'), /^a moves key under strict: VMs of this class cannot move/m)
    assert.match(
      inexpressible.join('\n'),
      /^whether VMs of .* can come under strict: it depends on what no report records/m,
    )
  })

  it('are refused for a host of another fleet', () => {
    const other = builtInReport('linux-6.12-max')
    assert.throws(() => nfdFeatures(other, { expires, fleets }), {
      name: 'RangeError',
      message: /no such class/,
    })
    assert.throws(() => prometheusMetrics(other, { fleets }), { name: 'RangeError' })
  })

  it('are metrics too', () => {
    const { text } = prometheusMetrics(reports[0]!, { fleets })
    const key = labelsOf(reports[0]!).get('moves-key.qemu-11.1')
    assert.match(text, new RegExp(`^kvm_arm64_moves_info\\{vmm="qemu@11\\.1",key="${key}"\\} 1$`, 'm'))
    assert.doesNotMatch(prometheusMetrics(reports[0]!).text, /moves_info/)
  })
})
