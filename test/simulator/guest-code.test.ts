import assert from 'node:assert/strict'
import { test } from 'vitest'
import type { VcpuFd, VmFd } from '../../lib/backend.js'
import { decodeExit } from '../../lib/kvm/exits.js'
import { get, made, newHost, set, systemOf, outcomeName, vcpuOf } from './fixture.js'

const ADDRESS = 0x10000n
const DEVICE = 0x9000000n

/** A vCPU at the beginning of a program, with the program's memory. */
function running(
  program: readonly number[],
  flags = 0,
): { vm: VmFd; vcpu: VcpuFd; contents: DataView; close: () => void } {
  const system = systemOf(newHost)
  const vm = made(system.createVm(0n))
  const memory = made(system.createMemory(0x10000))
  const contents = new DataView(memory.buffer!)
  for (const [index, instruction] of program.entries()) contents.setUint32(4 * index, instruction, true)
  assert.equal(
    outcomeName(
      vm.setUserMemoryRegion({ slot: 0, flags, address: ADDRESS, memory, offset: 0, size: 0x10000 }),
    ),
    0,
  )
  const vcpu = vcpuOf(vm, 0)
  set(vcpu, 'pc', ADDRESS)
  return { vm, vcpu, contents, close: () => memory.close() }
}

const STORE = 0xf900_0022 // str x2, [x1]
const STAY = 0x1400_0000 // b .
const NOP = 0xd503_201f
const WFI = 0xd503_207f

test('a store where no memory is ends the run, and the next run steps over it', () => {
  const { vcpu } = running([STORE, STORE, STAY])
  set(vcpu, 'x1', DEVICE)
  set(vcpu, 'x2', 0xfedc_ba98_7654_3210n)
  const exit = { reason: 'mmio', address: DEVICE, size: 8, write: true, data: 0xfedc_ba98_7654_3210n }
  assert.equal(vcpu.runSync(0), 0)
  assert.deepEqual(decodeExit(new DataView(vcpu.runPage)), exit)
  assert.equal(get(vcpu, 'pc'), ADDRESS)
  assert.equal(vcpu.runSync(0), 0)
  assert.equal(get(vcpu, 'pc'), ADDRESS + 4n)
  assert.equal(outcomeName(vcpu.runSync(2)), 'EINTR')
  assert.equal(get(vcpu, 'pc'), ADDRESS + 8n)
})

test('immediate_exit steps over a store once, and executes nothing', () => {
  const { vcpu } = running([STORE, STORE])
  set(vcpu, 'x1', DEVICE)
  vcpu.runSync(0)
  new Uint8Array(vcpu.runPage)[1] = 1
  for (let n = 0; n < 2; n++) assert.equal(outcomeName(vcpu.runSync(0)), 'EINTR')
  assert.equal(get(vcpu, 'pc'), ADDRESS + 4n)
})

const stores: [what: string, instruction: number, size: number, offset: bigint, data: bigint][] = [
  ['strb w2, [x1, #3]', 0x3900_0c22, 1, 3n, 0x10n],
  ['strh w2, [x1, #2]', 0x7900_0422, 2, 2n, 0x3210n],
  ['str w2, [x1, #4]', 0xb900_0422, 4, 4n, 0x7654_3210n],
  ['str x2, [x1, #8]', 0xf900_0422, 8, 8n, 0xfedc_ba98_7654_3210n],
  ['str xzr, [x1]', 0xf900_003f, 8, 0n, 0n],
  ['str x2, [sp]', 0xf900_03e2, 8, 0x100n, 0xfedc_ba98_7654_3210n],
]

for (const [what, instruction, size, offset, data] of stores) {
  test(`${what} stores ${size} bytes`, () => {
    const { vcpu } = running([instruction])
    set(vcpu, 'x1', DEVICE)
    set(vcpu, 'sp_el1', DEVICE + 0x100n)
    set(vcpu, 'x2', 0xfedc_ba98_7654_3210n)
    assert.equal(vcpu.runSync(0), 0)
    const exit = decodeExit(new DataView(vcpu.runPage))
    assert.deepEqual(exit, { reason: 'mmio', address: DEVICE + offset, size, write: true, data })
  })
}

test('a store to memory goes there', () => {
  const { vcpu, contents } = running([STORE, STAY])
  set(vcpu, 'x1', ADDRESS + 0x8000n)
  set(vcpu, 'x2', 0x1122_3344_5566_7788n)
  assert.equal(outcomeName(vcpu.runSync(2)), 'EINTR')
  assert.equal(contents.getBigUint64(0x8000, true), 0x1122_3344_5566_7788n)
})

test('a store to memory the guest may only read ends the run', () => {
  const { vcpu } = running([STORE], 2)
  set(vcpu, 'x1', ADDRESS + 0x8000n)
  assert.equal(vcpu.runSync(0), 0)
  assert.equal(decodeExit(new DataView(vcpu.runPage)).reason, 'mmio')
})

test('wfi and b . wait; after wfi the guest goes on', () => {
  const { vcpu } = running([NOP, WFI, STAY])
  assert.equal(outcomeName(vcpu.runSync(2)), 'EINTR')
  assert.equal(get(vcpu, 'pc'), ADDRESS + 8n)
  assert.equal(outcomeName(vcpu.runSync(2)), 'EINTR')
  assert.equal(get(vcpu, 'pc'), ADDRESS + 8n)
  assert.throws(() => vcpu.runSync(0), { code: 'ERR_KVM_SIMULATOR_NO_GUEST_CODE' })
})

test('code outlives the handle of its memory', () => {
  const { vcpu, close } = running([STORE])
  close()
  set(vcpu, 'x1', DEVICE)
  assert.equal(vcpu.runSync(0), 0)
})

test('smc with an immediate is refused and leaves x1 to x3', () => {
  const { vcpu } = running([0xd400_0023, STAY])
  set(vcpu, 'x0', 0x8000_0000n)
  set(vcpu, 'x1', 7n)
  vcpu.runSync(2)
  assert.deepEqual([get(vcpu, 'x0'), get(vcpu, 'x1')], [0xffff_ffff_ffff_ffffn, 7n])
})

test('hvc with an immediate is a call like any other', () => {
  const { vcpu } = running([0xd400_0022, STAY])
  set(vcpu, 'x0', 0x8000_0000n)
  vcpu.runSync(2)
  assert.equal(get(vcpu, 'x0'), 0x10001n)
})

const refused: [what: string, program: number[], registers: Record<string, bigint>][] = [
  ['an instruction it does not execute', [0x9100_0442], {}],
  ['an empty word', [0], {}],
  ['code at EL0', [STORE], { pstate: 0x3c0n }],
]

for (const [what, program, registers] of refused) {
  test(`${what} is an error that names the place`, async () => {
    const { vcpu } = running(program)
    for (const [name, value] of Object.entries(registers)) set(vcpu, name, value)
    const error = { code: 'ERR_KVM_SIMULATOR_NO_GUEST_CODE', message: /0x10000 is 0x/ }
    assert.throws(() => vcpu.runSync(2), error)
    await assert.rejects(async () => vcpu.run(), error)
  })
}
