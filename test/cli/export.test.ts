import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { builtInReport } from '../../lib/hosts/index.js'
import { parseCpuTemplate } from '../../lib/interchange/firecracker.js'
import { readReport } from '../../lib/report/read.js'
import type { Report } from '../../lib/report/report.js'
import { gravitonFile } from '../interchange/graviton.js'
import { kvmArm64 } from './run.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-export-'))
afterAll(() => rmSync(folder, { recursive: true }))

const HOST = 'linux-6.12-max'
const fleetFolder = mkdtempSync(join(tmpdir(), 'kvm-arm64-export-fleet-'))
const inFleet = join(fleetFolder, 'fleet.json')
afterAll(() => rmSync(fleetFolder, { recursive: true }))

beforeAll(() => {
  const input = JSON.stringify(builtInReport(HOST))
  writeFileSync(inFleet, kvmArm64(['fleet', '-', '--json'], { input }).out)
})

describe('export', () => {
  const formats: [to: string, out: RegExp, told: RegExp][] = [
    ['firecracker', /^\{\n  "kvm_capabilities"/, /not in it: MIDR_EL1/],
    ['qemu', /^-cpu host,.*kvm-psci-version=1\.1\n$/, /not in it: .*ID registers/],
    ['qemu@10.0', /^-cpu host,pmu=off,sve=off,pauth=off\n$/, /not in it: PSCI 1\.1/],
    ['nfd', /\n# \+expiry-time=\d.*\nkvm-arm64\.io\/class=/, /not in it: what may be written/],
    ['kubevirt', /^# .*\naffinity:/, /not in it: direction/],
    ['prometheus', /^# HELP kvm_arm64_info/, /not in it: what may be written/],
  ]
  for (const [to, out, told] of formats) {
    test(`--to ${to} prints it, and tells on stderr what is not in it`, () => {
      const outcome = kvmArm64(['export', HOST, '--to', to])
      assert.equal(outcome.status, 0)
      assert.match(outcome.out, out)
      assert.match(outcome.error, told)
      const { text, inexpressible } = JSON.parse(kvmArm64(['export', HOST, '--to', to, '--json']).out) as {
        text: string
        inexpressible: string[]
      }
      if (to !== 'nfd') assert.equal(text, outcome.out)
      for (const what of inexpressible) assert.ok(outcome.error.includes(what), what)
    })
  }

  test('takes a baseline where a guest is configured, with its features', () => {
    const file = join(folder, 'baseline.json')
    kvmArm64(['baseline', 'linux-6.12-max', 'linux-7.2-max', '--features', 'psci-0.2,sve', '-o', file])
    const option = kvmArm64(['export', file, '--to', 'qemu'])
    assert.match(option.out, /^-cpu host,pmu=off,sve=on,sve2048=on,pauth=off,.*kvm-psci-version=1\.1\n$/)
    assert.match(option.error, /KVM_REG_ARM_VENDOR_HYP_BMAP_2: some of the hosts lack it/)
    const { template } = parseCpuTemplate(kvmArm64(['export', file, '--to', 'firecracker']).out, 'stdout')
    const psci = template.registers.find(({ id }) => id === 0x6030000000140000n)
    assert.equal(psci?.value, 0x10001n)
    const both = kvmArm64(['export', file, '--to', 'qemu', '--features', 'psci-0.2'])
    assert.equal(both.status, 2)
    assert.match(both.error, /is a baseline, whose features are psci-0\.2, sve/)
    assert.match(kvmArm64(['export', file, '--to', 'nfd']).error, /is not a report/)
    rmSync(file)
  })

  test('-o writes a file whole, and leaves nothing else in its directory', () => {
    const file = join(folder, 'template.json')
    writeFileSync(file, 'old')
    const files = readdirSync(folder)
    const inode = statSync(file).ino
    const { status, out } = kvmArm64([
      'export',
      HOST,
      '--to',
      'firecracker',
      '-o',
      file,
      '--features',
      'psci-0.2,sve',
    ])
    assert.deepEqual([status, out], [0, ''])
    assert.notEqual(statSync(file).ino, inode)
    const { template } = parseCpuTemplate(readFileSync(file, 'utf8'), file)
    assert.deepEqual(template.kvmCapabilities, [{ number: 170, required: true }])
    assert.deepEqual(readdirSync(folder), files)
  })

  test('--features stands for psci-0.2 and these, as KVM must be asked for them', () => {
    const option = kvmArm64(['export', HOST, '--to', 'qemu', '--features', 'sve'])
    assert.match(option.out, /,sve=on,.*,kvm-psci-version=1\.1\n$/)
    const { out } = kvmArm64(['export', HOST, '--to', 'firecracker', '--features', 'sve'])
    const { template } = parseCpuTemplate(out, 'stdout')
    assert.equal(template.registers.find(({ id }) => id === 0x6030000000140000n)?.value, 0x10001n)
  })

  test('--json -o writes the file too', () => {
    const file = join(folder, 'option')
    const { status, out } = kvmArm64(['export', HOST, '--to', 'qemu', '--json', '-o', file])
    assert.equal(status, 0)
    assert.equal(readFileSync(file, 'utf8'), (JSON.parse(out) as { text: string }).text)
  })

  test('says which feature a report has no vCPU with', () => {
    const file = join(folder, 'no-psci.json')
    const report = JSON.parse(kvmArm64(['show', HOST, '--json']).out) as Report
    report.traits.init.supported = []
    writeFileSync(file, JSON.stringify(report))
    const exported = kvmArm64(['export', file, '--to', 'firecracker'])
    assert.equal(exported.status, 1)
    assert.match(exported.error, /no-psci\.json has no vCPU with the features psci-0\.2/)
    const baseline = kvmArm64(['baseline', HOST, file])
    assert.equal(baseline.status, 1)
    assert.match(baseline.error, /no-psci\.json has no vCPU with the feature psci-0\.2/)
  })

  test('--namespace and --expire are for labels', () => {
    const args = ['export', HOST, '--to', 'nfd', '--namespace', 'example.com', '--expire', '1']
    const { out } = kvmArm64(args)
    const expiry = new Date(/expiry-time=(\S+)/.exec(out)![1]!).getTime()
    assert.ok(Math.abs(expiry - Date.now() - 3_600_000) < 60_000)
    assert.match(out, /^example\.com\/psci=1\.1$/m)
  })

  test('--fleet is for labels of moves', () => {
    const { out, error } = kvmArm64(['export', HOST, '--to', 'nfd', '--fleet', inFleet])
    assert.match(out, /^kvm-arm64\.io\/moves-key\.strict=[0-9a-f]{16}$/m)
    assert.match(out, /^kvm-arm64\.io\/accepts\.strict\.[0-9a-f]{16}=true$/m)
    assert.doesNotMatch(error, /which moves are possible/)
  })

  const wrong: [what: string, args: string[], status: number, error: RegExp][] = [
    ['no format', [HOST], 2, /--to/],
    ['an unknown format', [HOST, '--to', 'libvirt'], 2, /libvirt.*firecracker, qemu/],
    ['two reports for one host’s format', [HOST, HOST, '--to', 'nfd'], 2, /takes one report, found 2/],
    [
      'features the host has not',
      ['linux-6.1-neoverse-n1', '--to', 'qemu', '--features', 'sve'],
      1,
      /no vCPU with/,
    ],
    ['a hidden feature file', [HOST, '--to', 'nfd', '-o', join(folder, '.x')], 2, /starts with a dot/],
    ['a namespace of Kubernetes', [HOST, '--to', 'nfd', '--namespace', 'k8s.io'], 2, /Kubernetes' own/],
    [
      'features of labels',
      [HOST, '--to', 'nfd', '--features', 'sve'],
      2,
      /--features applies to --to firecracker and qemu only, not to --to nfd/,
    ],
    [
      'an expiry of an option',
      [HOST, '--to', 'qemu', '--expire', '1'],
      2,
      /--expire applies to --to nfd only, not to --to qemu/,
    ],
    [
      'a namespace of an option',
      [HOST, '--to', 'qemu@10.0', '--namespace', 'a.b'],
      2,
      /--namespace applies to --to nfd, nfd-objects and kubevirt only, not to --to qemu@10.0/,
    ],
    [
      'a file in no directory',
      [HOST, '--to', 'qemu', '-o', join(folder, 'none', 'x')],
      2,
      /cannot be written \(ENOENT\)/,
    ],
    ['two fleets of one VMM', [HOST, '--to', 'nfd', '--fleet', inFleet, inFleet], 2, /two fleets for strict/],
    [
      'a host that is not in the fleet',
      ['linux-6.1-max', '--to', 'nfd', '--fleet', inFleet],
      2,
      /no such class/,
    ],
    [
      'a fleet for another format',
      [HOST, '--to', 'kubevirt', '--fleet', inFleet],
      2,
      /--fleet applies to --to nfd and prometheus only, not to --to kubevirt/,
    ],
    ['labels that never go', [HOST, '--to', 'nfd', '--expire', '0'], 2, /number of hours/],
    ['a fingerprint', [gravitonFile('N1', '6.1'), '--to', 'qemu'], 2, /a fingerprint.*kvm-arm64 import/],
  ]
  for (const [what, args, status, error] of wrong) {
    test(`refuses ${what}`, () => {
      const outcome = kvmArm64(['export', ...args])
      assert.equal(outcome.status, status, outcome.error)
      assert.equal(outcome.out, '')
      assert.match(outcome.error, error)
    })
  }
})

describe('import', () => {
  test('makes a report of a fingerprint', () => {
    const file = join(folder, 'v1.json')
    const args = ['import', gravitonFile('V1', '6.18'), '--like', 'linux-6.18-max']
    const { status, error } = kvmArm64([...args, '-o', file])
    assert.equal(status, 0, error)
    assert.match(error, /everything else are inferred from linux-6\.18-max/)
    assert.match(error, /which values these accept or hold: .*ID_AA64PFR0_EL1\.EL3.*\n/)
    assert.equal(readReport(file).host.release, '6.18.30-61.116.amzn2023.aarch64')
    assert.equal(kvmArm64(args).out, readFileSync(file, 'utf8'))
  })

  test('says nothing of vCPU features and devices, which a fingerprint does not hold', () => {
    const file = join(folder, 'unknown.json')
    kvmArm64(['import', gravitonFile('V1', '6.18'), '--like', 'linux-6.18-max', '-o', file])
    const shown = kvmArm64(['show', file]).out
    assert.doesNotMatch(/^ *has(?: not)? .*$/m.exec(shown)![0], /SVE|PMUv3|pointer authentication/)
    assert.match(shown, /not known +SVE, PMUv3, pointer authentication.*; vCPU features .*sve.*; devices/)
    assert.match(kvmArm64(['show', file, '--traits']).out, /^ *devices +not known$/m)
    const option = kvmArm64(['export', file, '--to', 'qemu'])
    assert.equal(option.out, '-cpu host,kvm-psci-version=1.3\n')
    assert.match(option.error, /sve=on or off: the report does not say whether the host has it/)
    const chosen = kvmArm64(['export', file, '--to', 'qemu', '--features', 'psci-0.2'])
    assert.equal(chosen.out, '-cpu host,pmu=off,sve=off,pauth=off,kvm-psci-version=1.3\n')
    const asked = kvmArm64(['export', file, '--to', 'qemu', '--features', 'sve'])
    assert.deepEqual([asked.status, asked.out], [1, ''])
    assert.match(asked.error, /does not say whether its host has sve/)
    const compared = kvmArm64(['diff', 'linux-6.18-max', file]).out
    assert.match(compared, /^ *feature +sve +yes +unknown$/m)
    assert.match(compared, /^ *capability +KVM_CAP_ARM_SVE +1 +unknown$/m)
  })

  test('--with vouches for vCPU features, and says what of them is not known', () => {
    const file = join(folder, 'vouched.json')
    const args = ['import', gravitonFile('V1', '6.18'), '--like', 'linux-6.18-max', '-o', file]
    const { status, error } = kvmArm64([...args, '--with', 'sve,pmu-v3'])
    assert.equal(status, 0, error)
    assert.match(error, /ID_AA64DFR0_EL1\.PMUVer/)
    assert.match(kvmArm64(['show', file]).out, /^ *has .*SVE, PMUv3/m)
    // The vectors of a Neoverse V1 have 128 or 256 bits.
    assert.match(
      kvmArm64(['export', file, '--to', 'qemu', '--features', 'sve']).out,
      /^-cpu host,pmu=off,sve=on,sve256=on,pauth=off,/,
    )
    kvmArm64([...args, '--with', 'sve128'])
    assert.match(kvmArm64(['export', file, '--to', 'qemu', '--features', 'sve']).out, /,sve128=on,/)
    const max = join(folder, 'max-fingerprint.json')
    writeFileSync(
      max,
      readFileSync(gravitonFile('V1', '6.18'), 'utf8').replace(
        /("addr": "0x603000000013c000",\s*"bitmap": ")[^"]*/,
        '$10b00000000000000000000000000000000000000000000111100000101000100000',
      ),
    )
    const bad: [args: string[], error: RegExp][] = [
      [
        [gravitonFile('V1', '6.18'), '--like', 'linux-6.18-max', '--with', 'wings'],
        /Unknown vCPU feature "wings"/,
      ],
      [[gravitonFile('V1', '6.18'), '--like', 'linux-6.18-max', '--with', 'sve100'], /sve128, sve256/],
      [
        [gravitonFile('V1', '6.18'), '--like', 'linux-6.18-neoverse-n1', '--with', 'sve'],
        /--with: the host 6\.18\S* has no vCPU with sve/,
      ],
      [
        [max, '--like', 'linux-6.18-max', '--with', 'sve'],
        /vector lengths of this CPU are not known: name the longest/,
      ],
    ]
    for (const [wrong, problem] of bad) {
      const outcome = kvmArm64(['import', ...wrong])
      assert.deepEqual([outcome.status, outcome.out], [2, ''])
      assert.match(outcome.error, problem)
    }
  })

  test('makes a host of which a feature is unknown, not absent: no command answers for it', () => {
    const file = join(folder, 'no-answer.json')
    kvmArm64(['import', gravitonFile('V1', '6.18'), '--like', 'linux-6.18-max', '-o', file])
    const baseline = join(folder, 'needs-sve.json')
    const template = join(folder, 'sve-template.json')
    writeFileSync(template, '{"vcpu_features":[{"index":0,"bitmap":"0b1xxxx"}]}')
    kvmArm64(['import', template, '-o', baseline])
    for (const args of [
      ['capture', '--simulate', file, '--features', 'sve'],
      ['apply', baseline, '--simulate', file],
      ['check', '--from', file, '--to', 'linux-6.18-max', '--features', 'sve'],
      ['check', '--from', 'linux-6.18-max', '--to', file, '--features', 'sve', '--vmm', 'qemu'],
      ['check', '--from', 'linux-6.18-max', '--to', file, '--features', 'sve', '--vmm', 'firecracker'],
    ]) {
      const { status, out, error } = kvmArm64(args)
      assert.deepEqual([status, out], [1, ''], args.join(' '))
      assert.match(error, /does not say whether it has sve; kvm-arm64 import --with sve vouches for that/)
    }
  })

  test('--with takes the reply of a QEMU on the host', () => {
    const reply = join(folder, 'qmp.json')
    const props = { pmu: true, sve: true, sve128: true, sve256: true, sve512: false, pauth: false }
    writeFileSync(reply, JSON.stringify({ return: { model: { name: 'host', props } } }))
    const file = join(folder, 'by-qmp.json')
    const args = ['import', gravitonFile('V1', '6.18'), '--like', 'linux-6.18-max', '-o', file]
    const { status, error } = kvmArm64([...args, '--with', reply])
    assert.equal(status, 0, error)
    assert.match(error, /not known either: vCPU features el1-32bit, ptrauth-address, ptrauth-generic/)
    assert.match(
      kvmArm64(['export', file, '--to', 'qemu', '--features', 'sve']).out,
      /^-cpu host,pmu=off,sve=on,sve256=on,/,
    )
    writeFileSync(reply, '{"return":{"model":{}}}')
    assert.match(kvmArm64([...args, '--with', reply]).error, /\$\.return\.model\.props/)
  })

  test('makes a baseline of a template, which a host is asked about', () => {
    const template = join(folder, 'template.json')
    const file = join(folder, 'of-template.json')
    kvmArm64(['export', 'linux-6.12-max', '--to', 'firecracker', '-o', template])
    const { status, error } = kvmArm64(['import', template, '-o', file])
    assert.equal(status, 0, error)
    const onItself = kvmArm64(['apply', file, '--simulate', 'linux-6.12-max'])
    assert.deepEqual([onItself.status, onItself.error], [0, ''])
    const onAnother = kvmArm64(['apply', file, '--simulate', 'linux-6.12-neoverse-n1'])
    assert.equal(onAnother.status, 1)
    assert.match(onAnother.out, /ID_AA64ISAR1_EL1/)
    writeFileSync(template, '{"vcpu_features":[{"index":0,"bitmap":"0b111xxx0"}]}')
    assert.match(kvmArm64(['import', template]).error, /POWER_OFF: guests with several vCPUs do not come up/)
    assert.match(kvmArm64(['import', template, '--like', HOST]).error, /--like is for fingerprints/)
  })

  test('lists the hosts that would do where none is named', () => {
    const { status, error } = kvmArm64(['import', gravitonFile('N1', '5.10')])
    assert.equal(status, 2)
    assert.match(error, /--like.*nearest first: linux-5\.10-/)
    assert.doesNotMatch(error, /linux-6/)
  })

  test('takes a host of another kernel that has the same firmware registers, and says what differs', () => {
    const args = ['import', gravitonFile('N1', '6.1'), '--like']
    const other = kvmArm64([...args, 'linux-6.12-max'])
    assert.equal(other.status, 0)
    assert.match(
      other.error,
      /may have another kernel.*only linux-6\.12-max has TCR2_EL1.*nearest are: linux-6\.1-/,
    )
    assert.doesNotMatch(kvmArm64([...args, 'linux-6.1-max']).error, /another kernel/)
  })

  test('refuses a host with other firmware registers, and names those that would do', () => {
    const { status, error } = kvmArm64(['import', gravitonFile('V1', '6.18'), '--like', 'linux-6.1-max'])
    assert.equal(status, 2)
    assert.match(error, /VENDOR_HYP_BMAP_2, which the host 6\.1\S* lacks.*nearest are: linux-6\.18-/)
  })

  test('is what a command that is due a report names where it is given a fingerprint', () => {
    const { status, error } = kvmArm64(['show', gravitonFile('N1', '6.1')])
    assert.equal(status, 2)
    assert.match(error, /is not a report but a fingerprint.*kvm-arm64 import/)
  })

  test('refuses what is no fingerprint, and reads no file without end', () => {
    const report = join(folder, 'report.json')
    writeFileSync(report, kvmArm64(['show', HOST, '--json']).out)
    const { status, error } = kvmArm64(['import', report, '--like', HOST])
    assert.equal(status, 2)
    assert.match(error, /is no fingerprint of cpu-template-helper/)
    assert.match(
      kvmArm64(['import', '/dev/zero', '--like', HOST]).error,
      /larger than any fingerprint or CPU template/,
    )
  })
})
