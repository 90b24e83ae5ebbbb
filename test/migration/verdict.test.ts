import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { captureHost, type CaptureHostOptions } from '../../lib/migration/capture.js'
import type { State } from '../../lib/migration/state.js'
import type { Finding } from '../../lib/migration/finding.js'
import { type MoveVerdict, verdict } from '../../lib/migration/verdict.js'
import { vmmNames, vmmRules } from '../../lib/migration/vmm/names.js'
import { strict, type VmmRules } from '../../lib/migration/vmm/rules.js'
import { openKvm } from '../../lib/kvm/index.js'
import { encodeRegister } from '../../lib/registers/index.js'
import { simulator } from '../../lib/hosts/index.js'

function stateOf(host: string, options: CaptureHostOptions = {}): State {
  using kvm = openKvm(simulator(host))
  return captureHost(kvm, options)
}

function verdictOn(host: string, state: State, rules?: VmmRules): MoveVerdict {
  using kvm = openKvm(simulator(host))
  return verdict(state, kvm, rules)
}

function withRegister(state: State, name: string, change: (value: bigint) => bigint): State {
  const id = `0x${encodeRegister(name).toString(16)}`
  for (const { registers } of state.vcpus) {
    const register = registers.find((candidate) => candidate.id === id)!
    register.value = `0x${change(BigInt(register.value)).toString(16)}`
  }
  return state
}

function findingOf({ findings }: MoveVerdict, register: string, field?: string): Finding {
  const found = findings.find((finding) => finding.register?.name === register && finding.field === field)
  return found ?? assert.fail(`nothing is said of ${register}: ${JSON.stringify(findings, null, 1)}`)
}

describe('a verdict', () => {
  test('is yes, with nothing to say, for the host itself', () => {
    const found = verdictOn('linux-6.12-neoverse-n1', stateOf('linux-6.12-neoverse-n1', { vcpus: 2 }))
    assert.deepEqual(found, {
      vmm: 'strict',
      possible: true,
      registers: { total: 518, same: 518 },
      findings: [],
    })
  })

  test('hangs on the direction: a newer kernel takes what an older one made, and not the other way', () => {
    const [older, newer] = ['linux-6.1-neoverse-n1', 'linux-6.18-neoverse-n1']
    assert.equal(verdictOn(newer, stateOf(older)).possible, true)
    assert.equal(verdictOn(older, stateOf(newer)).possible, false)
  })

  test('tells a version of PSCI the destination does not speak, and the one to choose', () => {
    const state = stateOf('linux-7.2-neoverse-n1', { vcpus: 2 })
    assert.deepEqual(findingOf(verdictOn('linux-6.1-neoverse-n1', state), 'KVM_REG_ARM_PSCI_VERSION'), {
      severity: 'refused',
      stops: true,
      vcpus: [0, 1],
      register: { id: '0x6030000000140000', name: 'KVM_REG_ARM_PSCI_VERSION' },
      source: '0x10003 (PSCI 1.3)',
      destination: 'accepts 0x2 (0.2), 0x10000 (1.0), 0x10001 (1.1)',
      meaning: 'the guest was told PSCI 1.3 and may use PSCI_SYSTEM_OFF2; the destination speaks 1.1 at most',
      remedy: 'write KVM_REG_ARM_PSCI_VERSION = 0x10001 (1.1) before the first run',
    })
    const older = stateOf('linux-7.2-neoverse-n1', { psci: '1.1' })
    const { findings } = verdictOn('linux-6.1-neoverse-n1', older)
    assert.ok(!findings.some(({ register }) => register?.name === 'KVM_REG_ARM_PSCI_VERSION'))
  })

  test('tells a service the guest may have discovered and the destination does not offer', () => {
    const found = verdictOn('linux-5.10-neoverse-n1', stateOf('linux-6.1-neoverse-n1'))
    const lost = findingOf(found, 'KVM_REG_ARM_STD_BMAP', 'STD_BIT_TRNG_V1_0')
    assert.equal(lost.severity, 'service-lost')
    assert.equal(lost.meaning, 'the guest may have discovered trng-v1.0; the destination does not offer it')
    assert.match(lost.remedy, /^elect without STD_BMAP bit 0 before the first run/)
    // PV time is answered by 5.10, which has no register for it.
    const kept = findingOf(found, 'KVM_REG_ARM_STD_HYP_BMAP', 'STD_HYP_BIT_PV_TIME')
    assert.equal(kept.severity, 'missing-at-destination')
    assert.match(kept.meaning, /the destination answers it/)
  })

  test('tells a service that was hidden and comes to light', () => {
    const state = stateOf('linux-6.1-neoverse-n1', { services: { stdHyp: [] } })
    const found = findingOf(
      verdictOn('linux-5.10-neoverse-n1', state),
      'KVM_REG_ARM_STD_HYP_BMAP',
      'STD_HYP_BIT_PV_TIME',
    )
    assert.equal(found.severity, 'silent-default')
    assert.match(found.meaning, /pv-time was hidden from the guest; the destination answers it/)
  })

  test('tells a bit of a bitmap that the destination refuses', () => {
    const state = withRegister(stateOf('linux-6.1-neoverse-n1'), 'VENDOR_HYP_BMAP', () => 0x13n)
    const found = findingOf(verdictOn('linux-6.1-neoverse-n1', state), 'KVM_REG_ARM_VENDOR_HYP_BMAP', 'bit 4')
    assert.equal(found.severity, 'service-lost')
    assert.equal(found.remedy, 'elect without VENDOR_HYP_BMAP bit 4 before the first run')
  })

  test('tells what the guest discovers anew where the state lacks the register', () => {
    const found = verdictOn('linux-6.1-neoverse-n1', stateOf('linux-5.10-neoverse-n1'))
    const anew = findingOf(found, 'KVM_REG_ARM_STD_BMAP')
    assert.equal(anew.severity, 'silent-default')
    assert.equal(anew.stops, false)
    assert.match(anew.meaning, /may from now on discover trng-v1\.0/)
    const nothing = verdictOn('linux-7.2-neoverse-n1', stateOf('linux-6.12-neoverse-n1'))
    assert.equal(findingOf(nothing, 'KVM_REG_ARM_VENDOR_HYP_BMAP_2').severity, 'notice')
  })

  test('tells the field of an ID register, both values in words, and what to write', () => {
    const found = findingOf(
      verdictOn('linux-7.2-neoverse-n1', stateOf('linux-7.2-max')),
      'ID_AA64ISAR0_EL1',
      'RNDR',
    )
    assert.equal(found.severity, 'refused')
    assert.equal(found.source, '1 (yes)')
    assert.equal(found.destination, '0 (no)')
    assert.equal(found.remedy, 'write ID_AA64ISAR0_EL1.RNDR = 0 before the first run, if the source lets it')
  })

  test('does not blame a field that the destination would take', () => {
    const { findings } = verdictOn('linux-7.2-max', stateOf('linux-7.2-neoverse-n1'))
    assert.ok(!findings.some(({ register }) => register?.name === 'ID_AA64ISAR0_EL1'))
  })

  test('tells the identity of another CPU, and the capability that lets it be shown', () => {
    const state = stateOf('linux-7.2-neoverse-n1')
    assert.match(
      findingOf(verdictOn('linux-7.2-max', state), 'MIDR_EL1').remedy,
      /^enable KVM_CAP_ARM_WRITABLE_IMP_ID_REGS before the first vCPU/,
    )
    assert.match(
      findingOf(verdictOn('linux-6.1-max', state), 'MIDR_EL1').remedy,
      /^a destination of the same CPU/,
    )
  })

  test('tells vectors longer than the destination’s, and the lengths both have', () => {
    const state = stateOf('linux-7.2-max', { features: ['psci-0.2', 'sve'] })
    withRegister(state, 'KVM_REG_ARM64_SVE_VLS', (value) => value | (1n << 20n))
    const found = findingOf(verdictOn('linux-7.2-max', state), 'KVM_REG_ARM64_SVE_VLS')
    assert.equal(found.severity, 'refused')
    assert.match(found.source, /up to 2688 bits/)
    assert.match(
      found.remedy,
      /^write KVM_REG_ARM64_SVE_VLS = 0x[1-9a-f][0-9a-f]* before KVM_ARM_VCPU_FINALIZE$/,
    )
  })

  test('tells a feature the destination has no vCPU with', () => {
    const state = stateOf('linux-7.2-max', { features: ['psci-0.2', 'sve', 'pmu-v3'] })
    const found = verdictOn('linux-7.2-neoverse-n1', state)
    assert.equal(found.possible, false)
    assert.deepEqual(found.findings[0], {
      severity: 'refused',
      stops: true,
      vcpus: [0],
      source: 'psci-0.2, sve, pmu-v3',
      destination: 'EINVAL',
      meaning: 'the guest may use sve; the destination has no vCPU with it',
      remedy: 'make the VM without sve',
    })
  })

  test('tells less mitigation as an obstacle, and more as none', () => {
    const mitigated = stateOf('linux-6.1-max')
    const exposed = stateOf('linux-6.1-cortex-a57')
    const name = 'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1'
    assert.equal(findingOf(verdictOn('linux-6.1-cortex-a57', mitigated), name).severity, 'refused')
    const notice = findingOf(verdictOn('linux-6.1-max', exposed), name)
    assert.deepEqual([notice.severity, notice.stops], ['notice', false])
  })

  test('tells a register that a VMM does not carry only where it matters', () => {
    const rules: VmmRules = {
      ...strict,
      name: 'forgetful',
      carries: (id) => ((id >> 16n) & 0xfffn) !== 0x16n,
    }
    const host = 'linux-6.1-neoverse-n1'
    assert.deepEqual(verdictOn(host, stateOf(host), rules).findings, [])
    const elected = verdictOn(host, stateOf(host, { services: { std: [] } }), rules)
    const found = findingOf(elected, 'KVM_REG_ARM_STD_BMAP')
    assert.equal(elected.possible, true)
    assert.deepEqual([found.severity, found.source, found.destination], ['silent-default', '0x0', '0x1'])
    assert.match(found.meaning, /^forgetful does not carry it; the guest may from now on discover trng-v1\.0/)
  })

  test('is each VMM’s own', () => {
    for (const name of vmmNames()) {
      const found = verdictOn('linux-6.12-neoverse-n1', stateOf('linux-6.12-neoverse-n1'), vmmRules(name))
      assert.equal(found.possible, true, name)
      assert.equal(found.vmm, vmmRules(name).name)
    }
    assert.throws(() => vmmRules('vmware' as 'qemu'), /unknown VMM "vmware"; expected one of strict/)
  })

  for (const [what, change, finding] of [
    [
      'a memory too large for the destination',
      { type: '0x40' },
      {
        source: '64 bits of guest address space',
        meaning: 'the guest’s memory may lie where the destination cannot address it',
        remedy: 'make the VM with an address space every host has (KVM_CAP_ARM_VM_IPA_SIZE)',
      },
    ],
    [
      'a filter it has not',
      { smcccFilter: [{ base: 0xc600_0040, count: 2, action: 'forward' }] },
      {
        source: 'forward 2 functions from 0xc6000040',
        meaning: 'calls of the guest that userspace takes over would reach KVM',
        remedy: 'make the VM without a filter, or a destination with KVM_ARM_VM_SMCCC_FILTER',
      },
    ],
    [
      'a capability it has not',
      { capabilities: ['KVM_CAP_ARM_WRITABLE_IMP_ID_REGS'] },
      {
        source: 'KVM_CAP_ARM_WRITABLE_IMP_ID_REGS',
        meaning: 'the VM was made with a capability the destination does not have',
        remedy: 'make the VM without the capability',
      },
    ],
  ] as const satisfies readonly (readonly [string, Partial<State['vm']>, Partial<Finding>])[]) {
    test(`is no for the sake of ${what} alone`, () => {
      const state = stateOf('linux-6.1-max')
      assert.equal(verdictOn('linux-6.1-max', state).possible, true)
      Object.assign(state.vm, change)
      const { possible, findings } = verdictOn('linux-6.1-max', state)
      assert.equal(possible, false)
      assert.deepEqual(findings, [
        { severity: 'refused', stops: true, vcpus: [], destination: 'EINVAL', ...finding },
      ])
    })
  }
})
