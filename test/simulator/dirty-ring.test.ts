/** The dirty ring, and what it does to bitmaps, slots and runs. */
import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { simulator } from '../../lib/hosts/index.js'
import { type GuestMemory, openKvm, type Vcpu, type Vm } from '../../lib/kvm/index.js'

const CODE = 0x8000_0000n
const LOGGED = 0x9000_0000n
const PAGES = 256
const STORE = 0xf900_0022 // str x2, [x1]
const STAY = 0x1400_0000

interface Guest {
  vm: Vm
  vcpu: Vcpu
  memory: GuestMemory
  /** Makes the guest store 8 bytes at this offset of the slot. */
  write: (offset: number) => string
}

function guest(options?: { bitmap?: boolean }): Guest {
  const kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
  const vm = kvm.createVm()
  vm.enableDirtyRing(256, options)
  const code = kvm.createMemory(0x1000)
  code.write(0, new Uint8Array(Uint32Array.of(STORE, STAY).buffer))
  vm.mapMemory(0, { address: CODE, memory: code })
  const memory = kvm.createMemory(PAGES * 0x1000)
  vm.mapMemory(7, { address: LOGGED, memory, logDirtyPages: true })
  const vcpu = vm.createVcpu(0)
  const write = (offset: number): string => {
    vcpu.registers.set('pc', CODE)
    vcpu.registers.set('x1', LOGGED + BigInt(offset))
    return vcpu.runSync({ timeout: 1 }).reason
  }
  return { vm, vcpu, memory, write }
}

const pagesOf = (vcpu: Vcpu): number[] => vcpu.takeDirtyPages().map(({ page }) => page)

describe('The dirty ring', () => {
  it('has each page once until it is reset, two for a store across pages', () => {
    const { vm, vcpu, write } = guest()
    for (const offset of [0x5000, 0x5008, 0x1ffc]) assert.equal(write(offset), 'interrupted')
    assert.deepEqual(vcpu.takeDirtyPages(), [
      { slot: 7, page: 5 },
      { slot: 7, page: 1 },
      { slot: 7, page: 2 },
    ])
    write(0x5000)
    assert.deepEqual(pagesOf(vcpu), [])
    assert.equal(vm.resetDirtyRings(), 3)
    write(0x5000)
    assert.deepEqual(pagesOf(vcpu), [5])
  })

  it('stops the guest before the store that fills it', () => {
    const { vm, vcpu, memory, write } = guest()
    for (let page = 0; page < 191; page++) assert.equal(write(page * 0x1000), 'interrupted')
    vcpu.registers.set('x2', 7n)
    assert.equal(write(200 * 0x1000), 'dirty-ring-full')
    assert.equal(vcpu.registers.get('pc'), CODE)
    assert.equal(vcpu.runSync().reason, 'dirty-ring-full')
    assert.equal(memory.read(200 * 0x1000, 1)[0], 0)
    vcpu.freeze()
    assert.equal(pagesOf(vcpu).length, 192)
    assert.equal(vm.resetDirtyRings(), 192)
    assert.equal(vcpu.runSync({ timeout: 1 }).reason, 'interrupted')
    assert.equal(memory.read(200 * 0x1000, 1)[0], 7)
    assert.deepEqual(pagesOf(vcpu), [200])
  })

  it('loses what belonged to a slot that is gone, and begins anew with the log', () => {
    const { vm, vcpu, memory, write } = guest()
    write(0)
    const mapping = { address: LOGGED, memory }
    vm.mapMemory(7, mapping)
    write(0x1000)
    vm.mapMemory(7, { ...mapping, logDirtyPages: true })
    write(0)
    assert.deepEqual(pagesOf(vcpu), [0, 0])
    vm.unmapMemory(7)
    assert.equal(vm.resetDirtyRings(), 2)
  })

  it('keeps pages writable that were, if a log begins with every page', () => {
    const { vm, vcpu, memory, write } = guest({ bitmap: true })
    vm.enableCapability('KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2', 3n)
    write(0)
    vm.mapMemory(7, { address: LOGGED, memory })
    vm.mapMemory(7, { address: LOGGED, memory, logDirtyPages: true })
    assert.equal(vm.getDirtyLog(7)[0], (1n << 64n) - 1n)
    write(0)
    assert.deepEqual(pagesOf(vcpu), [0])
  })

  it('has what KVM writes for the guest each time', () => {
    const { vm, vcpu } = guest()
    vcpu.stolenTime.setAddress(LOGGED)
    const { x } = vcpu.hypercall(0xc500_0021)
    assert.equal(x[0], LOGGED)
    const pages = pagesOf(vcpu)
    assert.ok(pages.length >= 2 && pages.every((page) => page === 0))
    assert.equal(vm.resetDirtyRings(), pages.length)
  })

  it('takes the place of bitmaps, or is beside them', () => {
    const alone = guest()
    const wanted = { code: 'ENXIO', message: /bitmap: true/ }
    assert.throws(() => alone.vm.getDirtyLog(7), wanted)
    assert.throws(() => alone.vm.clearDirtyLog(7, new BigUint64Array(4)), wanted)
    const both = guest({ bitmap: true })
    both.write(0)
    assert.deepEqual([...both.vm.getDirtyLog(7)], [0n, 0n, 0n, 0n])
    assert.deepEqual(pagesOf(both.vcpu), [0])
  })

  it('is enabled once, early and in sizes that KVM has', () => {
    const kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
    const vm = kvm.createVm()
    for (const entries of [0, 64, 255, 300]) {
      assert.throws(() => vm.enableDirtyRing(entries), { code: 'EINVAL', message: /power of 2/ })
    }
    assert.throws(() => vm.enableDirtyRing(1 << 17), { code: 'E2BIG' })
    assert.throws(() => vm.enableDirtyRing(1 << 28), RangeError)
    assert.throws(() => vm.resetDirtyRings(), { code: 'EINVAL', message: /enableDirtyRing/ })
    assert.throws(() => vm.createVcpu(0).takeDirtyPages(), { code: 'ENXIO', message: /enableDirtyRing/ })
    assert.throws(() => vm.enableDirtyRing(256), { code: 'EINVAL' })
    const mapped = kvm.createVm()
    mapped.mapMemory(0, { address: 0n, memory: kvm.createMemory(0x1000) })
    assert.throws(() => mapped.enableDirtyRing(256, { bitmap: true }), { code: 'EINVAL', message: /memory/ })
    mapped.close()
    assert.throws(() => mapped.enableDirtyRing(256), { code: 'ERR_KVM_CLOSED' })
    assert.throws(() => mapped.resetDirtyRings(), { code: 'ERR_KVM_CLOSED' })
    const old = openKvm(simulator('linux-6.1-neoverse-n1')).createVm()
    assert.throws(() => old.enableDirtyRing(256), { code: 'EINVAL' })
  })
})
