import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { type Exit, openKvm, type Vcpu } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'
import { packGuestDebug } from '../../lib/kvm/guest-debug.js'
import { guestDebugRegisters } from '../../lib/uapi.js'

const CODE = 0x8000_0000n
const DATA = CODE + 0x8000n
const DEVICE = 0x900_0000n
const NOP = 0xd503_201f
const STORE = 0xb900_0022 // str w2, [x1]
const HVC = 0xd400_0002
const STAY = 0x1400_0000
const BRK = 0xd420_00e0 // brk #7

function guest(...code: readonly number[]): Vcpu {
  const kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
  const vm = kvm.createVm()
  const memory = kvm.createMemory(0x1_0000)
  memory.write(0, new Uint8Array(Uint32Array.from(code).buffer))
  vm.mapMemory(0, { address: CODE, memory })
  const vcpu = vm.createVcpu(0)
  vcpu.registers.set('pc', CODE)
  vcpu.registers.set('x1', DATA)
  return vcpu
}

function run(vcpu: Vcpu): [cause: unknown, pc: bigint] {
  const exit: Exit = vcpu.runSync({ timeout: 5 })
  return [exit.reason === 'debug' ? exit.cause : exit.reason, vcpu.registers.get('pc') - CODE]
}

describe('setDebug()', () => {
  it('steps', () => {
    const vcpu = guest(NOP, STORE, STAY)
    vcpu.setDebug({ step: true })
    assert.deepEqual(run(vcpu), ['step', 4n])
    assert.deepEqual(run(vcpu), ['step', 8n])
    assert.deepEqual(run(vcpu), ['step', 8n])
    vcpu.setDebug(null)
    assert.deepEqual(run(vcpu), ['interrupted', 8n])
  })

  it('steps over nothing that KVM emulates', () => {
    const call = guest(HVC)
    call.setDebug({ step: true })
    assert.throws(() => call.runSync(), {
      code: 'ERR_KVM_SIMULATOR_NO_GUEST_CODE',
      message: /steps over none/,
    })
    const store = guest(STORE)
    store.registers.set('x1', DEVICE)
    store.setDebug({ step: true })
    assert.throws(() => store.runSync(), { code: 'ERR_KVM_SIMULATOR_NO_GUEST_CODE' })
  })

  it('stops before breakpoints, accesses and brk', () => {
    const vcpu = guest(NOP, STORE, BRK)
    vcpu.setDebug({ breakpoints: [0n, CODE + 4n] })
    assert.deepEqual(run(vcpu), ['breakpoint', 4n])
    assert.deepEqual(run(vcpu), ['breakpoint', 4n])
    vcpu.setDebug({ watchpoints: [{ address: DATA + 3n, size: 1 }] })
    assert.deepEqual(run(vcpu), ['watchpoint', 4n])
    const exit = vcpu.runSync()
    assert.ok(exit.reason === 'debug')
    assert.equal(exit.address, DATA)
    const others = [{ address: DATA, access: 'read' }, { address: DATA + 4n }] as const
    vcpu.setDebug({ watchpoints: others, softwareBreakpoints: true })
    assert.deepEqual(run(vcpu), ['brk', 8n])
    vcpu.setDebug(null)
    assert.throws(() => vcpu.runSync(), { code: 'ERR_KVM_SIMULATOR_NO_GUEST_CODE' })
  })

  it('refuses what the debug registers cannot hold', () => {
    const vcpu = guest(NOP)
    assert.throws(() => vcpu.setDebug({ breakpoints: [CODE + 2n] }), RangeError)
    assert.throws(() => vcpu.setDebug({ breakpoints: Array<bigint>(7).fill(CODE) }), /at most 6.*HW_BPS/)
    assert.throws(() => vcpu.setDebug({ watchpoints: [{ address: 4n, size: 8 }] }), RangeError)
    assert.throws(() => vcpu.setDebug({ watchpoints: [{ address: 4n, access: 'all' as never }] }), RangeError)
    assert.throws(() => vcpu.setDebug({ steps: true } as never), TypeError)
    vcpu.close()
    assert.throws(() => vcpu.setDebug(null), { code: 'ERR_KVM_CLOSED' })
  })

  it('is refused while the vCPU runs', async () => {
    const vcpu = guest(STAY)
    const flight = vcpu.run()
    assert.throws(() => vcpu.setDebug(null), { code: 'EBUSY' })
    vcpu.kick()
    await flight
  })
})

it('packs the registers as the architecture defines them', () => {
  const most = { breakpoints: 6, watchpoints: 4 }
  const watchpoint = { address: 0x1002n, size: 2, access: 'write' } as const
  const { control, registers } = packGuestDebug({ breakpoints: [0x40n], watchpoints: [watchpoint] }, most)
  assert.equal(control, 0x2_0001)
  const { dbg_bcr, dbg_bvr, dbg_wcr, dbg_wvr } = guestDebugRegisters
  const values = [dbg_bcr, dbg_bvr, dbg_wcr, dbg_wvr].map((place) => registers[place])
  assert.deepEqual(values, [0x1e7n, 0x40n, 0x197n, 0x1000n])
})
