import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, it } from 'vitest'
import { packageRoot } from '../../lib/package-root.js'
import { checkFleetDocument, readFleetDocument } from '../../lib/fleet/document.js'
import { predictionOf } from '../../lib/fleet/moves.js'
import type { Report } from '../../lib/report/report.js'
import { builtInHosts, builtInReport } from '../../lib/hosts/index.js'
import { kvmArm64, shell } from './run.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-fleet-cli-'))
afterAll(() => rmSync(folder, { recursive: true }))

const reports = join(folder, 'reports.ndjson')
const lines = ['linux-7.2-max', 'linux-6.18-max', 'linux-7.2-max', 'linux-5.10-max'].map((host, index) =>
  JSON.stringify({ name: `node-${index}`, report: builtInReport(host) }),
)
writeFileSync(reports, `${lines.join('\n')}\n`)
const recorded = fileURLToPath(new URL('lib/hosts/recorded', packageRoot))

interface Found {
  hostCount: number
  faulty: number
  classes: { hostCount: number; names: string[]; releases: string[]; cpu: string; psci: string }[]
  predictions: { possible: boolean; obstacles: number[] }[]
  moves: number[][]
  groups: { classes: number[]; hostCount: number }[]
}

function at(file: string): string {
  return join(folder, file)
}

/** Prints the row of a simulated host. */
function row(host: string, name: string): string {
  const { status, out, error } = kvmArm64(['probe', '--simulate', host, '--digest', '--name', name])
  assert.equal(status, 0, error)
  return out
}

describe('kvm-arm64 fleet', () => {
  it('shows classes, who can move where, groups, and what another kernel opens', () => {
    const { status, out, error } = kvmArm64(['fleet', reports, '--what-if', 'linux-6.18'])
    assert.equal(status, 0)
    assert.equal(error, '')
    assert.match(out, /^4 hosts in 3 classes\n/)
    assert.match(out, /^ +1 +[0-9a-f]{16} +2 +QEMU max r0p0 +7\.2\.\S+ +1\.3 +node-0$/m)
    assert.match(out, /^ +1 +· +✓ +✗\d+$/m)
    assert.match(out, /^ +3 hosts: 1 2\n +alone: 3$/m)
    assert.match(out, /class 3 as linux-6\.18-max: opens to 1, from 1, to 2, from 2; closes nothing/)
  })

  it('prints JSON, with the names of the hosts of each class', () => {
    const { status, out } = shell(`cat ${reports} | $kvm_arm64 fleet - --json`)
    assert.equal(status, 0)
    const found = JSON.parse(out) as Found
    assert.equal(found.hostCount, 4)
    assert.deepEqual(
      found.classes.map(({ names }) => names),
      [['node-0', 'node-2'], ['node-1'], ['node-3']],
    )
    assert.deepEqual(
      found.moves.map((moves) => moves.map((index) => found.predictions[index]!.possible)),
      [
        [true, true, false],
        [true, true, false],
        [false, false, true],
      ],
    )
    assert.deepEqual(found.groups[0], { classes: [0, 1], hostCount: 3 })
  })

  it('reads a directory, whose files are named by their names', () => {
    const { out } = kvmArm64(['fleet', recorded, '--json'])
    const { classes, groups } = JSON.parse(out) as Found
    assert.ok(groups.length > 0 && groups.every(({ hostCount }) => hostCount > 1))
    assert.ok(classes.some(({ names }) => names.includes('linux-6.1-neoverse-n1')))
    assert.equal(classes.length, builtInHosts().length)
  })

  it('writes tables, of all VMMs together', () => {
    const tables = join(folder, 'made', 'tables')
    const { status, out, error } = kvmArm64(['fleet', reports, '--parquet', tables, '--vmm', 'strict,qemu'])
    assert.equal(status, 0, error)
    assert.match(out, /^4 hosts in 3 classes\n/)
    const files = ['hosts', 'classes', 'registers', 'moves', 'obstacles'].map((name) => `${name}.parquet`)
    assert.deepEqual(readdirSync(tables).toSorted(), files.toSorted())
    for (const name of files) {
      assert.match(readFileSync(join(tables, name), 'latin1'), /^PAR1[^]*PAR1$/)
      assert.ok(error.includes(`wrote ${join(tables, name)}\n`))
    }
  })

  it('refuses a directory that it cannot write, before it reads a report', () => {
    for (const tables of [reports, join(reports, 'tables')]) {
      const { status, error } = kvmArm64(['fleet', 'nowhere.ndjson', '--parquet', tables])
      assert.equal(status, 2)
      assert.match(error, /^kvm-arm64: .*: cannot be written \((EEXIST|ENOTDIR)\)\n$/)
    }
  })

  it('tells every line that is no report, analyses the others, and ends with 2', () => {
    const file = join(folder, 'mixed.ndjson')
    const page = join(folder, 'mixed.html')
    const newer = lines[1]!.replace('"version":2', '"version":3')
    writeFileSync(file, [lines[0], '{"firecracker_version":"1"}', newer, '{', lines[1]].join('\n'))
    const { status, out, error } = kvmArm64(['fleet', file, '--html', page])
    assert.equal(status, 2)
    assert.match(out, /^2 hosts in 2 classes\n/)
    assert.match(error, /mixed\.ndjson, line 2: \$\.format: is not a report/)
    assert.match(
      error,
      /mixed\.ndjson, line 3, in "report": \$\.version: is 3, but this kvm-arm64 reads version 2/,
    )
    assert.match(error, /mixed\.ndjson, line 4: is not JSON/)
    assert.match(readFileSync(page, 'utf8'), /<title>Moves between 2 hosts<\/title>/)
  })

  it('tells a host that cannot be simulated by its name, analyses the others, and ends with 2', () => {
    const file = join(folder, 'impossible.ndjson')
    const report = builtInReport('linux-6.1-max')
    report.capabilities.KVM_CAP_MAX_VCPUS = [0, 0]
    writeFileSync(file, [lines[0], JSON.stringify({ name: 'odd', report }), lines[1]].join('\n'))
    const { status, out, error } = kvmArm64(['fleet', file])
    assert.equal(status, 2)
    assert.match(out, /^2 hosts in 2 classes\n/)
    assert.match(
      error,
      /impossible\.ndjson, line 2: describes a host on which no VM .* can be created .*: odd\n$/,
    )
    const whatIf = join(folder, 'impossible.json')
    writeFileSync(whatIf, JSON.stringify(report))
    const asked = kvmArm64(['fleet', reports, '--what-if', whatIf])
    assert.equal(asked.status, 2)
    assert.match(asked.error, /impossible\.json: describes a host/)
  })

  it('takes one report as `probe -o` wrote it', () => {
    const file = join(folder, 'one.json')
    writeFileSync(file, kvmArm64(['show', 'linux-6.1-max', '--json']).out)
    const { status, out, error } = kvmArm64(['fleet', file])
    assert.equal(status, 0, error)
    assert.match(out, /^1 host in 1 class\n/)
    const piped = shell(`cat ${file} | $kvm_arm64 fleet -`)
    assert.equal(piped.status, 2)
    assert.match(
      piped.error,
      /^kvm-arm64: standard input: expected one report per line; convert with `jq -c \.`\n$/,
    )
  })

  it('refuses a page it could not write before it reads anything', () => {
    const { status, error } = kvmArm64(['fleet', 'nowhere', '--html', join(folder, 'none', 'page.html')])
    assert.equal(status, 2)
    assert.match(error, /page\.html: cannot be written \(ENOENT\)/)
  })

  it('leaves an old page where there is nothing to show', () => {
    const page = join(folder, 'old.html')
    writeFileSync(page, 'old')
    for (const [input, message] of [
      ['head -c 100000000 /dev/zero', /standard input, line 1: is longer than any report \(64 MiB\)/],
      ['yes garbage | head -n 1000', /line 100: is not JSON.*\n.*and 900 more that could not be read/],
      ['true', /standard input: is empty/],
    ] as const) {
      const { status, out, error } = shell(`${input} | $kvm_arm64 fleet - --html ${page}`)
      assert.equal(status, 2)
      assert.equal(out, '')
      assert.match(error, message)
    }
    assert.equal(readFileSync(page, 'utf8'), 'old')
  })

  it('refuses an unknown VMM, an unknown host and a fleet that is not there', () => {
    for (const [args, message] of [
      [[reports, '--vmm', 'none'], /unknown VMM "none"; expected one of strict/],
      [[reports, '--what-if', 'linux-9'], /linux-9: no such report file or built-in host/],
      [[join(folder, 'nowhere')], /nowhere: cannot be read \(ENOENT\)/],
    ] as const) {
      const { status, error } = kvmArm64(['fleet', ...args])
      assert.equal(status, 2)
      assert.match(error, message)
    }
  })

  it('says so where no class has the CPU of the host to compare with', () => {
    const { error } = kvmArm64(['fleet', reports, '--what-if', 'linux-6.18-neoverse-n1'])
    assert.match(error, /no class of this fleet has the CPU of linux-6\.18-neoverse-n1/)
  })

  it('says who answered where it was no kernel, and documents it of every class', () => {
    const file = join(folder, 'origins.ndjson')
    const simulated: Report = {
      ...builtInReport('linux-6.18-max'),
      origin: { kind: 'simulation', of: 'linux-6.18-max' },
    }
    const document = join(folder, 'origins.json')
    writeFileSync(file, [lines[0], lines[1], JSON.stringify(simulated)].join('\n'))
    const { out } = kvmArm64(['fleet', file])
    assert.match(out, /answered by/)
    assert.match(out, /a kernel \(1\), a simulation of linux-6\.18-max \(1\)/)
    assert.doesNotMatch(kvmArm64(['fleet', reports]).out, /answered by/)
    writeFileSync(document, kvmArm64(['fleet', file, '--json']).out)
    assert.deepEqual(
      readFleetDocument(document).classes.map(({ origins }) => origins),
      [
        [
          { origin: { kind: 'kernel' }, hostCount: 1 },
          { origin: { kind: 'simulation', of: 'linux-6.18-max' }, hostCount: 1 },
        ],
        [{ origin: { kind: 'kernel' }, hostCount: 1 }],
      ],
    )
  })

  it('prints no escape sequence of a file name, and a document that its reader accepts', () => {
    const odd = join(folder, '\u001b[31modd\u202e')
    mkdirSync(odd)
    writeFileSync(join(odd, 'a\u001b]0;x.json'), JSON.stringify(builtInReport('linux-6.1-max')))
    writeFileSync(join(odd, 'b\u202e.json'), '{')
    const { out, error } = kvmArm64(['fleet', odd])
    // oxlint-disable-next-line no-control-regex
    assert.doesNotMatch(out + error, /[\u001b\u202e]/)
    const { classes } = checkFleetDocument(JSON.parse(kvmArm64(['fleet', odd, '--json']).out), 'fleet')
    assert.deepEqual(classes[0]!.names, [String.raw`a\x1b]0;x`])
  })

  it('judges by the rules of a VMM', () => {
    const file = join(folder, 'older-and-newer.ndjson')
    const hosts = ['linux-6.12-max', 'linux-6.18-max'].map((host) => JSON.stringify(builtInReport(host)))
    writeFileSync(file, hosts.join('\n'))
    // A state of 6.12 lacks a register of 6.18, which QEMU 11.1 tolerates.
    for (const [vmm, possible] of [
      ['qemu@10.0', false],
      ['qemu@11.1', true],
    ] as const) {
      const { out } = kvmArm64(['fleet', file, '--vmm', vmm, '--json'])
      const found = JSON.parse(out) as Found
      const older = found.classes.findIndex(({ releases: [release] }) => release!.startsWith('6.12.'))
      assert.equal(predictionOf(found, older, 1 - older)?.possible, possible, vmm)
    }
  })

  it('merges the parts of a fleet, and compares it with itself later', () => {
    const rows = [row('linux-7.2-max', 'node-0'), row('linux-6.18-max', 'node-9')]
    assert.match(rows[0]!, /^\{"name":"node-0","class":"[0-9a-f]{16}","release":.*\}\n$/)
    writeFileSync(at('rows.ndjson'), rows.join(''))
    const alone = kvmArm64(['fleet', 'summarise', at('rows.ndjson'), '-o', at('rows.json')])
    assert.equal(alone.status, 0, alone.error)
    assert.match(
      alone.error,
      /no report of class [0-9a-f]{16}: get one with `kvm-arm64 probe --json` on node-[09]/,
    )
    for (const [index, line] of lines.entries()) {
      writeFileSync(at(`shard-${index}.ndjson`), line)
      kvmArm64(['fleet', 'summarise', at(`shard-${index}.ndjson`), '-o', at(`part-${index}.json`)])
    }
    const parts = [3, 0, 2, 1, 0].map((index) => at(`part-${index}.json`))
    const merge = kvmArm64(['fleet', 'merge', ...parts, '-o', at('all.json')])
    assert.equal(merge.status, 0, merge.error)
    const single = kvmArm64(['fleet', reports, '--json']).out
    assert.equal(kvmArm64(['fleet', at('all.json'), '--json']).out, single)
    writeFileSync(at('then.json'), single)
    writeFileSync(at('now.json'), kvmArm64(['fleet', at('all.json'), at('rows.json'), '--json']).out)
    const { status, out, error } = kvmArm64(['fleet', 'diff', at('then.json'), at('now.json')])
    assert.equal(status, 0, error)
    assert.match(out, /^New hosts: 1\n {2}node-9\n$/)
    assert.equal(kvmArm64(['fleet', 'diff', at('now.json'), at('now.json')]).out, 'nothing changed\n')
    const { digest } = readFleetDocument(at('then.json')).classes[0]!
    assert.match(kvmArm64(['fleet', reports]).out, new RegExp(`^ +1 +${digest} +2 `, 'm'))
  })

  it('prints a row of a simulated host only as such, and no row beside a report', () => {
    const simulated = kvmArm64(['probe', '--simulate', 'linux-6.1-max', '--digest'])
    assert.match(
      simulated.out,
      /"name":"linux-6\.1-max",.*"origin":\{"kind":"simulation","of":"linux-6\.1-max"\}/,
    )
    for (const args of [
      ['--digest', '-o', '-'],
      ['--name', 'a'],
      ['--digest', '--json'],
    ]) {
      assert.equal(kvmArm64(['probe', '--simulate', 'linux-6.1-max', ...args]).status, 2)
    }
  })
})
