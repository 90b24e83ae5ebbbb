import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import type { StatsFd } from '../../lib/backend.js'
import { simulator } from '../../lib/hosts/index.js'
import { functionIdOf } from '../../lib/hypercalls/index.js'
import { KvmError, openKvm } from '../../lib/kvm/index.js'
import { OpenStats, readStatsLayout, Stats } from '../../lib/kvm/stats.js'
import {
  errnos,
  packStatsDescriptor,
  packStatsHeader,
  STATS_DESCRIPTOR_SIZE,
  STATS_HEADER_SIZE,
  unpackStatsDescriptor,
} from '../../lib/uapi.js'

const PSCI_VERSION = functionIdOf('PSCI_VERSION')

/** Statistics that end after so many bytes. */
function bytes(all: Uint8Array, end = all.length): StatsFd & { closed: boolean } {
  return {
    closed: false,
    read(offset, into) {
      const found = all.subarray(0, end).subarray(offset, offset + into.length)
      into.set(found)
      return found.length
    },
    close() {
      this.closed = true
    },
  }
}

/** One statistic of two numbers, 5 and 6. */
const one = (() => {
  const nameSize = 8
  const descriptorOffset = STATS_HEADER_SIZE + nameSize
  const dataOffset = descriptorOffset + STATS_DESCRIPTOR_SIZE + nameSize
  const header = { nameSize, count: 1, idOffset: STATS_HEADER_SIZE, descriptorOffset, dataOffset }
  const all = new Uint8Array(dataOffset + 16)
  const descriptor = { name: 'sizes', flags: 0x113, exponent: -2, size: 2, offset: 0, bucketSize: 9 }
  all.set(packStatsHeader(header))
  all.set(new TextEncoder().encode('kvm-1'), STATS_HEADER_SIZE)
  all.set(packStatsDescriptor(descriptor, nameSize), descriptorOffset)
  all.set(new Uint8Array(BigUint64Array.of(5n, 6n).buffer), dataOffset)
  return { all, descriptor, nameSize, descriptorOffset, dataOffset }
})()

describe('Statistics', () => {
  it('are read', () => {
    using stats = new Stats(bytes(one.all), () => undefined)
    assert.equal(stats.id, 'kvm-1')
    assert.deepEqual(stats.statistics, [
      {
        name: 'sizes',
        type: 'linear-histogram',
        unit: 'bytes',
        base: 2,
        exponent: -2,
        size: 2,
        bucketSize: 9,
      },
    ])
    assert.deepEqual([...stats.read()], [['sizes', [5n, 6n]]])
    const packed = packStatsDescriptor(one.descriptor, one.nameSize)
    assert.deepEqual(unpackStatsDescriptor(packed), one.descriptor)
  })

  it('of kinds that are not known keep their numbers', () => {
    const all = one.all.slice()
    all.set(packStatsDescriptor({ ...one.descriptor, flags: 0xfff }, one.nameSize), one.descriptorOffset)
    const [statistic] = new Stats(bytes(all), () => undefined).statistics
    assert.deepEqual([statistic!.type, statistic!.unit, statistic!.base], [15, 15, 15])
  })

  it('that end too early are refused, and closed', () => {
    for (const end of [0, 10, STATS_HEADER_SIZE + 3, one.dataOffset - 1]) {
      const fd = bytes(one.all, end)
      assert.throws(() => new Stats(fd, () => undefined), { code: 'EIO' })
      assert.ok(fd.closed)
    }
    const stats = new Stats(bytes(one.all, one.dataOffset + 9), () => undefined)
    assert.throws(() => stats.read(), { code: 'EIO' })
    assert.throws(() => new OpenStats().add(bytes(one.all, 3)), KvmError)
  })

  it('that cannot be read are refused with the errno of whichever read failed', () => {
    for (const part of [0, STATS_HEADER_SIZE, one.descriptorOffset, one.dataOffset]) {
      const fd = bytes(one.all)
      const failing: StatsFd & { closed: boolean } = {
        ...fd,
        read: (offset, into) => (offset === part ? -errnos.EINTR : fd.read(offset, into)),
      }
      assert.throws(() => new Stats(failing, () => undefined).read(), {
        code: 'EINTR',
        errno: -errnos.EINTR,
        syscall: 'pread',
        message: /openStats\(\)/,
      })
      assert.equal(failing.closed, part !== one.dataOffset)
      // A trace must not take what could not be read for a handle without statistics.
      const expected = part === one.dataOffset ? 'object' : 'number'
      assert.equal(typeof readStatsLayout(failing), expected)
    }
    assert.equal(readStatsLayout(bytes(one.all, one.dataOffset - 1)), -errnos.EIO)
  })

  it('count what the guest does', () => {
    using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
    using vm = kvm.createVm()
    const vcpu = vm.createVcpu(3)
    using stats = vcpu.openStats()
    assert.equal(stats.id, `kvm-${process.pid}/vcpu-3`)
    vcpu.hypercall(PSCI_VERSION)
    vcpu.hypercall(PSCI_VERSION, [], { conduit: 'smc' })
    const numbers = stats.read()
    assert.deepEqual(
      ['hvc_exit_stat', 'mmio_exit_user', 'mmio_exit_kernel', 'exits'].map((name) => numbers.get(name)![0]),
      [1n, 2n, 0n, 3n],
    )
    assert.equal(numbers.get('halt_wait_hist')!.length, 32)
    const { type, unit, base, exponent } = stats.statistics.find(({ name }) => name === 'halt_wait_hist')!
    assert.deepEqual([type, unit, base, exponent], ['logarithmic-histogram', 'seconds', 10, -9])
    using ofVm = vm.openStats()
    assert.deepEqual([...ofVm.read().keys()], ['remote_tlb_flush', 'remote_tlb_flush_requests'])
  })

  it('are closed with what they are of', () => {
    using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
    using vm = kvm.createVm()
    const [vcpu, other] = [vm.createVcpu(0), vm.createVcpu(1)]
    const all = [vm.openStats(), vcpu.openStats(), other.openStats()]
    const early = vm.openStats()
    early.close()
    early.close()
    assert.throws(() => early.read(), { code: 'ERR_KVM_CLOSED' })
    vcpu.close()
    assert.throws(() => all[1]!.read(), { code: 'ERR_KVM_CLOSED' })
    assert.throws(() => vcpu.openStats(), { code: 'ERR_KVM_CLOSED' })
    assert.equal(all[2]!.read().get('exits')![0], 0n)
    vm.close()
    for (const stats of all) assert.throws(() => stats.read(), { code: 'ERR_KVM_CLOSED' })
    assert.throws(() => vm.openStats(), { code: 'ERR_KVM_CLOSED' })
  })

  it('can be read during a run, but not opened', async () => {
    using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
    using vm = kvm.createVm()
    const vcpu = vm.createVcpu(0)
    using stats = vcpu.openStats()
    const run = vcpu.run()
    assert.throws(() => vcpu.openStats(), { code: 'EBUSY', message: /kick\(\)/ })
    assert.equal(stats.read().size, 18)
    vcpu.kick()
    await run
  })

  it('are EINVAL on a kernel that has none', () => {
    using kvm = openKvm(simulator('linux-5.10-neoverse-n1'))
    using vm = kvm.createVm()
    const wanted = { code: 'EINVAL', message: /from 5\.14 on/ }
    assert.throws(() => vm.openStats(), wanted)
    assert.throws(() => vm.createVcpu(0).openStats(), wanted)
  })
})
