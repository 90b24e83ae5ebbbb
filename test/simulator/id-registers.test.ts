import assert from 'node:assert/strict'
import { test } from 'vitest'
import { builtInReport } from '../../lib/hosts/index.js'
import { capabilities } from '../../lib/uapi.js'
import {
  get,
  newHost,
  oldHost,
  runOnce,
  set,
  start,
  vcpuOf,
  vmOf,
  withCapabilities,
  withTraits,
  type Outcome,
} from './fixture.js'
import { withRows } from '../report/rows.js'

const PFR0 = 0x0100_0000_0100_0012n

const writes: [host: 'old' | 'new', register: string, value: bigint, outcome: Outcome][] = [
  ['old', 'ID_AA64PFR0_EL1', PFR0, 0],
  ['old', 'ID_AA64PFR0_EL1', 0x0000_0000_0100_0012n, 0],
  ['old', 'ID_AA64PFR0_EL1', 0x0200_0000_0100_0012n, 'EINVAL'],
  ['old', 'ID_AA64PFR0_EL1', 0x0100_0000_0100_0011n, 'EINVAL'],
  ['old', 'ID_AA64PFR1_EL1', 0x20n, 0],
  ['old', 'ID_AA64PFR1_EL1', 0x10n, 'EINVAL'],
  ['old', 'MIDR_EL1', 0x410fd0c1n, 0],
  ['old', 'MIDR_EL1', 0n, 'EINVAL'],
  ['old', 'CLIDR_EL1', 0xa200023n, 0],
  ['old', 'CLIDR_EL1', 0xa200022n, 'EINVAL'],
  ['new', 'ID_AA64PFR0_EL1', 0x0000_0000_0000_0011n, 0],
  ['new', 'ID_AA64PFR0_EL1', 0x0000_0000_0000_0010n, 'EINVAL'],
  ['new', 'ID_AA64PFR1_EL1', 0x00n, 0],
  ['new', 'ID_AA64PFR1_EL1', 0x30n, 'EINVAL'],
  ['new', 'ID_AA64DFR0_EL1', 0x1010_0006n, 0],
  ['new', 'ID_AA64DFR0_EL1', 0x1010_0007n, 'EINVAL'],
  ['new', 'S3_0_C0_C4_3', 0n, 0],
  ['new', 'S3_0_C0_C4_3', 1n, 'EINVAL'],
  ['new', 'CTR_EL0', 0x8444c000n, 0],
  ['new', 'CTR_EL0', 0x8444c005n, 'EINVAL'],
  ['new', 'CLIDR_EL1', 0xa200021n, 0],
  ['new', 'CLIDR_EL1', 0xa200024n, 'EINVAL'],
]
for (const [host, register, value, outcome] of writes) {
  test(`${register} = 0x${value.toString(16)} on the ${host} host: ${outcome}`, () => {
    const { vcpu } = start(host === 'old' ? oldHost : newHost)
    const before = get(vcpu, register)
    assert.equal(set(vcpu, register, value), outcome)
    assert.equal(get(vcpu, register), outcome === 0 ? value : before)
  })
}

test('a feature turned off can be turned on again', () => {
  const { vcpu } = start(newHost)
  assert.equal(set(vcpu, 'ID_AA64PFR1_EL1', 0n), 0)
  assert.equal(set(vcpu, 'ID_AA64PFR1_EL1', 0x21n), 0)
  assert.equal(get(vcpu, 'ID_AA64PFR1_EL1'), 0x21n)
})

test('feature ID registers are the VM’s, MPIDR_EL1 and CLIDR_EL1 the vCPU’s', () => {
  const { vm, vcpu } = start(newHost)
  const sibling = vcpuOf(vm, 1)
  set(vcpu, 'ID_AA64PFR1_EL1', 0x11n)
  set(vcpu, 'CLIDR_EL1', 0xa200021n)
  assert.equal(set(vcpu, 'MPIDR_EL1', 0x80000007n), 0)
  assert.equal(get(sibling, 'ID_AA64PFR1_EL1'), 0x11n)
  assert.equal(get(sibling, 'CLIDR_EL1'), 0xa200023n)
  assert.equal(get(sibling, 'MPIDR_EL1'), 0x80000001n)
  assert.equal(get(vcpu, 'MPIDR_EL1'), 0x80000007n)
})

test('CSV2 belongs to the VM also where features are the vCPU’s', () => {
  const { vm, vcpu } = start(oldHost)
  const sibling = vcpuOf(vm, 1, ['psci-0.2', 'pmu-v3'])
  set(vcpu, 'ID_AA64PFR0_EL1', 0x0000_0000_0100_0012n)
  assert.equal(get(sibling, 'ID_AA64PFR0_EL1'), 0x0000_0000_0100_0012n)
})

test('an AArch32 ID register of a host without AArch32 drops what is written, also after the run', () => {
  const { vcpu } = start(newHost)
  assert.equal(set(vcpu, 'ID_PFR0_EL1', 0xffffn), 0)
  assert.equal(get(vcpu, 'ID_PFR0_EL1'), 0n)
  runOnce(vcpu)
  assert.equal(set(vcpu, 'ID_PFR0_EL1', 0xffffn), 0)
})

const afterRun: [register: string, value: bigint, outcome: Outcome][] = [
  ['ID_AA64PFR1_EL1', 0x21n, 0],
  ['ID_AA64PFR1_EL1', 0x11n, 'EBUSY'],
  ['ID_AA64PFR1_EL1', 0x31n, 'EBUSY'],
  ['ID_AA64PFR0_EL1', 0x0100_0000_0000_0010n, 'EINVAL'],
  ['ID_AA64PFR0_EL1', 0x0100_0000_0000_0013n, 'EBUSY'],
  ['S3_0_C0_C4_3', 0n, 0],
  ['S3_0_C0_C4_3', 1n, 'EBUSY'],
  ['CTR_EL0', 0x8444c000n, 'EBUSY'],
  ['CLIDR_EL1', 0xa200021n, 0],
  ['MPIDR_EL1', 0x80000007n, 0],
  ['MIDR_EL1', 0n, 'EINVAL'],
]
for (const [register, value, outcome] of afterRun) {
  test(`after the run ${register} = 0x${value.toString(16)} is ${outcome} on the new host`, () => {
    const { vcpu } = start(newHost)
    runOnce(vcpu)
    assert.equal(set(vcpu, register, value), outcome)
  })
}

test('a value KVM knows better is accepted and replaced, before and after the run', () => {
  const { vcpu } = start(newHost)
  assert.equal(set(vcpu, 'ID_AA64PFR1_EL1', 0x13n), 0)
  assert.equal(get(vcpu, 'ID_AA64PFR1_EL1'), 0x11n)
  runOnce(vcpu)
  assert.equal(set(vcpu, 'ID_AA64PFR1_EL1', 0x13n), 0)
  assert.equal(set(vcpu, 'ID_AA64PFR1_EL1', 0x10n), 'EBUSY')
})

test('after the run nothing has changed on the old host', () => {
  const { vcpu } = start(oldHost)
  runOnce(vcpu)
  assert.equal(set(vcpu, 'ID_AA64PFR0_EL1', 0x0000_0000_0100_0012n), 0)
  assert.equal(set(vcpu, 'ID_AA64PFR0_EL1', 0x0000_0000_0100_0011n), 'EINVAL')
})

test('a kernel may refuse every write to an ID register after the run', () => {
  const { vcpu } = start(withTraits(newHost, { idRegisterAfterRun: 'busy' }))
  runOnce(vcpu)
  assert.equal(set(vcpu, 'ID_AA64PFR1_EL1', 0x21n), 'EBUSY')
})

test('the first run of a VM without a GIC takes the GIC from ID_AA64PFR0_EL1 where the kernel does that', () => {
  const { vm, vcpu } = start(newHost)
  set(vcpu, 'ID_AA64PFR0_EL1', 0x0000_0000_0100_0012n)
  runOnce(vcpu)
  assert.equal(get(vcpu, 'ID_AA64PFR0_EL1'), 0x12n)
  assert.equal(get(vcpuOf(vm, 1), 'ID_AA64PFR0_EL1'), 0x12n)
})

test('a register that takes no value but its own takes that alone, also once KVM has changed it', () => {
  const changedByVgic = newHost.traits.changedByFirstRun!
  const fixed = withRows(newHost, (row) =>
    row.name === 'ID_AA64PFR0_EL1' ? { ...row, write: { rule: 'fixed', errno: 'EINVAL' } } : row,
  )
  const { vm, vcpu } = start(withTraits(fixed, { changedByVgic }))
  vm.createDevice(7, 0)
  const changed = get(vcpu, 'ID_AA64PFR0_EL1') as bigint
  assert.notEqual(changed, PFR0)
  assert.equal(set(vcpu, 'ID_AA64PFR0_EL1', changed), 'EINVAL')
  assert.equal(set(vcpu, 'ID_AA64PFR0_EL1', PFR0), 0)
  assert.equal(get(vcpu, 'ID_AA64PFR0_EL1'), PFR0)
})

test('creating a GIC brings it back into ID_AA64PFR0_EL1 where the kernel does that, and it can be taken out again', () => {
  const { vm, vcpu } = start(newHost)
  assert.equal(set(vcpu, 'ID_AA64PFR0_EL1', 0x11n), 0)
  vm.createDevice(7, 1)
  assert.equal(get(vcpu, 'ID_AA64PFR0_EL1'), 0x11n, 'asking whether it could be created')
  vm.createDevice(7, 0)
  assert.equal(get(vcpu, 'ID_AA64PFR0_EL1'), 0x100_0011n)
  assert.equal(get(vcpuOf(vm, 1), 'ID_AA64PFR0_EL1'), 0x100_0011n)
  assert.equal(set(vcpu, 'ID_AA64PFR0_EL1', 0x11n), 0)
})

const implementationIds: [
  what: string,
  enabled: boolean,
  ran: boolean,
  writes: [register: string, value: bigint, outcome: Outcome][],
][] = [
  [
    'refused until enabled',
    false,
    false,
    [
      ['MIDR_EL1', 1n, 'EINVAL'],
      ['MIDR_EL1', 0x410fd0c1n, 0],
    ],
  ],
  [
    'refused alike after the run',
    false,
    true,
    [
      ['MIDR_EL1', 1n, 'EINVAL'],
      ['MIDR_EL1', 0x410fd0c1n, 0],
    ],
  ],
  [
    'writable within the mask',
    true,
    false,
    [
      ['MIDR_EL1', 0xffffffffn, 0],
      ['MIDR_EL1', 0x1_0000_0000n, 'EINVAL'],
    ],
  ],
  [
    'frozen by the run, before the mask is looked at',
    true,
    true,
    [
      ['MIDR_EL1', 1n << 32n, 'EBUSY'],
      ['MIDR_EL1', 0x410fd0c1n, 0],
    ],
  ],
  [
    'fixed where no mask is recorded',
    true,
    false,
    [
      ['AIDR_EL1', 1n, 'EINVAL'],
      ['AIDR_EL1', 0n, 0],
    ],
  ],
]
for (const [what, enabled, ran, expected] of implementationIds) {
  test(`implementation ids are ${what}`, () => {
    const vm = vmOf(newHost)
    if (enabled) assert.equal(vm.enableCap(capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS, 0, []), 0)
    const vcpu = vcpuOf(vm, 0)
    if (ran) runOnce(vcpu)
    for (const [register, value, outcome] of expected) assert.equal(set(vcpu, register, value), outcome)
  })
}

test('implementation ids that were written are the VM’s', () => {
  const vm = vmOf(newHost)
  vm.enableCap(capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS, 0, [])
  const [vcpu, sibling] = [vcpuOf(vm, 0), vcpuOf(vm, 1)]
  assert.equal(set(vcpu, 'MIDR_EL1', 0x1234n), 0)
  assert.equal(get(sibling, 'MIDR_EL1'), 0x1234n)
})

test('implementation ids without recorded masks take no value but 0', () => {
  const vm = vmOf(withCapabilities(oldHost, { KVM_CAP_ARM_WRITABLE_IMP_ID_REGS: [1, 1] }))
  vm.enableCap(capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS, 0, [])
  const vcpu = vcpuOf(vm, 0)
  assert.equal(set(vcpu, 'MIDR_EL1', 1n), 'EINVAL')
  assert.equal(set(vcpu, 'MIDR_EL1', 0n), 0)
})

test('CLIDR_EL1 may not say that caches need no cleaning where CTR_EL0 says they do', () => {
  // LoC 0; LoUIS and LoUU 0; LoUU alone; LoUIS alone.
  const values = [0x0820_0003n, 0x0100_0003n, 0x0120_0003n, 0x0900_0003n]
  for (const [host, outcomes] of [
    ['linux-6.12-cortex-a57', ['EINVAL', 'EINVAL', 0, 0]],
    ['linux-6.12-neoverse-n1', [0, 0, 0, 0]],
  ] as const) {
    const vcpu = vcpuOf(vmOf(builtInReport(host)), 0)
    assert.deepEqual(
      values.map((value) => set(vcpu, 'CLIDR_EL1', value)),
      outcomes,
    )
  }
})
