import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { captureHost, type CaptureHostOptions } from '../../lib/migration/capture.js'
import type { State } from '../../lib/migration/state.js'
import type { Finding, RegisterFinding } from '../../lib/migration/finding.js'
import { type MoveVerdict, verdict } from '../../lib/migration/verdict.js'
import { findingWords, type FindingWords } from '../../lib/migration/words.js'
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

function findingOf({ findings }: MoveVerdict, register: string, field?: string): RegisterFinding {
  const found = findings.find(
    (finding): finding is RegisterFinding => finding.register?.name === register && finding.field === field,
  )
  return found ?? assert.fail(`nothing is reported of ${register}: ${JSON.stringify(findings, null, 1)}`)
}

function wordsOf(verdictFound: MoveVerdict, register: string, field?: string): FindingWords {
  return findingWords(findingOf(verdictFound, register, field), verdictFound.vmm)
}

describe('a verdict', () => {
  test('is yes, with nothing to say, for the host itself', () => {
    const found = verdictOn('linux-6.12-neoverse-n1', stateOf('linux-6.12-neoverse-n1', { vcpus: 2 }))
    assert.deepEqual(found, {
      vmm: 'strict',
      features: { source: ['psci-0.2'], destination: ['psci-0.2'] },
      interruptControllers: { source: null, destination: null },
      restores: true,
      possible: true,
      unknown: [],
      registers: { total: 518, same: 518 },
      findings: [],
    })
  })

  test('of QEMU 11.1 follows the last register that the destination lacks, and names those before it', () => {
    const rules = vmmRules('qemu@11.1')
    const bitmap = 'KVM_REG_ARM_VENDOR_HYP_BMAP_2'
    const stopping = (elected: bigint): Record<string, boolean> => {
      const state = withRegister(stateOf('linux-6.18-neoverse-n1'), bitmap, () => elected)
      const { findings } = verdictOn('linux-6.1-neoverse-n1', state, rules)
      return Object.fromEntries(
        findings.flatMap(({ register, stops }) => (register ? [[register.name, stops]] : [])),
      )
    }
    // Seen of QEMU 11.1.3: it names CNTPCT_EL0, the counter, as a failure of the migration, and then writes the other registers.
    const last = stopping(0n)
    assert.deepEqual([last.KVM_REG_ARM_PTIMER_CNT, last[bitmap], last.ID_AA64DFR0_EL1], [false, false, true])
    const any = stopping(1n)
    assert.deepEqual([any.KVM_REG_ARM_PTIMER_CNT, any[bitmap], any.ID_AA64DFR0_EL1], [true, true, true])
  })

  test('hangs on the direction: a newer kernel takes what an older one made, and not the other way', () => {
    const [older, newer] = ['linux-6.1-neoverse-n1', 'linux-6.18-neoverse-n1']
    assert.equal(verdictOn(newer, stateOf(older)).possible, true)
    assert.equal(verdictOn(older, stateOf(newer)).possible, false)
  })

  test('tells a version of PSCI the destination does not speak, and the one to choose', () => {
    const state = stateOf('linux-7.2-neoverse-n1', { vcpus: 2 })
    const found = verdictOn('linux-6.1-neoverse-n1', state)
    const psci = { id: '0x6030000000140000', name: 'KVM_REG_ARM_PSCI_VERSION' }
    assert.deepEqual(findingOf(found, 'KVM_REG_ARM_PSCI_VERSION'), {
      code: 'psci-version-refused',
      severity: 'refused',
      stops: true,
      vcpus: [0, 1],
      register: psci,
      source: '0x10003',
      destination: '0x10001',
      accepted: ['0x2', '0x10000', '0x10001'],
      pin: { on: 'source', before: 'first-run', register: psci, value: '0x10001' },
    })
    assert.deepEqual(wordsOf(found, 'KVM_REG_ARM_PSCI_VERSION'), {
      source: '0x10003 (PSCI 1.3)',
      destination: 'accepts 0x2 (0.2), 0x10000 (1.0), 0x10001 (1.1)',
      meaning:
        'the guest was given PSCI 1.3 and may use PSCI_SYSTEM_OFF2; the destination speaks 1.1 at most',
      remedy: 'write KVM_REG_ARM_PSCI_VERSION = 0x10001 (1.1) before the first run',
    })
    const older = stateOf('linux-7.2-neoverse-n1', { psci: '1.1' })
    const { findings } = verdictOn('linux-6.1-neoverse-n1', older)
    assert.ok(!findings.some(({ register }) => register?.name === 'KVM_REG_ARM_PSCI_VERSION'))
  })

  test('tells a service the guest may have discovered and the destination does not offer', () => {
    const found = verdictOn('linux-5.10-neoverse-n1', stateOf('linux-6.1-neoverse-n1'))
    const trng = ['KVM_REG_ARM_STD_BMAP', 'STD_BIT_TRNG_V1_0'] as const
    const lost = findingOf(found, ...trng)
    assert.equal(lost.severity, 'service-lost')
    assert.deepEqual(lost.pin, {
      on: 'source',
      before: 'first-run',
      register: lost.register,
      field: 'STD_BIT_TRNG_V1_0',
      value: '0x0',
    })
    const words = wordsOf(found, ...trng)
    assert.equal(
      words.meaning,
      'the guest may have discovered trng-v1.0; the destination does not provide it',
    )
    assert.match(words.remedy, /^clear bit 0 of STD_BMAP before the first run/)
    // PV time is answered by 5.10, which has no register for it.
    const pvTime = ['KVM_REG_ARM_STD_HYP_BMAP', 'STD_HYP_BIT_PV_TIME'] as const
    assert.equal(findingOf(found, ...pvTime).severity, 'missing-at-destination')
    assert.match(wordsOf(found, ...pvTime).meaning, /the destination provides it/)
  })

  test('tells a service that was hidden and comes to light', () => {
    const state = stateOf('linux-6.1-neoverse-n1', { elect: { stdHyp: [] } })
    const found = verdictOn('linux-5.10-neoverse-n1', state)
    const pvTime = ['KVM_REG_ARM_STD_HYP_BMAP', 'STD_HYP_BIT_PV_TIME'] as const
    assert.equal(findingOf(found, ...pvTime).severity, 'silent-default')
    assert.match(
      wordsOf(found, ...pvTime).meaning,
      /pv-time was hidden from the guest; the destination provides it/,
    )
  })

  test('tells a bit of a bitmap that the destination refuses', () => {
    const state = withRegister(stateOf('linux-6.1-neoverse-n1'), 'VENDOR_HYP_BMAP', () => 0x13n)
    const found = verdictOn('linux-6.1-neoverse-n1', state)
    assert.equal(findingOf(found, 'KVM_REG_ARM_VENDOR_HYP_BMAP', 'bit 4').severity, 'service-lost')
    const words = wordsOf(found, 'KVM_REG_ARM_VENDOR_HYP_BMAP', 'bit 4')
    assert.equal(
      words.meaning,
      'the guest may have discovered service 4; the destination does not provide it',
    )
    assert.equal(words.remedy, 'clear bit 4 of VENDOR_HYP_BMAP before the first run')
  })

  test('tells what the guest discovers anew where the state lacks the register', () => {
    const found = verdictOn('linux-6.1-neoverse-n1', stateOf('linux-5.10-neoverse-n1'))
    const anew = findingOf(found, 'KVM_REG_ARM_STD_BMAP')
    assert.equal(anew.severity, 'silent-default')
    assert.equal(anew.stops, false)
    assert.match(wordsOf(found, 'KVM_REG_ARM_STD_BMAP').meaning, /the guest may now discover trng-v1\.0/)
    const nothing = verdictOn('linux-7.2-neoverse-n1', stateOf('linux-6.12-neoverse-n1'))
    assert.equal(findingOf(nothing, 'KVM_REG_ARM_VENDOR_HYP_BMAP_2').severity, 'notice')
  })

  test('tells the field of an ID register, both values in words, and what to write', () => {
    const found = verdictOn('linux-7.2-neoverse-n1', stateOf('linux-7.2-max'))
    const finding = findingOf(found, 'ID_AA64ISAR0_EL1', 'RNDR')
    const register = { id: '0x603000000013c030', name: 'ID_AA64ISAR0_EL1' }
    assert.deepEqual(finding, {
      code: 'field-refused',
      severity: 'refused',
      stops: true,
      vcpus: [0],
      register,
      field: 'RNDR',
      source: '0x1',
      destination: '0x0',
      accepted: ['0x0'],
      pin: { on: 'source', before: 'first-run', register, field: 'RNDR', value: '0x0' },
    })
    assert.deepEqual(wordsOf(found, 'ID_AA64ISAR0_EL1', 'RNDR'), {
      source: '1 (yes)',
      destination: '0 (no)',
      meaning: 'the guest may rely on RNDR = 1 (yes); the destination cannot show that',
      remedy:
        'write ID_AA64ISAR0_EL1.RNDR = 0 before the first run; whether the source accepts it was not tried',
    })
  })

  test('does not blame a field that the destination would take', () => {
    const { findings } = verdictOn('linux-7.2-max', stateOf('linux-7.2-neoverse-n1'))
    assert.ok(!findings.some(({ register }) => register?.name === 'ID_AA64ISAR0_EL1'))
  })

  test('tells the identity of another CPU, and the capability that lets it be shown', () => {
    const state = stateOf('linux-7.2-neoverse-n1')
    assert.match(
      wordsOf(verdictOn('linux-7.2-max', state), 'MIDR_EL1').remedy,
      /^enable KVM_CAP_ARM_WRITABLE_IMP_ID_REGS before the first vCPU/,
    )
    assert.match(
      wordsOf(verdictOn('linux-6.1-max', state), 'MIDR_EL1').remedy,
      /^choose a destination of the same CPU/,
    )
  })

  test('tells vectors longer than the destination’s, and the lengths both have', () => {
    const state = stateOf('linux-7.2-max', { features: ['psci-0.2', 'sve'] })
    withRegister(state, 'KVM_REG_ARM64_SVE_VLS', (value) => value | (1n << 20n))
    const found = verdictOn('linux-7.2-max', state)
    assert.equal(findingOf(found, 'KVM_REG_ARM64_SVE_VLS').severity, 'refused')
    const words = wordsOf(found, 'KVM_REG_ARM64_SVE_VLS')
    assert.match(words.source, /up to 2688 bits/)
    assert.match(
      words.remedy,
      /^write KVM_REG_ARM64_SVE_VLS = 0x[1-9a-f][0-9a-f]* before KVM_ARM_VCPU_FINALIZE$/,
    )
  })

  test('tells a feature the destination has no vCPU with', () => {
    const state = stateOf('linux-7.2-max', { features: ['psci-0.2', 'sve', 'pmu-v3'] })
    const found = verdictOn('linux-7.2-neoverse-n1', state)
    assert.equal(found.possible, false)
    assert.deepEqual(found.findings[0], {
      code: 'features-refused',
      severity: 'refused',
      stops: true,
      vcpus: [0],
      features: ['psci-0.2', 'sve', 'pmu-v3'],
      missing: ['sve'],
      errno: 'EINVAL',
    })
    assert.deepEqual(findingWords(found.findings[0], found.vmm), {
      source: 'psci-0.2, sve, pmu-v3',
      destination: 'EINVAL',
      meaning: 'the guest may use sve; the destination has no vCPU with it',
      remedy: 'create the VM without sve',
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
    const elected = verdictOn(host, stateOf(host, { elect: { std: [] } }), rules)
    const found = findingOf(elected, 'KVM_REG_ARM_STD_BMAP')
    assert.equal(elected.possible, true)
    assert.deepEqual([found.severity, found.source, found.destination], ['silent-default', '0x0', '0x1'])
    assert.match(
      wordsOf(elected, 'KVM_REG_ARM_STD_BMAP').meaning,
      /^forgetful does not carry it; the guest may now discover trng-v1\.0/,
    )
  })

  test('is each VMM’s own', () => {
    for (const name of vmmNames()) {
      const found = verdictOn('linux-6.12-neoverse-n1', stateOf('linux-6.12-neoverse-n1'), vmmRules(name))
      assert.equal(found.possible, true, name)
      assert.equal(found.vmm, vmmRules(name).name)
    }
    const unknown: string = 'vmware'
    assert.throws(() => vmmRules(unknown), /unknown VMM "vmware"; expected one of strict/)
  })

  for (const [what, change, finding, words] of [
    [
      'a memory too large for the destination',
      { type: '0x40' },
      { code: 'address-space-refused', ipaSize: 64 },
      {
        source: '64 bits of guest physical address',
        meaning: 'the guest’s memory may lie where the destination cannot address it',
        remedy: 'create the VM with an address space every host has (KVM_CAP_ARM_VM_IPA_SIZE)',
      },
    ],
    [
      'a filter it has not',
      { smcccFilter: [{ base: 0xc600_0040, count: 2, action: 'forward' }] },
      { code: 'smccc-filter-refused', base: 0xc600_0040, count: 2, action: 'forward' },
      {
        source: 'forward 2 functions from 0xc6000040',
        meaning: 'calls that userspace handles for the guest would reach KVM',
        remedy: 'create the VM without a filter, or choose a destination with KVM_ARM_VM_SMCCC_FILTER',
      },
    ],
    [
      'a capability it has not',
      { capabilities: ['KVM_CAP_ARM_WRITABLE_IMP_ID_REGS'] },
      { code: 'capability-refused', capability: 'KVM_CAP_ARM_WRITABLE_IMP_ID_REGS' },
      {
        source: 'KVM_CAP_ARM_WRITABLE_IMP_ID_REGS',
        meaning: 'the VM was created with a capability the destination does not have',
        remedy: 'create the VM without KVM_CAP_ARM_WRITABLE_IMP_ID_REGS',
      },
    ],
  ] as const satisfies readonly (readonly [string, Partial<State['vm']>, object, Partial<FindingWords>])[]) {
    test(`is no for the sake of ${what} alone`, () => {
      const state = stateOf('linux-6.1-max')
      assert.equal(verdictOn('linux-6.1-max', state).possible, true)
      Object.assign(state.vm, change)
      const { possible, findings } = verdictOn('linux-6.1-max', state)
      assert.equal(possible, false)
      assert.deepEqual(findings, [
        { severity: 'refused', stops: true, vcpus: [], errno: 'EINVAL', ...finding } as Finding,
      ])
      assert.deepEqual(findingWords(findings[0]!, 'strict'), { destination: 'EINVAL', ...words })
    })
  }
})
