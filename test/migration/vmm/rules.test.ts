import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { captureHost } from '../../../lib/migration/capture.js'
import { attemptRestore } from '../../../lib/migration/attempt.js'
import { reactionTo } from '../../../lib/migration/restore.js'
import { vmmNames, vmmRules } from '../../../lib/migration/vmm/names.js'
import { openKvm } from '../../../lib/kvm/index.js'
import { encodeRegister } from '../../../lib/registers/index.js'
import { simulator } from '../../../lib/hosts/index.js'
import type { VcpuFeature } from '../../../lib/uapi.js'

/** Names of the registers that end the move of a fresh VM between recorded hosts with Neoverse N1. */
function stoppedBy(from: string, to: string, vmm: string, features: VcpuFeature[] = ['psci-0.2']): string[] {
  using source = openKvm(simulator(`linux-${from}-neoverse-n1`))
  using destination = openKvm(simulator(`linux-${to}-neoverse-n1`))
  const rules = vmmRules(vmm)
  using attempt = attemptRestore(destination, captureHost(source, { features }), {
    carries: (id) => rules.carries(id),
  })
  assert.deepEqual(attempt.refusals, [])
  return attempt.outcomes.filter((outcome) => reactionTo(outcome, rules) === 'fails').map(({ name }) => name)
}

const vanished = ['TCR2_EL1', 'PIRE0_EL1', 'PIR_EL1']
const psci = 'KVM_REG_ARM_PSCI_VERSION'
const bitmap2 = 'KVM_REG_ARM_VENDOR_HYP_BMAP_2'

describe('the rules of VMMs', () => {
  const cases: [from: string, to: string, vmm: string, stoppedBy: string[]][] = [
    // Registers that newer kernels show no more.
    ['6.12', '7.2', 'strict', vanished],
    ['6.12', '7.2', 'qemu@10.0', vanished],
    ['6.12', '7.2', 'qemu@11.1', []],
    ['6.12', '7.2', 'qemu', []],
    ['6.12', '7.2', 'firecracker', vanished],
    ['6.12', '7.2', 'cloud-hypervisor', vanished],
    ['6.12', '7.2', 'crosvm', vanished],
    // A register that older kernels do not have, and a newer default.
    ['7.2', '6.12', 'strict', [psci, bitmap2]],
    ['7.2', '6.12', 'qemu@10.0', [psci, bitmap2]],
    ['7.2', '6.12', 'qemu@11.1', [psci]],
    ['7.2', '6.12', 'firecracker', [psci, bitmap2]],
    ['7.2', '6.12', 'cloud-hypervisor', [psci, bitmap2]],
    ['7.2', '6.12', 'crosvm', [psci]],
    ...vmmNames().flatMap((vmm): [string, string, string, string[]][] => [
      ['6.1', '6.12', vmm, []],
      ['7.2', '6.18', vmm, []],
    ]),
  ]
  for (const [from, to, vmm, expected] of cases) {
    const answer = expected.length === 0 ? 'lets' : 'does not let'
    test(`${vmm} ${answer} a VM go from ${from} to ${to}`, () => {
      assert.deepEqual(stoppedBy(from, to, vmm), expected)
    })
  }

  test('QEMU tolerates the newer bitmap only while nothing is elected in it', () => {
    const id = encodeRegister(bitmap2)
    assert.equal(vmmRules('qemu@11.1').on('absent', id, 0n), 'tolerated')
    assert.equal(vmmRules('qemu@11.1').on('absent', id, 1n), 'fails')
    assert.equal(vmmRules('qemu@11.1').on('missing', id, 0n), 'silent')
    assert.equal(vmmRules('qemu@11.1').on('missing', encodeRegister('TCR2_EL1'), 0n), 'tolerated')
  })

  test('crosvm leaves hypercall bitmaps and SVE behind, QEMU vector lengths, and every other carries them', () => {
    for (const name of [bitmap2, 'KVM_REG_ARM_STD_BMAP', 'z0', 'KVM_REG_ARM64_SVE_VLS']) {
      for (const vmm of vmmNames()) {
        const isLeft = vmm === 'crosvm' || (vmm.startsWith('qemu') && name === 'KVM_REG_ARM64_SVE_VLS')
        assert.equal(vmmRules(vmm).carries(encodeRegister(name)), !isLeft, `${vmm} ${name}`)
      }
    }
    assert.ok(vmmRules('crosvm').carries(encodeRegister(psci)))
  })

  test('each row tells where it is to be seen, and what of it was only read', () => {
    for (const vmm of vmmNames()) {
      const { rows } = vmmRules(vmm)
      assert.ok(rows.length > 0)
      for (const { rule, source } of rows) assert.ok(rule !== '' && /[./]/.test(source), `${vmm}: ${rule}`)
      const runs = rows.some(({ known }) => known === 'run')
      assert.equal(runs, vmm === 'strict' || vmm.startsWith('qemu'), vmm)
    }
  })

  test('a name that is none is refused with those there are', () => {
    const unknown: string = 'qemu@9'
    assert.throws(() => vmmRules(unknown), {
      name: 'RangeError',
      message: /"qemu@9".*strict, qemu@11\.1, qemu@10\.0, firecracker@1\.7, .*, crosvm, qemu, firecracker/,
    })
    const inherited: string = 'toString'
    assert.throws(() => vmmRules(inherited), { name: 'RangeError' })
  })
})
