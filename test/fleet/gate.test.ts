/** The gate for schedulers: the answers of a fleet, by class. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, it } from 'vitest'
import { analyseFleet } from '../../lib/fleet/analyse.js'
import { readFleet } from '../../lib/fleet/classes.js'
import { checkFleetDocument, fleetDocument } from '../../lib/fleet/document.js'
import { FleetGate } from '../../lib/fleet/gate.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { classOf } from '../../lib/report/digest.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-gate-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('the gate of a fleet', () => {
  const reports = ['linux-7.2-max', 'linux-6.18-max', 'linux-5.10-max'].map((host) => builtInReport(host))
  const file = join(folder, 'reports.ndjson')
  writeFileSync(file, reports.map((report) => JSON.stringify(report)).join('\n'))
  const fleet = readFleet(file)
  const document = checkFleetDocument(
    JSON.parse(JSON.stringify(fleetDocument(fleet, analyseFleet(fleet)))),
    'fleet',
  )
  const gate = new FleetGate(document)
  const [newest, newer, old] = reports.map(classOf) as [string, string, string]

  it('answers by class as the fleet does, with the reasons', () => {
    assert.equal(gate.vmm, 'strict')
    const { classes, predictions, moves, obstacles } = document
    for (const [from, row] of moves.entries()) {
      for (const [to, index] of row.entries()) {
        if (from === to) continue
        const answer = gate.move(classes[from]!.digest, classes[to]!.digest)!
        const prediction = predictions[index!]!
        assert.equal(answer.possible, prediction.possible)
        assert.deepEqual(
          answer.findings,
          prediction.obstacles.map((obstacle) => obstacles[obstacle]),
        )
      }
    }
    assert.equal(gate.move(newest, newer)?.possible, true)
    assert.equal(gate.move(newest, old)?.possible, false)
    assert.equal(gate.move(newest, newest), undefined)
  })

  it('lists the classes to which a VM can go', () => {
    assert.deepEqual(gate.destinations(newest), [newer])
    assert.deepEqual(gate.destinations(old), [])
  })

  it('refuses a class it does not know', () => {
    for (const ask of [() => gate.move(newest, 'none'), () => gate.destinations('none')]) {
      assert.throws(ask, { name: 'RangeError', message: /no such class "none" among the 3 of this fleet/ })
    }
  })

  it('answers in less than a tenth of a millisecond', () => {
    const start = process.cpuUsage()
    for (let count = 0; count < 10_000; count++) gate.move(newest, old)
    const { user, system } = process.cpuUsage(start)
    assert.ok((user + system) / 10_000 < 100, `${(user + system) / 10_000} µs`)
  })
})
