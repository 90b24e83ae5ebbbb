/** A fleet whose VMs are made by its baseline, as far as the VMM can elect it. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { analyseFleet } from '../../../lib/fleet/analyse.js'
import { electBaseline, electedFeatures } from '../../../lib/fleet/baseline/elect.js'
import { type Fleet, readFleet } from '../../../lib/fleet/classes.js'
import { predictionOf } from '../../../lib/fleet/moves.js'
import { builtInReport } from '../../../lib/hosts/index.js'
import { type VmmName, vmmRules } from '../../../lib/migration/vmm/names.js'

const hosts = ['linux-6.12-neoverse-n1', 'linux-6.18-neoverse-n1', 'linux-7.2-neoverse-n1']

describe('a baseline that is elected', () => {
  let folder: string
  let fleet: Fleet

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-elect-'))
    const file = join(folder, 'reports.ndjson')
    const lines = hosts.map((name) => JSON.stringify({ name, report: builtInReport(name) }))
    writeFileSync(file, lines.join('\n'))
    fleet = readFleet(file)
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  const named = () => fleet.classes.map((one) => ({ name: one.digest, report: one.report() }))

  /** The codes of what stops a move from the newest kernel to the oldest. */
  function stopping(vmm: VmmName, elected: boolean): string[] {
    const rules = vmmRules(vmm)
    const elect = elected ? { elect: electBaseline(rules, named()) } : {}
    const analysis = analyseFleet(fleet, { rules, ...elect })
    const { obstacles, classes } = analysis
    const [old, , latest] = hosts.map((host) => classes.findIndex(({ names }) => names.includes(host)))
    return predictionOf(analysis, latest!, old!).obstacles.flatMap((index) => {
      const { stops, code } = obstacles[index]!
      return stops ? [code] : []
    })
  }

  for (const [vmm, before, after] of [
    // It has no way to leave out a bitmap that is 0.
    ['firecracker', ['psci-version-refused', 'bitmap-absent'], ['bitmap-absent']],
    // kvm-psci-version is an option since 11, and the bitmap is tolerated.
    ['qemu@11.1', ['psci-version-refused'], []],
    ['qemu@10.0', ['psci-version-refused', 'bitmap-absent'], ['psci-version-refused', 'bitmap-absent']],
  ] as const) {
    test(`leaves ${after.join(' and ') || 'nothing'} in the way back to Linux 6.12 under ${vmm}`, () => {
      assert.deepEqual(new Set(stopping(vmm, false)), new Set(before))
      assert.deepEqual(new Set(stopping(vmm, true)), new Set(after))
    })
  }

  test('holds nothing that the VMM has no option for', () => {
    const { bitmaps, idRegisters, registers, psciVersion } = electBaseline(vmmRules('qemu@10.0'), named())
    assert.deepEqual([bitmaps, idRegisters, registers, psciVersion], [[], [], [], null])
    assert.notEqual(electBaseline(vmmRules('qemu@11.1'), named()).psciVersion, null)
    assert.ok(electBaseline(vmmRules('firecracker'), named()).idRegisters.length > 0)
  })

  test('needs a host', () => {
    assert.throws(() => electBaseline(vmmRules('qemu'), []), {
      name: 'RangeError',
      message: 'a baseline needs at least one host',
    })
  })

  test('leaves out a feature that some host lacks, if the VMM can', () => {
    const common = { ...electBaseline(vmmRules('strict'), named()), features: ['psci-0.2' as const] }
    const own = ['psci-0.2', 'pmu-v3', 'sve'] as const
    assert.deepEqual(electedFeatures(vmmRules('qemu'), common, own), ['psci-0.2'])
    assert.deepEqual(electedFeatures(vmmRules('crosvm'), common, own), ['psci-0.2', 'sve'])
  })
})
