import assert from 'node:assert/strict'
import { it } from 'vitest'
import { errnoName, type Kvm, KvmError, openKvm, type Vcpu, type Vm } from '../../lib/kvm/index.js'
import { FirstRun } from '../../lib/kvm/ordering.js'
import { simulator } from '../../lib/hosts/index.js'
import { errnos, kvmRun } from '../../lib/uapi.js'

function twoVcpus(host = 'linux-6.12-neoverse-n1'): { kvm: Kvm; vm: Vm; first: Vcpu; second: Vcpu } {
  const kvm = openKvm(simulator(host))
  const vm = kvm.createVm()
  return { kvm, vm, first: vm.createVcpu(0), second: vm.createVcpu(1) }
}

/** Ways to start a VM, of which each counts. */
const starts: [what: string, start: (first: Vcpu, second: Vcpu) => Promise<unknown> | void][] = [
  ['freeze()', (first) => first.freeze()],
  ['runSync()', (first) => void first.runSync({ timeout: 1 })],
  ['a second vCPU’s first run', (_first, second) => second.freeze()],
  ['a finished run()', (first) => (setImmediate(() => first.kick()), first.run())],
]

for (const [what, start] of starts) {
  it(`refuses to change what the first run froze after ${what}`, async () => {
    const { vm, first, second } = twoVcpus()
    assert.equal(vm.started, false)
    await start(first, second)
    assert.equal(vm.started, true)
    for (const [name, value] of [
      ['KVM_REG_ARM_STD_BMAP', 0n],
      ['ID_AA64ISAR0_EL1', 0n],
      ['CTR_EL0', 1n],
    ] as const) {
      assert.throws(() => first.registers.set(name, value), {
        name: 'KvmError',
        code: 'EBUSY',
        errno: undefined,
        value,
      })
    }
  })
}

it('counts a run in flight on another vCPU as started', async () => {
  const { vm, first, second } = twoVcpus()
  const running = second.run()
  assert.equal(vm.started, true)
  assert.throws(() => first.registers.set('KVM_REG_ARM_STD_BMAP', 0n), { code: 'EBUSY' })
  second.kick()
  assert.deepEqual(await running, { reason: 'interrupted' })
})

it('names the register, the value, what it holds and what to do', () => {
  const { first } = twoVcpus()
  first.freeze()
  assert.throws(
    () => first.registers.set('KVM_REG_ARM_VENDOR_HYP_BMAP', 1n),
    /EBUSY: KVM_SET_ONE_REG KVM_REG_ARM_VENDOR_HYP_BMAP \(0x6030000000160002\) = 0x1 on vCPU 0: the VM has started.*It holds 0x3.*new VM before the first run/,
  )
})

it('leaves alone what stays writable: core registers, PSCI_VERSION, MPIDR_EL1, CLIDR_EL1', () => {
  const { first } = twoVcpus()
  first.freeze()
  first.registers.set('x0', 7n)
  first.registers.set('KVM_REG_ARM_PSCI_VERSION', 0x10000n)
  first.registers.set('MPIDR_EL1', first.registers.get('MPIDR_EL1') + 1n)
  first.registers.set('CLIDR_EL1', first.registers.get('CLIDR_EL1'))
  assert.equal(first.registers.get('KVM_REG_ARM_PSCI_VERSION'), 0x10000n)
})

it('asks the backend about the value already there', () => {
  const released = twoVcpus().first
  released.freeze()
  released.registers.set('KVM_REG_ARM_STD_BMAP', 1n)
  const seed = twoVcpus('seed-v6').first
  seed.freeze()
  assert.throws(() => seed.registers.set('KVM_REG_ARM_STD_BMAP', 1n), { code: 'EBUSY', errno: -16 })
})

it('writes none of a batch that would change what is frozen', () => {
  const { first } = twoVcpus()
  first.freeze()
  const ids = BigUint64Array.of(0x6030000000100000n, 0x6030000000160000n)
  assert.throws(() => first.registers.write(ids, BigUint64Array.of(5n, 0n)), { code: 'EBUSY' })
  assert.equal(first.registers.get('x0'), 0n)
})

it('lets the kernel answer where that is asked for', () => {
  const kvm = openKvm(simulator('linux-6.12-neoverse-n1'), { ordering: 'kernel' })
  const vcpu = kvm.createVm().createVcpu(0)
  vcpu.freeze()
  assert.throws(() => vcpu.registers.set('KVM_REG_ARM_STD_BMAP', 0n), { code: 'EBUSY', errno: -16 })
  assert.throws(() => vcpu.registers.set('KVM_REG_ARM_STD_BMAP', 4n), { code: 'EINVAL', errno: -22 })
})

it('does not take a run that failed before it began for a start', () => {
  const kvm = openKvm(simulator('linux-6.12-max'))
  const vm = kvm.createVm()
  const vcpu = vm.createVcpu(0, { init: false })
  assert.throws(() => vcpu.freeze(), { code: 'ENOEXEC', message: /Call init\(\)/ })
  vcpu.init({ features: ['psci-0.2', 'sve'] })
  assert.throws(() => vcpu.freeze(), { code: 'EPERM', message: /Call finalize\(\)/ })
  assert.equal(vm.started, false)
  vm.services.elect({ std: [] })
  vcpu.finalize()
  vcpu.freeze()
  assert.equal(vm.started, true)
})

it('elects all services or none', () => {
  const { vm } = twoVcpus()
  const before = vm.services.elected
  assert.throws(() => vm.services.elect({ std: [], vendorHyp: ['ptp', 'teleport' as 'ptp'] }), {
    code: 'ERR_KVM_UNKNOWN_SERVICE',
  })
  assert.throws(() => vm.services.elect({ std: [], vendorhyp: [] } as object), {
    code: 'ERR_KVM_UNKNOWN_SERVICE',
    message: /unknown group of services "vendorhyp"; expected one of std, stdHyp, vendorHyp, vendorHyp2/,
  })
  assert.throws(
    () => vm.services.elect({ std: [], vendorHyp2: ['discover-impl-ver'] }),
    /does not offer discover-impl-ver/,
  )
  assert.deepEqual(vm.services.elected, before)
  vm.services.elect({ std: [], vendorHyp: ['features'] })
  assert.deepEqual(vm.services.elected, { ...before, std: [], vendorHyp: ['features'] })
})

it('finds services that a fresh register does not show', () => {
  const kvm = openKvm(simulator('linux-6.18-neoverse-n1'))
  const vm = kvm.createVm()
  vm.createVcpu(0)
  assert.deepEqual(vm.services.supported.vendorHyp2, ['discover-impl-ver', 'discover-impl-cpus'])
  assert.deepEqual(vm.services.elected.vendorHyp2, [])
})

it('needs a vCPU to reach the services', () => {
  const vm = openKvm(simulator('linux-6.12-max')).createVm()
  assert.throws(() => vm.services.elected, KvmError)
  assert.throws(() => vm.services.elect({ std: [] }), /has no vCPU.*Create a vCPU first/)
})

for (const [outcome, started] of [
  [0, true],
  [-errnos.EINTR, true],
  [-errnos.EFAULT, true],
  [-errnos.EHWPOISON, true],
  [-errnos.ENOSYS, true],
  [-errnos.ENOEXEC, false],
  [-errnos.EPERM, false],
  [-errnos.EBUSY, false],
] as const) {
  it(`takes a first run that answers ${errnoName(outcome)} for ${started ? 'a start' : 'none'}`, () => {
    const firstRun = new FirstRun()
    firstRun.begin()
    assert.equal(firstRun.started, true)
    firstRun.end(outcome)
    assert.equal(firstRun.started, started)
  })
}

it('reaches the services through a vCPU that can be asked', async () => {
  const { vm, first, second } = twoVcpus()
  const before = vm.services.elected
  const flight = first.run()
  assert.deepEqual(vm.services.elected, before)
  first.close()
  await flight
  assert.deepEqual(vm.services.elected, before)
  second.close()
  assert.throws(() => vm.services.elected, { code: 'ERR_KVM_CLOSED' })
})

it('leaves immediate_exit as it was after freeze()', () => {
  const { first } = twoVcpus()
  const page = new Uint8Array(first.runPage)
  for (const flag of [0, 1]) {
    page[kvmRun.immediate_exit] = flag
    first.freeze()
    assert.equal(page[kvmRun.immediate_exit], flag)
  }
})
