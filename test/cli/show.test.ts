import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, test } from 'vitest'
import { parseReport } from '../../lib/report/read.js'
import { builtInHosts, builtInReport } from '../../lib/hosts/index.js'
import { badReports } from '../report/bad-input.js'
import { kvmArm64 } from './run.js'

const HOST = 'linux-6.12-neoverse-n1'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-show-'))
afterAll(() => rmSync(folder, { recursive: true }))

function show(...args: string[]): string {
  const { status, out, error } = kvmArm64(['show', ...args])
  assert.equal(error, '')
  assert.equal(status, 0)
  return out
}

describe('show', () => {
  test('sums up a report and a built-in host alike', () => {
    const file = join(folder, 'host.json')
    writeFileSync(file, JSON.stringify(builtInReport(HOST)))
    assert.equal(show(file).replace(file, HOST), show(HOST))
  })

  test('--json is the report', () => {
    assert.deepEqual(parseReport(show(HOST, '--json'), 'stdout'), builtInReport(HOST))
  })

  test('--registers has every register of the list, in its order, with its value', () => {
    const { registers } = builtInReport(HOST)
    const listed = JSON.parse(show(HOST, '--registers', '--json')) as { id: string; value: string | null }[]
    assert.deepEqual(
      listed.map(({ id, value }) => [id, value]),
      registers.map(({ id, value }) => [id, value]),
    )
    assert.equal(show(HOST, '--registers').trimEnd().split('\n').length, 1 + registers.length)
  })

  test('--registers --features has the list of a vCPU with these features', () => {
    const recorded = builtInReport('linux-6.12-max').configurations.find(
      ({ features }) => features.join() === 'psci-0.2,sve',
    )
    assert.ok(recorded && 'added' in recorded)
    const listed = JSON.parse(
      show('linux-6.12-max', '--registers', '--features', 'psci-0.2,sve', '--json'),
    ) as { id: string; value: string }[]
    for (const { id, value, index } of recorded.added)
      assert.deepEqual([listed[index]!.id, listed[index]!.value], [id, value])
    for (const { id, value } of recorded.changed)
      assert.equal(listed.find((entry) => entry.id === id)?.value, value)
    for (const id of recorded.removed)
      assert.equal(
        listed.find((entry) => entry.id === id),
        undefined,
      )
  })

  for (const [register, lines] of Object.entries({
    STD_BMAP: [
      /^KVM_REG_ARM_STD_BMAP {2}0x6030000000160000$/m,
      /value 0x1: shows trng-v1\.0/,
      /accepts +any bits of 0x1$/m,
    ],
    '0x6030000000160002': [/^KVM_REG_ARM_VENDOR_HYP_BMAP/, /KVM_PTP/, /accepts +any bits of 0x3$/m],
    psci_version: [/value 0x10001: PSCI 1\.1/, /accepts +0x2 0x10000 0x10001$/m],
    SMCCC_ARCH_WORKAROUND_1: [/accepts +0x0 0x1 0x2, and remembers none$/m],
    ID_AA64PFR0_EL1: [/^ {2}3:0 +EL0 +2 +AArch64 and AArch32$/m, /^ {2}EL0 accepts +(0 )?1 2$/m],
    MIDR_EL1: [/value 0x414fd0c1/, /any other value +EINVAL$/m],
    x0: [/core register, 64 bits/, /value 0x0$/m],
  })) {
    test(`--register ${register} explains the value it holds and what may be written`, () => {
      const out = show(HOST, '--register', register)
      for (const line of lines) assert.match(out, line)
    })
  }

  test('--register answers no where the host has no such register', () => {
    const { status, out, error } = kvmArm64(['show', 'linux-5.10-neoverse-n1', '--register', 'STD_BMAP'])
    assert.equal(status, 1)
    assert.equal(out, '')
    assert.match(
      error,
      /^kvm-arm64: linux-5\.10-neoverse-n1: a vCPU with psci-0\.2 has no register KVM_REG_ARM_STD_BMAP/,
    )
  })

  test('--register --features is about a vCPU with these features', () => {
    const { fields } = JSON.parse(
      show('linux-6.12-max', '--register', 'ID_AA64PFR0_EL1', '--features', 'sve', '--json'),
    ) as { fields: { name: string; value: string }[] }
    assert.equal(fields.find(({ name }) => name === 'SVE')?.value, '1')
    // Of any vCPU that a VMM makes: PSCI 0.1 comes where psci-0.2 is left out.
    assert.match(
      show('linux-6.12-max', '--register', 'PSCI_VERSION', '--features', 'sve'),
      /value 0x10001: PSCI 1\.1/,
    )
  })

  test('--features without a view of registers is refused', () => {
    for (const view of [[], ['--services'], ['--traits']]) {
      const { status, error } = kvmArm64(['show', HOST, ...view, '--features', 'sve'])
      assert.equal(status, 2)
      assert.match(error, /--features/)
    }
  })

  test('--services tells what each bit shows, whether by default, and the functions it gates', () => {
    const services = JSON.parse(show('linux-7.2-max', '--services', '--json')) as {
      register: string
      service: string
      shownByDefault: boolean
      kind: string
      functions: { id: string; name: string }[]
    }[]
    assert.deepEqual(
      services.map(({ service, shownByDefault, kind }) => [service, shownByDefault, kind]),
      [
        ['trng-v1.0', true, 'gates'],
        ['pv-time', true, 'gates'],
        ['features', true, 'gates'],
        ['ptp', true, 'gates'],
        ['discover-impl-ver', false, 'advertises'],
        ['discover-impl-cpus', false, 'advertises'],
      ],
    )
    assert.deepEqual(services[3]!.functions, [{ id: '0x86000001', name: 'KVM_PTP' }])
  })

  test('--traits puts what the experiments found in words', () => {
    assert.match(show('seed-v6', '--traits'), /bitmap written after the first run +EBUSY, whatever the value/)
    assert.match(show(HOST, '--traits'), /bitmap written after the first run +EBUSY if the value changes/)
    assert.match(show('linux-5.10-max', '--traits'), /bitmap written after the first run +no such register/)
    assert.deepEqual(JSON.parse(show(HOST, '--traits', '--json')), builtInReport(HOST).traits)
  })
})

describe('show refuses', () => {
  // The tests of the reader try them all.
  for (const what of [
    'an empty file',
    'a truncated report',
    'a byte that is not UTF-8',
    'another format',
    'a later version',
    'a list nested 100000 deep',
    'an entry nested 100000 deep',
    'a register id as a number',
    'a value of 100000 digits',
    'a number that is infinite',
    'a host name with terminal commands',
    'a register listed twice',
  ]) {
    test(`${what}, naming the file and the entry`, () => {
      const { text, path, problem } = badReports[what]!
      const file = join(folder, 'bad.json')
      writeFileSync(file, text)
      const { status, out, error } = kvmArm64(['show', file])
      assert.equal(status, 2)
      assert.equal(out, '')
      assert.ok(error.startsWith(`kvm-arm64: ${file}: ${path === '$' ? '' : `${path}: `}`), error)
      assert.match(error, problem)
      assert.equal(error.split('\n').length, 2)
    })
  }

  test('a file that is missing, a directory and a file it may not read', () => {
    assert.match(
      kvmArm64(['show', 'none.json']).error,
      /^kvm-arm64: none\.json: no such report file or built-in host/,
    )
    const directory = kvmArm64(['show', folder])
    assert.equal(directory.status, 2)
    assert.equal(directory.error, `kvm-arm64: ${folder}: cannot be read (EISDIR)\n`)

    const secret = join(folder, 'secret.json')
    writeFileSync(secret, '{}')
    chmodSync(secret, 0)
    chmodSync(folder, 0o755)
    // To root no file is unreadable.
    const nobody = process.getuid?.() === 0 ? { uid: 65534 } : {}
    const unreadable = kvmArm64(['show', secret], nobody)
    assert.equal(unreadable.status, 2)
    assert.equal(unreadable.error, `kvm-arm64: ${secret}: cannot be read (EACCES)\n`)
  })
})

describe('hosts', () => {
  test('lists every built-in host with its kernel, CPU, PSCI and bitmaps', () => {
    const { status, out } = kvmArm64(['hosts'])
    assert.equal(status, 0)
    for (const name of builtInHosts()) assert.match(out, new RegExp(`^ {2}${name} `, 'm'))
    assert.match(out, /linux-6\.12-neoverse-n1 +6\.12\.\S+ +Arm Neoverse N1 r4p1 +1\.1 +\d+ +0x1 0x1 0x3$/m)
    assert.match(out, /linux-5\.10-cortex-a57 +5\.10\.\S+ +Arm Cortex-A57 r1p0 +1\.0 +\d+ +none$/m)
  })

  test('--json has the same for programs', () => {
    const hosts = JSON.parse(kvmArm64(['hosts', '--json']).out) as { name: string; bitmaps: object }[]
    assert.deepEqual(
      hosts.map(({ name }) => name),
      builtInHosts(),
    )
    assert.deepEqual(hosts.find(({ name }) => name === 'seed-v6')?.bitmaps, { KVM_REG_ARM_STD_BMAP: '0x1' })
  })
})
