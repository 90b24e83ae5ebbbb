import assert from 'node:assert/strict'
import { test } from 'vitest'
import type { GuestMemoryFd, VcpuFd, VmFd } from '../../lib/backend.js'
import {
  capabilities,
  KVM_ARM_VCPU_PVTIME_CTRL,
  KVM_ARM_VCPU_PVTIME_IPA,
  KVM_MEM_LOG_DIRTY_PAGES,
  mpStates,
} from '../../lib/uapi.js'
import { made, newHost, set, systemOf, outcomeName, vcpuOf } from './fixture.js'

const CODE = 0x1_0000n
const LOGGED = 0x10_0000n
const DEVICE = 0x900_0000n
const PAGE = 4096

/** A guest that writes x2 where x1 points, twice, and a slot of `pages` pages. */
function logged(
  pages: number,
  manual?: bigint,
): { vm: VmFd; vcpu: VcpuFd; map: (flags: number) => string | number } {
  const system = systemOf(newHost)
  const vm = made(system.createVm(0n))
  if (manual !== undefined) {
    vm.enableCap(capabilities.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, [manual])
  }
  const code: GuestMemoryFd = made(system.createMemory(PAGE))
  code.write(0, new Uint8Array(Uint32Array.of(0xf900_0022, 0xf900_0062, 0xf900_0022, 0xf900_0062).buffer))
  vm.setUserMemoryRegion({ slot: 0, flags: 0, address: CODE, memory: code, offset: 0, size: PAGE })
  const memory = made(system.createMemory(pages * PAGE))
  const map = (flags: number): string | number =>
    outcomeName<number>(
      vm.setUserMemoryRegion({ slot: 1, flags, address: LOGGED, memory, offset: 0, size: pages * PAGE }),
    )
  assert.equal(map(KVM_MEM_LOG_DIRTY_PAGES), 0)
  const vcpu = vcpuOf(vm, 0)
  set(vcpu, 'x3', DEVICE)
  set(vcpu, 'pc', CODE)
  return { vm, vcpu, map }
}

function write(vcpu: VcpuFd, address: bigint): void {
  set(vcpu, 'x1', address)
  assert.equal(outcomeName(vcpu.runSync(0)), 0)
}

function logOf(vm: VmFd, words = 2): bigint[] {
  const bitmap = new BigUint64Array(words)
  assert.equal(outcomeName(vm.getDirtyLog(1, bitmap)), 0)
  return [...bitmap]
}

test('a store of the guest marks its page', () => {
  const { vm, vcpu } = logged(70)
  write(vcpu, LOGGED)
  write(vcpu, LOGGED + BigInt(64 * PAGE + 8))
  assert.deepEqual(logOf(vm), [1n, 1n])
  assert.deepEqual(logOf(vm), [0n, 0n])
})

test('a log lasts until the slot is mapped without it', () => {
  const { vm, vcpu, map } = logged(2)
  write(vcpu, LOGGED)
  assert.equal(map(KVM_MEM_LOG_DIRTY_PAGES), 0)
  assert.deepEqual(logOf(vm, 1), [1n])
  write(vcpu, LOGGED)
  assert.equal(map(0), 0)
  assert.equal(outcomeName(vm.getDirtyLog(1, new BigUint64Array(1))), 'ENOENT')
  assert.equal(map(KVM_MEM_LOG_DIRTY_PAGES), 0)
  assert.deepEqual(logOf(vm, 1), [0n])
})

test('pages that are protected on request stay in the log until they are cleared', () => {
  const { vm, vcpu } = logged(70, 1n)
  write(vcpu, LOGGED + BigInt(3 * PAGE))
  write(vcpu, LOGGED + BigInt(65 * PAGE))
  assert.deepEqual(logOf(vm), [8n, 2n])
  assert.deepEqual(logOf(vm), [8n, 2n])
  assert.equal(outcomeName(vm.clearDirtyLog(1, 0, 64, BigUint64Array.of(8n))), 0)
  assert.equal(outcomeName(vm.clearDirtyLog(1, 64, 6, BigUint64Array.of(1n))), 0)
  assert.deepEqual(logOf(vm), [0n, 2n])
})

test('a log that begins full has the pages of the slot and no bit more', () => {
  const { vm } = logged(70, 3n)
  assert.deepEqual(logOf(vm), [(1n << 64n) - 1n, 0x3fn])
})

test('a run of a vCPU with stolen time marks the page it is in, also while the vCPU is stopped', () => {
  const { vm, vcpu } = logged(2)
  const address = new Uint8Array(BigUint64Array.of(LOGGED + BigInt(PAGE)).buffer)
  assert.equal(outcomeName(vcpu.setDeviceAttr(KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA, address)), 0)
  assert.deepEqual(logOf(vm, 1), [0n])
  write(vcpu, LOGGED)
  assert.deepEqual(logOf(vm, 1), [3n])
  new Uint8Array(vcpu.runPage)[1] = 1
  assert.equal(outcomeName(vcpu.runSync(0)), 'EINTR')
  assert.deepEqual(logOf(vm, 1), [0n])
  new Uint8Array(vcpu.runPage)[1] = 0
  vcpu.setMpState(mpStates.stopped)
  assert.equal(outcomeName(vcpu.runSync(1)), 'EINTR')
  assert.deepEqual(logOf(vm, 1), [2n])
})

const cleared: [first: number, pages: number, outcome: string | number][] = [
  [0, 70, 0],
  [0, 64, 0],
  [64, 6, 0],
  [0, 63, 'EINVAL'],
  [1, 64, 'EINVAL'],
  [64, 7, 'EINVAL'],
  [128, 0, 'EINVAL'],
]
for (const [first, pages, outcome] of cleared) {
  test(`clearing ${pages} of 70 pages from ${first}: ${outcome}`, () => {
    const { vm } = logged(70)
    assert.equal(outcomeName(vm.clearDirtyLog(1, first, pages, new BigUint64Array(2))), outcome)
  })
}

test('a bitmap too short for the slot is refused', () => {
  const { vm } = logged(70)
  assert.throws(() => vm.getDirtyLog(1, new BigUint64Array(1)), RangeError)
  assert.throws(() => vm.clearDirtyLog(1, 0, 70, new BigUint64Array(1)), RangeError)
})

test('a slot that cannot be is EINVAL, one that is not there ENOENT', () => {
  const { vm } = logged(1)
  const most = vm.checkExtension(capabilities.KVM_CAP_NR_MEMSLOTS)
  for (const [slot, outcome] of [
    [2, 'ENOENT'],
    [0, 'ENOENT'],
    [most, 'EINVAL'],
    [0x1_0001, 'EINVAL'],
  ] as const) {
    assert.equal(outcomeName(vm.getDirtyLog(slot, new BigUint64Array(1))), outcome)
    assert.equal(outcomeName(vm.clearDirtyLog(slot, 0, 1, new BigUint64Array(1))), outcome)
  }
})
