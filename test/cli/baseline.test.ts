import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, it } from 'vitest'
import { readBaseline } from '../../lib/fleet/baseline/format.js'
import { kvmArm64, onX64 } from './run.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-baseline-'))
afterAll(() => rmSync(folder, { recursive: true }))

const shared = join(folder, 'shared.json')
const split = join(folder, 'split.json')

describe('kvm-arm64 baseline', () => {
  it('writes a baseline that is read again, and says that all is reconciled', () => {
    const { status, out } = kvmArm64(['baseline', 'linux-6.18-max', 'linux-7.2-max', '-o', shared])
    assert.equal(status, 0)
    assert.match(out, /PSCI +1\.3\n/)
    assert.match(out, /All reconciled/)
    assert.deepEqual(readBaseline(shared).hosts, ['linux-6.18-max', 'linux-7.2-max'])
  })

  it('ends with 1 where hosts cannot be reconciled, names them, and writes the baseline all the same', () => {
    const { status, out } = kvmArm64(['baseline', 'linux-6.1-max', 'linux-5.10-max', '-o', split])
    assert.equal(status, 1)
    assert.match(out, /KVM_REG_ARM_STD_BMAP and \d+ more +absent: linux-5\.10-max/)
    assert.match(out, /KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3 +0x0: linux-6\.1-max; 0x2: linux-5\.10-max/)
    assert.match(out, /KVM_REG_ARM_STD_HYP_BMAP +0x1 +pv-time +linux-5\.10-max\n/)
    assert.match(out, /each with itself alone: linux-6\.1-max linux-5\.10-max/)
    assert.equal(readBaseline(split).psciVersion, '0x10000')
  })

  it('tells a conflict by the value of the field, not of the whole register', () => {
    const { out } = kvmArm64(['baseline', 'linux-6.1-max', 'linux-6.1-cortex-a57'])
    assert.match(out, /^ +MIDR_EL1 +PartNum +\d+.*: linux-6\.1-max; \d+.*: linux-6\.1-cortex-a57$/m)
  })

  it('prints as JSON what it writes', () => {
    const { out } = kvmArm64(['baseline', 'linux-6.18-max', 'linux-7.2-max', '--json'])
    assert.equal(out, readFileSync(shared, 'utf8'))
  })

  it('takes features to have, and refuses those one host has not', () => {
    const { out } = kvmArm64(['baseline', 'linux-7.2-max', '--features', 'sve', '--json'])
    assert.deepEqual((JSON.parse(out) as { features: string[] }).features, ['psci-0.2', 'sve'])
    const { status, error } = kvmArm64([
      'baseline',
      'linux-7.2-max',
      'linux-7.2-neoverse-n1',
      '--features',
      'sve',
    ])
    assert.equal(status, 1)
    assert.match(error, /linux-7\.2-neoverse-n1 has no vCPU with the features psci-0\.2, sve/)
  })

  it('refuses a file it could not write before it works', () => {
    for (const args of [
      ['baseline', 'none.json', '-o', join(folder, 'none', 'fleet.json')],
      ['capture', '--simulate', 'none.json', '-o', join(folder, 'none', 'vm.json')],
      ['conformance', '--simulate', 'none.json', '--junit', join(folder, 'none', 'results.xml')],
      ['probe', '--simulate', 'none.json', '-o', join(folder, 'none', 'host.json')],
    ]) {
      const { status, error } = kvmArm64(args)
      assert.equal(status, 2)
      assert.match(error, /cannot be written \(ENOENT\)/, args[0])
    }
  })

  it('probes this machine where asked to, and says what is in the way', () => {
    const { status, error } = kvmArm64(['baseline', 'this', 'linux-7.2-max'], { node: onX64 })
    assert.equal(status, 3)
    assert.match(error, /this machine is x64, not arm64/)
  })

  it('refuses what is no report, and leaves the old baseline', () => {
    const file = join(folder, 'fingerprint.json')
    writeFileSync(file, '{"firecracker_version":"1.16.0-dev"}')
    const before = readFileSync(shared, 'utf8')
    const { status, error } = kvmArm64(['baseline', 'linux-7.2-max', file, '-o', shared])
    assert.equal(status, 2)
    assert.match(error, /fingerprint\.json: \$\.format: is not a report/)
    assert.equal(readFileSync(shared, 'utf8'), before)
  })
})

describe('kvm-arm64 apply', () => {
  it('says that a host takes the whole baseline', () => {
    const { status, out } = kvmArm64(['apply', shared, '--simulate', 'linux-6.18-max'])
    assert.equal(status, 0)
    assert.match(out, /^\d+ registers are as the baseline wants them on linux-6\.18-max, simulated\n$/)
  })

  it('tells every bit refused and ends with 1', () => {
    const found = kvmArm64(['apply', shared, '--simulate', 'linux-6.12-max', '--json'])
    assert.equal(found.status, 1)
    const { refused } = JSON.parse(found.out) as {
      refused: { name: string; refused: string; reads: string | null }[]
    }
    assert.deepEqual(
      refused.map(({ name, refused: bits, reads }) => [name, bits, reads]),
      [
        ['KVM_REG_ARM_PSCI_VERSION', '0x2', '0x10001'],
        ['KVM_REG_ARM_VENDOR_HYP_BMAP_2', '0xffffffffffffffff', null],
      ],
    )
    const { out } = kvmArm64(['apply', shared, '--simulate', 'linux-6.12-max'])
    assert.match(out, /^2 of \d+ registers are not/)
    assert.match(out, /KVM_REG_ARM_PSCI_VERSION +0x10003 +0x10001 +0x2 +EINVAL +Minor\n/)
  })

  it('takes what the baseline itself declares for no refusal', () => {
    const { status, out } = kvmArm64(['apply', split, '--simulate', 'linux-5.10-max'])
    assert.equal(status, 0)
    assert.match(out, /absent here, as the baseline says: KVM_REG_ARM_STD_BMAP/)
  })

  it('says so where no such VM can be made', () => {
    const { status, error } = kvmArm64(['apply', shared, '--simulate', 'linux-6.18-cortex-a57'])
    assert.equal(status, 1)
    assert.match(error, /no VM of this baseline can be made here: EINVAL: KVM_CREATE_VM/)
  })

  it('refuses a file that is no baseline', () => {
    const file = join(folder, 'newer.json')
    writeFileSync(file, JSON.stringify({ format: 'kvm-arm64/baseline', version: 2 }))
    const { status, error } = kvmArm64(['apply', file, '--simulate', 'linux-7.2-max'])
    assert.equal(status, 2)
    assert.match(error, /newer\.json: \$\.version: is 2/)
  })
})
