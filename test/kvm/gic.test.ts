import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import type { GicOptions } from '../../lib/kvm/gic.js'
import { openKvm, type Vm } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'

const v3 = { version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n } as const

function newVm(): Vm {
  return openKvm(simulator('linux-6.12-neoverse-n1')).createVm()
}

describe('createGic()', () => {
  it('makes a GICv3 whose interrupts can be raised, and whose vCPU runs', () => {
    const vm = newVm()
    const vcpu = vm.createVcpu(0)
    const gic = vm.createGic({ ...v3, irqs: 96 })
    assert.equal(gic.version, 3)
    assert.equal(gic.irqs, 96)
    vm.setIrq(95, true)
    vcpu.freeze()
    assert.throws(() => vm.createVcpu(1), { code: 'EBUSY' })
    gic.init()
    gic.close()
    assert.throws(() => gic.irqs, { code: 'ERR_KVM_CLOSED' })
  })

  it('can be initialised later, for vCPUs that come later', () => {
    const vm = newVm()
    const gic = vm.createGic({ ...v3, init: false })
    vm.createVcpu(0)
    assert.throws(() => vm.setIrq(32, true), { code: 'EBUSY' })
    gic.init()
    assert.equal(gic.irqs, 256)
    vm.setIrq(32, true)
  })

  it('passes on what KVM refuses', () => {
    const refused: [options: GicOptions, code: string][] = [
      [{ ...v3, distributor: 0x800_1000n }, 'EINVAL'],
      [{ ...v3, irqs: 100 }, 'EINVAL'],
      [{ ...v3, distributor: 1n << 40n }, 'E2BIG'],
    ]
    for (const [options, code] of refused) assert.throws(() => newVm().createGic(options), { code })
    const vm = newVm()
    vm.createGic(v3)
    assert.throws(() => vm.createGic(v3), { code: 'EEXIST' })
  })

  it('refuses options that make no sense', () => {
    const vm = newVm()
    for (const options of [
      {},
      { ...v3, version: 4 },
      { ...v3, cpuInterface: 0n },
      { ...v3, distributor: 1 },
      { ...v3, redistributors: [{ address: 0x80a_0001n, count: 1 }] },
      { ...v3, redistributors: [{ address: 0x80a_0000n, count: 0 }] },
      { ...v3, redistributors: null },
      { ...v3, its: 1n },
      { version: 2, distributor: 0n },
      { ...v3, init: 1 },
    ]) {
      assert.throws(
        () => vm.createGic(options as never),
        (error) => error instanceof TypeError || error instanceof RangeError,
      )
    }
    vm.createGic(v3)
  })
})

describe('vm.memory', () => {
  const first = 0x4000_0000n
  const second = first + 0x1000n

  /** Two adjacent slots, of which the second begins in the middle of its memory. */
  function mapped(): { vm: Vm; close: () => void } {
    const kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
    const vm = kvm.createVm()
    const memory = kvm.createMemory(0x2000)
    vm.mapMemory(0, { address: first, memory, size: 0x1000, offset: 0x1000 })
    vm.mapMemory(1, { address: second, memory, size: 0x1000, offset: 0, readonly: true })
    return { vm, close: () => memory.close() }
  }

  it('reads and writes across slots', () => {
    const { vm } = mapped()
    const bytes = Uint8Array.of(1, 2, 3, 4)
    vm.memory.write(second - 2n, bytes)
    assert.deepEqual(vm.memory.read(second - 2n, 4), bytes)
    assert.deepEqual(vm.memory.read(second, 2), Uint8Array.of(3, 4))
    assert.deepEqual(vm.memory.view(second - 2n, 2), Uint8Array.of(1, 2))
    assert.equal(vm.memory.has(first, 0x2000), true)
    assert.equal(vm.memory.has(first, 0x2001), false)
    assert.equal(vm.memory.has(first - 1n, 1), false)
  })

  it('gives a view that is the memory itself, of one slot', () => {
    const { vm, close } = mapped()
    vm.memory.view(first, 4).set([9, 8, 7, 6])
    assert.deepEqual(vm.memory.read(first, 4), Uint8Array.of(9, 8, 7, 6))
    assert.throws(() => vm.memory.view(second - 2n, 4), { code: 'EFAULT', message: /several slots/ })
    assert.equal(vm.memory.view(0n, 0).length, 0)
    close()
    assert.throws(() => vm.memory.view(first, 4), { code: 'ERR_KVM_CLOSED' })
    assert.throws(() => vm.memory.read(first, 4), { code: 'ERR_KVM_CLOSED' })
  })

  it('writes nothing where not all of it is memory', () => {
    const { vm } = mapped()
    const end = second + 0x1000n
    assert.throws(() => vm.memory.write(end - 2n, Uint8Array.of(1, 2, 3)), {
      code: 'EFAULT',
      message: /3 bytes at guest address 0x40001ffe/,
    })
    assert.deepEqual(vm.memory.read(end - 2n, 2), Uint8Array.of(0, 0))
    assert.throws(() => vm.memory.read(end, 1), { code: 'EFAULT' })
    vm.unmapMemory(0)
    assert.equal(vm.memory.has(first, 1), false)
  })
})
