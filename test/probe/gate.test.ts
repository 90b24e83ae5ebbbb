/** A census finds what the gate says, under several PSCI versions: tools/elections.ts tries all of them on all kernels. */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import type { PsciVersion } from '../../lib/hypercalls/index.js'
import { simulator } from '../../lib/hosts/index.js'
import { openKvm } from '../../lib/kvm/index.js'
import { census } from '../../lib/probe/census.js'
import { bitmapsOf, prediction } from '../lab-kernels/gate-prediction.js'

const nothing = { std: [], stdHyp: [], vendorHyp: [] }

/** Hosts with one bitmap register, with none, and with four; a census waits most of a second for calls that do not come back. */
const cases: readonly (readonly [host: string, psci: PsciVersion, services: object])[] = [
  ...(['0.1', '0.2', '1.1'] as const).map((psci) => ['seed-v6', psci, {}] as const),
  ['seed-v6', '0.1', { std: [] }],
  ['seed-v6', '1.1', { std: [] }],
  ['linux-5.10-neoverse-n1', '0.1', {}],
  ['linux-5.10-neoverse-n1', '1.0', {}],
  ...(['0.1', '0.2', '1.0', '1.3'] as const).map((psci) => ['linux-7.2-max', psci, {}] as const),
  ['linux-7.2-max', '0.1', nothing],
  ['linux-7.2-max', '1.3', nothing],
]

describe('the gate', () => {
  for (const [host, psci, services] of cases) {
    test(`predicts the census of ${host} under PSCI ${psci} with ${JSON.stringify(services)}`, () => {
      using kvm = openKvm(simulator(host))
      const situation = { psci, bitmaps: bitmapsOf(kvm, services) }
      const predicted = census(kvm, { elect: services, psci }).filter((call) => {
        const expected = prediction(call, situation)
        if (expected !== undefined) assert.equal(call.found, expected, `${call.name} by ${call.conduit}`)
        return expected !== undefined
      })
      assert.ok(predicted.some(({ found }) => found))
      assert.ok(predicted.filter(({ found }) => !found).length > 100)
    })
  }
})
