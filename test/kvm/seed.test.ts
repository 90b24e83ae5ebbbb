/** The patch series that brought the bitmap firmware registers, retold: what userspace could do with them and what it was answered. */
import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { openKvm, type Vcpu, type Vm } from '../../lib/kvm/index.js'
import { builtInHosts, simulator } from '../../lib/hosts/index.js'

const hosts = builtInHosts()
const hostsWithBitmaps = hosts.filter((host) => !host.startsWith('linux-5.10'))

function machine(host: string): { vm: Vm; vcpu: Vcpu; [Symbol.dispose](): void } {
  // The kernel's own answers are what the patch is about, so nothing is refused before it is asked.
  const kvm = openKvm(simulator(host), { ordering: 'kernel' })
  const vm = kvm.createVm()
  return {
    vm,
    vcpu: vm.createVcpu(0),
    [Symbol.dispose]() {
      vm.close()
      kvm.close()
    },
  }
}

for (const host of hostsWithBitmaps) {
  describe(`on ${host}`, () => {
    it('registers are set to the upper limit of the features during VM initialization', () => {
      using here = machine(host)
      assert.equal(here.vcpu.registers.get('KVM_REG_ARM_STD_BMAP'), 1n)
      assert.deepEqual(here.vm.services.elected.std, ['trng-v1.0'])
      assert.deepEqual(here.vm.services.elected.std, here.vm.services.supported.std)
    })

    it('VMMs discover the features via GET_ONE_REG and write back the desired values using SET_ONE_REG', () => {
      using here = machine(host)
      here.vm.services.elect({ std: [] })
      assert.equal(here.vcpu.registers.get('KVM_REG_ARM_STD_BMAP'), 0n)
      here.vm.services.elect({ std: ['trng-v1.0'] })
      assert.equal(here.vcpu.registers.get('KVM_REG_ARM_STD_BMAP'), 1n)
    })

    it('an unsupported bit is EINVAL', () => {
      using here = machine(host)
      assert.throws(() => here.vcpu.registers.set('KVM_REG_ARM_STD_BMAP', 2n), {
        code: 'EINVAL',
        errno: -22,
        syscall: 'KVM_SET_ONE_REG',
        register: { id: 0x6030000000160000n, name: 'KVM_REG_ARM_STD_BMAP' },
        value: 2n,
        vcpu: 0,
      })
    })

    it('an unknown register is ENOENT', () => {
      using here = machine(host)
      assert.throws(() => here.vcpu.registers.set(0x6030000000160009n, 0n), { code: 'ENOENT', errno: -2 })
      assert.throws(() => here.vcpu.registers.get(0x6030000000160009n), { code: 'ENOENT', errno: -2 })
    })

    it('a change after any vCPU has started running is EBUSY', () => {
      using here = machine(host)
      const sibling = here.vm.createVcpu(1)
      sibling.freeze()
      assert.throws(() => here.vcpu.registers.set('KVM_REG_ARM_STD_BMAP', 0n), { code: 'EBUSY', errno: -16 })
      assert.equal(here.vcpu.registers.get('KVM_REG_ARM_STD_BMAP'), 1n)
    })

    it(`the value already there is ${host === 'seed-v6' ? 'EBUSY too' : 'accepted'} after that`, () => {
      using here = machine(host)
      here.vcpu.freeze()
      const write = (): void => here.vcpu.registers.set('KVM_REG_ARM_STD_BMAP', 1n)
      if (host === 'seed-v6') assert.throws(write, { code: 'EBUSY' })
      else write()
    })

    it('older userspace ignores the registers, and every service stays exposed', () => {
      using here = machine(host)
      const before = here.vm.services.elected
      here.vcpu.freeze()
      assert.deepEqual(here.vm.services.elected, before)
      assert.deepEqual(before.std, ['trng-v1.0'])
    })
  })
}

describe('on seed-v6', () => {
  it('the framework has the register for the standard secure services only', () => {
    using here = machine('seed-v6')
    const names = [
      'KVM_REG_ARM_STD_HYP_BMAP',
      'KVM_REG_ARM_VENDOR_HYP_BMAP',
      'KVM_REG_ARM_VENDOR_HYP_BMAP_2',
    ] as const
    for (const name of names) assert.throws(() => here.vcpu.registers.get(name), { code: 'ENOENT' })
    assert.deepEqual(here.vm.services.supported, {
      std: ['trng-v1.0'],
      stdHyp: [],
      vendorHyp: [],
      vendorHyp2: [],
    })
  })
})

describe('on a kernel from before the series', () => {
  it('there is nothing to discover and nothing to elect', () => {
    using here = machine('linux-5.10-neoverse-n1')
    assert.deepEqual(here.vm.services.supported, { std: [], stdHyp: [], vendorHyp: [], vendorHyp2: [] })
    assert.deepEqual(here.vm.services.elected, here.vm.services.supported)
    here.vm.services.elect({ std: [], vendorHyp: [] })
    assert.throws(
      () => here.vm.services.elect({ std: ['trng-v1.0'] }),
      /does not offer trng-v1\.0 in KVM_REG_ARM_STD_BMAP/,
    )
  })
})
