import assert from 'node:assert/strict'
import { after, describe, it } from 'node:test'
import type { GuestMemoryFd } from '../../lib/backend.js'
import { kernelBackend } from '../../lib/kernel/index.js'
import { errnos } from '../../lib/uapi.js'
import { endlessHandles, hasKvm, opened, openDescriptors } from './handles.js'

const closed = -errnos.EBADF

if (hasKvm) {
  describe('A handle', () => {
    const handles = endlessHandles()
    const { system, vm, vcpu } = handles
    const memory = opened(system.createMemory(65536))
    const all: readonly object[] = [system, vm, vcpu, memory]
    after(() => {
      memory.close()
      handles.close()
    })

    for (const handle of all) {
      const { name } = handle.constructor
      const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(handle)).filter(
        (method) => method !== 'constructor',
      )

      it(`of class ${name} cannot be made by a script`, () => {
        const Class = handle.constructor as { new (...parts: unknown[]): object }
        for (const parts of [[], [handle], [0], [null]]) {
          assert.throws(() => new Class(...parts), { name: 'TypeError', code: 'ERR_ILLEGAL_CONSTRUCTOR' })
        }
        assert.throws(() => new (class extends Class {})(), TypeError)
      })

      for (const method of methods) {
        it(`of class ${name} keeps ${method}() from any other object`, () => {
          const call = (handle as Record<string, (...arguments_: unknown[]) => unknown>)[method]!
          const others = all.filter((other) => other !== handle)
          for (const receiver of [
            ...others,
            undefined,
            null,
            1,
            {},
            Object.create(handle),
            new Proxy(handle, {}),
          ]) {
            assert.throws(() => call.call(receiver, 0n, 0n), TypeError)
          }
        })
      }
    }

    it('of a vCPU has functions of its own for what is called most, whatever receives them', () => {
      const other = endlessHandles()
      other.vcpu.close()
      const id = 0x6030000000100000n
      for (const [method, ...args] of [
        ['getOneReg', id],
        ['setOneReg', id, 0n],
        ['runSync', 1],
      ] as const) {
        const call = (of: object, receiver: unknown): unknown =>
          (of as Record<string, (...all: unknown[]) => unknown>)[method]!.apply(receiver, [...args])
        for (const receiver of [vcpu, other.vcpu, undefined, {}]) {
          assert.equal(call(vcpu, receiver), call(vcpu, vcpu))
          assert.notEqual(call(vcpu, receiver), closed)
          assert.equal(call(other.vcpu, receiver), closed)
        }
        assert.throws(() => Object.assign(vcpu, { [method]: () => 0 }), TypeError)
      }
      other.close()
    })
  })

  describe('After close()', () => {
    const bytes = new Uint8Array(64)
    const words = new BigUint64Array(192)

    it('/dev/kvm answers EBADF', () => {
      const system = opened(kernelBackend.open())
      system.close()
      system.close()
      assert.equal(system.getApiVersion(), closed)
      assert.equal(system.checkExtension(1), closed)
      assert.equal(system.getVcpuMmapSize(), closed)
      assert.equal(system.createVm(0n), closed)
      assert.equal(system.createMemory(65536), closed)
    })

    it('a VM answers EBADF', () => {
      const handles = endlessHandles()
      const { system, vm } = handles
      const memory = opened(system.createMemory(65536))
      handles.close()
      vm.close()
      assert.equal(vm.checkExtension(1), closed)
      assert.equal(vm.enableCap(1, 0, []), closed)
      assert.equal(vm.createVcpu(3), closed)
      assert.equal(vm.getPreferredTarget(new Uint32Array(8)), closed)
      assert.equal(vm.getRegWritableMasks(0, words), closed)
      assert.equal(
        vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory, offset: 0, size: 65536 }),
        closed,
      )
      assert.equal(
        vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory: null, offset: 0, size: 0 }),
        closed,
      )
      assert.equal(vm.createDevice(7, 0), closed)
      assert.equal(vm.hasDeviceAttr(0, 0n), closed)
      assert.equal(vm.getDeviceAttr(0, 0n, bytes), closed)
      assert.equal(vm.setDeviceAttr(0, 0n, null), closed)
      memory.close()
    })

    it('a vCPU answers EBADF and its kvm_run is gone', async () => {
      const handles = endlessHandles()
      const { vcpu } = handles
      const { runPage } = vcpu
      assert.ok(runPage.byteLength >= 4096)
      const view = new Uint8Array(runPage)
      handles.close()
      vcpu.close()
      assert.equal(vcpu.init(0, []), closed)
      assert.equal(vcpu.finalize(4), closed)
      assert.equal(vcpu.getRegList(words), closed)
      assert.equal(vcpu.getOneReg(0x6030000000100000n), closed)
      assert.equal(vcpu.getOneReg(0x6080000000150000n), closed)
      assert.equal(vcpu.setOneReg(0x6030000000100000n, 1n), closed)
      assert.equal(vcpu.setOneReg(0x6080000000160000n, 1n), closed)
      assert.equal(vcpu.getOneRegAtNull(0x6030000000100000n), closed)
      assert.equal(vcpu.setOneRegAtNull(0x6030000000100000n), closed)
      const answers = new Int32Array(1)
      assert.equal(vcpu.getRegs(new BigUint64Array(1), new BigUint64Array(1), answers), closed)
      assert.equal(vcpu.setRegs(new BigUint64Array(1), new BigUint64Array(1), answers), closed)
      assert.equal(vcpu.getMpState(), closed)
      assert.equal(vcpu.setMpState(0), closed)
      assert.equal(vcpu.getVcpuEvents(bytes), closed)
      assert.equal(vcpu.setVcpuEvents(bytes), closed)
      assert.equal(vcpu.hasDeviceAttr(0, 0n), closed)
      assert.equal(vcpu.getDeviceAttr(0, 0n, bytes), closed)
      assert.equal(vcpu.setDeviceAttr(0, 0n, bytes), closed)
      assert.equal(vcpu.runSync(0), closed)
      assert.equal(vcpu.runSync(10), closed)
      assert.equal(await vcpu.run(), closed)
      vcpu.kick()
      assert.equal(vcpu.runPage, runPage)
      assert.equal(runPage.byteLength, 0)
      assert.equal(view[1], undefined)
    })

    it('guest memory answers EBADF and its buffer is gone', () => {
      const system = opened(kernelBackend.open())
      const memory: GuestMemoryFd = opened(system.createMemory(65536))
      const buffer = memory.buffer
      memory.close()
      memory.close()
      system.close()
      assert.equal(memory.read(0, bytes), closed)
      assert.equal(memory.write(0, bytes), closed)
      assert.equal(memory.buffer, buffer)
      assert.equal(buffer?.byteLength, 0)
      assert.equal(memory.size, 65536)
    })

    it('no descriptor and no mapping is left, whatever failed on the way', () => {
      const before = openDescriptors()
      for (let i = 0; i < 200; i++) {
        const handles = endlessHandles()
        const { system, vm, vcpu } = handles
        assert.equal(vm.createVcpu(process.arch === 'arm64' ? 0 : 1), -errnos.EEXIST)
        assert.ok((vm.createVcpu(0xffffffff) as number) < 0)
        assert.ok((vm.createDevice(0xffff, 0) as number) < 0)
        assert.equal(system.createMemory(1), -errnos.EINVAL)
        assert.throws(() => vcpu.runSync(-1))
        handles.close()
      }
      assert.equal(openDescriptors(), before)
    })
  })
} else {
  it('Without KVM, open() answers with the errno of open(2)', () => {
    const answer = kernelBackend.open()
    assert.ok(typeof answer === 'number' && answer < 0)
  })
}
