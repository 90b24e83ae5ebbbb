import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import type { FleetDocument } from '../../lib/fleet/document.js'
import { checkGateAnswer } from '../../lib/fleet/gate-answer.js'
import { readState } from '../../lib/migration/state.js'
import { checkVerdict } from '../../lib/migration/verdict-document.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { classOf } from '../../lib/report/digest.js'
import { kvmArm64, onX64 } from './run.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-check-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('check', () => {
  test('answers yes with status 0', () => {
    const { status, out } = kvmArm64([
      'check',
      '--from',
      'linux-6.1-neoverse-n1',
      '--to',
      'linux-6.18-neoverse-n1',
    ])
    assert.equal(status, 0)
    assert.match(
      out,
      /^linux-6\.1-neoverse-n1 → linux-6\.18-neoverse-n1, strict with psci-0\.2: yes; 242\n {2}of 242 registers unchanged$/m,
    )
    assert.match(out, /^ {2}silent default$/m)
  })

  test('answers no with status 1, and says what stops the VM, what it means and what prevents it', () => {
    const { status, out } = kvmArm64([
      'check',
      '--from',
      'linux-6.18-neoverse-n1',
      '--to',
      'linux-6.1-neoverse-n1',
    ])
    assert.equal(status, 1)
    assert.match(out, /strict with psci-0\.2: no,\s+stopped by \d+ obstacles; /)
    assert.match(out, /^ {4}KVM_REG_ARM_PSCI_VERSION: 0x10003 \(PSCI 1\.3\) → accepts/m)
    assert.match(out, /^ {6}the guest was given PSCI 1\.3/m)
    assert.match(out, /^ {6}remedy: write KVM_REG_ARM_PSCI_VERSION = 0x10001/m)
    assert.match(out, /^ {4}\d+ registers: CCSIDR_EL1\[3\], [^:]* and \d+ more$/m)
    for (const line of out.split('\n')) assert.ok(line.length <= 80, line)
  })

  test('goes both ways, and prints JSON', () => {
    const { status, out } = kvmArm64([
      'check',
      '--from',
      'linux-6.1-neoverse-n1',
      '--to',
      'linux-6.18-neoverse-n1',
      '--both',
      '--json',
    ])
    assert.equal(status, 1)
    assert.deepEqual(
      checkVerdict(JSON.parse(out), 'check').moves.map(({ from, to, restoredOn, possible }) => [
        from.name,
        to.name,
        restoredOn,
        possible,
      ]),
      [
        ['linux-6.1-neoverse-n1', 'linux-6.18-neoverse-n1', 'simulation', true],
        ['linux-6.18-neoverse-n1', 'linux-6.1-neoverse-n1', 'simulation', false],
      ],
    )
  })

  test('moves the VM that --elect and --psci make', () => {
    const move = ['check', '--from', 'linux-6.1-neoverse-n1', '--to', 'linux-5.10-neoverse-n1', '--json']
    const firmware = (...options: string[]): string[] => {
      const { moves } = checkVerdict(JSON.parse(kvmArm64([...move, ...options]).out), 'check')
      return moves[0]!.findings
        .filter(({ register }) => register?.name.startsWith('KVM_REG_ARM'))
        .map(({ severity, register, field }) => `${severity} ${register!.name}${field ? `.${field}` : ''}`)
    }
    assert.deepEqual(firmware(), [
      'refused KVM_REG_ARM_PSCI_VERSION',
      'missing-at-destination KVM_REG_ARM_STD_HYP_BMAP.STD_HYP_BIT_PV_TIME',
      'service-lost KVM_REG_ARM_STD_BMAP.STD_BIT_TRNG_V1_0',
      'service-lost KVM_REG_ARM_VENDOR_HYP_BMAP.VENDOR_HYP_BIT_FUNC_FEAT',
      'service-lost KVM_REG_ARM_VENDOR_HYP_BMAP.VENDOR_HYP_BIT_PTP',
    ])
    assert.deepEqual(firmware('--elect', 'pv-time', '--psci', '1.0'), [
      'missing-at-destination KVM_REG_ARM_STD_BMAP',
      'missing-at-destination KVM_REG_ARM_STD_HYP_BMAP.STD_HYP_BIT_PV_TIME',
      'missing-at-destination KVM_REG_ARM_VENDOR_HYP_BMAP',
    ])
  })

  test('says the same whenever it is asked, though some registers count time', () => {
    const args = ['check', '--from', 'linux-5.10-max', '--to', 'linux-7.2-max', '--both', '--json']
    const { out } = kvmArm64(args)
    assert.equal(kvmArm64(args).out, out)
    assert.match(out, /"destination": "counts"/)
  })

  test('says who answered, and whether it is a prediction', () => {
    const file = join(folder, 'simulated.json')
    const report = builtInReport('linux-6.12-max')
    const origin = { kind: 'simulation', of: 'linux-6.12-max' }
    writeFileSync(file, JSON.stringify({ ...report, origin }))
    const move = ['check', '--from', file, '--to', 'linux-6.12-max']
    const { out } = kvmArm64(move)
    assert.match(
      out.replaceAll(/\s+/g, ' '),
      /answered by: a simulation of linux-6\.12-max → a kernel; predicted on/,
    )
    const [found] = checkVerdict(JSON.parse(kvmArm64([...move, '--json']).out), 'check').moves
    assert.deepEqual([found!.from.origin, found!.to.origin], [origin, { kind: 'kernel' }])
  })

  test('takes the beginning of one host’s name, and names the hosts where there are several', () => {
    assert.equal(kvmArm64(['check', '--from', 'seed', '--to', 'seed-v6']).status, 0)
    for (const args of [
      ['check', '--from', 'linux-6.18', '--to', 'linux-6.1-max'],
      ['check', '--from', 'linux-6.1-max', '--to', 'linux-6.18'],
      ['diff', 'linux-6.18', 'linux-6.1-max'],
      ['capture', '--simulate', 'linux-6.18'],
      ['show', 'linux-6.18'],
    ]) {
      const { status, error } = kvmArm64(args)
      assert.equal(status, 2, args.join(' '))
      assert.match(
        error,
        /linux-6\.18 means several hosts: linux-6\.18-cortex-a57, linux-6\.18-max, linux-6\.18-neoverse-n1, linux-6\.18-neoverse-n1-pkvm; name one/,
      )
    }
    // Not the beginning up to a hyphen.
    assert.match(
      kvmArm64(['show', 'linux-6.1-neo']).error,
      /no such report file or built-in host; did you mean /,
    )
  })

  test('prints no escape sequence of a file name, and a document that its reader accepts', () => {
    const file = join(folder, '\u001b[31modd\u202e.json')
    writeFileSync(file, JSON.stringify(builtInReport('linux-6.1-max')))
    const move = ['check', '--from', file, '--to', 'linux-6.1-max']
    const { out } = kvmArm64(move)
    // oxlint-disable-next-line no-control-regex
    assert.doesNotMatch(out, /[\u001b\u202e]/)
    const [found] = checkVerdict(JSON.parse(kvmArm64([...move, '--json']).out), 'check').moves
    assert.match(found!.from.name, /\\x1b\[31modd\\u202e\.json$/)
  })

  test('moves a captured state', () => {
    const file = join(folder, 'vm.json')
    const captured = kvmArm64([
      'capture',
      '--simulate',
      'linux-7.2-max',
      '--vcpus',
      '2',
      '--psci',
      '1.0',
      '-o',
      file,
    ])
    assert.equal(captured.status, 0, captured.error)
    assert.equal(readState(file).vcpus.length, 2)
    const { status, out } = kvmArm64(['check', '--state', file, '--to', 'linux-7.2-max'])
    assert.equal(status, 0)
    assert.match(out, /answered by: a simulation of linux-7\.2-max → a kernel/)
    assert.match(out, /514 of 514\s+registers unchanged/)
  })

  test('gives each VMM’s answer, and no for one that is unknown', () => {
    const hosts = ['check', '--from', 'linux-6.12-max', '--to', 'linux-6.12-max']
    assert.match(kvmArm64([...hosts, '--vmm', 'all']).out, /, strict with psci-0\.2: yes/)
    const { out } = kvmArm64([...hosts, '--vmm', 'qemu,qemu@11.1', '--json'])
    assert.deepEqual(
      checkVerdict(JSON.parse(out), 'check').moves.map(({ vmm }) => vmm),
      ['qemu@11.1'],
    )
    const { status, error } = kvmArm64([...hosts, '--vmm', 'vmware'])
    assert.equal(status, 2)
    assert.match(error, /unknown VMM "vmware"; expected one of strict/)
  })

  test('judges the VM that the VMM makes on each side, and names its features', () => {
    const move = ['check', '--from', 'linux-6.12-max', '--to', 'linux-6.12-neoverse-n1', '--vmm', 'qemu']
    const featuresOf = (...options: string[]): unknown =>
      checkVerdict(JSON.parse(kvmArm64([...move, ...options, '--json']).out), 'check').moves[0]!.features
    const max = ['psci-0.2', 'pmu-v3', 'sve', 'ptrauth-address', 'ptrauth-generic']
    assert.deepEqual(featuresOf(), { source: max, destination: ['psci-0.2', 'pmu-v3'] })
    assert.deepEqual(featuresOf('--features-to', 'none'), { source: max, destination: ['psci-0.2'] })
    assert.deepEqual(featuresOf('--features', 'none'), { source: ['psci-0.2'], destination: ['psci-0.2'] })
    assert.match(
      kvmArm64(move).out.replaceAll(/\s+/g, ' '),
      /qemu@11\.1 with psci-0\.2 pmu-v3 sve ptrauth-address ptrauth-generic → psci-0\.2 pmu-v3, GICv3: no, stopped by/,
    )
    const strict = kvmArm64([...move.slice(0, 5), '--features-to', 'none'])
    assert.equal(strict.status, 2)
    assert.match(strict.error, /--features-to does not apply to strict/)
  })

  test('makes the VM by a CPU template, and says what the source refuses of one', () => {
    const file = join(folder, 'template.json')
    const psci = { addr: '0x6030000000140000', bitmap: `0b${(0x10001).toString(2).padStart(64, '0')}` }
    writeFileSync(file, JSON.stringify({ reg_modifiers: [psci] }))
    const move = [
      'check',
      '--from',
      'linux-7.2-neoverse-n1',
      '--to',
      'linux-6.12-neoverse-n1',
      '--vmm',
      'firecracker',
    ]
    const names = (...options: string[]): (string | undefined)[] =>
      checkVerdict(JSON.parse(kvmArm64([...move, ...options, '--json']).out), 'check')
        .moves[0]!.findings.filter(({ stops }) => stops)
        .map(({ register }) => register?.name)
    const bitmap = 'KVM_REG_ARM_VENDOR_HYP_BMAP_2'
    assert.deepEqual(names(), ['KVM_REG_ARM_PSCI_VERSION', bitmap])
    assert.deepEqual(names('--baseline', file), [bitmap])
    assert.deepEqual(names('--baseline', file, '--drop-registers', bitmap), [])
    const sve = join(folder, 'sve.json')
    writeFileSync(sve, JSON.stringify({ vcpu_features: [{ index: 0, bitmap: '0b11xxxx' }] }))
    const refused = kvmArm64([...move, '--baseline', sve])
    assert.equal(refused.status, 1)
    assert.match(refused.error, /linux-7\.2-neoverse-n1.*EINVAL/)
  })

  test('makes the VM by an option of QEMU, which must decide every feature', () => {
    const option = join(folder, 'cpu')
    const move = [
      'check',
      '--from',
      'linux-7.2-max',
      '--to',
      'linux-6.12-max',
      '--vmm',
      'qemu',
      '--baseline',
      option,
    ]
    writeFileSync(option, '-cpu host,pmu=on,sve=off,pauth=off,kvm-psci-version=1.1\n')
    const [found] = checkVerdict(JSON.parse(kvmArm64([...move, '--json']).out), 'check').moves
    assert.deepEqual(found!.features, { source: ['psci-0.2', 'pmu-v3'], destination: ['psci-0.2', 'pmu-v3'] })
    assert.ok(!found!.findings.some(({ code }) => code === 'psci-version-refused'))
    for (const [text, problem] of [
      [
        '-cpu host,pmu=on',
        /must say sve=on or off, pauth=on or off: without it QEMU takes what each host has/,
      ],
      ['-cpu max,pmu=on,sve=off,pauth=off', /expected one option, -cpu host/],
      ['-cpu host,pmu=on,sve=off,pauth=off,sve256=on', /sve256=on: a baseline cannot express it/],
    ] as const) {
      writeFileSync(option, text)
      const { status, error } = kvmArm64(move)
      assert.equal(status, 2)
      assert.match(error.replaceAll(/\s+/g, ' '), problem)
    }
  })

  test('takes several states', () => {
    const files = ['linux-6.1-neoverse-n1', 'linux-6.12-neoverse-n1'].map((host) => {
      const file = join(folder, `${host}.state.json`)
      kvmArm64(['capture', '--simulate', host, '-o', file])
      return file
    })
    const { out } = kvmArm64(['check', '--to', 'linux-6.12-neoverse-n1', '--json', '--state', ...files])
    assert.deepEqual(
      checkVerdict(JSON.parse(out), 'check').moves.map(({ from, possible }) => [from.name, possible]),
      files.map((file) => [file, true]),
    )
  })

  for (const [what, args, problem] of [
    ['no VM', ['--to', 'linux-6.1-max'], /name the VM to move with --from or --state/],
    [
      '--both with a state',
      ['--to', 'linux-6.1-max', '--both', '--state', 'x'],
      /--state <files\.\.\.>' cannot be used with option '--both'/,
    ],
    ...(
      [
        ['--from', 'nonsense'],
        ['--features', 'sve'],
        ['--elect', 'none'],
        ['--psci', '1.0'],
      ] as const
    ).map(
      ([option, value]) =>
        [
          `${option} with a state`,
          ['--state', 'x', '--to', 'linux-6.1-max', option, value],
          new RegExp(`--state <files\\.\\.\\.>' cannot be used with option '${option} `),
        ] as const,
    ),
    [
      '--live with a simulated host',
      ['--from', 'linux-6.1-max', '--to', 'linux-6.1-max', '--live'],
      /--live needs/,
    ],
    ['no destination', ['--from', 'linux-6.1-max'], /--to/],
    [
      'a host that is none',
      ['--from', 'linux-6.1-max', '--to', 'linux-6.1-mox'],
      /did you mean linux-6\.1-max/,
    ],
    [
      'a state that is missing',
      ['--state', 'none.json', '--to', 'linux-6.1-max'],
      /none\.json: cannot be read/,
    ],
  ] as const) {
    test(`refuses ${what} with status 2`, () => {
      const { status, error } = kvmArm64(['check', ...args])
      assert.equal(status, 2)
      assert.match(error, problem)
    })
  }

  test('says that a report is no state', () => {
    const file = join(folder, 'report.json')
    writeFileSync(file, JSON.stringify(builtInReport('linux-6.1-max')))
    const { status, error } = kvmArm64(['check', '--state', file, '--to', 'linux-6.1-max'])
    assert.equal(status, 2)
    assert.match(error, /is not a state: expected "kvm-arm64\/state", found "kvm-arm64\/report"/)
  })

  test('needs arm64 KVM for this machine', () => {
    for (const args of [
      ['check', '--from', 'this', '--to', 'linux-6.1-max'],
      ['check', '--from', 'linux-6.1-max', '--to', 'this'],
      ['check', '--from', 'linux-6.1-max', '--to', 'this', '--live'],
      ['capture'],
      ['diff', 'this', 'linux-6.1-max'],
    ]) {
      const { status, error } = kvmArm64(args, { node: onX64 })
      assert.equal(status, 3, args.join(' '))
      assert.match(error, /x64, not arm64/)
    }
  })
})

describe('capture', () => {
  test('prints the state, and refuses a VM the host cannot make with status 1', () => {
    const { status, out } = kvmArm64(['capture', '--simulate', 'linux-6.1-max', '--features', 'psci-0.2,sve'])
    assert.equal(status, 0)
    assert.match(out, /"format": "kvm-arm64\/state"/)
    const without = kvmArm64(['capture', '--simulate', 'linux-6.1-neoverse-n1', '--features', 'psci-0.2,sve'])
    assert.equal(without.status, 1)
    assert.match(without.error, /linux-6\.1-neoverse-n1, simulated: EINVAL: KVM_ARM_VCPU_INIT/)
    const unknown = kvmArm64(['capture', '--simulate', 'linux-6.1-max', '--features', 'has-el2'])
    assert.equal(unknown.status, 1)
    assert.match(unknown.error, /linux-6\.1-max, simulated: ENOENT: KVM_ARM_VCPU_INIT/)
    assert.equal(kvmArm64(['capture', '--simulate', 'linux-5.10-max', '--elect', 'ptp']).status, 1)
    assert.equal(kvmArm64(['capture', '--simulate', 'linux-5.10-max', '--vcpus', '0']).status, 2)
    assert.equal(kvmArm64(['capture', '--simulate', 'linux-5.10-max', '-o', '/none/x.json']).status, 2)
  })
})

describe('check in a fleet', () => {
  const fleet = join(folder, 'fleet.json')
  const [newer, older] = ['linux-7.2-max', 'linux-6.1-max'].map((name) => ({
    name,
    digest: classOf(builtInReport(name)),
  })) as [{ name: string; digest: string }, { name: string; digest: string }]

  beforeAll(() => {
    const lines = [newer, older].map(({ name }) => JSON.stringify({ name, report: builtInReport(name) }))
    const { status, out, error } = kvmArm64(['fleet', '-', '--json'], { input: lines.join('\n') })
    assert.equal(status, 0, error)
    writeFileSync(fleet, out)
  })

  const ask = (from: string, to: string, ...more: string[]) =>
    kvmArm64(['check', '--class', from, '--class', to, '--fleet', fleet, ...more])

  test('looks a move up by class, the first of its digits or a host, and says that it is one way', () => {
    for (const from of [older.digest, older.digest.slice(0, 6), older.name]) {
      const { status, out } = ask(from, newer.name)
      assert.equal(status, 0)
      assert.match(out, new RegExp(`^${older.digest} → ${newer.digest}, strict: yes\n`))
      assert.match(out, /^ {2}the way back: no, stopped by \d+ obstacles$/m)
      assert.match(out, /^ {2}one way: a VM that moves cannot come back$/m)
    }
    assert.equal(ask(older.name, newer.name, '--both').status, 1)
  })

  test('answers no with status 1 and the reasons', () => {
    const { status, out } = ask(newer.name, older.name)
    assert.equal(status, 1)
    assert.match(
      out,
      /, strict: no, stopped by \d+ obstacles\n {2}KVM_REG_ARM_PSCI_VERSION: 0x10003 → 0x10001 \(psci-version-refused\)$/m,
    )
    assert.match(out, /^ {2}the way back: yes$/m)
    for (const line of out.split('\n')) assert.ok(line.length <= 80, line)
  })

  test('answers within a class', () => {
    const { status, out } = ask(newer.name, newer.digest, '--both')
    assert.deepEqual([status, out], [0, `${newer.digest} → ${newer.digest}, strict: yes\n`])
  })

  test('prints JSON that its reader accepts', () => {
    const { out } = ask(older.name, newer.name, '--json')
    const { vmm, from, to, there, back } = checkGateAnswer(JSON.parse(out), 'check')
    assert.deepEqual(
      [vmm, from, to],
      ['strict', ...[older, newer].map(({ digest }) => ({ class: digest, hostCount: 1 }))],
    )
    assert.deepEqual([there.possible, back.possible], [true, false])
    assert.ok(back.findings.some(({ code }) => code === 'psci-version-refused'))
  })

  test('says what an answer depends on that no report says', () => {
    const doubtful = join(folder, 'doubtful.json')
    const document = JSON.parse(readFileSync(fleet, 'utf8')) as FleetDocument
    for (const prediction of document.predictions)
      prediction.unknown = ['source-features', 'destination-cpu-kinds']
    writeFileSync(doubtful, JSON.stringify(document))
    const { status, out } = ask(older.name, newer.name, '--fleet', doubtful)
    assert.equal(status, 0)
    assert.match(
      out.replaceAll(/\s+/g, ' '),
      /: yes, as far as known; not known: source features, destination cpu kinds /,
    )
  })

  test('refuses what it cannot answer with status 2', () => {
    for (const [args, message] of [
      [['--class', 'a', '--fleet', fleet], /expected --class FROM --class TO --fleet FILE/],
      [['--class', 'a', '--class', 'b'], /expected --class FROM --class TO --fleet FILE/],
      [
        ['--class', 'x', '--class', newer.name, '--fleet', fleet],
        /no such class or host "x"; this fleet has /,
      ],
      [['--class', newer.name, '--class', newer.name, '--fleet', folder], /: cannot be read \(EISDIR\)/],
      [['--class', newer.name, '--to', 'x', '--fleet', fleet], /^kvm-arm64: Unknown option '--to'; expected/],
    ] as const) {
      const { status, error } = kvmArm64(['check', ...args])
      assert.equal(status, 2, args.join(' '))
      assert.match(error, message)
    }
    assert.match(kvmArm64(['check', '--class', 'a', '--help']).out, /--class <class>/)
  })
})

describe('diff', () => {
  test('tells what differs, with status 0', () => {
    const { status, out } = kvmArm64(['diff', 'linux-6.1-max', 'linux-7.2-max'])
    assert.equal(status, 0)
    assert.match(out, /^ +register +KVM_REG_ARM_PSCI_VERSION +0x10001 +0x10003$/m)
    assert.match(out, /^ +register +CLIDR_EL1 +Ctype1 +3 /m)
    assert.match(kvmArm64(['diff', 'linux-6.1-max', 'linux-6.1-max']).out, /show the same/)
    const origin = { kind: 'kernel' }
    assert.deepEqual(JSON.parse(kvmArm64(['diff', 'linux-6.1-max', 'linux-7.2-max', '--json']).out).a, {
      name: 'linux-6.1-max',
      origin,
    })
    assert.deepEqual(JSON.parse(kvmArm64(['diff', 'linux-6.1-max', 'linux-6.1-max', '--json']).out), {
      format: 'kvm-arm64/diff',
      version: 1,
      a: { name: 'linux-6.1-max', origin },
      b: { name: 'linux-6.1-max', origin },
      differences: [],
    })
  })

  test('shows who answered', () => {
    const { out } = kvmArm64(['diff', 'linux-6.1-max', 'seed-v6'])
    assert.match(
      out,
      /^answered by: a kernel \(linux-6\.1-max\), nobody: derived from\n {2}linux-6\.1-neoverse-n1 \(seed-v6\)$/m,
    )
  })
})
