/** The gate for schedulers: the answers of a fleet, by class, and the keys of classes between which VMs move freely. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fc, test } from '@fast-check/vitest'
import { afterAll, describe, it } from 'vitest'
import { analyseFleet } from '../../lib/fleet/analyse.js'
import { readFleet } from '../../lib/fleet/classes.js'
import { checkFleetDocument, fleetDocument } from '../../lib/fleet/document.js'
import { FleetGate, type GateDocument } from '../../lib/fleet/gate.js'
import { readGate } from '../../lib/fleet/gate-file.js'
import { disjointGroups } from '../../lib/fleet/groups.js'
import { moveKeys } from '../../lib/fleet/move-keys.js'
import { predictionOf } from '../../lib/fleet/moves.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { vmmRules } from '../../lib/migration/vmm/names.js'
import { classOf } from '../../lib/report/digest.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-gate-'))
afterAll(() => rmSync(folder, { recursive: true }))

const reports = ['linux-7.2-max', 'linux-6.18-max', 'linux-5.10-max'].map((host) => builtInReport(host))
const [newest, newer, old] = reports.map(classOf) as [string, string, string]
const rows = reports.map((report, index) => JSON.stringify({ name: `node-${index}`, report }))
const file = join(folder, 'reports.ndjson')
writeFileSync(file, rows.join('\n'))
const fleet = readFleet(file)
const document = checkFleetDocument(
  JSON.parse(JSON.stringify(fleetDocument(fleet, analyseFleet(fleet)))),
  'fleet',
)

describe('the gate of a fleet', () => {
  const gate = new FleetGate(document)

  it('answers by class as the fleet does, with the reasons, also within a class', () => {
    assert.equal(gate.vmm, 'strict')
    for (const [from, source] of document.classes.entries()) {
      for (const [to, destination] of document.classes.entries()) {
        const { possible, obstacles } = predictionOf(document, from, to)
        const answer = gate.move(source.digest, destination.digest)
        assert.equal(answer.possible, possible)
        assert.deepEqual(
          answer.findings,
          obstacles.map((index) => document.obstacles[index]),
        )
      }
    }
    const possible = (from: string, to: string) => gate.move(from, to).possible
    assert.deepEqual([possible(newest, newer), possible(newest, old)], [true, false])
    assert.deepEqual([possible(newest, newest), possible(old, old)], [true, true])
  })

  it('lists the classes to which a VM can go, and those from which one can come', () => {
    assert.deepEqual(new Set(gate.destinations(newest)), new Set([newest, newer]))
    assert.deepEqual(gate.destinations(old), [old])
    for (const { digest: from } of document.classes) {
      for (const { digest: to } of document.classes) {
        assert.equal(gate.sources(to).includes(from), gate.destinations(from).includes(to))
      }
    }
  })

  it('says that within a class no VM moves that the VMM cannot save', () => {
    const options = { rules: vmmRules('firecracker@1.6'), features: ['psci-0.2', 'sve'] as const }
    const sve = new FleetGate(fleetDocument(fleet, analyseFleet(fleet, options)))
    assert.deepEqual(
      sve.move(newest, newest).findings.map(({ code }) => code),
      ['save-refused'],
    )
    assert.deepEqual(sve.destinations(newest), [])
  })

  it('finds a class by the first of its digits, and by a host in it', () => {
    for (const name of [newest, newest.slice(0, 8), 'node-0']) {
      assert.deepEqual(gate.classOf(name), { digest: newest, hostCount: 1 })
    }
    assert.deepEqual(gate.move('node-0', newer.slice(0, 8)), gate.move(newest, newer))
    for (const names of [['host-b', 'host-d', 'host-f'], ['host-f', 'host-d', 'host-b'], ['host-d']]) {
      const classes = document.classes.map((one, index) => ({ ...one, names: index === 1 ? names : [] }))
      const named = new FleetGate({ ...document, classes })
      assert.equal(named.classOf('host-d').digest, classes[1]!.digest)
      for (const other of ['host-a', 'host-e', 'host-g'])
        assert.throws(() => named.classOf(other), /no such class or host/)
    }
  })

  it('refuses a class that it does not know or that could be several, and lists those there are', () => {
    for (const name of ['none', 'ffffffffffffffff0', '']) {
      for (const ask of [() => gate.move(newest, name), () => gate.destinations(name)]) {
        assert.throws(ask, (error: Error) => {
          assert.equal(error.name, 'RangeError')
          assert.match(error.message, new RegExp(`^no such class or host "${name}"; this fleet has `))
          for (const { digest } of document.classes)
            assert.ok(error.message.includes(`${digest} (QEMU max r0p0, 1 host)`))
          return true
        })
      }
    }
    const [first, ...others] = document.classes
    const digest = `${others[0]!.digest.slice(0, 15)}g`
    const alike = { ...document, classes: [{ ...first!, digest }, ...others] }
    assert.throws(() => new FleetGate(alike).classOf(digest.slice(0, 6)), {
      message: /^"[0-9a-f]{6}" means several classes: .*; give more digits$/,
    })
    const host = { ...document, classes: [{ ...first!, names: [others[0]!.digest.slice(0, 4)] }, ...others] }
    assert.throws(() => new FleetGate(host).classOf(host.classes[0]!.names[0]!), /means several classes/)
    const few = { ...document, left: { classes: 2, hostCount: 5 } }
    assert.throws(() => new FleetGate(few).classOf('none'), /; 2 classes with 5 hosts were not compared$/)
  })

  it('answers in less than a tenth of a millisecond', () => {
    const start = process.cpuUsage()
    for (let count = 0; count < 10_000; count++) gate.move(newest, count % 2 === 0 ? old : 'node-2')
    const { user, system } = process.cpuUsage(start)
    assert.ok((user + system) / 10_000 < 100, `${(user + system) / 10_000} µs`)
  })
})

function written(content: string): string {
  const path = join(folder, 'fleet.json')
  writeFileSync(path, content)
  return path
}

describe('a fleet that is read for the gate', () => {
  it('gives the answers of the whole document', () => {
    const whole = new FleetGate(document)
    for (const mark of ['', '\ufeff']) {
      const gate = readGate(written(mark + JSON.stringify(document)))
      assert.deepEqual(gate.move(newest, old), whole.move(newest, old))
    }
  })

  it('is refused with the entry that no answer could be taken from', () => {
    const changed = (change: object) => JSON.stringify({ ...document, ...change })
    const [prediction, ...others] = document.predictions
    for (const [text, message] of [
      ['', /: is empty$/],
      ['{', /: is not JSON: /],
      ['null', /: expected a fleet$/],
      ['[]', /: expected a fleet$/],
      ['{}', /: \$\.format: expected "kvm-arm64\/fleet"/],
      [changed({ version: 2 }), /: \$\.version: expected 1, /],
      [changed({ vmm: 1 }), /: \$\.vmm: expected a name$/],
      [changed({ left: null }), /: \$\.left: expected /],
      [changed({ classes: {} }), /: \$\.classes: expected a list$/],
      [
        changed({ classes: document.classes.map((one) => Object.assign({ ...one }, { digest: newest })) }),
        /: \$\.classes\[1\]\.digest: expected another class than before$/,
      ],
      [changed({ classes: [null] }), /: \$\.classes\[0\]: expected a class of hosts$/],
      [changed({ obstacles: 0 }), /: \$\.obstacles: expected a list$/],
      [`\ufeff${changed({}).slice(0, -1)},"moves":[]}`, /: \$\.moves: appears twice$/],
      [
        changed({
          obstacles: [{ ...document.obstacles[0], register: null }, ...document.obstacles.slice(1)],
        }),
        /: \$\.obstacles\[0\]: expected a finding$/,
      ],
      [
        changed({ predictions: [{ ...prediction, unknown: [1] }, ...others] }),
        /: \$\.predictions\[0\]: expected a prediction$/,
      ],
      [changed({ obstacles: [{}] }), /: \$\.obstacles\[0\]: expected a finding$/],
      [changed({ predictions: {} }), /: \$\.predictions: expected a list$/],
      [changed({ predictions: [1] }), /: \$\.predictions\[0\]: expected a prediction$/],
      [
        changed({ predictions: [{ ...prediction, obstacles: [999] }, ...others] }),
        /: \$\.predictions\[0\]\.obstacles: expected indices of \d+ obstacles$/,
      ],
      [changed({ moves: [] }), /: \$\.moves: expected 3 rows, one for each class$/],
      [
        changed({ moves: [[0, 0, 99], ...document.moves.slice(1)] }),
        /: \$\.moves\[0\]: expected 3 indices of \d+ predictions, one for each class$/,
      ],
    ] as const) {
      assert.throws(() => readGate(written(text)), { name: 'FormatError', message })
    }
    assert.throws(() => readGate(join(folder, 'missing')), /missing: cannot be read \(ENOENT\)$/)
  })

  it('does not block on a pipe without a writer, or on a file without an end', () => {
    const pipe = join(folder, 'pipe')
    execFileSync('mkfifo', [pipe])
    assert.throws(() => readGate(pipe), /pipe: is empty$/)
    assert.throws(() => readGate('/dev/zero'), /is larger than any fleet \(64 MiB at most\)$/)
  })
})

/** A fleet of so many classes, in which these moves are possible or, for a `?`, possible as far as the reports say. */
function fleetOf(table: readonly string[], vmm = 'strict'): GateDocument {
  const marks = 'ny?'
  return {
    vmm,
    left: { classes: 0, hostCount: 0 },
    classes: table.map((_, index) => ({
      digest: index.toString(16).padStart(16, '0'),
      hostCount: table.length - index,
      cpu: '',
      psciVersion: null,
      releases: [],
      origins: [],
      first: '',
      names: [],
    })),
    obstacles: [],
    predictions: [
      { possible: false, obstacles: [] },
      { possible: true, obstacles: [] },
      { possible: true, obstacles: [], unknown: ['source-features'] },
    ],
    moves: table.map((row) => row.split('').map((mark) => marks.indexOf(mark))),
  }
}

function keysOf(table: readonly string[], vmm?: string): (string | undefined)[] {
  const made = fleetOf(table, vmm)
  const keys = moveKeys(made)
  return made.classes.map(({ digest }) => keys.get(digest))
}

describe('keys of classes', () => {
  it('are equal where VMs move both ways, and nowhere else', () => {
    const [a, b, c] = keysOf(['yyn', 'yyn', 'yyy'])
    assert.match(a!, /^[0-9a-f]{16}$/)
    assert.equal(b, a)
    assert.notEqual(c, a)
  })

  it('never chain: of three classes in a row the middle one is with one neighbour', () => {
    const [a, b, c] = keysOf(['yyn', 'yyy', 'nyy'])
    assert.equal(a, b)
    assert.notEqual(b, c)
  })

  it('differ where an answer depends on what no report says, and exist only where VMs move at all', () => {
    const [a, b] = keysOf(['y?', 'yy'])
    assert.notEqual(a, b)
    assert.deepEqual(keysOf(['nn', 'n?']), [undefined, undefined])
  })

  it('differ between VMMs, and once a class joins or leaves the group', () => {
    const [alone] = keysOf(['y'])
    const [together] = keysOf(['yy', 'yy'])
    assert.equal(new Set([alone, together, ...keysOf(['y'], 'crosvm')]).size, 3)
    assert.deepEqual(keysOf(['yn', 'ny']).slice(0, 1), [alone])
  })

  const relations = fc.integer({ min: 1, max: 7 }).chain((size) =>
    fc.array(fc.string({ unit: fc.constantFrom('n', 'y', 'y', '?'), minLength: size, maxLength: size }), {
      minLength: size,
      maxLength: size,
    }),
  )

  test.prop([relations])('hold for each ordered pair of a group, whatever the moves', (table) => {
    const keys = keysOf(table)
    for (const [from, key] of keys.entries()) {
      assert.equal(key === undefined, table[from]![from] !== 'y')
      for (const [to, other] of keys.entries()) {
        if (key !== undefined && key === other) assert.equal(table[from]![to], 'y')
      }
    }
  })

  it('put the heaviest vertices together first', () => {
    const joined = new Set(['0 1', '1 2', '1 3', '2 3'])
    const areJoined = (a: number, b: number) => joined.has(`${Math.min(a, b)} ${Math.max(a, b)}`)
    assert.deepEqual(disjointGroups([1, 9, 2, 5], areJoined), [[1, 3, 2], [0]])
  })
})
