/** Predictions that are shared between classes, made elsewhere, and kept between runs. Threads are tested on the bundle. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, describe, it } from 'vitest'
import { analyseFleet, type AnalyseOptions } from '../../lib/fleet/analyse.js'
import { type Fleet, readFleet } from '../../lib/fleet/classes.js'
import { fleetDocument } from '../../lib/fleet/document.js'
import { arrivalsAt, idleCapabilities, idleTraits, makeVm, type Maker } from '../../lib/fleet/predict.js'
import { predictMoves, type PredictOptions } from '../../lib/fleet/predict-moves.js'
import { PredictionCache } from '../../lib/fleet/prediction-cache.js'
import { type BuiltInHost, builtInReport } from '../../lib/hosts/index.js'
import { strict } from '../../lib/migration/vmm/rules.js'
import { vmmRules } from '../../lib/migration/vmm/names.js'
import type { Report } from '../../lib/report/report.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-predictions-'))
afterAll(() => rmSync(folder, { recursive: true }))

function fleetOf(reports: readonly Report[]): Fleet {
  const file = join(folder, 'reports.ndjson')
  writeFileSync(file, reports.map((report) => JSON.stringify(report)).join('\n'))
  return readFleet(file)
}

function changed(host: BuiltInHost, change: (report: Report) => void): Report {
  const report = builtInReport(host)
  change(report)
  return report
}

const reports = [
  builtInReport('linux-6.12-max'),
  builtInReport('linux-6.1-neoverse-n1'),
  builtInReport('linux-5.10-neoverse-n1'),
]
const fleet = fleetOf(reports)

/** The document of a fleet as text. */
async function documentOf(of: Fleet, options: PredictOptions & AnalyseOptions): Promise<string> {
  const predicted = await predictMoves(of, options)
  return JSON.stringify(fleetDocument(of, analyseFleet(of, { ...options, predicted })))
}

/** The first numbers of known and of wanted predictions that a run reports. */
async function first(of: Fleet, options: PredictOptions): Promise<[done: number, wanted: number]> {
  const calls: [number, number][] = []
  await predictMoves(of, { ...options, progress: (...call) => calls.push(call) })
  return calls[0]!
}

describe('predictions that were made before', () => {
  const alone = JSON.stringify(fleetDocument(fleet, analyseFleet(fleet)))
  const cache = join(folder, 'cache')
  // With a number of threads, a fleet counts as large; the sources run in this one all the same.
  const large = { cache, threads: 1 }
  const files = () => readdirSync(cache).map((name) => join(cache, name))
  beforeEach(() => rmSync(cache, { recursive: true, force: true }))

  it('give the same document, byte for byte, whether they are new, kept, or partly kept', async () => {
    assert.equal(await documentOf(fleet, {}), alone)
    assert.equal(await documentOf(fleet, large), alone)
    assert.deepEqual(await first(fleet, large), [9, 9])
    assert.equal(await documentOf(fleet, large), alone)
    const more = fleetOf([...reports, builtInReport('linux-6.18-neoverse-n1')])
    assert.deepEqual(await first(more, large), [9, 16])
    assert.equal(await documentOf(more, large), JSON.stringify(fleetDocument(more, analyseFleet(more))))
  })

  it('are not mixed with those for another VMM or other features', async () => {
    await predictMoves(fleet, large)
    for (const other of [
      { rules: vmmRules('qemu') },
      { features: ['psci-0.2' as const, 'pmu-v3' as const] },
    ]) {
      const [done] = await first(fleet, { ...large, ...other })
      assert.equal(done, 0)
    }
  })

  it('are made again and replaced if a file is damaged, torn or gone', async () => {
    await predictMoves(fleet, large)
    const [one, other, another] = files() as [string, string, string]
    const whole = readFileSync(one)
    const damaged = Buffer.from(whole)
    damaged[damaged.length - 9]! ^= 1
    writeFileSync(one, damaged)
    writeFileSync(other, readFileSync(other).subarray(0, 100))
    rmSync(another)
    assert.deepEqual(await first(fleet, large), [0, 9])
    assert.deepEqual(readFileSync(one), whole)
    assert.equal(await documentOf(fleet, large), alone)
  })

  it('stay when the work is interrupted, and the next run continues', async () => {
    const stop = new AbortController()
    const progress = (done: number) => {
      if (done === 3) stop.abort()
    }
    await predictMoves(fleet, { ...large, signal: stop.signal, progress })
    assert.equal(files().length, 1)
    assert.deepEqual(await first(fleet, large), [3, 9])
    assert.equal(await documentOf(fleet, large), alone)
  })

  it('need no directory that can be made', async () => {
    assert.equal(
      await documentOf(fleet, { cache: join(folder, 'reports.ndjson', 'cache'), threads: 1 }),
      alone,
    )
  })

  it('are neither kept nor shared with threads for rules of the caller', async () => {
    const own = { ...strict }
    assert.equal(await documentOf(fleet, { ...large, rules: own }), alone)
    assert.throws(() => readdirSync(cache), { code: 'ENOENT' })
  })

  it('used least recently go first when there are too many', async () => {
    await predictMoves(fleet, large)
    const [oldest, ...others] = files() as [string, ...string[]]
    utimesSync(oldest, 0, 0)
    const size = others.reduce((sum, file) => sum + readFileSync(file).length, 0)
    new PredictionCache(cache, { rules: strict, features: undefined, elect: undefined }, size).prune()
    assert.deepEqual(files(), others)
  })
})

describe('what no prediction looks at', () => {
  it('makes classes share predictions', async () => {
    const alike = changed('linux-6.12-max', ({ capabilities, traits }) => {
      capabilities.KVM_CAP_GUEST_DEBUG_HW_BPS = [16, 16]
      traits.sErrorWakes = !traits.sErrorWakes
    })
    const twins = fleetOf([builtInReport('linux-6.12-max'), alike, builtInReport('linux-6.1-max')])
    assert.equal(twins.classes.length, 3)
    assert.deepEqual(await first(twins, {}), [0, 4])
    const { moves, classes } = analyseFleet(twins)
    const other = classes.findIndex(({ releases: [release] }) => release!.startsWith('6.1.'))
    const [one, two] = [0, 1, 2].filter((index) => index !== other) as [number, number]
    assert.equal(moves[one]![other], moves[two]![other])
    assert.equal(moves[other]![one], moves[other]![two])
  })

  it('is looked at by none, whatever the VMM and the features', () => {
    const read = new Set<string>()
    const watched = <T extends object>(record: T): T =>
      new Proxy(record, {
        get(target, key) {
          read.add(String(key))
          return Reflect.get(target, key) as unknown
        },
        ownKeys(target) {
          read.add('all of them')
          return Reflect.ownKeys(target)
        },
      })
    const hosts = ['linux-7.2-neoverse-v1', 'linux-6.12-cortex-a57-gicv2', 'linux-5.10-max'] as const
    for (const maker of [
      ...['strict', 'qemu', 'qemu@10.0', 'firecracker', 'cloud-hypervisor', 'crosvm'].map((name): Maker => ({
        rules: vmmRules(name),
        features: undefined,
        elect: undefined,
      })),
      { rules: strict, features: ['psci-0.2', 'pmu-v3'], elect: undefined } satisfies Maker,
    ]) {
      const made = hosts.map((host) => makeVm(builtInReport(host), host, maker))
      for (const host of hosts) {
        const report = builtInReport(host)
        const { capabilities, traits } = report
        const judge = arrivalsAt(
          { ...report, capabilities: watched(capabilities), traits: watched(traits) },
          maker,
        )
        for (const vm of made) judge(vm)
      }
    }
    assert.ok(read.has('KVM_CAP_MAX_VCPUS') && read.has('hypercalls'), 'accesses are seen')
    const idle = [...idleCapabilities, ...idleTraits, 'all of them']
    assert.deepEqual(
      idle.filter((name) => read.has(name)),
      [],
    )
  })
})
