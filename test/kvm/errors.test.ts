import assert from 'node:assert/strict'
import { it } from 'vitest'
import type { Backend, SystemFd } from '../../lib/backend.js'
import { kernelBackend } from '../../lib/kernel/index.js'
import { openKvm } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'

/** A backend whose `open` answers as told. */
function opening(outcome: SystemFd | number): Backend {
  return { name: 'simulator', host: { release: '', build: '' }, open: () => outcome }
}

for (const [errno, code, remedy] of [
  [-13, 'ERR_KVM_PERMISSION', /usermod -aG kvm/],
  [-1, 'ERR_KVM_PERMISSION', /usermod -aG kvm/],
  [-2, 'ERR_KVM_NOT_AVAILABLE', /ENOENT.*EL2/],
  [-6, 'ERR_KVM_NOT_AVAILABLE', /ENXIO/],
  [-19, 'ERR_KVM_NOT_AVAILABLE', /ENODEV/],
] as const) {
  it(`tells ${code} when open answers ${errno}`, () => {
    assert.throws(() => openKvm(opening(errno)), { code, errno, message: remedy })
  })
}

it('refuses a KVM that speaks another version of the API, and closes it', () => {
  let closed = 0
  const old = { getApiVersion: () => 10, close: () => closed++ } as unknown as SystemFd
  assert.throws(() => openKvm(opening(old)), {
    code: 'ERR_KVM_API_VERSION',
    message: /version 10.*12 is needed/s,
  })
  assert.equal(closed, 1)
})

it('refuses real KVM on a machine that is not arm64', () => {
  const { arch } = process
  Object.defineProperty(process, 'arch', { value: 'x64' })
  try {
    assert.throws(() => openKvm(kernelBackend), {
      code: 'ERR_KVM_WRONG_ARCHITECTURE',
      message: /simulator\(/,
    })
  } finally {
    Object.defineProperty(process, 'arch', { value: arch })
  }
})

it('says so when a handle is used after close', () => {
  const kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
  const vm = kvm.createVm()
  const vcpu = vm.createVcpu(0)
  vcpu.close()
  vcpu.close()
  assert.throws(() => vcpu.registers.get('x0'), { code: 'ERR_KVM_CLOSED', syscall: 'KVM_GET_ONE_REG' })
  for (const use of [
    () => vcpu.runSync(),
    () => vcpu.freeze(),
    () => vcpu.respond(1n),
    () => vcpu.hypercall(0x8400_0000),
    () => vcpu.registers.read(BigUint64Array.of(0x6030000000100000n)),
    () => vcpu.registers.write(BigUint64Array.of(0x6030000000100000n), new BigUint64Array(1)),
  ]) {
    assert.throws(use, { code: 'ERR_KVM_CLOSED', vcpu: 0 })
  }
  vm.close()
  assert.throws(() => vm.createVcpu(1), { code: 'ERR_KVM_CLOSED' })
  kvm.close()
  assert.throws(() => kvm.createVm(), { code: 'ERR_KVM_CLOSED' })
})

it('closes everything a VM has with it', async () => {
  let running: Promise<unknown>
  {
    using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
    using vm = kvm.createVm()
    running = vm.createVcpu(0).run()
  }
  assert.deepEqual(await running, { reason: 'interrupted' })
})

it('closes the devices of a VM with it', () => {
  const vm = openKvm(simulator('linux-6.12-neoverse-n1')).createVm()
  const gic = vm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3')
  assert.ok(gic.attributes.has(0, 2n))
  vm.close()
  assert.throws(() => gic.attributes.has(0, 2n), { code: 'ERR_KVM_CLOSED' })
})

it('names what is wrong with a name, a width or a value before KVM is asked', () => {
  const vcpu = openKvm(simulator('linux-6.12-neoverse-n1')).createVm().createVcpu(0)
  assert.throws(() => vcpu.registers.get('KVM_REG_ARM_STD_BMP' as 'KVM_REG_ARM_STD_BMAP'), {
    code: 'ERR_KVM_UNKNOWN_REGISTER',
    message: /STD_BMAP/,
  })
  assert.throws(() => vcpu.registers.set('fpcr', 1n << 32n), RangeError)
  assert.throws(() => vcpu.registers.set('x0', -1n), RangeError)
  assert.throws(
    () => vcpu.init({ features: ['sve2' as 'sve'] }),
    /features\[0\] must be one of .*, not "sve2": did you mean sve\?/,
  )
})

it('tells what was asked for when memory, a slot or an address space is refused', () => {
  const kvm = openKvm(simulator('linux-6.12-cortex-a57'))
  assert.throws(() => kvm.createVm({ ipaSize: 48 }), {
    code: 'EINVAL',
    message: /48 bits.*KVM_CAP_ARM_VM_IPA_SIZE/,
  })
  const vm = kvm.createVm()
  const memory = kvm.createMemory(0x10000)
  vm.mapMemory(0, { address: 0n, memory })
  assert.throws(() => vm.mapMemory(1, { address: 0x8000n, memory }), {
    code: 'EEXIST',
    message: /65536 bytes at guest address 0x8000 in slot 1/,
  })
  assert.throws(() => memory.read(0xfff0, 32), {
    code: 'EFAULT',
    message: /32 bytes at 65520 end beyond the memory's 65536/,
  })
})

it('tells that the id of a vCPU is used up, by an init that failed too', () => {
  const vm = openKvm(simulator('linux-6.12-neoverse-n1')).createVm()
  assert.throws(() => vm.createVcpu(0, { features: ['psci-0.2', 'sve'] }), {
    code: 'EINVAL',
    message: /psci-0\.2, sve.*The id is not free again/,
  })
  assert.throws(() => vm.createVcpu(0), { code: 'EEXIST', message: /whose init failed: take another id/ })
  assert.equal(vm.createVcpu(1).id, 1)
})

it('asks for a protected VM by the flag of its type, and says what it needs', () => {
  const types: bigint[] = []
  const inner = simulator('linux-6.12-cortex-a57')
  const system = inner.open() as SystemFd
  const refusing = new Proxy(system, {
    get: (_, key) =>
      key === 'createVm'
        ? (type: bigint) => {
            types.push(type)
            return -22
          }
        : (Reflect.get(system, key, system) as () => unknown).bind(system),
  })
  const kvm = openKvm(opening(refusing))
  assert.throws(() => kvm.createVm({ ipaSize: 40, protected: true }), {
    code: 'EINVAL',
    message: /40 bits.*kvm-arm\.mode=protected/,
  })
  assert.throws(() => kvm.createVm({ ipaSize: 40 }), { code: 'EINVAL' })
  assert.deepEqual(types, [0x8000_0028n, 40n])
  assert.throws(() => kvm.createVm({ protected: 1 as never }), TypeError)
})
