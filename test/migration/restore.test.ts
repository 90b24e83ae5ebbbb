import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import * as fc from 'fast-check'
import { capture, captureHost } from '../../lib/migration/capture.js'
import { attemptRestore } from '../../lib/migration/attempt.js'
import { restore, RestoreError } from '../../lib/migration/restore.js'
import { checkState, type State } from '../../lib/migration/state.js'
import { strict, type VmmRules } from '../../lib/migration/vmm/rules.js'
import { openKvm, type Kvm, type Vcpu } from '../../lib/kvm/index.js'
import { encodeRegister, registerWidth } from '../../lib/registers/index.js'
import { builtInHosts, builtInReport, simulator } from '../../lib/hosts/index.js'
import type { VcpuFeature } from '../../lib/uapi.js'
import { watchVms } from './open-vms.js'

const counters = new Set(['KVM_REG_ARM_TIMER_CNT', 'KVM_REG_ARM_PTIMER_CNT'])

/** What two states of one VM agree in: all but the time. */
function timeless(state: State): State {
  const vcpus = state.vcpus.map((vcpu) => ({
    ...vcpu,
    registers: vcpu.registers.map((register) =>
      counters.has(register.name) ? { ...register, value: '0x0' } : register,
    ),
  }))
  return { ...state, capturedAt: '', vcpus }
}

function assertRestores(kvm: Kvm, state: State): void {
  assert.deepEqual(checkState(JSON.parse(JSON.stringify(state)), 'state'), state)
  const restored = restore(kvm, state)
  try {
    assert.deepEqual(timeless(capture(kvm, restored.vm)), timeless(state))
    assert.ok(restored.outcomes.every(({ outcome }) => outcome === 'same'))
    assert.deepEqual(restored.unset, [])
  } finally {
    restored.vm.close()
  }
}

/** Every set of features a host has, from none on. */
function featureSets(host: string): VcpuFeature[][] {
  const sets = builtInReport(host).configurations.flatMap((configuration) =>
    'refused' in configuration ? [] : [configuration.features],
  )
  return [[], ['psci-0.2'], ['psci-0.2', 'power-off'], ...sets]
}

/** Writes values to all registers that take them; the state is then whatever came of it. */
function scramble(vcpu: Vcpu, values: (id: bigint, index: number) => bigint): void {
  const { registers } = vcpu
  for (const [index, id] of [...registers.list()].entries()) {
    try {
      registers.set(id, BigInt.asUintN(registerWidth(id), values(id, index)))
    } catch {
      // Refused: it keeps what it has.
    }
  }
}

describe('restoring what was captured on the same host', () => {
  for (const host of builtInHosts()) {
    test(`gives the same state with every set of features of ${host}`, () => {
      using kvm = openKvm(simulator(host))
      for (const features of featureSets(host)) assertRestores(kvm, captureHost(kvm, { features, vcpus: 2 }))
    })

    test(`gives the same state whatever the registers of ${host} hold`, () => {
      using kvm = openKvm(simulator(host))
      const sets = featureSets(host)
      fc.assert(
        fc.property(
          fc.nat(sets.length - 1),
          fc.array(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), { minLength: 7, maxLength: 7 }),
          fc.boolean(),
          (set, words, hasRun) => {
            using vm = kvm.createVm()
            const vcpus = [0, 1].map((id) => vm.createVcpu(id, { features: sets[set]! }))
            for (const vcpu of vcpus) {
              // Wide registers get a word in each of their parts.
              scramble(vcpu, (id, index) =>
                words.reduce((all, word) => (all << 64n) | word, words[index % 7]! ^ (id & 0xfn)),
              )
            }
            if (hasRun && !sets[set]!.includes('pmu-v3')) vcpus[0]!.freeze()
            assertRestores(kvm, capture(kvm, vm))
          },
        ),
        { numRuns: 20 },
      )
    })
  }

  test('restores the vector lengths before they are final, and vectors of that length', () => {
    using kvm = openKvm(simulator('linux-7.2-max'))
    using vm = kvm.createVm()
    const vcpu = vm.createVcpu(0, { init: false })
    vcpu.init({ features: ['psci-0.2', 'sve'] })
    vcpu.registers.set('KVM_REG_ARM64_SVE_VLS', 0x3n)
    vcpu.finalize()
    vcpu.registers.set('z0', (1n << 256n) - 1n)
    assertRestores(kvm, capture(kvm, vm))
  })

  test('restores WORKAROUND_2 of a VM without SSBS, which list order would refuse', () => {
    using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
    using vm = kvm.createVm()
    const { registers } = vm.createVcpu(0)
    const pfr1 = registers.get('ID_AA64PFR1_EL1')
    registers.set('ID_AA64PFR1_EL1', pfr1 & ~0xf0n)
    assert.equal(registers.get('KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2'), 3n)
    assertRestores(kvm, capture(kvm, vm))
  })

  test('restores the PMU’s pairs of registers that set and clear one bitmap', () => {
    using kvm = openKvm(simulator('linux-7.2-max'))
    using vm = kvm.createVm()
    const { registers } = vm.createVcpu(0, { features: ['psci-0.2', 'pmu-v3'] })
    registers.set('PMCNTENSET_EL0', 0x8000_0001n)
    const state = capture(kvm, vm)
    assert.equal(valueOf(state, 'PMCNTENCLR_EL0'), 0x8000_0001n)
    assertRestores(kvm, state)
  })

  test('restores MIDR_EL1 through the capability, the filter, the run state and a pending SError', () => {
    using kvm = openKvm(simulator('linux-7.2-max'))
    using vm = kvm.createVm()
    vm.enableCapability('KVM_CAP_ARM_WRITABLE_IMP_ID_REGS')
    vm.filterCalls({ base: 0xc600_0040, count: 2, action: 'forward' })
    const vcpu = vm.createVcpu(0)
    vcpu.registers.set('MIDR_EL1', 0x413f_d0c1n)
    vcpu.mpState = 'stopped'
    const events = new Uint8Array(64)
    events[0] = 1
    vcpu.setEvents(events)
    const state = capture(kvm, vm)
    assert.deepEqual(state.vm, {
      type: '0x0',
      capabilities: ['KVM_CAP_ARM_WRITABLE_IMP_ID_REGS'],
      smcccFilter: [{ base: 0xc600_0040, count: 2, action: 'forward' }],
      gic: null,
      counterOffset: null,
      memory: [],
      notCarried: [],
    })
    assert.equal(state.vcpus[0]!.mpState, 'stopped')
    assertRestores(kvm, state)
  })
})

function valueOf(state: State, name: string): bigint {
  const id = `0x${encodeRegister(name).toString(16)}`
  return BigInt(state.vcpus[0]!.registers.find((register) => register.id === id)!.value)
}

describe('a restore that cannot be whole', () => {
  const state = captureOn('linux-6.18-neoverse-n1')

  test('names what was refused, says how much was applied, and closes the VM', () => {
    const { backend, open } = watchVms(simulator('linux-6.1-neoverse-n1'))
    using kvm = openKvm(backend)
    assert.throws(
      () => restore(kvm, state),
      (error) => {
        assert.ok(error instanceof RestoreError)
        assert.equal(error.code, 'ERR_KVM_RESTORE')
        assert.match(error.message, /KVM_REG_ARM_PSCI_VERSION = 0x10003 on vCPU 0: EINVAL/)
        assert.match(error.message, /KVM_REG_ARM_VENDOR_HYP_BMAP_2 = 0x0 on vCPU 0: this host has no such/)
        assert.match(error.message, /\d+ of 257 registers had been applied; the VM is closed$/)
        assert.equal(error.outcomes.length, 257)
        return true
      },
    )
    assert.deepEqual([...open], [])
  })

  test('is handed out where the rules let all of it pass', () => {
    using kvm = openKvm(simulator('linux-6.1-neoverse-n1'))
    const { vm, outcomes } = restore(kvm, state, { rules: { ...strict, on: () => 'tolerated' } })
    using _ = vm
    const psci = outcomes.find(({ name }) => name === 'KVM_REG_ARM_PSCI_VERSION')
    assert.deepEqual(psci, {
      vcpu: 0,
      id: '0x6030000000140000',
      name: 'KVM_REG_ARM_PSCI_VERSION',
      value: '0x10003',
      outcome: 'refused',
      errno: 'EINVAL',
    })
  })

  test('fails for a register the state lacks, where the rules say so', () => {
    using kvm = openKvm(simulator('linux-6.18-neoverse-n1'))
    const old = captureOn('linux-6.12-neoverse-n1')
    const rules: VmmRules = {
      ...strict,
      on: (obstacle) => (obstacle === 'missing' ? 'fails' : 'tolerated'),
    }
    assert.throws(() => restore(kvm, old, { rules }), /VENDOR_HYP_BMAP_2.*not in the state/)
  })

  test('tells the registers the state lacks, with the value they keep', () => {
    using kvm = openKvm(simulator('linux-6.18-neoverse-n1'))
    using attempt = attemptRestore(kvm, captureOn('linux-6.1-neoverse-n1'))
    const bitmap = attempt.unset.find(({ name }) => name === 'KVM_REG_ARM_VENDOR_HYP_BMAP_2')
    assert.deepEqual(bitmap, {
      vcpu: 0,
      id: '0x6030000000160003',
      name: 'KVM_REG_ARM_VENDOR_HYP_BMAP_2',
      value: '0x0',
    })
  })

  test('tells what was refused beside registers', () => {
    using kvm = openKvm(simulator('linux-6.1-neoverse-n1'))
    const source = captureOn('linux-7.2-max', ['psci-0.2', 'sve'])
    source.vm.capabilities = ['KVM_CAP_ARM_WRITABLE_IMP_ID_REGS']
    source.vm.smcccFilter = [{ base: 0xc600_0040, count: 2, action: 'forward' }]
    using attempt = attemptRestore(kvm, source)
    assert.deepEqual(attempt.refusals, [
      { step: 'enable-capability', capability: 'KVM_CAP_ARM_WRITABLE_IMP_ID_REGS', errno: 'EINVAL' },
      { step: 'smccc-filter', calls: { base: 0xc600_0040, count: 2, action: 'forward' }, errno: 'EINVAL' },
      { step: 'init', vcpu: 0, features: ['psci-0.2', 'sve'], errno: 'EINVAL' },
    ])
    assert.throws(() => restore(kvm, source), /init \(psci-0\.2, sve\) of vCPU 0: EINVAL/)
  })

  test('tells a guest address space the destination cannot give', () => {
    using kvm = openKvm(simulator('linux-6.1-cortex-a57'))
    const source = captureOn('linux-6.1-cortex-a57')
    source.vm.type = '0x34'
    using attempt = attemptRestore(kvm, source)
    assert.equal(attempt.vm, undefined)
    assert.deepEqual(attempt.refusals, [{ step: 'create-vm', ipaSize: 52, errno: 'EINVAL' }])
    assert.throws(() => restore(kvm, source), RestoreError)
  })

  test('refuses a prepare that is not done when it returns, and closes the VM', () => {
    const { backend, open } = watchVms(simulator('linux-6.1-cortex-a57'))
    using kvm = openKvm(backend)
    const source = captureOn('linux-6.1-cortex-a57')
    assert.throws(() => restore(kvm, source, { prepare }), { name: 'TypeError', message: /^prepare must be/ })
    assert.equal(open.size, 0)
  })

  test('takes a closed handle for no refusal', () => {
    const kvm = openKvm(simulator('linux-6.1-cortex-a57'))
    kvm.close()
    const source = captureOn('linux-6.1-cortex-a57')
    assert.throws(() => restore(kvm, source), { name: 'KvmError', code: 'ERR_KVM_CLOSED' })
  })
})

async function prepare(): Promise<void> {
  throw new Error('late')
}

function captureOn(host: string, features: readonly VcpuFeature[] = ['psci-0.2']): State {
  using kvm = openKvm(simulator(host))
  return captureHost(kvm, { features })
}
