/** Summaries of parts of a fleet: however they are merged, the result is that of one run over everything. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fc, test } from '@fast-check/vitest'
import { afterAll, describe, it } from 'vitest'
import { analyseFleet } from '../../lib/fleet/analyse.js'
import { type Fleet, fleetSummary, readFleet } from '../../lib/fleet/classes.js'
import { diffFleets } from '../../lib/fleet/diff.js'
import { fleetDocument } from '../../lib/fleet/document.js'
import { hostRow, rowText, summaryLines } from '../../lib/fleet/summary.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { nfdFeatures } from '../../lib/interchange/nfd.js'
import { prometheusMetrics } from '../../lib/interchange/prometheus.js'
import { vmmRules } from '../../lib/migration/vmm/names.js'
import { canonicalJson, classOf, classOfText, commonText } from '../../lib/report/digest.js'
import type { Report } from '../../lib/report/report.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-summary-'))
afterAll(() => rmSync(folder, { recursive: true }))

let files = 0

function fileOf(text: string): string {
  const file = join(folder, `${files++}.json`)
  writeFileSync(file, text)
  return file
}

function textOf(fleet: Fleet): string {
  return [...summaryLines(fleetSummary(fleet))].join('')
}

/** Merges parts and returns the text of the result. */
function merged(...parts: string[]): string {
  return textOf(readFleet(parts.map(fileOf), { named: true }))
}

const kinds = ['linux-6.1-max', 'linux-6.12-max', 'linux-7.2-max'].map((host) => builtInReport(host))

/** The kind as a host shows it at a time, on a build. */
function seen(kind: number, time: number): Report {
  const report = kinds[kind]!
  return {
    ...report,
    probedAt: new Date(1_700_000_000_000 + time).toISOString(),
    host: { release: `6.${time % 3}`, build: `#${time % 2}` },
    capabilities: { ...report.capabilities, KVM_CAP_NR_VCPUS: [time, time] },
  }
}

interface Sighting {
  name: string
  kind: number
  time: number
  whole: boolean
}

function lineOf({ name, kind, time, whole }: Sighting): string {
  const report = seen(kind, time)
  return whole ? JSON.stringify({ name, report }) : rowText(hostRow(name, classOf(report), report))
}

const sighting = fc.record({
  name: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
  kind: fc.nat({ max: kinds.length - 1 }),
  time: fc.nat({ max: 4 }),
  // A whole report takes a hundred times as long as a row.
  whole: fc.nat({ max: 7 }).map((number) => number === 0),
})
const shard = fc
  .array(
    fc.oneof(
      { weight: 6, arbitrary: sighting.map(lineOf) },
      { weight: 1, arbitrary: fc.constantFrom('{"a":', '[]', '{"format":"x"}') },
    ),
    {
      minLength: 1,
      maxLength: 5,
    },
  )
  .map((lines) => `${lines.join('\n')}\n`)

describe('merging', () => {
  test.prop([shard, shard, shard], { numRuns: 30, seed: 11 })(
    'gives the same in any order, in any grouping, and with parts several times',
    (a, b, c) => {
      const [one, two, three] = [merged(a), merged(b), merged(c)]
      const all = merged(one, two, three)
      assert.equal(merged(three, one, two), all)
      assert.equal(merged(merged(one, two), three), all)
      assert.equal(merged(one, merged(two, three)), all)
      assert.equal(merged(all, two, all), all)
      assert.equal(merged(one + three + two), all, 'several parts in one file')
      assert.equal(merged(a + b + c), all, 'one run over everything')
    },
  )

  it('counts a host once, by its newest report', () => {
    const lines = [3, 1, 2].map((time) => lineOf({ name: 'a', kind: time - 1, time, whole: true }))
    const { hosts, classes, vacant } = readFleet(fileOf(lines.join('\n')))
    assert.deepEqual(
      hosts.map(({ probedAt }) => probedAt),
      [seen(0, 3).probedAt],
    )
    assert.deepEqual(
      classes.map(({ digest }) => digest),
      [classOf(kinds[2]!)],
    )
    assert.equal(vacant.length, 2)
  })

  it('forgets that a host could not be read once it can', () => {
    const broken = '{"fault":"a"}\n'
    assert.match(merged(broken), /"fault":"a"/)
    assert.doesNotMatch(merged(broken, lineOf({ name: 'a', kind: 0, time: 0, whole: false })), /fault/)
  })

  it('refuses a body that is not the one of its class, and a report that names no host', () => {
    const summary = merged(lineOf({ name: 'a', kind: 0, time: 0, whole: true }))
    const damaged = summary.replace('"KVM_CAP_ARM_PSCI_0_2":[', '"KVM_CAP_ARM_PSCI_0_2":[1')
    assert.notEqual(damaged, summary)
    const { errors, classes } = readFleet(fileOf(damaged))
    assert.match(errors[0]!.message, /line 2: \$\.common: is not the body of class [0-9a-f]{16} but of/)
    assert.throws(() => classes[0]!.report(), /holds no report of class [0-9a-f]{16}: add one, .* on a$/)
    const nameless = readFleet(fileOf(JSON.stringify(kinds[0])), { named: true })
    assert.match(nameless.errors[0]!.message, /names no host/)
    assert.equal(nameless.hostCount, 0)
    assert.deepEqual(nameless.vacant, [])
  })

  it('refuses a body that would be another class’s once written again', () => {
    const common = JSON.parse(commonText(kinds[0]!)) as Pick<Report, 'capabilities'>
    const online = { ...common, capabilities: { ...common.capabilities, KVM_CAP_NR_VCPUS: [4, 4] } }
    const text = canonicalJson(online)
    const head = '{"format":"kvm-arm64/summary","version":1}\n'
    const { errors } = readFleet(fileOf(`${head}{"class":"${classOfText(text)}","common":${text}}\n`))
    assert.match(errors[0]!.message, /line 2: \$\.common: has entries that are not the same on all hosts/)
  })

  it('says that a summary of a later version is one', () => {
    const { errors } = readFleet(fileOf('{"format":"kvm-arm64/summary","version":2}\n'))
    assert.match(errors[0]!.message, /\$\.version: is 2, but this kvm-arm64 reads version 1/)
  })
})

function documentOf(fleet: Fleet): string {
  return JSON.stringify(fleetDocument(fleet, analyseFleet(fleet)))
}

describe('a fleet in parts', () => {
  const sightings: Sighting[] = Array.from({ length: 12 }, (_, index) => ({
    name: `host-${index}`,
    kind: index % kinds.length,
    time: index % 5,
    whole: index < 6,
  }))

  it('is analysed byte for byte as in one run', () => {
    const lines = sightings.map(lineOf)
    const whole = documentOf(readFleet(fileOf(lines.join('\n'))))
    const shards = [0, 1, 2].map((number) =>
      merged(lines.filter((_, index) => index % 3 === number).join('\n')),
    )
    for (const order of [
      [0, 1, 2],
      [2, 0, 1, 2],
    ]) {
      assert.equal(documentOf(readFleet(order.map((number) => fileOf(shards[number]!)))), whole)
    }
    assert.equal(documentOf(readFleet(fileOf(merged(...shards)))), whole)
  })

  it('has one identity of a class everywhere', () => {
    const [kind] = kinds
    const { classes } = fleetDocument(...analysed([lineOf(sightings[0]!)]))
    const digest = classOf(kind!)
    assert.match(digest, /^[0-9a-f]{16}$/)
    assert.equal(classes[0]!.digest, digest)
    const labels = nfdFeatures(seen(0, 3), { expires: new Date() }).text
    assert.match(labels, new RegExp(`^kvm-arm64\\.io/class=${digest}$`, 'm'))
    assert.match(prometheusMetrics(seen(0, 4)).text, new RegExp(`class="${digest}"`))
    assert.match(lineOf({ ...sightings[0]!, whole: false }), new RegExp(`"class":"${digest}"`))
  })

  it('does not depend on a census, nor on how many CPUs are online', () => {
    const census = { features: ['psci-0.2' as const], discoveries: [] }
    const report = { ...kinds[0]!, census } as unknown as Report
    assert.equal(classOf(report), classOf(kinds[0]!))
    assert.equal(classOf(seen(0, 1)), classOf(seen(0, 2)))
  })
})

function analysed(lines: readonly string[]): [Fleet, ReturnType<typeof analyseFleet>] {
  const fleet = readFleet(fileOf(lines.join('\n')))
  return [fleet, analyseFleet(fleet)]
}

/** Lines of hosts of a kind. */
function at(kind: number, ...names: string[]): string[] {
  return names.map((name) => lineOf({ name, kind, time: kind, whole: true }))
}

describe('two fleets compared', () => {
  const [older, newer, newest] = kinds.map(classOf) as [string, string, string]

  it('show classes, hosts that changed class, new and gone ones, and the moves between those that stayed', () => {
    const before = fleetDocument(...analysed([...at(0, 'a', 'b'), ...at(1, 'c', 'gone')]))
    const now = fleetDocument(...analysed([...at(0, 'b'), ...at(1, 'a', 'c'), ...at(2, 'new')]))
    const { classes, hosts, moves } = diffFleets(before, now)
    assert.deepEqual(
      classes.appeared.map(({ digest }) => digest),
      [newest],
    )
    assert.deepEqual(classes.gone, [])
    assert.deepEqual([hosts.new, hosts.gone], [['new'], ['gone']])
    assert.deepEqual(hosts.changed, [
      { from: older, to: newer, releases: { before: ['6.0'], now: ['6.1'] }, names: ['a'] },
    ])
    // The host that was updated was like b and is like c.
    const [a, b, c] = [`${older} as ${newer}`, `${older} as ${older}`, `${newer} as ${newer}`]
    const pairs = (list: typeof moves.opened) =>
      list.map(({ from, to }) => [from, to].map((end) => `${end.before} as ${end.now}`).join(' to '))
    assert.deepEqual(new Set(pairs(moves.opened)), new Set([`${a} to ${c}`, `${c} to ${a}`]))
    assert.deepEqual(new Set(pairs(moves.closed)), new Set([`${a} to ${b}`, `${b} to ${a}`]))
    assert.deepEqual(diffFleets(now, now).moves, { opened: [], closed: [] })
  })

  it('say that a host without a readable report is not known to be gone', () => {
    const before = fleetDocument(...analysed([...at(0, 'a'), ...at(0, 'b')]))
    const now = fleetDocument(...analysed([...at(0, 'a'), '{"name":"b","report":{"format":"none"}}']))
    const { gone, unknown } = diffFleets(before, now).hosts
    assert.deepEqual({ gone, unknown }, { gone: ['b'], unknown: 1 })
    assert.equal(diffFleets(now, before).hosts.unknown, 0)
  })

  it('show no move as closed that was never possible, since the VMM cannot save the VM', () => {
    const rules = vmmRules('firecracker@1.6')
    const of = (lines: readonly string[]) => {
      const fleet = readFleet(fileOf(lines.join('\n')))
      return fleetDocument(fleet, analyseFleet(fleet, { rules, features: ['psci-0.2', 'sve'] }))
    }
    assert.deepEqual(of([...at(1, 'a', 'b'), ...at(2, 'c')]).groups, [])
    const found = diffFleets(of([...at(1, 'a', 'b'), ...at(2, 'c')]), of([...at(1, 'b'), ...at(2, 'a', 'c')]))
    assert.equal(found.hosts.changed.length, 1)
    assert.deepEqual(found.moves, { opened: [], closed: [] })
  })

  it('must be judged for one VMM', () => {
    const fleet = fleetDocument(...analysed(at(0, 'a')))
    assert.throws(() => diffFleets(fleet, { ...fleet, vmm: 'qemu@10.0' }, 'new.json'), {
      message: /^new\.json: \$\.vmm: is judged for qemu@10\.0, and the earlier fleet for strict/,
    })
  })
})
