import assert from 'node:assert/strict'
import { it } from 'vitest'
import { openKvm, type Vcpu, type Vm } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'

const refusal = { code: 'EBUSY', message: /A run is in flight on this vCPU: await it, or kick\(\) first/ }

function guest(): { vm: Vm; vcpu: Vcpu } {
  const vm = openKvm(simulator('linux-6.12-neoverse-n1')).createVm()
  return { vm, vcpu: vm.createVcpu(0) }
}

const ids = BigUint64Array.of(0x6030000000100000n)

const requests: Record<string, (vm: Vm, vcpu: Vcpu) => unknown> = {
  'registers.get()': (_, { registers }) => registers.get('x0'),
  'registers.set()': (_, { registers }) => registers.set('x0', 0n),
  'registers.set() of a bitmap': (_, { registers }) => registers.set('KVM_REG_ARM_STD_BMAP', 0n),
  'registers.list()': (_, { registers }) => registers.list(),
  'registers.read()': (_, { registers }) => registers.read(ids),
  'registers.write()': (_, { registers }) => registers.write(ids, new BigUint64Array(1)),
  'services.elected': ({ services }) => services.elected,
  'services.elect()': ({ services }) => services.elect({ std: [] }),
  'init()': (_, vcpu) => vcpu.init(),
  'finalize()': (_, vcpu) => vcpu.finalize(),
  mpState: (_, vcpu) => vcpu.mpState,
  'a new mpState': (_, vcpu) => (vcpu.mpState = 'runnable'),
  'getEvents()': (_, vcpu) => vcpu.getEvents(),
  'setEvents()': (_, vcpu) => vcpu.setEvents(new Uint8Array(64)),
  'attributes.has()': (_, { attributes }) => attributes.has(1, 0n),
  'attributes.get()': (_, { attributes }) => attributes.get(1, 0n, 4),
  'attributes.set()': (_, { attributes }) => attributes.set(1, 0n),
  'runSync()': (_, vcpu) => vcpu.runSync({ timeout: 5 }),
  'freeze()': (_, vcpu) => vcpu.freeze(),
  'hypercall()': (_, vcpu) => vcpu.hypercall(0x8400_0000),
}

for (const [name, request] of Object.entries(requests)) {
  it(`refuses ${name} while the vCPU runs, and says what to do`, async () => {
    const { vm, vcpu } = guest()
    const flight = vcpu.run()
    assert.throws(() => request(vm, vcpu), refusal)
    vcpu.kick()
    assert.deepEqual(await flight, { reason: 'interrupted' })
  })
}

it('refuses a second run() while the first is in flight, and no longer', async () => {
  const { vcpu } = guest()
  const flight = vcpu.run()
  await assert.rejects(vcpu.run(), refusal)
  assert.throws(() => vcpu.registers.get('x0'), refusal)
  vcpu.kick()
  const next = vcpu.run()
  assert.deepEqual(await flight, { reason: 'interrupted' })
  assert.throws(() => vcpu.hypercall(0x8400_0000), refusal)
  vcpu.kick()
  await next
  assert.equal(vcpu.registers.get('x0'), 0n)
})
