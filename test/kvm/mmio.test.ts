import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { setImmediate } from 'node:timers/promises'
import { openKvm, type PostedWrite, type Vcpu, type Vm } from '../../lib/kvm/index.js'
import { recordingBackend } from '../../lib/trace/index.js'
import { simulator } from '../../lib/hosts/index.js'

const STORE = 0xf900_0022 // str x2, [x1]
const STORE_NEXT = 0xf900_0422 // str x2, [x1, #8]
const STAY = 0x1400_0000
const CODE = 0x8000_0000n
const DEVICE = 0x900_0000n

function guest(
  program: readonly number[],
  backend = simulator('linux-6.12-neoverse-n1'),
): { vm: Vm; vcpu: Vcpu } {
  const kvm = openKvm(backend)
  const vm = kvm.createVm()
  const memory = kvm.createMemory(0x1_0000)
  memory.write(0, new Uint8Array(Uint32Array.from(program).buffer))
  vm.mapMemory(0, { address: CODE, memory })
  const vcpu = vm.createVcpu(0)
  vcpu.registers.set('pc', CODE)
  vcpu.registers.set('x1', DEVICE)
  vcpu.registers.set('x2', 0x1234_5678_9abc_def0n)
  return { vm, vcpu }
}

const first = { address: DEVICE, size: 8, data: 0x1234_5678_9abc_def0n }

describe('Posted writes', () => {
  it('reach their receiver before the exit that follows them', () => {
    const { vm, vcpu } = guest([STORE, STORE, STORE_NEXT])
    const seen: (PostedWrite[] | string)[] = []
    vm.mmio.posted(DEVICE, 8, (writes) => seen.push([...writes]))
    seen.push(vcpu.runSync().reason)
    assert.deepEqual(seen, [[first, first], 'mmio'])
  })

  it('reach the receivers of several ranges in their order', () => {
    const { vm, vcpu } = guest([STORE, STORE_NEXT, STORE_NEXT, STORE, STAY])
    const seen: unknown[] = []
    vm.mmio.posted(DEVICE, 8, (writes) => seen.push('first', writes.length))
    vm.mmio.posted(DEVICE + 8n, 8, (writes) => seen.push('second', writes.length))
    assert.equal(vcpu.runSync({ timeout: 2 }).reason, 'interrupted')
    assert.deepEqual(seen, ['first', 1, 'second', 2, 'first', 1])
  })

  it('are received while the vCPU runs on', async () => {
    for (const wrap of [false, true]) {
      const backend = simulator('linux-6.12-neoverse-n1')
      const { vm, vcpu } = guest([STORE, STAY], wrap ? recordingBackend(backend, () => undefined) : backend)
      const seen: PostedWrite[] = []
      vm.mmio.posted(DEVICE, 16, (writes) => seen.push(...writes))
      const flight = vcpu.run()
      while (seen.length === 0) await setImmediate()
      assert.deepEqual(seen, [first])
      vcpu.kick()
      assert.deepEqual(await flight, { reason: 'interrupted' })
    }
  })

  it('are exits again once the range is closed, after what was posted was received', () => {
    const { vm, vcpu } = guest([STORE, STORE_NEXT, STORE])
    const seen: PostedWrite[] = []
    const range = vm.mmio.posted(DEVICE, 8, (writes) => seen.push(...writes))
    assert.equal(vcpu.runSync().reason, 'mmio')
    range.close()
    range.close()
    assert.deepEqual(vcpu.runSync(), { reason: 'mmio', write: true, ...first })
    assert.deepEqual(seen, [first])
  })

  it('are exits where they go beyond the range', () => {
    const { vm, vcpu } = guest([STORE])
    vm.mmio.posted(DEVICE, 4, () => assert.fail())
    assert.equal(vcpu.runSync().reason, 'mmio')
  })

  it('leave the exit to be seen when their receiver throws', async () => {
    const { vm, vcpu } = guest([STORE, STORE_NEXT])
    const failure = new Error('of the receiver')
    vm.mmio.posted(DEVICE, 8, () => {
      throw failure
    })
    const known = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    const thrown = new Promise((resolve) => process.once('uncaughtException', resolve))
    assert.equal(vcpu.runSync().reason, 'mmio')
    assert.equal(await thrown, failure)
    for (const listener of known) process.on('uncaughtException', listener)
  })
})

describe('Ranges', () => {
  it('may not overlap those of their kind', () => {
    const { vm } = guest([STORE])
    vm.mmio.posted(DEVICE, 8, () => undefined)
    assert.throws(() => vm.mmio.posted(DEVICE + 7n, 1, () => undefined), {
      code: 'EEXIST',
      message: /close it/,
    })
    vm.mmio.posted(DEVICE + 8n, 1, () => undefined)
    vm.mmio.constant(DEVICE, 8, 0n)
    assert.throws(() => vm.mmio.constant(DEVICE - 1n, 2, 0n), { code: 'EEXIST' })
    assert.throws(() => vm.mmio.constant(DEVICE, 4, 0n), { code: 'EEXIST' })
  })

  it('are at most 64, end in the address space, and belong to an open VM', () => {
    const { vm } = guest([STORE])
    const ranges = Array.from({ length: 64 }, (_, n) => vm.mmio.posted(BigInt(n), 1, () => undefined))
    assert.throws(() => vm.mmio.posted(DEVICE, 8, () => undefined), { code: 'ENOSPC' })
    for (const range of ranges) range.close()
    vm.mmio.posted((1n << 64n) - 1n, 1, () => undefined)
    assert.throws(() => vm.mmio.posted((1n << 64n) - 1n, 2, () => undefined), { code: 'EINVAL' })
    vm.close()
    assert.throws(() => vm.mmio.posted(DEVICE, 8, () => undefined), { code: 'ERR_KVM_CLOSED' })
    assert.throws(() => vm.mmio.constant(DEVICE, 8, 0n), { code: 'ERR_KVM_CLOSED' })
  })

  it('check a constant, and remember its value', () => {
    const { vm } = guest([STORE])
    const constant = vm.mmio.constant(DEVICE, 1, 0x60n)
    constant.value = 0x61n
    assert.equal(constant.value, 0x61n)
    assert.throws(() => (constant.value = 0x100n), RangeError)
    assert.equal(constant.value, 0x61n)
    assert.throws(() => vm.mmio.constant(DEVICE, 9, 0n), RangeError)
    assert.throws(() => vm.mmio.constant(DEVICE, 0, 0n), RangeError)
    constant.close()
    vm.mmio.constant(DEVICE - 4n, 8, 0n).close()
  })
})

const ignore = (): void => undefined

describe('Coalesced writes', () => {
  it('reach their receiver before the exit that follows them, and are exits again afterwards', () => {
    const { vm, vcpu } = guest([STORE, STORE, STORE_NEXT, STORE])
    const seen: (PostedWrite[] | string)[] = []
    const zone = vm.mmio.coalesced(DEVICE, 8, (writes) => seen.push([...writes]))
    seen.push(vcpu.runSync().reason)
    assert.deepEqual(seen, [[first, first], 'mmio'])
    zone.close()
    zone.close()
    assert.equal(vcpu.runSync().reason, 'mmio')
    assert.equal(seen.length, 2)
  })

  it('go to the receiver of their zone, also when the vCPU that wrote them is closed', () => {
    const { vm, vcpu } = guest([STORE, STORE_NEXT, STAY])
    const seen: string[] = []
    vm.mmio.coalesced(DEVICE, 8, () => seen.push('first'))
    vm.mmio.coalesced(DEVICE + 8n, 8, (writes) => seen.push(`second of ${writes.length}`))
    vcpu.runSync({ timeout: 1 })
    assert.deepEqual(seen, ['first', 'second of 1'])
    const other = vm.createVcpu(1)
    vcpu.close()
    other.close()
    vm.mmio.deliver()
    vm.close()
    vm.mmio.deliver()
    assert.equal(seen.length, 2)
  })

  for (const [host, room] of [
    ['linux-6.1-neoverse-n1', 85],
    ['linux-6.12-neoverse-n1', 169],
  ] as const) {
    it(`are exits once the ring is full, ${host}`, () => {
      const { vm, vcpu } = guest(
        Array.from({ length: 400 }, () => STORE),
        simulator(host),
      )
      let kept = 0
      vm.mmio.coalesced(DEVICE, 8, (writes) => (kept += writes.length))
      assert.equal(vcpu.runSync().reason, 'mmio')
      assert.equal(kept, room)
    })
  }

  it('are counted in the kernel', () => {
    const { vm, vcpu } = guest([STORE, STORE_NEXT])
    using stats = vcpu.openStats()
    vm.mmio.coalesced(DEVICE, 8, ignore)
    vcpu.runSync()
    const numbers = stats.read()
    assert.deepEqual([numbers.get('mmio_exit_kernel'), numbers.get('mmio_exit_user')], [[1n], [1n]])
  })

  it('cannot have two receivers, nor pass the end of the address space', () => {
    const { vm } = guest([STAY])
    vm.mmio.coalesced(DEVICE, 8, ignore)
    assert.throws(() => vm.mmio.coalesced(DEVICE + 4n, 8, ignore), { code: 'EEXIST' })
    vm.mmio.coalesced((1n << 64n) - 8n, 8, ignore)
    assert.throws(() => vm.mmio.coalesced((1n << 64n) - 8n, 9, ignore), RangeError)
    for (const size of [0, 0x8000_0000]) {
      assert.throws(() => vm.mmio.coalesced(0n, size, ignore), RangeError)
    }
    assert.throws(() => vm.mmio.coalesced(0n, 4, undefined as never), TypeError)
    for (let zone = 0n; zone < 998n; zone++) vm.mmio.coalesced(zone * 16n, 16, ignore)
    const full = { code: 'ENOSPC', message: /1000 zones/ }
    assert.throws(() => vm.mmio.coalesced(0x10_0000n, 16, ignore), full)
    vm.close()
    assert.throws(() => vm.mmio.coalesced(0x10_0000n, 16, ignore), { code: 'ERR_KVM_CLOSED' })
  })

  it('of zones that KVM accepts and never uses end runs', () => {
    const kvm = simulator('linux-6.12-neoverse-n1').open()
    assert.ok(typeof kvm !== 'number')
    const vm = kvm.createVm(0n)
    assert.ok(typeof vm !== 'number')
    assert.equal(vm.registerCoalescedMmio((1n << 64n) - 8n, 16, 0), 0)
    assert.equal(vm.registerCoalescedMmio(DEVICE, 0xffff_ffff, 1), 0)
    assert.equal(vm.unregisterCoalescedMmio(DEVICE, 0xffff_ffff, 1), 0)
    assert.equal(vm.registerCoalescedMmio(DEVICE, 4, 2), -22)
    assert.equal(vm.unregisterCoalescedMmio(DEVICE, 4, 2), -22)
    vm.close()
    assert.equal(vm.registerCoalescedMmio(DEVICE, 4, 0), -9)
    assert.equal(vm.unregisterCoalescedMmio(DEVICE, 4, 0), -9)
  })
})
