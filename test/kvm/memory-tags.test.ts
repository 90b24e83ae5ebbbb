import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import type { Backend } from '../../lib/backend.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import { openKvm, type Vm } from '../../lib/kvm/index.js'
import { errnos } from '../../lib/uapi.js'
import { breakBackend } from '../conformance/broken-kernel.js'

const simulated = simulator('linux-6.12-neoverse-n1')
const vmOf = (backend: Backend): Vm => openKvm(backend).createVm()

/** A VM whose tags are these, at address 0. */
function tagged(tags: Uint8Array): Vm {
  const backend = breakBackend(simulated, {
    vm: {
      copyMteTags(_, address, length, buffer, flags) {
        if (address !== 0n) return -errnos.EFAULT
        const copied = Math.min(tags.length, length / 16)
        if (flags === 1) buffer.set(tags.subarray(0, copied))
        else tags.set(buffer.subarray(0, copied))
        return copied * 16
      },
    },
  })
  return vmOf(backend)
}

describe('Memory tags', () => {
  it('are read and written, as many as there are', () => {
    const vm = tagged(new Uint8Array(256))
    assert.equal(vm.writeTags(0n, new Uint8Array(512).fill(7)), 4096)
    assert.deepEqual(vm.readTags(0n, 8192), new Uint8Array(256).fill(7))
    assert.throws(() => vm.readTags(4096n, 4096), { code: 'EFAULT', message: /map it first/ })
  })

  it('are EINVAL for a VM without any', () => {
    const vm = vmOf(simulated)
    const wanted = { code: 'EINVAL', message: /KVM_CAP_ARM_MTE/ }
    assert.throws(() => vm.readTags(0n, 4096), wanted)
    assert.throws(() => vm.writeTags(0n, new Uint8Array(256)), wanted)
    vm.close()
    assert.throws(() => vm.readTags(0n, 4096), { code: 'ERR_KVM_CLOSED' })
  })

  it('of a simulated VM are of no memory', () => {
    const report = structuredClone(builtInReport('linux-6.12-neoverse-n1'))
    report.capabilities.KVM_CAP_ARM_MTE = [1, 1]
    report.configurations.push({ ...report.configurations[0]!, mte: true })
    const vm = vmOf(simulator(report))
    vm.enableCapability('KVM_CAP_ARM_MTE')
    assert.equal(vm.readTags(0n, 0).length, 0)
    assert.throws(() => vm.readTags(0n, 4096), { code: 'EFAULT' })
    for (const [address, length] of [
      [16n, 4096],
      [0n, 2048],
    ] as const) {
      assert.throws(() => vm.readTags(address, length), { code: 'EINVAL' })
    }
  })

  it('are for less than 2 GiB at once', () => {
    const vm = vmOf(simulated)
    assert.throws(() => vm.readTags(0n, 2 ** 31), RangeError)
    assert.throws(() => vm.writeTags(0n, new Uint8Array(2 ** 27)), RangeError)
    assert.throws(() => vm.writeTags(0n, [] as never), TypeError)
  })
})
