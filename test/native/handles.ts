/** What the addon's tests share: handles that are there or fail the test, and a vCPU whose run does not end by itself. */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import type { GuestMemoryFd, SystemFd, VcpuFd, VmFd } from '../../lib/backend.js'
import { kernelBackend } from '../../lib/kernel/index.js'
import { capabilities, KVM_MEM_LOG_DIRTY_PAGES, vcpuFeatures } from '../../lib/uapi.js'

/** Whether KVM of some architecture answers here; everything but arm64's own ioctls can be tried on any. */
export const hasKvm: boolean = (() => {
  const system = kernelBackend.open()
  if (typeof system === 'number') return false
  system.close()
  return true
})()

/** The name of a test that cannot run here. On x64 `fake-kvm.c` stands in; it cannot on arm64. */
export const withoutKvm =
  'needs KVM, and this arm64 machine has none: test/native/kvm runs in the lab instead'

export function opened<T>(answer: T | number): T {
  if (typeof answer === 'number') assert.fail(`answered ${answer}`)
  return answer
}

export interface Handles {
  readonly system: SystemFd
  readonly vm: VmFd
  readonly vcpu: VcpuFd
  readonly close: () => void
}

function handles(vcpuId: number, prepare: (vm: VmFd) => void): Handles {
  const system = opened(kernelBackend.open())
  const vm = opened(system.createVm(0n))
  prepare(vm)
  const vcpu = opened(vm.createVcpu(vcpuId))
  return {
    system,
    vm,
    vcpu,
    close: () => {
      vcpu.close()
      vm.close()
      system.close()
    },
  }
}

/** Where guest memory begins, and a page that no memory backs. */
export const memoryAddress = 0x10000n
export const deviceAddress = 0x9000000n

/** `KVM_REG_ARM_CORE` ids of x0 to x30 and pc. */
export function x(n: number): bigint {
  return 0x6030000000100000n | BigInt(2 * n)
}
export const pc = 0x6030000000100040n

let programs = 0

/**
 * Where the next program goes in its memory. Each has an offset of its own: QEMU's emulation of `max` has been seen to execute
 * what an earlier VM had left at that place of the same physical page.
 */
function nextOffset(): number {
  return (programs++ % 256) * 64
}

/** An arm64 vCPU, initialised with the given features, on a VM of its own with `program` in its memory and pc at it, `entry`. */
export function arm64Handles(
  program: readonly number[] = [],
  features: number = 1 << vcpuFeatures['psci-0.2'],
  prepare: (vm: VmFd) => void = () => undefined,
): Handles & { readonly memory: GuestMemoryFd; readonly entry: bigint } {
  const made = handles(0, prepare)
  const { system, vm, vcpu } = made
  assert.equal(vcpu.init(preferredTarget(vm), [features]), 0)
  const memory = opened(system.createMemory(0x10000))
  const offset = nextOffset()
  const entry = memoryAddress + BigInt(offset)
  assert.equal(memory.write(offset, new Uint8Array(Uint32Array.from(program).buffer)), 0)
  assert.equal(
    vm.setUserMemoryRegion({
      slot: 0,
      flags: 0,
      address: memoryAddress,
      memory,
      offset: 0,
      size: memory.size,
    }),
    0,
  )
  assert.equal(vcpu.setOneReg(pc, entry), 0)
  return {
    ...made,
    memory,
    entry,
    close: () => {
      made.close()
      memory.close()
    },
  }
}

/** Where a guest of `writingHandles` writes, and how far it goes before it begins again. */
export const writtenAddress = 0x4000_0000n
export const writtenSize = 16 << 20

/**
 * An arm64 vCPU whose guest writes to one page after the other, again and again, in a slot that is logged: in a dirty ring of 4096
 * entries, where there are any.
 */
export function writingHandles(): Handles & { readonly hasRing: boolean } {
  const ring = capabilities.KVM_CAP_DIRTY_LOG_RING_ACQ_REL
  let hasRing = false
  // str x2, [x1, x4]; add x4, x4, x3; and x4, x4, x5; b .-12
  const program = [0xf8246822, 0x8b030084, 0x8a050084, 0x17fffffd]
  const { memory, ...made } = arm64Handles(program, undefined, (vm) => {
    hasRing = vm.enableCap(ring, 0, [0x1_0000n]) === 0
  })
  const { system, vm, vcpu } = made
  const written = opened(system.createMemory(writtenSize))
  const region = { slot: 1, flags: KVM_MEM_LOG_DIRTY_PAGES, memory: written, offset: 0, size: writtenSize }
  assert.equal(vm.setUserMemoryRegion({ ...region, address: writtenAddress }), 0)
  for (const [n, value] of [
    [1, writtenAddress],
    [3, 4096n],
    [4, 0n],
    [5, BigInt(writtenSize - 1)],
  ] as const) {
    assert.equal(vcpu.setOneReg(x(n), value), 0)
  }
  return {
    ...made,
    hasRing,
    close: () => {
      made.close()
      memory.close()
      written.close()
    },
  }
}

export function preferredTarget(vm: VmFd): number {
  const init = new Uint32Array(8)
  assert.equal(vm.getPreferredTarget(init), 0)
  return init[0]!
}

/**
 * A vCPU that runs until it is interrupted. On arm64 it executes a branch to itself; on x64 it waits for the interrupt that
 * starts a second CPU, which exists as soon as the VM has interrupt controllers in the kernel (KVM_CAP_SPLIT_IRQCHIP).
 */
export function endlessHandles(): Handles {
  const splitIrqchip = 121
  return process.arch === 'arm64'
    ? arm64Handles([0x14000000])
    : handles(1, (vm) => assert.equal(vm.enableCap(splitIrqchip, 0, [24n]), 0))
}

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}
