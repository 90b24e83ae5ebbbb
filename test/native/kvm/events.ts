/** What KVM and an eventfd do to each other, as `lib/simulator/event.ts` says. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { openKvm } from '../../../lib/kvm/index.js'
import { arm64Handles, deviceAddress, opened, x } from '../handles.js'
import { errnos, exitReasons } from '../../../lib/uapi.js'

const MOST = (1n << 64n) - 2n

describe('An event', () => {
  it('raises its interrupt by a write of 0 too', async () => {
    const kvm = openKvm()
    const vm = kvm.createVm()
    vm.createVcpu(0)
    const { attributes } = vm.createGic({ version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n })
    const [registers, ISPENDR1, ICFGR2] = [1, 0x204n, 0xc08n]
    attributes.set(registers, ICFGR2, new Uint8Array(4).fill(0xaa))
    const pending = (): number =>
      new DataView(attributes.get(registers, ISPENDR1, 4).buffer).getUint32(0, true)
    const event = kvm.createEvent()
    vm.connectIrq(1, event)
    assert.equal(pending(), 0)
    event.signal(0n)
    // A worker of the kernel raises it.
    for (const end = performance.now() + 10_000; pending() === 0 && performance.now() < end;)
      await setTimeout(1)
    assert.equal(pending(), 2)
    event.close()
    vm.close()
    kvm.close()
  })

  it('is counted by KVM up to 2^64 - 1, and no further', () => {
    // str x2, [x1]; str x2, [x1]; str x2, [x1]; str x2, [x3]
    const handles = arm64Handles([0xf9000022, 0xf9000022, 0xf9000022, 0xf9000062])
    const { system, vm, vcpu } = handles
    const event = opened(system.createEvent())
    const device = deviceAddress + 0x1000n
    assert.equal(vm.ioEventFd(event, deviceAddress, 8, 0, 0n), 0)
    assert.equal(vcpu.setOneReg(x(1), deviceAddress), 0)
    assert.equal(vcpu.setOneReg(x(3), device), 0)
    assert.equal(event.signal(MOST), 0)
    assert.equal(vcpu.runSync(0), 0)
    const run = new DataView(vcpu.runPage)
    assert.deepEqual(
      [run.getUint32(8, true), run.getBigUint64(32, true)],
      [exitReasons.KVM_EXIT_MMIO, device],
    )
    for (const count of [0n, 1n]) assert.equal(event.signal(count), -errnos.EAGAIN)
    assert.equal(event.take(), MOST + 1n)
    assert.equal(event.take(), -errnos.EAGAIN)
    event.close()
    handles.close()
  })
})
