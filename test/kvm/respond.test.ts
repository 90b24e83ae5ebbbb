/** `respond()` and the exits it belongs to, and a run that times out because its pc lies outside memory. */
import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import type { Backend, VcpuFd } from '../../lib/backend.js'
import type { Vcpu } from '../../lib/kvm/index.js'
import { exitReasons, kvmRun } from '../../lib/uapi.js'
import { changingVms, handles, MEMORY_ADDRESS } from './handles.js'

const nothingPending = {
  code: 'ERR_KVM_NO_READ_PENDING',
  vcpu: 0,
  message: /no MMIO read is pending.*\{ reason: 'mmio', write: false \}/,
}

describe('respond()', () => {
  it('is refused before any run, after a write and after another exit', () => {
    const { vcpu } = handles()
    assert.throws(() => vcpu.respond(1n), nothingPending)
    const exit = vcpu.runSync({ timeout: 1000 })
    assert.deepEqual([exit.reason, exit.reason === 'mmio' && exit.write], ['mmio', true])
    assert.throws(() => vcpu.respond(1n), nothingPending)
    vcpu.freeze()
    assert.throws(() => vcpu.respond(1n), nothingPending)
  })

  it('answers a read, again until the next run, and nothing after that', () => {
    const { vcpu } = handles(withReads())
    assert.deepEqual(read(vcpu), { reason: 'mmio', address: 0x900_0000n, size: 4, write: false, data: 0n })
    vcpu.respond(0x1111n)
    vcpu.respond(0xffff_ffff_ffff_fffen)
    const { phys_addr, data } = kvmRun.mmio
    const page = new DataView(vcpu.runPage)
    assert.deepEqual(
      [page.getBigUint64(phys_addr, true), page.getBigUint64(data, true)],
      [0x900_0000n, 0xffff_ffff_ffff_fffen],
    )
    vcpu.freeze()
    assert.throws(() => vcpu.respond(1n), nothingPending)
  })

  it('is refused while a run is in flight', async () => {
    const { vm } = handles()
    const vcpu = vm.createVcpu(1, { features: ['psci-0.2', 'power-off'] })
    const running = vcpu.run()
    assert.throws(() => vcpu.respond(1n), { code: 'EBUSY', message: /A run is in flight/ })
    vcpu.kick()
    await running
  })
})

describe('A run that times out', () => {
  it('reports a pc outside memory', () => {
    const { vm, vcpu } = handles()
    const at = (pc: bigint) => {
      vcpu.registers.set('pc', pc)
      return vcpu.runSync({ timeout: 5 })
    }
    assert.deepEqual(at(0x1000n), { reason: 'interrupted', pcOutsideMemory: 0x1000n })
    assert.deepEqual(at(MEMORY_ADDRESS - 4n), {
      reason: 'interrupted',
      pcOutsideMemory: MEMORY_ADDRESS - 4n,
    })
    assert.deepEqual(at(MEMORY_ADDRESS + 0x1_0000n), {
      reason: 'interrupted',
      pcOutsideMemory: MEMORY_ADDRESS + 0x1_0000n,
    })
    vm.unmapMemory(0)
    assert.deepEqual(at(MEMORY_ADDRESS), { reason: 'interrupted', pcOutsideMemory: MEMORY_ADDRESS })
  })

  it('says nothing of the pc where the guest waits, is off, or has its MMU on', () => {
    const waiting = handles()
    waiting.memory.write(0, new Uint8Array(Uint32Array.of(0x1400_0000).buffer)) // b .
    assert.deepEqual(waiting.vcpu.runSync({ timeout: 5 }), { reason: 'interrupted' })

    const off = handles().vm.createVcpu(1, { features: ['psci-0.2', 'power-off'] })
    assert.deepEqual(off.runSync({ timeout: 5 }), { reason: 'interrupted' })

    const { vcpu } = handles()
    vcpu.registers.set('pc', 0x1000n)
    vcpu.registers.set('SCTLR_EL1', vcpu.registers.get('SCTLR_EL1') | 1n)
    assert.deepEqual(vcpu.runSync({ timeout: 5 }), { reason: 'interrupted' })
  })

  it('is not one that is kicked or may not start', async () => {
    const { vcpu } = handles()
    vcpu.registers.set('pc', 0x1000n)
    const running = vcpu.run()
    vcpu.kick()
    assert.deepEqual(await running, { reason: 'interrupted' })
    const page = new Uint8Array(vcpu.runPage)
    page[kvmRun.immediate_exit] = 1
    assert.deepEqual(vcpu.runSync({ timeout: 1000 }), { reason: 'interrupted' })
  })
})

function read(vcpu: Vcpu): unknown {
  return vcpu.runSync({ timeout: 1000 })
}

/** A host whose guest reads four bytes from a device at each run that may start. */
function withReads(): Backend {
  return changingVms((vm) => {
    const create = vm.createVcpu.bind(vm)
    vm.createVcpu = (id) => {
      const vcpu = create(id)
      if (typeof vcpu !== 'number') readAtEachRun(vcpu)
      return vcpu
    }
  })
}

function readAtEachRun(vcpu: VcpuFd): void {
  const run = vcpu.runSync.bind(vcpu)
  vcpu.runSync = (timeout) => {
    const page = new DataView(vcpu.runPage)
    if (page.getUint8(kvmRun.immediate_exit) !== 0) return run(timeout)
    page.setUint32(kvmRun.exit_reason, exitReasons.KVM_EXIT_MMIO, true)
    page.setBigUint64(kvmRun.mmio.phys_addr, 0x900_0000n, true)
    page.setUint32(kvmRun.mmio.len, 4, true)
    page.setUint8(kvmRun.mmio.is_write, 0)
    return 0
  }
}
