import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { kvmArm64, onX64 } from './run.js'

const HOST = 'linux-6.12-neoverse-n1'

describe('census', () => {
  test('shows what a guest finds', () => {
    const { status, out, error } = kvmArm64(['census', '--simulate', HOST])
    assert.equal(status, 0)
    assert.equal(error, '')
    assert.match(out, /^ +hvc +SMCCC_VERSION +0x80000000 +0x10001$/m)
    assert.match(out, /^ +hvc +KVM_PTP +0x86000001 +the time$/m)
    assert.match(out, /^ +smc +PSCI_SYSTEM_OFF +0x84000008 +ends the run: shutdown$/m)
    assert.match(out, /^ +hvc +PSCI_CPU_OFF +0x84000002 +waits$/m)
    assert.match(out, /^ +hvc +SMCCC_ARCH_FEATURES +0x80000001 +PV_TIME_FEATURES +0x0$/m)
    assert.match(out, /^ +\d+ of \d+ calls found something/m)
  })

  test('hides what is not elected', () => {
    const { status, out } = kvmArm64(['census', '--simulate', HOST, '--elect', 'ptp', '--psci', '1.0'])
    assert.equal(status, 0)
    assert.match(out, /KVM_PTP/)
    assert.doesNotMatch(out, /TRNG|KVM_FEATURES|PV_TIME/)
    assert.match(out, /PSCI_VERSION +0x84000000 +0x10000$/m)
  })

  test('prints every call as JSON', () => {
    const { status, out } = kvmArm64(['census', '--simulate', HOST, '--elect', 'none', '--json'])
    assert.equal(status, 0)
    const calls = JSON.parse(out) as {
      functionId: string
      conduit: string
      x: string[] | null
      found: boolean
    }[]
    const trng = calls.find(({ functionId, conduit }) => functionId === '0x84000050' && conduit === 'hvc')
    assert.deepEqual(trng?.x, ['0xffffffffffffffff', '0x0', '0x0', '0x0'])
    assert.equal(trng.found, false)
  })

  test('says what the host does not offer', () => {
    const { status, error } = kvmArm64(['census', '--simulate', 'linux-5.10-max', '--elect', 'trng-v1.0'])
    assert.equal(status, 1)
    assert.match(error, /does not offer trng-v1\.0/)
    const old = kvmArm64(['census', '--simulate', 'linux-5.10-max', '--psci', '1.2'])
    assert.equal(old.status, 1)
    assert.match(old.error, /--psci 1\.2 is not accepted; accepted: 0\.2, 1\.0$/m)
    const unknown = kvmArm64(['census', '--simulate', HOST, '--psci', '9'])
    assert.equal(unknown.status, 2)
    assert.match(unknown.error, /0\.1, 0\.2, 1\.0, 1\.1, 1\.2, 1\.3/)
  })

  test('names the services when one is unknown', () => {
    const { status, error } = kvmArm64(['census', '--simulate', HOST, '--elect', 'pvtime'])
    assert.equal(status, 2)
    assert.match(error, /Unknown service "pvtime"; known: trng-v1\.0, pv-time/)
  })

  test('needs arm64 KVM where no host is named', () => {
    const { status, error } = kvmArm64(['census'], { node: onX64 })
    assert.equal(status, 3)
    assert.match(error, /x64, not arm64/)
  })
})
