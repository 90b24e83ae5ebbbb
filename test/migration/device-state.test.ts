/** A state holds the GICv3 and the settings of devices: capture, restore into a new VM, capture again, and nothing differs. */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import { type Kvm, openKvm, type Vm } from '../../lib/kvm/index.js'
import { capture, captureHost } from '../../lib/migration/capture.js'
import { restore, RestoreError } from '../../lib/migration/restore.js'
import { checkState, type State } from '../../lib/migration/state.js'
import { verdict } from '../../lib/migration/verdict.js'
import { type VmmName, vmmNames, vmmRules } from '../../lib/migration/vmm/names.js'
import {
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
} from '../../lib/uapi.js'

const [GICD_CTLR, GICD_ISENABLER1, GICD_ICFGR2, GICR_ISENABLER0] = [0n, 0x104n, 0xc08n, 0x1_0100n]
const ICC_PMR_EL1 = 0xc230n
const SECOND = 1n << 32n

const word = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer)
const long = (value: bigint): Uint8Array => new Uint8Array(BigUint64Array.of(value).buffer)

/** Two vCPUs whose guest has enabled a shared interrupt, which waits, and the second's timer. */
function madeVm(kvm: Kvm): Vm {
  const vm = kvm.createVm()
  const memory = kvm.createMemory(0x1_0000)
  vm.mapMemory(3, { address: 0x4000_0000n, memory })
  for (const id of [0, 1]) vm.createVcpu(id, { features: ['psci-0.2', 'pmu-v3'] })
  const { attributes } = vm.createGic({
    version: 3,
    distributor: 0x800_0000n,
    redistributors: 0x80a_0000n,
    irqs: 96,
  })
  for (const { pmu, timers } of vm.vcpus) {
    pmu.filter({ base: 0x11, count: 2, action: 'deny' })
    pmu.setIrq(23)
    pmu.init()
    if (timers.irq('virtual') === 27) timers.setIrq('virtual', 20)
  }
  vm.vcpus[1]!.stolenTime.setAddress(0x4000_0040n)
  attributes.set(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD_CTLR, word(2))
  attributes.set(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD_ICFGR2, word(0))
  attributes.set(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD_ISENABLER1, word(0x2))
  attributes.set(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, SECOND | GICR_ISENABLER0, word(1 << 20))
  attributes.set(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, SECOND | ICC_PMR_EL1, long(0xf0n))
  vm.setIrq(33, true)
  return vm
}

const prepare =
  (kvm: Kvm) =>
  (vm: Vm): void => {
    vm.mapMemory(3, { address: 0x4000_0000n, memory: kvm.createMemory(0x1_0000) })
  }

/** What of a state is the guest's. */
function guestOf({ vm, vcpus }: State): unknown {
  return {
    vm,
    vcpus: vcpus.map(({ registers, ...others }) => ({ ...others, count: registers.length })),
  }
}

describe('a VM with a GICv3', () => {
  for (const host of ['linux-5.10-neoverse-n1', 'linux-6.12-neoverse-n1', 'linux-7.2-neoverse-n1']) {
    test(`is restored with its devices on ${host}`, () => {
      using kvm = openKvm(simulator(host))
      using vm = madeVm(kvm)
      const state = checkState(JSON.parse(JSON.stringify(capture(kvm, vm))), 'captured')
      const bank = (name: string) => state.vm.gic!.registers.find((each) => each.name === name)!.values
      assert.deepEqual(bank('GICD_ISENABLER1'), ['0x2', '0x0'])
      assert.deepEqual(state.vm.gic!.lines, ['0x2', '0x0'])
      assert.deepEqual(state.vm.memory, [{ slot: 3, address: '0x40000000', size: 0x1_0000, readonly: false }])
      assert.deepEqual(
        state.vcpus.map(({ stolenTime }) => stolenTime),
        [null, '0x40000040'],
      )
      assert.equal(state.vcpus[0]!.timers!.virtual, 20)
      assert.deepEqual(state.vcpus[1]!.pmu, [
        { set: 'filter', base: 0x11, count: 2, action: 'deny' },
        { set: 'irq', intid: 23 },
        { set: 'init' },
      ])
      const restored = restore(kvm, state, { prepare: prepare(kvm) })
      using again = restored.vm
      assert.deepEqual(guestOf(capture(kvm, again)), guestOf(state))
      const { restores, unknown } = verdict(state, kvm)
      assert.equal(restores, true)
      assert.deepEqual(unknown, ['destination-gic-priorities'])
    })
  }

  test('is restored whatever its registers are called in the file', () => {
    using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
    using vm = madeVm(kvm)
    const captured = capture(kvm, vm)
    const state = structuredClone(captured)
    const lists = state.vcpus.flatMap(({ gic }) => [...gic!.redistributor, ...gic!.cpuInterface])
    for (const entry of [...state.vm.gic!.registers, ...lists]) entry.name = 'another'
    using again = restore(kvm, state, { prepare: prepare(kvm) }).vm
    assert.deepEqual(guestOf(capture(kvm, again)), guestOf(captured))
  })

  test('is refused by a kernel with an earlier GIC, whose revision it cannot choose', () => {
    using newer = openKvm(simulator('linux-6.12-neoverse-n1'))
    using older = openKvm(simulator('linux-5.10-neoverse-n1'))
    using vm = madeVm(newer)
    const state = capture(newer, vm)
    const { findings } = verdict(state, older)
    assert.ok(
      findings.some(
        ({ code, ...about }) =>
          code === 'device-refused' && 'what' in about && about.what === 'GICD_IIDR = 0x4b00343b',
      ),
    )
    assert.throws(
      () => restore(older, state, { prepare: prepare(older) }),
      (error) => error instanceof RestoreError && error.refusals.some(({ step }) => step === 'device'),
    )
  })

  test('continues its counter where it was, at an offset of the new host', () => {
    using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
    using vm = kvm.createVm()
    const vcpu = vm.createVcpu(0)
    vm.setCounterOffset(0x1234n)
    const state = capture(kvm, vm)
    assert.equal(state.vm.counterOffset, '0x1234')
    const restored = restore(kvm, state)
    using again = restored.vm
    const now = again.vcpus[0]!.registers.get('KVM_REG_ARM_TIMER_CNT')
    const then = vcpu.registers.get('KVM_REG_ARM_TIMER_CNT')
    assert.ok(then - now < 10_000_000_000n && now - then < 10_000_000_000n, `${then} and ${now}`)
  })

  test('that is not initialised has no registers, and is made again', () => {
    using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
    using vm = kvm.createVm()
    vm.createVcpu(0)
    vm.createGic({ version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n, init: false })
    const state = capture(kvm, vm)
    assert.deepEqual(
      [state.vm.gic!.initialised, state.vm.gic!.registers, state.vcpus[0]!.gic],
      [false, [], null],
    )
    const { vm: again } = restore(kvm, state)
    assert.deepEqual(capture(kvm, again).vm.gic, state.vm.gic)
    again.close()
  })
})

test('a capture names what a state does not hold, and a move loses it', () => {
  const report = builtInReport('linux-7.2-neoverse-n1')
  report.capabilities.KVM_CAP_ARM_MTE = [1, 1]
  report.configurations.push({ features: ['psci-0.2'], mte: true, removed: [], added: [], changed: [] })
  using kvm = openKvm(simulator(report))
  using vm = kvm.createVm()
  vm.enableCapability('KVM_CAP_ARM_MTE')
  vm.createVcpu(0, { features: ['psci-0.2'] })
  const state = capture(kvm, vm)
  assert.deepEqual(state.vm.notCarried, ['mte-tags'])
  const { restores, possible, findings } = verdict(state, kvm)
  assert.deepEqual([restores, possible], [true, false])
  assert.ok(findings.some(({ code }) => code === 'device-not-carried'))
})

describe('what a state does not hold is lost, refused, or not known, as the VMM moves it', () => {
  using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
  const state = captureHost(kvm)
  const parts = ['gic-v2', 'gic-el2', 'its', 'mte-tags', 'other-device'] as const
  const answers: Readonly<Record<VmmName, readonly string[]>> = {
    strict: ['left', 'left', 'left', 'left', 'left'],
    'qemu@11.1': ['carried', 'unknown', 'carried', 'refused', 'unknown'],
    'qemu@10.0': ['carried', 'unknown', 'carried', 'refused', 'unknown'],
    qemu: ['carried', 'unknown', 'carried', 'refused', 'unknown'],
    'firecracker@1.7': ['carried', 'unknown', 'carried', 'unknown', 'unknown'],
    'firecracker@1.6': ['carried', 'unknown', 'unknown', 'unknown', 'unknown'],
    firecracker: ['carried', 'unknown', 'carried', 'unknown', 'unknown'],
    'cloud-hypervisor@53': ['unknown', 'unknown', 'carried', 'unknown', 'unknown'],
    'cloud-hypervisor@52': ['unknown', 'unknown', 'carried', 'unknown', 'unknown'],
    'cloud-hypervisor': ['unknown', 'unknown', 'carried', 'unknown', 'unknown'],
    crosvm: ['refused', 'unknown', 'refused', 'unknown', 'unknown'],
  }
  for (const vmm of vmmNames()) {
    test(vmm, () => {
      const found = parts.map((part) => {
        const { restores, unknown, findings } = verdict(
          { ...state, vm: { ...state.vm, notCarried: [part] } },
          openKvm(simulator('linux-6.12-neoverse-n1')),
          vmmRules(vmm),
        )
        const isLeft = findings.some((one) => one.code === 'device-not-carried' && one.device === part)
        const isRefused = findings.some((one) => one.code === 'save-refused' && one.property === part)
        assert.equal(restores, !isRefused)
        const answer = unknown.includes('moved-parts') ? 'unknown' : 'carried'
        assert.ok(Number(isLeft) + Number(isRefused) + Number(answer === 'unknown') <= 1)
        if (isLeft) return 'left'
        return isRefused ? 'refused' : answer
      })
      assert.deepEqual(found, answers[vmm])
    })
  }

  test('QEMU refuses to move EL2, so what its GIC keeps for it is not lost', () => {
    using destination = openKvm(simulator('linux-6.12-neoverse-n1'))
    const nested = structuredClone(state)
    nested.vm.notCarried = ['gic-el2']
    nested.vcpus[0]!.features.push('has-el2')
    const { unknown, findings } = verdict(nested, destination, vmmRules('qemu'))
    assert.ok(findings.some((one) => one.code === 'save-refused' && one.property === 'has-el2'))
    assert.ok(findings.every(({ code }) => code !== 'device-not-carried'))
    assert.ok(!unknown.includes('moved-parts'))
  })
})

test('a capture names what a GIC keeps for guests with EL2', () => {
  const report = builtInReport('linux-7.2-max-qemu-11')
  report.capabilities.KVM_CAP_ARM_EL2 = [1, 1]
  report.traits.init.supported.push('has-el2')
  report.configurations.push({ features: ['psci-0.2', 'has-el2'], removed: [], added: [], changed: [] })
  using kvm = openKvm(simulator(report))
  using vm = kvm.createVm()
  vm.createVcpu(0, { features: ['psci-0.2', 'has-el2'] })
  assert.deepEqual(capture(kvm, vm).vm.notCarried, [])
  vm.createGic({ version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n })
  assert.deepEqual(capture(kvm, vm).vm.notCarried, ['gic-el2'])
})

test('a GIC that cannot be made is refused with the setting that is at fault', () => {
  using kvm = openKvm(simulator('linux-7.2-neoverse-n1'))
  using vm = kvm.createVm()
  vm.createVcpu(0)
  vm.createGic({ version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n })
  const state = capture(kvm, vm)
  state.vm.gic!.distributor = '0x8000001'
  assert.throws(() => restore(kvm, state), /GICv3: distributor at 0x8000001/)
})

test('a PMU is restored by the calls that set it up', () => {
  using kvm = openKvm(simulator('linux-7.2-neoverse-n1'))
  using vm = kvm.createVm()
  const { pmu } = vm.createVcpu(0, { features: ['psci-0.2', 'pmu-v3'] })
  pmu.setCounters(2)
  pmu.filter({ base: 3, count: 1, action: 'allow' })
  pmu.init()
  const state = capture(kvm, vm)
  const calls = state.vcpus[0]!.pmu
  assert.deepEqual(calls, [
    { set: 'counters', count: 2 },
    { set: 'filter', base: 3, count: 1, action: 'allow' },
    { set: 'init' },
  ])
  const { vm: again } = restore(kvm, state)
  assert.deepEqual(capture(kvm, again).vcpus[0]!.pmu, calls)
  again.close()
  state.vcpus[0]!.pmu = [{ set: 'pmu', id: 4 }]
  const refused = verdict(state, kvm).findings.find(({ code }) => code === 'device-refused')
  assert.equal(refused !== undefined && 'what' in refused && refused.what, 'PMU: pmu 4')
})

test('a state of version 1 is read, and what it did not hold is not known', () => {
  using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
  const { vm, vcpus, ...others } = captureHost(kvm)
  const { type, capabilities, smcccFilter } = vm
  const old = {
    ...others,
    version: 1,
    vm: { type, capabilities, smcccFilter },
    vcpus: vcpus.map(({ id, features, registers, mpState, events }) => ({
      id,
      features,
      registers,
      mpState,
      events,
    })),
  }
  const state = checkState(old, 'old')
  assert.deepEqual(state, { ...old, version: 2 })
  assert.deepEqual(verdict(state, kvm).unknown, ['source-devices'])
  assert.throws(() => checkState({ ...old, vm }, 'old'), /gic.* is unknown/)
})
