/** Every handle after its `close()`, and after that of its owner: what would reach KVM throws `ERR_KVM_CLOSED`, the rest still answers. */
import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { KvmError } from '../../lib/kvm/index.js'
import { handles, type Handles } from './handles.js'

type Uses = Readonly<Record<string, (handles: Handles) => unknown>>

const ofKvm: Uses = {
  'kvm.checkExtension()': ({ kvm }) => kvm.checkExtension('KVM_CAP_ONE_REG'),
  'kvm.vcpuMmapSize': ({ kvm }) => kvm.vcpuMmapSize,
  'kvm.createVm()': ({ kvm }) => kvm.createVm(),
  'kvm.createVm({ ipaSize })': ({ kvm }) => kvm.createVm({ ipaSize: 40 }),
  'kvm.createMemory()': ({ kvm }) => kvm.createMemory(0x1_0000),
}

const ofVm: Uses = {
  'vm.createVcpu()': ({ vm }) => vm.createVcpu(1),
  'vm.preferredTarget()': ({ vm }) => vm.preferredTarget(),
  'vm.checkExtension()': ({ vm }) => vm.checkExtension('KVM_CAP_ONE_REG'),
  'vm.enableCapability()': ({ vm }) => vm.enableCapability('KVM_CAP_ARM_NISV_TO_USER'),
  'vm.filterCalls()': ({ vm }) => vm.filterCalls({ base: 0xc600_0040, count: 1, action: 'deny' }),
  'vm.writableMasks()': ({ vm }) => vm.writableMasks(),
  'vm.mapMemory()': ({ vm, memory }) => vm.mapMemory(1, { address: 0n, memory }),
  'vm.unmapMemory()': ({ vm }) => vm.unmapMemory(0),
  'vm.createDevice()': ({ vm }) => vm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3'),
  'vm.services.supported': ({ vm }) => vm.services.supported,
  'vm.services.elected': ({ vm }) => vm.services.elected,
  'vm.services.elect()': ({ vm }) => vm.services.elect({ std: [] }),
  'vm.attributes.has()': ({ vm }) => vm.attributes.has(0, 0n),
  'vm.attributes.get()': ({ vm }) => vm.attributes.get(0, 0n, 24),
  'vm.attributes.set()': ({ vm }) => vm.attributes.set(0, 0n, new Uint8Array(24)),
}

const ofVcpu: Uses = {
  'vcpu.init()': ({ vcpu }) => vcpu.init({ target: 5 }),
  'vcpu.finalize()': ({ vcpu }) => vcpu.finalize(),
  'vcpu.runSync()': ({ vcpu }) => vcpu.runSync({ timeout: 1 }),
  'vcpu.run()': ({ vcpu }) => vcpu.run(),
  'vcpu.hypercall()': ({ vcpu }) => vcpu.hypercall(0x8400_0000),
  'vcpu.freeze()': ({ vcpu }) => vcpu.freeze(),
  'vcpu.respond()': ({ vcpu }) => vcpu.respond(1n),
  'vcpu.mpState': ({ vcpu }) => vcpu.mpState,
  'vcpu.mpState =': ({ vcpu }) => (vcpu.mpState = 'runnable'),
  'vcpu.getEvents()': ({ vcpu }) => vcpu.getEvents(),
  'vcpu.setEvents()': ({ vcpu }) => vcpu.setEvents(new Uint8Array(64)),
  'vcpu.registers.get()': ({ vcpu }) => vcpu.registers.get('x0'),
  'vcpu.registers.set()': ({ vcpu }) => vcpu.registers.set('x0', 1n),
  'vcpu.registers.list()': ({ vcpu }) => vcpu.registers.list(),
  'vcpu.registers.read()': ({ vcpu }) => vcpu.registers.read(new BigUint64Array(1)),
  'vcpu.registers.write()': ({ vcpu }) => vcpu.registers.write(new BigUint64Array(1), new BigUint64Array(1)),
  'vcpu.attributes.has()': ({ vcpu }) => vcpu.attributes.has(1, 0n),
  'vcpu.attributes.get()': ({ vcpu }) => vcpu.attributes.get(1, 0n, 4),
  'vcpu.attributes.set()': ({ vcpu }) => vcpu.attributes.set(1, 0n, new Uint8Array(4)),
}

const ofDevice: Uses = {
  'device.attributes.has()': ({ gic }) => gic.attributes.has(0, 2n),
  'device.attributes.get()': ({ gic }) => gic.attributes.get(0, 2n, 8),
  'device.attributes.set()': ({ gic }) => gic.attributes.set(0, 2n, new Uint8Array(8)),
}

const ofMemory: Uses = {
  'memory.read()': ({ memory }) => memory.read(0, 1),
  'memory.read() beyond the end': ({ memory }) => memory.read(0x2_0000, 1),
  'memory.write()': ({ memory }) => memory.write(0, new Uint8Array(1)),
  'vm.mapMemory() of it': ({ vm, memory }) => vm.mapMemory(1, { address: 0n, memory }),
}

async function closedErrorOf(use: () => unknown): Promise<KvmError> {
  let error: unknown
  try {
    await use()
  } catch (thrown) {
    error = thrown
  }
  assert.ok(error instanceof KvmError, String(error))
  assert.equal(error.code, 'ERR_KVM_CLOSED')
  assert.match(error.message, /the handle is closed/)
  assert.ok(error.syscall.length > 0)
  return error
}

for (const [what, close, uses, vcpu] of [
  ['Kvm', ({ kvm }: Handles) => kvm.close(), ofKvm, undefined],
  ['Vm', ({ vm }: Handles) => vm.close(), ofVm, undefined],
  ["Device, by its VM's close()", ({ gicVm }: Handles) => gicVm.close(), ofDevice, undefined],
  ["Vcpu, by its VM's close()", ({ vm }: Handles) => vm.close(), ofVcpu, 0],
  ['Vcpu', (all: Handles) => all.vcpu.close(), ofVcpu, 0],
  ['Device', ({ gic }: Handles) => gic.close(), ofDevice, undefined],
  ['GuestMemory', ({ memory }: Handles) => memory.close(), ofMemory, undefined],
] as const) {
  describe(`A closed ${what}`, () => {
    for (const [name, use] of Object.entries<Uses[string]>(uses)) {
      it(`refuses ${name}`, async () => {
        const all = handles()
        close(all)
        close(all)
        const error = await closedErrorOf(() => use(all))
        assert.equal(error.vcpu, name === 'vm.createVcpu()' ? 1 : vcpu)
      })
    }
  })
}

it('names the handle that is closed where a call has two', async () => {
  const { vm, memory } = handles()
  memory.close()
  const map = () => vm.mapMemory(1, { address: 0n, memory })
  assert.match((await closedErrorOf(map)).message, /It is the memory/)
  vm.close()
  assert.match((await closedErrorOf(map)).message, /It is the VM/)
})

it('answers what needs no KVM after close()', () => {
  const { kvm, vm, vcpu, memory } = handles()
  vcpu.runSync({ timeout: 1 })
  vm.close()
  memory.close()
  kvm.close()
  assert.deepEqual(
    [
      vm.started,
      vm.vcpus.length,
      vm.type,
      vm.enabledCapabilities,
      vm.smcccFilter,
      vcpu.id,
      vcpu.features,
      vcpu.idle,
    ],
    [true, 1, 0n, [], [], 0, ['psci-0.2'], false],
  )
  assert.deepEqual([memory.size, memory.buffer.byteLength, vcpu.runPage.byteLength], [0x1_0000, 0, 0])
  vcpu.kick()
})

it('closes by `using`, and again by hand', () => {
  const { kvm, vm, vcpu, gic, memory } = handles()
  {
    using a = kvm
    using b = vm
    using c = vcpu
    using d = gic
    using e = memory
    assert.ok([a, b, c, d, e].every(Boolean))
  }
  for (const handle of [kvm, vm, vcpu, gic, memory]) handle.close()
})

it('lets a VM outlive its Kvm, but for the first call that needs memory of it', async () => {
  const { kvm, vm, vcpu } = handles()
  kvm.close()
  assert.equal(typeof vcpu.registers.get('x0'), 'bigint')
  vm.attributes.has(0, 0n)
  assert.match((await closedErrorOf(() => vcpu.hypercall(0x8400_0000))).message, /close it after the VM/)
  await closedErrorOf(() => vm.services.supported)
})
