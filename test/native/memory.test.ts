import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { gunzipSync, gzip, type ZlibOptions } from 'node:zlib'
import { kernelBackend } from '../../lib/kernel/index.js'
import { errnos, KVM_MEM_READONLY } from '../../lib/uapi.js'
import { endlessHandles, hasKvm, opened, withoutKvm } from './handles.js'

const mebibyte = 2 ** 20
const gibibyte = 2 ** 30

/** A type of device that a VM can be given here: KVM_DEV_TYPE_ARM_VGIC_V3, or KVM_DEV_TYPE_VFIO, which any architecture has. */
const someDevice = process.arch === 'arm64' ? 7 : 4

/** Mappings of guest memory in this process. */
function mappings(): number {
  return readFileSync('/proc/self/maps', 'utf8').split('/memfd:kvm-arm64').length - 1
}

if (hasKvm) {
  describe('Guest memory', () => {
    const system = opened(kernelBackend.open())
    after(() => system.close())

    it('is zero, and the same through its buffer and through copies', () => {
      const memory = opened(system.createMemory(131072))
      const buffer = memory.buffer
      assert.ok(buffer instanceof ArrayBuffer)
      assert.equal(memory.size, 131072)
      assert.equal(buffer.byteLength, 131072)
      const bytes = new Uint8Array(buffer)
      assert.ok(bytes.every((byte) => byte === 0))

      assert.equal(memory.write(65535, Uint8Array.of(1, 2, 3)), 0)
      assert.deepEqual([...bytes.subarray(65534, 65539)], [0, 1, 2, 3, 0])
      bytes[65536] = 9
      const into = new Uint8Array(4)
      assert.equal(memory.read(65535, into), 0)
      assert.deepEqual([...into], [1, 9, 3, 0])
      memory.close()
    })

    it('copies within itself', () => {
      const memory = opened(system.createMemory(65536))
      const bytes = new Uint8Array(memory.buffer!)
      bytes.set([1, 2, 3, 4])
      assert.equal(memory.write(1, bytes.subarray(0, 4)), 0)
      assert.deepEqual([...bytes.subarray(0, 5)], [1, 1, 2, 3, 4])
      memory.close()
    })

    it('answers EFAULT beyond its end and copies nothing', () => {
      const memory = opened(system.createMemory(65536))
      const two = Uint8Array.of(7, 7)
      for (const offset of [65535, 65537, 2 ** 40, Number.MAX_SAFE_INTEGER]) {
        assert.equal(memory.write(offset, two), -errnos.EFAULT)
        assert.equal(memory.read(offset, two), -errnos.EFAULT)
      }
      assert.deepEqual([...two], [7, 7])
      assert.equal(memory.read(65536, new Uint8Array(0)), 0)
      assert.equal(memory.read(0, new Uint8Array(65537)), -errnos.EFAULT)
      assert.deepEqual([...new Uint8Array(memory.buffer!).subarray(65535)], [0])
      memory.close()
    })

    it('has a size that the kernel can map, or there is an errno', () => {
      for (const size of [0, 1, 4095, 65535]) assert.equal(system.createMemory(size), -errnos.EINVAL)
      const answer = system.createMemory(2 ** 52)
      assert.ok(typeof answer === 'number' && answer < 0)
    })

    it('larger than any ArrayBuffer of its kind is reached by copies', () => {
      const memory = opened(system.createMemory(5 * gibibyte))
      assert.ok(memory.buffer === null || memory.buffer.byteLength === memory.size)
      const last = memory.size - 1
      assert.equal(memory.write(last, Uint8Array.of(5)), 0)
      const into = new Uint8Array(1)
      assert.equal(memory.read(last, into), 0)
      assert.equal(into[0], 5)
      memory.close()
    })

    it('that is closed while Node.js works on it is nobody’s, and nobody is hurt', async () => {
      const memory = opened(system.createMemory(16 * mebibyte))
      // In one piece: zlib goes back to the buffer for the next only to find it detached, which aborts the process.
      const options: ZlibOptions = { level: 1, chunkSize: mebibyte }
      const packed = promisify<Uint8Array, ZlibOptions, Buffer>(gzip)(new Uint8Array(memory.buffer!), options)
      const before = mappings()
      memory.close()
      assert.equal(mappings(), before - 1)
      assert.equal(gunzipSync(await packed).length, 16 * mebibyte)
    })

    it('that is closed is unmapped at once', () => {
      const before = mappings()
      const memory = opened(system.createMemory(65536))
      assert.equal(mappings(), before + 1)
      memory.close()
      assert.equal(mappings(), before)
    })
  })

  describe('Guest memory in a slot', () => {
    it('stays mapped after close() until the slot is deleted', () => {
      const before = mappings()
      const handles = endlessHandles()
      const { system, vm } = handles
      const own = mappings()
      const memory = opened(system.createMemory(65536))
      assert.equal(
        vm.setUserMemoryRegion({ slot: 5, flags: 0, address: 0x40000000n, memory, offset: 0, size: 65536 }),
        0,
      )
      memory.close()
      assert.equal(mappings(), own + 1)
      assert.equal(
        vm.setUserMemoryRegion({ slot: 5, flags: 0, address: 0x40000000n, memory, offset: 0, size: 65536 }),
        -errnos.EBADF,
      )
      assert.equal(
        vm.setUserMemoryRegion({ slot: 5, flags: 0, address: 0n, memory: null, offset: 0, size: 0 }),
        0,
      )
      assert.equal(mappings(), own)
      handles.close()
      assert.equal(mappings(), before)
    })

    it('stays mapped after close() until VM and vCPUs are closed', () => {
      const before = mappings()
      const { system, vm, vcpu, close } = endlessHandles()
      const own = mappings()
      const memory = opened(system.createMemory(65536))
      assert.equal(
        vm.setUserMemoryRegion({ slot: 5, flags: 0, address: 0x40000000n, memory, offset: 0, size: 65536 }),
        0,
      )
      memory.close()
      vm.close()
      assert.equal(mappings(), own + 1)
      vcpu.close()
      close()
      assert.equal(mappings(), before)
    })

    it('stays mapped after close() until the devices of the VM are closed', () => {
      const before = mappings()
      const { system, vm, vcpu, close } = endlessHandles()
      const device = opened(vm.createDevice(someDevice, 0))
      const memory = opened(system.createMemory(65536))
      assert.equal(
        vm.setUserMemoryRegion({ slot: 5, flags: 0, address: 0x40000000n, memory, offset: 0, size: 65536 }),
        0,
      )
      memory.close()
      vcpu.close()
      vm.close()
      close()
      assert.ok(mappings() > before)
      device.close()
      assert.equal(mappings(), before)
    })

    it('is held once however often it is given, and let go by the one that replaces it', () => {
      const handles = endlessHandles()
      const { system, vm } = handles
      const own = mappings()
      const [first, second] = [opened(system.createMemory(65536)), opened(system.createMemory(65536))]
      assert.equal(
        vm.setUserMemoryRegion({
          slot: 5,
          flags: 0,
          address: 0x40000000n,
          memory: first,
          offset: 0,
          size: 65536,
        }),
        0,
      )
      assert.equal(
        vm.setUserMemoryRegion({
          slot: 6,
          flags: 0,
          address: 0x50000000n,
          memory: first,
          offset: 0,
          size: 65536,
        }),
        0,
      )
      assert.equal(
        vm.setUserMemoryRegion({ slot: 5, flags: 0, address: 0n, memory: null, offset: 0, size: 0 }),
        0,
      )
      first.close()
      assert.equal(mappings(), own + 2)
      assert.equal(
        vm.setUserMemoryRegion({ slot: 6, flags: 0, address: 0n, memory: null, offset: 0, size: 0 }),
        0,
      )
      assert.equal(mappings(), own + 1)
      second.close()
      assert.equal(mappings(), own)
      handles.close()
    })

    it('is the kernel’s to refuse', () => {
      const handles = endlessHandles()
      const { system, vm } = handles
      const memory = opened(system.createMemory(65536))
      assert.equal(
        vm.setUserMemoryRegion({ slot: 5, flags: 0, address: 0x40000001n, memory, offset: 0, size: 65536 }),
        -errnos.EINVAL,
      )
      assert.equal(
        vm.setUserMemoryRegion({ slot: 5, flags: 0, address: 0x40000000n, memory, offset: 1, size: 4096 }),
        -errnos.EINVAL,
      )
      assert.equal(
        vm.setUserMemoryRegion({
          slot: 5,
          flags: 1 << 30,
          address: 0x40000000n,
          memory,
          offset: 0,
          size: 65536,
        }),
        -errnos.EINVAL,
      )
      assert.equal(
        vm.setUserMemoryRegion({
          slot: 5,
          flags: KVM_MEM_READONLY,
          address: 0x40000000n,
          memory,
          offset: 0,
          size: 65536,
        }),
        0,
      )
      const overlap = vm.setUserMemoryRegion({
        slot: 6,
        flags: 0,
        address: 0x40000000n,
        memory,
        offset: 0,
        size: 65536,
      })
      assert.equal(overlap, -errnos.EEXIST)
      memory.close()
      handles.close()
    })
  })
} else void it.skip(withoutKvm)
