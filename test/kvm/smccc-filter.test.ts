import assert from 'node:assert/strict'
import { it } from 'vitest'
import { type FilteredCalls, openKvm } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'
import { KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, packSmcccFilter } from '../../lib/uapi.js'

for (const [what, calls, message] of [
  ['an action there is not', { action: 'drop' }, 'action must be one of handle, deny, forward, not "drop"'],
  ['an action every object has', { action: 'toString' }, /^action must be one of .*, not "toString"$/],
  [
    'a base of more than 32 bits',
    { base: 0x1_0000_0000 },
    'base must be an integer from 0 to 4294967295, not 4294967296',
  ],
  ['a base below 0', { base: -1 }, 'base must be an integer from 0 to 4294967295, not -1'],
  [
    'a count of more than 32 bits',
    { count: 0x1_0000_0001 },
    'count must be an integer from 0 to 4294967295, not 4294967297',
  ],
  ['half a function', { count: 0.5 }, 'count must be an integer from 0 to 4294967295, not 0.5'],
] as const) {
  it(`refuses to filter ${what} before KVM is asked`, () => {
    using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
    using vm = kvm.createVm()
    const filtered = { base: 0xc600_0040, count: 2, action: 'deny', ...calls } as FilteredCalls
    assert.throws(() => vm.filterCalls(filtered), { name: 'RangeError', message })
    assert.deepEqual(vm.smcccFilter, [])
  })
}

it('leaves a range that no kernel takes to the kernel', () => {
  using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
  using vm = kvm.createVm()
  for (const calls of [
    { base: 0xffff_ffff, count: 2 },
    { base: 0xc600_0040, count: 0 },
  ]) {
    assert.throws(() => vm.filterCalls({ ...calls, action: 'deny' }), { code: 'EINVAL' })
  }
})

it('refuses to filter calls once the VM has started, before KVM is asked', () => {
  const calls: FilteredCalls = { base: 0xc600_0040, count: 2, action: 'deny' }
  using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
  using vm = kvm.createVm()
  vm.createVcpu(0).freeze()
  assert.throws(() => vm.filterCalls(calls), {
    code: 'EBUSY',
    errno: undefined,
    message: /has started.*deny 2 functions from 0xc6000040.*new VM before the first run/,
  })
  using asking = openKvm(simulator('linux-6.12-neoverse-n1'), { ordering: 'kernel' })
  using other = asking.createVm()
  other.createVcpu(0).freeze()
  assert.throws(() => other.filterCalls(calls), {
    code: 'EBUSY',
    errno: -16,
    message: /first run.*froze the filter/,
  })
  assert.deepEqual([...vm.smcccFilter, ...other.smcccFilter], [])
})

it('knows what was filtered by the VM’s attribute', () => {
  using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
  using vm = kvm.createVm()
  const filter = packSmcccFilter({ base: 0xc600_0040, nr: 2, action: 1 })
  vm.attributes.set(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, filter)
  assert.throws(() => vm.attributes.set(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, filter), {
    code: 'EEXIST',
  })
  assert.deepEqual(vm.smcccFilter, [{ base: 0xc600_0040, count: 2, action: 'deny' }])
})
