/** What KVM answers with EBUSY or EINVAL, and what the error says to do about it. */
import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import type { Backend } from '../../lib/backend.js'
import type { KvmError } from '../../lib/kvm/index.js'
import { errnos } from '../../lib/uapi.js'
import { changingVms, handles } from './handles.js'

const words = (...values: number[]) => new Uint8Array(Uint32Array.from(values).buffer)
const word64 = (value: bigint) => new Uint8Array(BigUint64Array.of(value).buffer)

describe('EBUSY', () => {
  it('of createVcpu says to create all vCPUs before the GIC is initialised', () => {
    const { gicVm, gic } = handles()
    gic.attributes.set(4, 0n)
    assert.throws(() => gicVm.createVcpu(1), {
      code: 'EBUSY',
      vcpu: 1,
      message: /The GIC is initialised.*create all vCPUs before KVM_DEV_ARM_VGIC_CTRL_INIT/,
    })
  })

  it('of a second number of interrupts says that the GIC takes it once', () => {
    const { gic } = handles()
    gic.attributes.set(3, 0n, words(64))
    assert.throws(() => gic.attributes.set(3, 0n, words(96)), {
      code: 'EBUSY',
      message:
        /group 3 \(KVM_DEV_ARM_VGIC_GRP_NR_IRQS\) attribute 0x0 = 0x60: .*once, before it is initialised/,
    })
  })

  it('of createDevice says to create it before the first run', () => {
    const { vm, vcpu } = handles()
    vcpu.freeze()
    assert.throws(() => vm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3'), {
      code: 'EBUSY',
      message: /before the first run of any vCPU/,
    })
  })

  it('of a device attribute names the vCPUs that run', async () => {
    const { kvm } = handles(withBusyGic())
    const vm = kvm.createVm()
    const vcpus = [0, 3].map((id) => vm.createVcpu(id, { features: ['psci-0.2', 'power-off'] }))
    const gic = vm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3')
    gic.attributes.set(0, 2n, word64(0x0800_0000n))
    gic.attributes.set(0, 3n, word64(0x080a_0000n))
    gic.attributes.set(4, 0n)
    const running = vcpus.map((vcpu) => vcpu.run())
    const access = () => gic.attributes.get(5, 0x14n, 4)
    assert.throws(access, {
      code: 'EBUSY',
      message: /vCPU 0, 3 of this VM runs: kick\(\) each and await its run first/,
    })
    for (const vcpu of vcpus) vcpu.kick()
    await Promise.all(running)
    assert.throws(access, { code: 'EBUSY', message: /^(?!.* runs)/ })
  })

  it("of a vCPU's attribute while it runs says so", async () => {
    const { vm } = handles()
    const vcpu = vm.createVcpu(1, { features: ['psci-0.2', 'power-off'] })
    const running = vcpu.run()
    assert.throws(() => vcpu.attributes.set(1, 0n, words(27)), {
      code: 'EBUSY',
      vcpu: 1,
      message: /A run is in flight on this vCPU/,
    })
    vcpu.kick()
    await running
  })
})

describe('A device attribute that KVM refuses', () => {
  it('is named with its group, number and value', () => {
    const { gic, vcpu } = handles()
    assert.throws(
      () => gic.attributes.set(0, 2n, word64(0x1234n)),
      (error: KvmError) => {
        assert.equal(error.code, 'EINVAL')
        assert.deepEqual(error.attribute, { group: 0, attribute: 2n })
        assert.equal(error.value, 0x1234n)
        assert.match(
          error.message,
          /KVM_SET_DEVICE_ATTR group 0 \(KVM_DEV_ARM_VGIC_GRP_ADDR\) attribute 0x2 = 0x1234:/,
        )
        return true
      },
    )
    assert.throws(() => gic.attributes.get(77, 5n, 8), /KVM_GET_DEVICE_ATTR group 77 attribute 0x5: no such/)
    assert.throws(() => vcpu.attributes.set(1, 0n, words(5)), {
      code: 'EINVAL',
      message: /group 1 \(KVM_ARM_VCPU_TIMER_CTRL\) attribute 0x0 = 0x5 on vCPU 0/,
    })
  })

  it('that needs data keeps the kernel’s EFAULT where there is none', () => {
    assert.throws(() => handles().gic.attributes.set(0, 2n), { code: 'EFAULT' })
  })
})

/** A host whose devices answer register accesses as KVM does while vCPUs run. */
function withBusyGic(): Backend {
  return changingVms((vm) => {
    const create = vm.createDevice.bind(vm)
    vm.createDevice = (type, flags) => {
      const device = create(type, flags)
      if (typeof device !== 'number') device.getDeviceAttr = () => -errnos.EBUSY
      return device
    }
  })
}
