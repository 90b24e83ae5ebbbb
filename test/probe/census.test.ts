import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { census, type CensusCall, type CensusOptions } from '../../lib/probe/census.js'
import { functionIds, serviceBitmaps } from '../../lib/hypercalls/index.js'
import { openKvm } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'

function censusOf(host: string, options: CensusOptions = {}): CensusCall[] {
  using kvm = openKvm(simulator(host))
  return census(kvm, options)
}

/** Ids of the functions found by a conduit, called with nothing. */
function foundBy(conduit: 'hvc' | 'smc', calls: readonly CensusCall[]): Set<number> {
  const found = calls.filter((call) => call.conduit === conduit && call.argument === 0n && call.found)
  return new Set(found.map(({ functionId }) => functionId))
}

describe('census', () => {
  test('finds what a fresh VM shows, by both instructions', () => {
    const calls = censusOf('linux-6.12-neoverse-n1')
    assert.ok(calls.length > 400)
    const byHvc = foundBy('hvc', calls)
    for (const id of [
      0x8000_0000, 0x8400_0050, 0x8600_0000, 0x8600_0001, 0x8600_ff01, 0x8400_0000, 0x8400_0008,
    ]) {
      assert.ok(byHvc.has(id), id.toString(16))
    }
    assert.ok(!byHvc.has(0x8400_004f))
    const onlyHvc = [...byHvc].filter((id) => !foundBy('smc', calls).has(id))
    assert.deepEqual(onlyHvc, [0x8000_3fff, 0x8000_7fff, 0x8000_8000])
  })

  test('finds nothing by smc on a kernel that does not answer it', () => {
    assert.equal(foundBy('smc', censusOf('linux-6.1-neoverse-n1')).size, 0)
  })

  test('finds no function of a service that is not elected, and all others as before', () => {
    const before = foundBy('hvc', censusOf('linux-6.12-neoverse-n1'))
    const after = foundBy(
      'hvc',
      censusOf('linux-6.12-neoverse-n1', { elect: { std: [], vendorHyp: ['ptp'] } }),
    )
    const [features] = serviceBitmaps.vendorHyp.services
    const hidden = new Set([...serviceBitmaps.std.services[0]!.functions, ...features!.functions])
    assert.deepEqual(
      [...after],
      [...before].filter((id) => !hidden.has(id)),
    )
  })

  test('asks one function about the others', () => {
    const calls = censusOf('linux-6.12-neoverse-n1', { elect: { stdHyp: [] } })
    const about = (question: number, id: number): boolean | undefined =>
      calls.find(({ functionId, argument }) => functionId === question && argument === BigInt(id))?.found
    assert.equal(about(functionIds.SMCCC_ARCH_FEATURES, functionIds.SMCCC_ARCH_WORKAROUND_1), true)
    assert.equal(about(functionIds.SMCCC_ARCH_FEATURES, functionIds.PV_TIME_FEATURES), false)
    assert.equal(about(0x8400_000a, 0x8400_0012), true)
  })

  test('tells the version of PSCI it was asked for, 0.1 by its own ids', () => {
    const version = censusOf('linux-6.12-neoverse-n1', { psci: '0.2' }).find(
      ({ functionId }) => functionId === 0x8400_0000,
    )
    assert.deepEqual(version?.x, [2n, 0n, 0n, 0n])
    const oldest = foundBy('hvc', censusOf('linux-6.12-neoverse-n1', { psci: '0.1' }))
    assert.ok(oldest.has(0x95c1_ba5f) && oldest.has(0x95c1_ba60) && !oldest.has(0x8400_0000))
  })

  test('tells no time, and why a call does not come back', () => {
    const calls = censusOf('linux-6.12-neoverse-n1')
    const of = (id: number): CensusCall | undefined => calls.find(({ functionId }) => functionId === id)
    assert.equal(of(functionIds.KVM_PTP)?.x, null)
    assert.equal(of(0x8400_0009)?.exit?.reason, 'system-event')
    assert.equal(of(0x8400_0002)?.exit?.reason, 'interrupted')
  })

  test('refuses what the host does not offer', () => {
    assert.throws(() => censusOf('linux-5.10-neoverse-n1', { elect: { std: ['trng-v1.0'] } }), RangeError)
    assert.throws(() => censusOf('linux-5.10-neoverse-n1', { psci: '1.3' }), { code: 'EINVAL' })
  })
})
