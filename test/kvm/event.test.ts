import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { type HostEvent, type Kvm, openKvm, type Vcpu, type Vm } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'
import { errnos } from '../../lib/uapi.js'

const STORE = 0xb900_0022 // str w2, [x1]
const STORE_TO_DEVICE = 0xb900_0062 // str w2, [x3]
const CODE = 0x8000_0000n
const BELL = 0x900_0050n
const DEVICE = 0x900_0060n

interface Rig {
  readonly kvm: Kvm
  readonly vm: Vm
  readonly vcpu: Vcpu
  readonly event: HostEvent
}

/** A guest that stores x2, 32 bits, to the bell twice and then to a device, and again. */
function rig(): Rig {
  const kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
  const vm = kvm.createVm()
  const memory = kvm.createMemory(0x1_0000)
  memory.write(
    0,
    new Uint8Array(Uint32Array.of(STORE, STORE, STORE_TO_DEVICE, STORE, STORE, STORE_TO_DEVICE).buffer),
  )
  vm.mapMemory(0, { address: CODE, memory })
  const vcpu = vm.createVcpu(0)
  for (const [name, value] of [
    ['pc', CODE],
    ['x1', BELL],
    ['x2', 7n],
    ['x3', DEVICE],
  ] as const) {
    vcpu.registers.set(name, value)
  }
  return { kvm, vm, vcpu, event: kvm.createEvent() }
}

function addressOf(vcpu: Vcpu): bigint {
  const exit = vcpu.runSync()
  assert.ok(exit.reason === 'mmio')
  return exit.address
}

describe('an event', () => {
  it('counts, and is awaited', async () => {
    const { event } = rig()
    assert.equal(event.take(), 0n)
    event.signal()
    event.signal(4n)
    assert.equal(event.take(), 5n)
    const wait = event.wait()
    await assert.rejects(event.wait(), { code: 'EBUSY' })
    event.signal(3n)
    assert.equal(await wait, 3n)
    event.signal(2n)
    assert.equal(await event.wait(), 2n)
    assert.throws(() => event.signal((1n << 64n) - 1n), { code: 'EINVAL', message: /2\^64 - 2/ })
    event.signal((1n << 64n) - 2n)
    event.signal(0n)
    assert.throws(() => event.signal(), { code: 'EAGAIN', message: /take\(\)/ })
  })

  it('says what a wait lacks', async () => {
    const { event } = rig()
    for (const [errno, code, remedy] of [
      [errnos.EMFILE, 'EMFILE', /limit of open files/],
      [errnos.ENFILE, 'ENFILE', /fs\.file-max/],
      [errnos.EAGAIN, 'EAGAIN', /RLIMIT_NPROC/],
    ] as const) {
      event.fd.wait = () => Promise.resolve(-errno)
      await assert.rejects(event.wait(), { code, errno: -errno, message: remedy })
    }
  })

  it('ends waits when it is closed', async () => {
    const { kvm, event } = rig()
    const counts: bigint[] = []
    const loop = (async () => {
      for await (const count of event) {
        counts.push(count)
        if (counts.length === 2) event.close()
      }
    })()
    event.signal()
    await new Promise(setImmediate)
    event.signal(2n)
    await loop
    assert.deepEqual(counts, [1n, 2n])
    for (const call of [() => event.signal(), () => event.take()]) {
      assert.throws(call, { code: 'ERR_KVM_CLOSED' })
    }
    await assert.rejects(event.wait(), { code: 'ERR_KVM_CLOSED' })
    const other = kvm.createEvent()
    const wait = other.wait()
    other.close()
    assert.equal(await wait, 0n)
  })
})

describe('a doorbell', () => {
  it('counts writes without an exit, until it is closed', async () => {
    const { vm, vcpu, event } = rig()
    const bell = vm.mmio.doorbell(BELL, 4, event)
    const wait = event.wait()
    assert.equal(addressOf(vcpu), DEVICE)
    assert.ok((await wait) >= 1n)
    bell.close()
    bell.close()
    assert.equal(addressOf(vcpu), BELL)
  })

  it('counts one more than userspace can signal, and then no further', () => {
    const { vm, vcpu, event } = rig()
    vm.mmio.doorbell(BELL, 4, event)
    event.signal((1n << 64n) - 2n)
    assert.equal(addressOf(vcpu), DEVICE)
    for (const count of [0n, 1n]) assert.throws(() => event.signal(count), { code: 'EAGAIN' })
    assert.equal(event.take(), (1n << 64n) - 1n)
  })

  it('counts one value, or any size', () => {
    for (const [size, value, first] of [
      [4, 7n, DEVICE],
      [4, 8n, BELL],
      [8, undefined, BELL],
      [0, undefined, DEVICE],
    ] as const) {
      const { vm, vcpu, event } = rig()
      vm.mmio.doorbell(BELL, size, event, value)
      assert.equal(addressOf(vcpu), first)
      assert.equal(event.take(), first === DEVICE ? 2n : 0n)
    }
  })

  it('comes before a range of posted writes', () => {
    const { vm, vcpu, event } = rig()
    vm.mmio.posted(BELL, 4, () => assert.fail())
    vm.mmio.doorbell(BELL, 4, event)
    assert.equal(addressOf(vcpu), DEVICE)
  })

  it('is refused where there is one, and for other sizes', () => {
    const { vm, event } = rig()
    vm.mmio.doorbell(BELL, 4, event, 1n)
    vm.mmio.doorbell(BELL, 4, event, 2n)
    for (const value of [1n, undefined]) {
      assert.throws(() => vm.mmio.doorbell(BELL, 4, event, value), { code: 'EEXIST', message: /0x9000050/ })
    }
    assert.throws(() => vm.mmio.doorbell((1n << 64n) - 2n, 4, event), { code: 'EINVAL' })
    assert.throws(() => vm.mmio.doorbell(BELL, 3, event), RangeError)
    assert.throws(() => vm.mmio.doorbell(BELL, 0, event, 1n), RangeError)
    assert.throws(() => vm.mmio.doorbell(BELL, 1, event, 256n), RangeError)
    assert.throws(() => vm.mmio.doorbell(BELL, 4, {} as never), TypeError)
    event.close()
    assert.throws(() => vm.mmio.doorbell(0n, 4, event), { code: 'ERR_KVM_CLOSED' })
  })

  it('outlives its event', () => {
    const { vm, vcpu, event } = rig()
    const bell = vm.mmio.doorbell(BELL, 4, event)
    event.close()
    assert.equal(addressOf(vcpu), DEVICE)
    bell.close()
  })
})

describe('connectIrq()', () => {
  it('connects an event to one interrupt of an initialised GIC', () => {
    const { kvm, vm, event } = rig()
    assert.throws(() => vm.connectIrq(1, event), { code: 'EAGAIN', message: /initialise/ })
    vm.createGic({ version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n })
    const resampled = kvm.createEvent()
    const connection = vm.connectIrq(1, event, { resampled })
    assert.throws(() => vm.connectIrq(2, event), { code: 'EBUSY', message: /another interrupt/ })
    event.signal()
    connection.close()
    connection.close()
    vm.connectIrq(2, event)
    event.close()
    assert.throws(() => vm.connectIrq(2, event), { code: 'ERR_KVM_CLOSED' })
    assert.throws(() => vm.connectIrq(-1, resampled), RangeError)
    assert.throws(() => vm.connectIrq(1, null as never), TypeError)
    vm.close()
    assert.throws(() => vm.connectIrq(2, resampled), { code: 'ERR_KVM_CLOSED' })
  })

  it('raises the interrupt when the event is signalled', () => {
    const { kvm, vm, event } = rig()
    event.signal()
    vm.setGsiRouting([{ gsi: 7, pin: 0 }])
    const { attributes } = vm.createGic({ version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n })
    const [registers, ISPENDR1, ICPENDR1, ICFGR2] = [1, 0x204n, 0x284n, 0xc08n]
    const pending = (): number => {
      const data = attributes.get(registers, ISPENDR1, 4)
      const found = new DataView(data.buffer).getUint32(0, true)
      attributes.set(registers, ISPENDR1, new Uint8Array(4))
      attributes.set(registers, ICPENDR1, new Uint8Array(4).fill(0xff))
      return found
    }
    attributes.set(registers, ICFGR2, new Uint8Array(4).fill(0xaa))
    // The initialisation has replaced the routes, and the event had been signalled before.
    const connection = vm.connectIrq(1, event)
    assert.equal(pending(), 2)
    event.signal()
    assert.equal(pending(), 2)
    vm.setGsiRouting([{ gsi: 1, pin: 5 }])
    // Any write wakes KVM.
    event.signal(0n)
    assert.equal(pending(), 1 << 5)
    vm.setGsiRouting([{ gsi: 1, address: 0n, data: 0 }])
    event.signal()
    connection.close()
    event.signal()
    assert.equal(pending(), 0)
    const other = kvm.createEvent()
    vm.connectIrq(4000, other)
    other.signal()
    assert.equal(pending(), 0)
  })
})

/** An event that raises shared interrupt 33. */
function connected(host: string): HostEvent {
  const kvm = openKvm(simulator(host))
  const vm = kvm.createVm()
  vm.createVcpu(0)
  vm.createGic({ version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n, irqs: 64 })
  const event = kvm.createEvent()
  vm.connectIrq(1, event)
  return event
}

describe('an event that raises an interrupt', () => {
  it('keeps its count on Linux 5.10, and wakes whoever waits for it', async () => {
    const event = connected('linux-5.10-neoverse-n1')
    event.signal(2n)
    assert.equal(event.take(), 2n)
    const wait = event.wait()
    event.signal()
    assert.equal(await wait, 1n)
  })

  it('loses its count to KVM later, and wakes nobody', async () => {
    const event = connected('linux-6.1-neoverse-n1')
    event.signal(2n)
    assert.equal(event.take(), 0n)
    const wait = event.wait()
    event.signal()
    event.close()
    assert.equal(await wait, 0n)
  })
})
