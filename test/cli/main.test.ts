import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, test } from 'vitest'
import { statusOf } from '../../lib/cli/exit.js'
import { KvmError, kvmError } from '../../lib/kvm/errors.js'
import { LabError } from '../../lib/lab/errors.js'
import { packageRoot } from '../../lib/package-root.js'
import { errnos } from '../../lib/uapi.js'
import { kvmArm64, shell } from './run.js'

const recorded = fileURLToPath(new URL('lib/hosts/recorded', packageRoot))

const commands = [
  'probe',
  'show',
  'decode',
  'hosts',
  'baseline',
  'apply',
  'fleet',
  'trace',
  'capture',
  'check',
  'diff',
  'census',
  'conformance',
  'export',
  'import',
  'lab',
  'doctor',
  'completion',
]

const HOST = 'linux-6.12-neoverse-n1'

describe('the command line as a whole', () => {
  test('--help lists every command, gives examples and tells every exit status', () => {
    const { status, out, error } = kvmArm64(['--help'])
    assert.equal(status, 0)
    assert.equal(error, '')
    for (const command of commands) {
      assert.match(out, new RegExp(`^  ${command}\\b`, 'm'))
    }
    assert.match(out, /^Examples:\n {2}kvm-arm64 probe/m)
    for (const line of [
      '0   done',
      '1   the answer is no',
      '2   wrong arguments',
      '3   this machine cannot do it',
    ]) {
      assert.ok(out.includes(`\n  ${line}`), line)
    }
    assert.ok(out.split('\n').every((line) => line.length <= 80))
  })

  for (const command of [
    ...commands,
    'lab run',
    'lab kernels',
    'lab setup',
    'trace record',
    'trace replay',
    'trace fuzz',
  ]) {
    test(`${command} --help explains it`, () => {
      const { status, out } = kvmArm64([...command.split(' '), '--help'])
      assert.equal(status, 0)
      assert.match(out, new RegExp(`^Usage: kvm-arm64 ${command}`))
      assert.match(out, /^Examples?:/m)
      // A default that is data has words of its own.
      assert.doesNotMatch(out, /default: [[{]/)
      assert.deepEqual(
        out.split('\n').filter((line) => line.length > 80),
        [],
      )
    })
  }

  test('--version is the version of the package', () => {
    const { version } = JSON.parse(readFileSync(new URL('package.json', packageRoot), 'utf8')) as {
      version: string
    }
    assert.deepEqual(kvmArm64(['--version']), { status: 0, out: `${version}\n`, error: '' })
  })

  test('without a command it shows its help as an error', () => {
    const { status, out, error } = kvmArm64([])
    assert.equal(status, 2)
    assert.equal(out, '')
    assert.match(error, /^Usage: kvm-arm64/)
  })

  for (const [args, problem] of [
    [['prob'], /unknown command 'prob'\n\(Did you mean probe\?\)/],
    [['probe', '--simulte', 'x'], /unknown option '--simulte'\n\(Did you mean --simulate\?\)/],
    [['probe', 'surplus'], /too many arguments/],
    [['probe', '--backend', 'xen'], /Allowed choices are kernel, simulator/],
    [['probe', '--backend', 'kernel', '--simulate', HOST], /exclude each other/],
    [
      ['probe', '--features', 'sve,wings'],
      /Unknown vCPU feature "wings"; known: power-off, el1-32bit, psci-0\.2/,
    ],
    [['probe', '--features', ''], /Unknown vCPU feature ""/],
    [['probe', '-o'], /argument missing/],
    [['show'], /missing required argument 'report'/],
    [['show', HOST, '--traits', '--services'], /cannot be used with/],
    [['show', HOST, '--services', '--features', 'sve'], /cannot be used with/],
    [['show', HOST, '--register', 'MIDR_EL'], /did you mean MIDR_EL1/],
    [['show', HOST, '--register', '0x1ffffffffffffffff'], /is no register id/],
    [['show', 'linux-6.12-neoverse-n'], /did you mean linux-6\.12-neoverse-n1/],
    [['decode', 'nothing-of-that-name-at-all'], /No arm64 register or hypercall/],
    [['hosts', '--jsn'], /Did you mean --json/],
    [['help', 'nope'], /unknown command 'nope'/],
    [['lab', 'nope'], /unknown command 'nope'/],
    [['lab', 'run', '--smp', 'two', 'true'], /must be a whole number from 1 to 512/],
    [['capture', '--vcpus', '0'], /must be a whole number from 1 to 9999/],
    [['trace', 'fuzz', '--seed', '4294967296'], /must be a whole number from 0 to 4294967295/],
    [
      ['trace', 'fuzz', '--simulate', HOST, '--against', HOST, '--save', '/dev/null/found'],
      /\/dev\/null\/found: cannot be written \(ENOTDIR\)/,
    ],
  ] as const) {
    test(`${args.join(' ')} is refused as wrong usage`, () => {
      const { status, out, error } = kvmArm64(args)
      assert.equal(status, 2)
      assert.equal(out, '')
      assert.match(error, problem)
      assert.doesNotMatch(error, /\n {4}at /)
    })
  }

  test('a message has no stack, unless KVM_ARM64_DEBUG asks for it', () => {
    const args = ['show', 'none.json']
    assert.match(kvmArm64(args).error, /^kvm-arm64: none\.json: [^\n]*\n$/)
    assert.match(kvmArm64(args, { env: { KVM_ARM64_DEBUG: '1' } }).error, /none\.json[^]*\n {4}at reportOf /)
  })
})

const ESCAPE = '\u001b['

/** A line of shell on a terminal of 80 columns. */
function onTerminal(line: string): string {
  return `script -qec 'stty cols 80; ${line}' /dev/null`
}

function words(out: string): Set<string> {
  return new Set(out.match(/[\w-]{3,}/g))
}

describe('output', () => {
  const table = `$kvm_arm64 show ${HOST} --services`

  test('has colours on a terminal, and none with NO_COLOR or TERM=dumb', () => {
    assert.ok(shell(onTerminal(table)).out.includes(ESCAPE))
    assert.ok(!shell(onTerminal(table), { NO_COLOR: '1' }).out.includes(ESCAPE))
    assert.ok(!shell(onTerminal(table), { TERM: 'dumb' }).out.includes(ESCAPE))
  })

  test('has no colours in a pipe, where every row is one line', () => {
    const { status, out } = shell(`${table} | cat`)
    assert.equal(status, 0)
    assert.ok(!out.includes(ESCAPE))
    assert.match(out, /trng-v1\.0 .*TRNG_VERSION TRNG_FEATURES TRNG_GET_UUID TRNG_RND32 TRNG_RND64\n/)
  })

  for (const args of [
    `show ${HOST}`,
    `show ${HOST} --services`,
    `show ${HOST} --traits`,
    `show ${HOST} --registers`,
    `show ${HOST} --register ID_AA64PFR0_EL1`,
    'show linux-5.10-max --services',
    'decode ID_AA64MMFR0_EL1',
    'decode STD_BMAP',
    'hosts',
    `probe --simulate ${HOST}`,
    `census --simulate ${HOST}`,
    `conformance --simulate ${HOST}`,
    `diff linux-6.1-max ${HOST}`,
    `check --from linux-6.1-max --to ${HOST} --both`,
    'baseline linux-5.10-neoverse-n1 linux-6.12-max',
    `fleet ${recorded} --what-if linux-6.18`,
    `trace fuzz --simulate ${HOST} --against linux-6.1-max --ops 2000`,
    'doctor',
  ]) {
    test(`fits a terminal of 80 columns: ${args.replace(recorded, 'hosts')}`, () => {
      const { out } = shell(onTerminal(`$kvm_arm64 ${args} 2> /dev/null`), { NO_COLOR: '1' })
      const lines = out.split(/\r?\n/)
      assert.ok(lines.length > 2)
      assert.deepEqual(
        lines.filter((line) => line.length > 80),
        [],
      )
    })
  }

  test('holds all of a table that is wrapped', () => {
    for (const args of ['hosts', `show ${HOST} --services`, `diff linux-6.1-max ${HOST}`]) {
      const wrapped = words(shell(onTerminal(`$kvm_arm64 ${args}`), { NO_COLOR: '1' }).out)
      const missing = [...words(shell(`$kvm_arm64 ${args}`).out)].filter((word) => !wrapped.has(word))
      // Titles of columns give way.
      assert.deepEqual(
        missing.filter((word) => !['host', 'register', 'what', 'name', 'field'].includes(word)),
        [],
      )
    }
  })

  test('shows differences on a terminal under headings, in columns', () => {
    const line = onTerminal('$kvm_arm64 diff linux-6.1-max linux-7.2-max')
    const { out } = shell(line, { NO_COLOR: '1' })
    assert.match(out, /^capability\r?\n +linux-6\.1-max +linux-7\.2-max\r?\n/m)
    assert.match(out, /^ +CLIDR_EL1\.Ctype1 +3 /m)
  })

  test('tells of progress on a terminal only', () => {
    const line = `$kvm_arm64 probe --simulate ${HOST}`
    assert.match(shell(onTerminal(line)).out, /Probing linux-6\.12-neoverse-n1, simulated …/)
    assert.equal(shell(line).error, '')
  })

  test('that nobody reads to its end is no error', () => {
    const { out, error } = shell(
      '{ $kvm_arm64 show linux-7.2-max --json; echo "status $?" >&2; } | head -c 1',
    )
    assert.equal(out, '{')
    assert.equal(error, 'status 0\n')
  })

  test('of messages that cannot be written changes no status', () => {
    assert.equal(shell('$kvm_arm64 decode nothing 2> /dev/full').status, 2)
    assert.equal(shell(`$kvm_arm64 probe --simulate ${HOST} -o /dev/null 2> /dev/full`).status, 0)
  })

  test('onto a full disk is told and fails', () => {
    const { status, error } = shell(`$kvm_arm64 show ${HOST} --registers > /dev/full`)
    assert.equal(status, 2)
    assert.equal(error, 'kvm-arm64: standard output cannot be written (ENOSPC)\n')
  })
})

describe('the exit status of an error', () => {
  for (const [what, error, status] of [
    ['a refusal by KVM', kvmError(-errnos.ENOENT, { syscall: 'KVM_ARM_VCPU_INIT' }), 1],
    ['want of memory', kvmError(-errnos.ENOMEM, { syscall: 'KVM_CREATE_VM' }), 3],
    ['a missing KVM', new KvmError('ERR_KVM_NOT_AVAILABLE', undefined, 'none', { syscall: 'open' }), 3],
    ['a kernel that cannot be had', new LabError('ERR_LAB_UNKNOWN_KERNEL', 'no kernel 9.9'), 2],
    ['a lab that cannot be', new LabError('ERR_LAB_NO_QEMU', 'no QEMU'), 3],
  ] as const) {
    test(`is ${status} for ${what}`, () => assert.equal(statusOf(error), status))
  }
})
