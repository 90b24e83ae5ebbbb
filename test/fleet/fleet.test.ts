import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, it } from 'vitest'
import * as fc from 'fast-check'
import { analyseFleet } from '../../lib/fleet/analyse.js'
import { groupsOf } from '../../lib/fleet/groups.js'
import { predictionOf } from '../../lib/fleet/moves.js'
import { type Fleet, readFleet } from '../../lib/fleet/classes.js'
import { packageRoot } from '../../lib/package-root.js'
import { reportDigest } from '../../lib/report/digest.js'
import type { Report } from '../../lib/report/report.js'
import { formatDocument } from '../../lib/documents/write.js'
import { builtInReport } from '../../lib/hosts/index.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-fleet-'))
afterAll(() => rmSync(folder, { recursive: true }))

let files = 0

function fileOf(content: string | Buffer): string {
  const file = join(folder, `${files++}.ndjson`)
  writeFileSync(file, content)
  return file
}

/** The same host, seen at another time with another build of its kernel. */
function seenAgain(report: Report, number: number): Report {
  return {
    ...report,
    probedAt: new Date(1_700_000_000_000 + number).toISOString(),
    host: { release: `6.1.${number}`, build: `#${number}` },
  }
}

function line(host: string, number = 0, name?: string): string {
  const report = seenAgain(builtInReport(host), number)
  return JSON.stringify(name === undefined ? report : { name, report })
}

function counts({ classes }: Fleet): number[] {
  return classes.map(({ hostCount }) => hostCount)
}

describe('the hosts of a fleet', () => {
  it('are one class where only the time and the kernel’s build differ', () => {
    const lines = Array.from({ length: 50 }, (_, index) =>
      line(index % 3 === 0 ? 'linux-6.1-max' : 'linux-6.1-cortex-a57', index, `host-${index}`),
    )
    const fleet = readFleet(fileOf(lines.join('\n')))
    assert.equal(fleet.hostCount, 50)
    assert.deepEqual(counts(fleet), [33, 17])
    assert.deepEqual(fleet.classes[1]!.names.slice(0, 3), ['host-0', 'host-12', 'host-15'])
    assert.equal(fleet.classes[0]!.first.replace(/^.*, /, ''), 'line 2')
    assert.equal(fleet.classes[0]!.releases.length, 8)
    const { probedAt: _when, host: _build, origin: _who, ...common } = fleet.classes[1]!.report()
    const { KVM_CAP_NR_VCPUS: _online, ...capabilities } = builtInReport('linux-6.1-max').capabilities
    assert.deepEqual(common.capabilities, capabilities)
    assert.deepEqual(common.registers, builtInReport('linux-6.1-max').registers)
  })

  it('are one class whether their report was laid out, wrapped or written in another order', () => {
    const report = builtInReport('linux-6.12-neoverse-n1')
    const shuffled = Object.fromEntries(Object.entries(report).toReversed())
    const flat = [
      report,
      { name: 'a', report },
      { report, name: 'b' },
      shuffled,
      { name: 'c', report: shuffled },
    ]
    const fleet = readFleet(fileOf(flat.map((entry) => JSON.stringify(entry)).join('\n')))
    assert.deepEqual(counts(fleet), [5])
    assert.deepEqual(fleet.classes[0]!.names, ['a', 'b', 'c'])

    const directory = join(folder, 'reports')
    mkdirSync(directory)
    writeFileSync(join(directory, 'one.json'), formatDocument(report))
    writeFileSync(join(directory, 'two.json'), JSON.stringify(seenAgain(report, 5)))
    writeFileSync(join(directory, 'README'), 'no report')
    const found = readFleet(directory)
    assert.deepEqual(counts(found), [2])
    assert.deepEqual(found.classes[0]!.names, ['one', 'two'])
    assert.equal(found.classes[0]!.digest, fleet.classes[0]!.digest)
  })

  it('are told apart by a single bit, wherever it is', () => {
    const text = line('linux-6.1-neoverse-n1')
    const values = [...text.matchAll(/"value":"0x([0-9a-f]+)"/g)]
    fc.assert(
      fc.property(fc.constantFrom(...values), (match) => {
        const at = match.index + '"value":"0x'.length + match[1]!.length - 1
        const digit = text[at] === 'f' ? 'e' : (Number.parseInt(text[at]!, 16) + 1).toString(16)
        const other = text.slice(0, at) + digit + text.slice(at + 1)
        const fleet = readFleet(fileOf([text, other, text, other, other].join('\n')))
        assert.deepEqual(fleet.errors, [])
        assert.deepEqual(counts(fleet), [3, 2])
      }),
      { numRuns: 25, seed: 3 },
    )
  })

  it('are not recognised by a common end alone: what stands before it is checked on every line', () => {
    const good = line('linux-6.1-max')
    const bad = [
      good.replace('"version":2', '"version":3'),
      good.replace(/"probedAt":"[^"]*"/, '"probedAt":"yesterday"'),
      good.replace('"host":{', '"host":{"name":"x",'),
      good.replace('{"format"', '{"extra":1,"format"'),
      `{"name":"x","report":${good}`,
      `${good}}`,
    ]
    const fleet = readFleet(fileOf([good, ...bad, good].join('\n')))
    assert.deepEqual(counts(fleet), [2])
    assert.equal(fleet.faulty, bad.length)
    assert.match(
      fleet.errors[0]!.message,
      /line 2: \$\.version: is 3, but this kvm-arm64 reads version 2: written by a newer kvm-arm64\?$/,
    )
    assert.match(fleet.errors[1]!.message, /line 3: \$\.probedAt: /)
    assert.match(fleet.errors[4]!.message, /line 6: is not JSON: /)
  })

  it('leave out what is no report, which is told with its line and entry', () => {
    const broken = line('linux-6.1-max').replace('"0x6030000000140000"', '"140000"')
    const cases: [text: string | Buffer, message: RegExp][] = [
      ['{"firecracker_version":"1.16.0-dev"}', /line 2: \$\.format: is not a report/],
      [
        '{"format":"kvm-arm64/state","version":1}',
        /line 2: \$\.format: is not a report: .*found "kvm-arm64\/state"/,
      ],
      ['[1]', /line 2: \$\.format: is not a report/],
      ['null', /line 2: \$\.format: is not a report/],
      ['{"name":7,"report":{}}', /line 2: \$\.name: /],
      [
        '{"name":"a","report":{"format":"kvm-arm64/report","version":9}}',
        /line 2, in "report": \$\.version: is 9/,
      ],
      [broken, /line 2: \$\.registers\[\d+\]\.id: is not the id of an arm64 register/],
      ['{"a":', /line 2: is not JSON/],
      [Buffer.from([0xff, 0xfe, 0x22]), /line 2: is not UTF-8 text/],
    ]
    for (const [text, message] of cases) {
      const good = Buffer.from(`${line('linux-6.1-max')}\n`)
      const fleet = readFleet(fileOf(Buffer.concat([good, Buffer.from(text), Buffer.from('\n'), good])))
      assert.deepEqual(counts(fleet), [2])
      assert.equal(fleet.faulty, 1)
      assert.match(fleet.errors[0]!.message, message)
    }
  })

  it('are read from a directory in which other entries are broken, each told by its name', () => {
    const directory = join(folder, 'with-broken-entries')
    mkdirSync(join(directory, 'folder.json'), { recursive: true })
    spawnSync('mkfifo', [join(directory, 'pipe.json')])
    symlinkSync('nowhere', join(directory, 'dangling.json'))
    writeFileSync(join(directory, 'empty.json'), '')
    writeFileSync(join(directory, 'good.json'), line('linux-6.1-max'))
    const fleet = readFleet(directory)
    assert.deepEqual(counts(fleet), [1])
    assert.deepEqual(
      fleet.errors.map(({ message }) => message),
      [
        `${join(directory, 'dangling.json')}: cannot be read (ENOENT)`,
        `${join(directory, 'empty.json')}: is empty`,
      ],
    )
  })

  it('are one where the file is a report over several lines, and several such are to be put on lines', () => {
    const laidOut = formatDocument(builtInReport('linux-6.1-max'))
    const fleet = readFleet(fileOf(laidOut))
    assert.deepEqual(counts(fleet), [1])
    assert.deepEqual(fleet.errors, [])
    assert.throws(() => readFleet(fileOf(laidOut + laidOut)), {
      message: /expected one report per line; convert with `jq -c \.`$/,
    })
  })

  it('are refused where there is nothing', () => {
    assert.throws(() => readFleet(fileOf('')), { message: /is empty$/ })
    assert.throws(() => readFleet(fileOf('\n\n')), { message: /holds no report$/ })
    assert.throws(() => readFleet(join(folder, 'none')), { message: /cannot be read \(ENOENT\)$/ })
  })

  it('take no more memory for garbage without a line end than for the longest report', () => {
    const script = `
      import { readFleet } from ${JSON.stringify(new URL('dist/bundle/fleet.js', packageRoot).href)}
      const { errors } = readFleet('-')
      console.log(errors.map(({ message }) => message).join(), process.resourceUsage().maxRSS)`
    const { stdout } = spawnSync(
      'sh',
      ['-c', 'head -c 1000000000 /dev/zero | "$0" --input-type=module -e "$1"', process.execPath, script],
      { encoding: 'utf8' },
    )
    const [, message, kilobytes] = /^(.*) (\d+)\n$/.exec(stdout)!
    assert.equal(message, 'standard input, line 1: is longer than any report (64 MiB)')
    assert.ok(Number(kilobytes) < 350_000, kilobytes)
  })
})

describe('groups', () => {
  it('are the largest sets in which each is joined with every other', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.array(fc.tuple(fc.nat({ max: 8 }), fc.nat({ max: 8 })), { maxLength: 30 }),
        (size, edges) => {
          const joined = new Set(edges.flatMap(([a, b]) => [`${a} ${b}`, `${b} ${a}`]))
          const areJoined = (a: number, b: number): boolean => joined.has(`${a} ${b}`)
          const found = groupsOf(
            Array.from({ length: size }, () => 1),
            areJoined,
          )
          const isGroup = (bits: number): boolean =>
            members(bits).every((a) => members(bits).every((b) => a === b || areJoined(a, b)))
          const expected: string[] = []
          for (let bits = 1; bits < 1 << size; bits++) {
            const rest = Array.from({ length: size }, (_, index) => 1 << index).filter((bit) => !(bits & bit))
            if (isGroup(bits) && !rest.some((bit) => isGroup(bits | bit))) expected.push(members(bits).join())
          }
          assert.deepEqual(new Set(found.map(({ classes }) => classes.join())), new Set(expected))
        },
      ),
      { numRuns: 100, seed: 5 },
    )
  })

  it('come with most hosts first', () => {
    const found = groupsOf([1, 5, 100, 7], (a, b) => a + b === 4 || a + b === 1)
    assert.deepEqual(found, [
      { classes: [2], hostCount: 100 },
      { classes: [1, 3], hostCount: 12 },
      { classes: [0, 1], hostCount: 6 },
    ])
  })
})

function members(bits: number): number[] {
  return Array.from({ length: 16 }, (_, index) => index).filter((index) => bits & (1 << index))
}

function changed(change: (report: Report) => void): string {
  const report = builtInReport('linux-7.2-max')
  change(report)
  return JSON.stringify(report)
}

describe('the analysis of a fleet', () => {
  const order = ['linux-7.2-max', 'linux-6.18-max', 'linux-6.12-max', 'linux-5.10-max']
  const otherRevision = changed(({ registers }) => {
    registers.find(({ name }) => name === 'MIDR_EL1')!.value = '0xf0511'
  })
  const lines = order.flatMap((host, index) => Array.from({ length: 5 - index }, (_, n) => line(host, n)))
  const fleet = readFleet(fileOf([...lines, otherRevision].join('\n')))
  const analysis = analyseFleet(fleet, {
    whatIf: [{ name: 'newer', report: builtInReport('linux-6.18-max') }],
  })

  it('tells who can move where, and why not', () => {
    const { predictions, moves, obstacles } = analysis
    assert.deepEqual(counts(fleet), [5, 4, 3, 2, 1])
    assert.deepEqual(
      moves.map((row) => row.map((index) => (predictions[index]!.possible ? 'y' : 'n')).join('')),
      ['yynnn', 'yynnn', 'nnynn', 'nnnyn', 'nnnny'],
    )
    const down = predictionOf(analysis, 0, 2).obstacles.map((index) => obstacles[index]!)
    assert.ok(down.some(({ register, stops }) => stops && register?.name === 'KVM_REG_ARM_VENDOR_HYP_BMAP_2'))
  })

  it('finds the groups with free movement, and the pairs one register keeps apart', () => {
    assert.deepEqual(analysis.groups[0], { classes: [0, 1], hostCount: 9 })
    assert.deepEqual(
      analysis.divides.find((divide) => 'register' in divide && divide.register.name === 'MIDR_EL1'),
      {
        register: { id: '0x603000000013c000', name: 'MIDR_EL1' },
        pairs: [
          [0, 4],
          [1, 4],
        ],
        hostCount: 10,
      },
    )
  })

  it('tells what another kernel would open and close, for classes with the same CPU', () => {
    const upgrade = analysis.upgrades.find((one) => one.class === 2)
    assert.deepEqual(
      upgrade?.opens.map((move) => `${move.direction} ${move.class}`),
      ['to 0', 'from 0', 'to 1', 'from 1'],
    )
    assert.deepEqual(upgrade?.closes, [])
    assert.deepEqual(
      analysis.upgrades.map((one) => one.class),
      [0, 2, 3],
    )
  })

  it('leaves out a report that describes no host that could be, and names it', () => {
    const impossible = [
      changed((report) => (report.capabilities.KVM_CAP_MAX_VCPUS = [0, 0])),
      changed(({ traits }) => (traits.init.supported = [])),
    ]
    const good = line('linux-6.1-max')
    const { classes, predictions, moves, errors } = analyseFleet(
      readFleet(fileOf([...impossible, good].join('\n'))),
    )
    assert.equal(classes.length, 1)
    assert.deepEqual(moves, [[0]])
    assert.deepEqual(predictions, [{ possible: true, obstacles: [] }])
    assert.equal(errors.length, 2)
    const messages = errors.map(({ error }) => error.message).toSorted()
    for (const [index, message] of messages.entries()) {
      assert.match(
        message,
        new RegExp(`line ${index + 1}: describes a host on which no VM .* can be created`),
      )
    }
  })

  it('puts the digest of a report’s content before its order', () => {
    const report = builtInReport('linux-6.1-max')
    const reversed = Object.fromEntries(Object.entries(report).toReversed()) as Report
    assert.equal(reportDigest(reversed), reportDigest(report))
    assert.equal(reportDigest({ ...report, version: 3 } as unknown as Report), reportDigest(report))
    assert.notEqual(reportDigest(builtInReport('linux-6.12-max')), reportDigest(report))
  })
})
