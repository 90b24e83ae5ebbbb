/** What a machine can do, and an exit status by which CI notices that it cannot. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, test } from 'vitest'
import { kvmArm64, onX64 } from './run.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-doctor-'))
afterAll(() => rmSync(folder, { recursive: true }))

interface Found {
  kvm: boolean
  addon: boolean
  lab: boolean
  findings: { ability: string; name: string; ok: boolean; found: string }[]
}

describe('doctor', () => {
  const bare = { node: onX64, env: { PATH: folder, XDG_CACHE_HOME: folder } }

  test('lists the abilities, and what each depends on', () => {
    const { status, out, error } = kvmArm64(['doctor'], bare)
    assert.equal(status, 0)
    assert.equal(error, '')
    assert.match(out, /^arm64 KVM of this machine: no$/m)
    assert.match(out, /no +open +ERR_KVM_WRONG_ARCHITECTURE: .* --simulate linux-6\.12-neoverse-n1,/)
    assert.doesNotMatch(out, /openKvm/)
    assert.match(out, /^Lab: no$/m)
    assert.match(out, /no +programs +missing: .*qemu-system-arm.*; kvm-arm64 lab setup installs them/)
    assert.match(out, /no +kernels +none cached$/m)
    assert.match(out, /no +mirror +apt-get is not installed/)
  })

  test('has the same as JSON', () => {
    const { status, out } = kvmArm64(['doctor', '--json'], bare)
    assert.equal(status, 0)
    const found = JSON.parse(out) as Found
    assert.deepEqual([found.kvm, found.lab], [false, false])
    for (const ability of ['kvm', 'addon', 'lab'] as const) {
      const its = found.findings.filter((finding) => finding.ability === ability)
      assert.ok(its.length > 0)
      assert.equal(
        its.every(({ ok }) => ok),
        found[ability],
      )
    }
  })

  test('exits 3 where an ability is required and lacking, after it has reported all', () => {
    const { status, out, error } = kvmArm64(['doctor', '--require', 'lab,kvm'], bare)
    assert.equal(status, 3)
    assert.match(out, /^Lab: no$/m)
    assert.equal(error, 'kvm-arm64: this machine lacks: lab, kvm\n')
    assert.equal(kvmArm64(['doctor', '--require', 'lab', '--json'], bare).status, 3)
  })

  test('agrees with what the machine then does', () => {
    const found = JSON.parse(kvmArm64(['doctor', '--json']).out) as Found
    for (const ability of ['kvm', 'addon', 'lab'] as const) {
      assert.equal(kvmArm64(['doctor', '--require', ability]).status, found[ability] ? 0 : 3)
    }
    assert.equal(kvmArm64(['probe', '--backend', 'kernel']).status, found.kvm ? 0 : 3)
  })

  test('refuses an ability it does not know', () => {
    const { status, error } = kvmArm64(['doctor', '--require', 'wings'])
    assert.equal(status, 2)
    assert.match(error, /Unknown ability "wings"; known: kvm, addon, lab/)
  })
})
