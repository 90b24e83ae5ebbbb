/** A kick is for the run in flight, or, where that one has left the guest, for the next. */
import assert from 'node:assert/strict'
import { test } from 'vitest'
import { simulator } from '../../lib/hosts/index.js'
import { openKvm, type Vcpu } from '../../lib/kvm/index.js'
import { STUB_ADDRESS } from '../../lib/kvm/guest-call.js'

/** The stub's second instruction, a store to where x7 points. */
const store = STUB_ADDRESS + 4n

/** The next run of the vCPU ends with `mmio`. freeze() completes the access of the last one, and with it moves pc. */
function rewind(vcpu: Vcpu): void {
  vcpu.freeze()
  vcpu.registers.set('pc', store)
}

/** A vCPU whose guest is about to store to an address without memory. */
function storing(): Vcpu {
  const vcpu = openKvm(simulator('linux-6.12-neoverse-n1')).createVm().createVcpu(0)
  // Maps the stub.
  vcpu.hypercall(0x8400_0000)
  rewind(vcpu)
  return vcpu
}

test('a kick that comes when the run has left the guest ends the next run', async () => {
  for (const next of ['run', 'runSync'] as const) {
    const vcpu = storing()
    const run = vcpu.run()
    assert.equal(vcpu.idle, false)
    vcpu.kick()
    assert.equal((await run).reason, 'mmio')
    rewind(vcpu)
    assert.deepEqual(await vcpu[next](), { reason: 'interrupted' })
    // It has executed nothing, and the kick is used up.
    assert.equal(vcpu.registers.get('pc'), store)
    assert.equal((await vcpu.run()).reason, 'mmio')
  }
})

test('several kicks of one run count as one', async () => {
  const vcpu = storing()
  const run = vcpu.run()
  vcpu.kick()
  vcpu.kick()
  await run
  rewind(vcpu)
  assert.deepEqual(vcpu.runSync(), { reason: 'interrupted' })
  assert.equal(vcpu.runSync().reason, 'mmio')

  const stopped = storing()
  stopped.mpState = 'stopped'
  const flight = stopped.run()
  stopped.kick()
  stopped.kick()
  assert.deepEqual(await flight, { reason: 'interrupted' })
  stopped.mpState = 'runnable'
  assert.equal(stopped.runSync().reason, 'mmio')
})

test('a kick without a run in flight does nothing', async () => {
  const vcpu = storing()
  vcpu.kick()
  assert.equal((await vcpu.run()).reason, 'mmio')
  vcpu.kick()
  rewind(vcpu)
  assert.equal((await vcpu.run()).reason, 'mmio')
})

test('freeze() does not use a kick up', async () => {
  const vcpu = storing()
  const run = vcpu.run()
  vcpu.kick()
  await run
  rewind(vcpu)
  vcpu.freeze()
  assert.deepEqual(vcpu.runSync(), { reason: 'interrupted' })
  assert.equal(vcpu.runSync().reason, 'mmio')
})

test('a kick of a run that the kernel refuses ends the next one', async () => {
  const backend = simulator('linux-6.12-neoverse-n1')
  const system = backend.open()
  assert.ok(typeof system !== 'number')
  const vm = system.createVm(0n)
  assert.ok(typeof vm !== 'number')
  const vcpu = vm.createVcpu(0)
  assert.ok(typeof vcpu !== 'number')
  const run = vcpu.run()
  vcpu.kick()
  const [ENOEXEC, EINTR] = [-8, -4]
  assert.equal(await run, ENOEXEC)
  const init = new Uint32Array(8)
  vm.getPreferredTarget(init)
  assert.equal(vcpu.init(init[0]!, []), 0)
  // Nothing else would end it.
  assert.equal(vcpu.runSync(0), EINTR)
})

test('a kick of a run that another vCPU has sent on, and that has ended by that, ends the next run', async () => {
  const vm = openKvm(simulator('linux-6.12-neoverse-n1')).createVm()
  const caller = vm.createVcpu(0)
  const started = vm.createVcpu(1, { features: ['psci-0.2', 'power-off'] })
  caller.hypercall(0x8400_0000)
  const flight = started.run()
  // CPU_ON at the stub's store.
  assert.equal(caller.hypercall(0xc400_0003n, [1n, store]).x[0], 0n)
  started.kick()
  assert.equal((await flight).reason, 'mmio')
  rewind(started)
  assert.deepEqual(await started.run(), { reason: 'interrupted' })
  assert.equal((await started.run()).reason, 'mmio')
})
