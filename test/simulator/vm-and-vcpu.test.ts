import assert from 'node:assert/strict'
import { test } from 'vitest'
import type { GuestMemoryFd, MemoryRegion } from '../../lib/backend.js'
import type { Report } from '../../lib/report/report.js'
import { capabilities, type Capability } from '../../lib/uapi.js'
import {
  made,
  newHost,
  oldestHost,
  oldHost,
  runOnce,
  start,
  systemOf,
  outcomeName,
  vmOf,
  withCapabilities,
  type Outcome,
} from './fixture.js'

const withMte = withCapabilities(newHost, { KVM_CAP_ARM_MTE: [1, 1] })

const enabled: [report: Report, capability: Capability, flags: number, args: bigint[], outcome: Outcome][] = [
  [newHost, 'KVM_CAP_ARM_NISV_TO_USER', 0, [], 0],
  [newHost, 'KVM_CAP_ARM_NISV_TO_USER', 1, [], 'EINVAL'],
  [newHost, 'KVM_CAP_ARM_SYSTEM_SUSPEND', 0, [], 0],
  [oldestHost, 'KVM_CAP_ARM_SYSTEM_SUSPEND', 0, [], 'EINVAL'],
  [newHost, 'KVM_CAP_ARM_SEA_TO_USER', 0, [], 'EINVAL'],
  [newHost, 'KVM_CAP_ARM_MTE', 0, [], 'EINVAL'],
  [newHost, 'KVM_CAP_ARM_WRITABLE_IMP_ID_REGS', 0, [], 0],
  [oldHost, 'KVM_CAP_ARM_WRITABLE_IMP_ID_REGS', 0, [], 'EINVAL'],
  [newHost, 'KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2', 0, [3n], 0],
  [newHost, 'KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2', 0, [0n], 0],
  [newHost, 'KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2', 0, [2n], 'EINVAL'],
  [newHost, 'KVM_CAP_HALT_POLL', 0, [1n << 32n], 'EINVAL'],
  [newHost, 'KVM_CAP_HALT_POLL', 0, [1000n], 0],
  [newHost, 'KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE', 0, [0x20_0000n], 0],
  [newHost, 'KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE', 0, [0n], 0],
  [newHost, 'KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE', 0, [0x40_0000n], 'EINVAL'],
  [newHost, 'KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE', 0, [0x20_1000n], 'EINVAL'],
  [oldHost, 'KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE', 0, [0n], 'EINVAL'],
  [newHost, 'KVM_CAP_PTP_KVM', 0, [], 'EINVAL'],
]
for (const [report, capability, flags, args, outcome] of enabled) {
  const what = `${capability}${flags ? ' with flags' : ''} (${args.join()})`
  test(`KVM_ENABLE_CAP ${what} on the ${report.host.release} host: ${outcome}`, () => {
    assert.equal(outcomeName(vmOf(report).enableCap(capabilities[capability], flags, args)), outcome)
  })
}

test('writable implementation ids and memory tagging come before the first vCPU', () => {
  const { vm } = start(withMte)
  for (const name of ['KVM_CAP_ARM_WRITABLE_IMP_ID_REGS', 'KVM_CAP_ARM_MTE'] as const) {
    assert.equal(outcomeName(vm.enableCap(capabilities[name], 0, [])), 'EINVAL')
  }
})

test('a VM with memory tagging is not recorded, which its error says', () => {
  assert.throws(() => vmOf(withMte).enableCap(capabilities.KVM_CAP_ARM_MTE, 0, []), {
    code: 'ERR_KVM_SIMULATOR_NOT_RECORDED',
  })
})

test('the chunk size of eager splitting is read back, and is set before there is memory', () => {
  const kvm = systemOf(newHost)
  const vm = made(kvm.createVm(0n))
  const number = capabilities.KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE
  assert.equal(vm.checkExtension(number), 0)
  vm.enableCap(number, 0, [0x1000n])
  assert.equal(vm.checkExtension(number), 0x1000)
  vm.setUserMemoryRegion({
    slot: 0,
    flags: 0,
    address: 0n,
    memory: made(kvm.createMemory(4096)),
    offset: 0,
    size: 4096,
  })
  assert.equal(outcomeName(vm.enableCap(number, 0, [0n])), 'EINVAL')
})

const K4 = 4096
type Region = [slot: number, flags: number, address: bigint, offset: number, size: number]
const regions: [what: string, region: Region, outcome: Outcome][] = [
  ['beside the first', [1, 0, 0x5000n, 0, K4], 0],
  ['logged and read-only', [1, 3, 0x5000n, 0, K4], 0],
  ['with an unknown flag', [1, 4, 0x5000n, 0, K4], 'EINVAL'],
  ['of no whole page', [1, 0, 0x5000n, 0, 100], 'EINVAL'],
  ['at no page', [1, 0, 0x5001n, 0, K4], 'EINVAL'],
  ['from no page', [1, 0, 0x5000n, 1, K4], 'EINVAL'],
  ['in a slot beyond the last', [32767, 0, 0x5000n, 0, K4], 'EINVAL'],
  ['in the last slot', [32766, 0, 0x5000n, 0, K4], 0],
  ['over the first', [1, 0, 0x4000n, 0, K4], 'EEXIST'],
  ['over the end of the first', [1, 0, 0x3000n, 0, 2 * K4], 'EEXIST'],
  ['over the end of all addresses', [1, 0, (1n << 64n) - 4096n, 0, 2 * K4], 'EINVAL'],
  ['up to the end of all addresses', [1, 0, (1n << 64n) - 4096n, 0, K4], 'EINVAL'],
  ['beyond the VM’s addresses', [1, 0, 1n << 40n, 0, K4], 'EFAULT'],
  ['moved', [0, 0, 0x8000n, 0, 2 * K4], 0],
  ['moved over itself', [0, 0, 0x4000n, 0, 2 * K4], 0],
  ['with the log turned on', [0, 1, 0x3000n, 0, 2 * K4], 0],
  ['made read-only', [0, 2, 0x3000n, 0, 2 * K4], 'EINVAL'],
  ['shrunk', [0, 0, 0x3000n, 0, K4], 'EINVAL'],
  ['of other memory', [0, 0, 0x3000n, K4, 2 * K4], 'EINVAL'],
  ['deleted', [0, 0, 0n, 0, 0], 0],
  ['deleted that is not there', [1, 0, 0n, 0, 0], 'EINVAL'],
]
for (const [what, [slot, flags, address, offset, size], outcome] of regions) {
  test(`a memory region ${what}: ${outcome}`, () => {
    const kvm = systemOf(newHost)
    const vm = made(kvm.createVm(0n))
    const memory = made(kvm.createMemory(4 * K4))
    assert.equal(
      vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0x3000n, memory, offset: 0, size: 2 * K4 }),
      0,
    )
    assert.equal(outcomeName(vm.setUserMemoryRegion({ slot, flags, address, memory, offset, size })), outcome)
  })
}

test('read-only memory is refused by a host without it', () => {
  const kvm = systemOf(withCapabilities(newHost, { KVM_CAP_READONLY_MEM: [0, 0] }))
  const vm = made(kvm.createVm(0n))
  assert.equal(
    outcomeName(
      vm.setUserMemoryRegion({
        slot: 0,
        flags: 2,
        address: 0n,
        memory: made(kvm.createMemory(K4)),
        offset: 0,
        size: K4,
      }),
    ),
    'EINVAL',
  )
})

test('a region lies in open memory of the simulator', () => {
  const kvm = systemOf(newHost)
  const vm = made(kvm.createVm(0n))
  const memory = made(kvm.createMemory(K4))
  assert.throws(
    () => vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory, offset: 0, size: 2 * K4 }),
    RangeError,
  )
  assert.throws(
    () => vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory: null, offset: 0, size: K4 }),
    TypeError,
  )
  assert.throws(
    () =>
      vm.setUserMemoryRegion({
        slot: 0,
        flags: 0,
        address: 0n,
        memory: {} as GuestMemoryFd,
        offset: 0,
        size: K4,
      }),
    TypeError,
  )
  assert.throws(() => vm.setUserMemoryRegion(null as unknown as MemoryRegion), /region must be an object/)
  memory.close()
  assert.equal(
    outcomeName(vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory, offset: 0, size: K4 })),
    'EBADF',
  )
})

test('memory is made in whole pages, zeroed, and copied to and from within its bounds', () => {
  const kvm = systemOf(newHost)
  for (const size of [0, 100]) assert.equal(outcomeName(kvm.createMemory(size)), 'EINVAL')
  assert.equal(outcomeName(kvm.createMemory(Number.MAX_SAFE_INTEGER - 4095)), 'ENOMEM')
  const memory = made(kvm.createMemory(K4))
  assert.equal(memory.size, K4)
  assert.equal(memory.write(K4 - 2, Uint8Array.of(1, 2)), 0)
  const into = new Uint8Array(4)
  assert.equal(memory.read(K4 - 4, into), 0)
  assert.deepEqual([...into], [0, 0, 1, 2])
  assert.equal(new Uint8Array(memory.buffer!)[K4 - 1], 2)
  assert.equal(outcomeName(memory.read(K4 - 3, into)), 'EFAULT')
  assert.equal(outcomeName(memory.write(K4, Uint8Array.of(1))), 'EFAULT')
})

test('pages are as large as the kvm_run mapping says', () => {
  const kvm = systemOf({ ...newHost, vcpuMmapSize: 0x20000 })
  assert.equal(outcomeName(kvm.createMemory(K4)), 'EINVAL')
  made(kvm.createMemory(0x10000))
})

test('power states are those of the host', () => {
  const { vcpu } = start(oldHost)
  assert.equal(vcpu.setMpState(5), 0)
  assert.equal(vcpu.getMpState(), 5)
  assert.equal(vcpu.setMpState(10), 0)
  assert.equal(outcomeName(vcpu.setMpState(1)), 'EINVAL')
  assert.equal(vcpu.getMpState(), 10)
  assert.equal(outcomeName(start(oldestHost).vcpu.setMpState(10)), 'EINVAL')
})

for (const [when, host, hasRun, pending] of [
  ['before the vCPU has run', oldHost, false, 0],
  ['before the vCPU has run, also where it is kept then', newHost, false, 0],
  ['after the vCPU has run', oldHost, true, 0],
  ['not where it is kept once the vCPU has run', newHost, true, 1],
] as const) {
  test(`an init takes a pending SError back: ${when}`, () => {
    const { vcpu } = start(host)
    if (hasRun) runOnce(vcpu)
    vcpu.setVcpuEvents(eventsOf({ 0: 1 }))
    vcpu.init(2, [4])
    const found = new Uint8Array(64)
    vcpu.getVcpuEvents(found)
    assert.equal(found[0], pending)
  })
}

test('events need the init where the kernel looks for it', () => {
  const events = new Uint8Array(64)
  const [old, current] = [oldHost, newHost].map((report) => made(vmOf(report).createVcpu(0)))
  assert.equal(old!.getVcpuEvents(events), 0)
  assert.equal(outcomeName(current!.getVcpuEvents(events)), 'ENOEXEC')
  assert.equal(outcomeName(current!.setVcpuEvents(events)), 'ENOEXEC')
})

function eventsOf(bytes: Record<number, number>): Uint8Array {
  return Object.assign(new Uint8Array(64), bytes)
}
const hasEsr = eventsOf({ 1: 1 })
const withoutRas = withCapabilities(oldHost, { KVM_CAP_ARM_INJECT_SERROR_ESR: [0, 0] })
const injected: [what: string, report: Report, set: Uint8Array, outcome: Outcome, after: Uint8Array][] = [
  ['nothing', oldHost, eventsOf({}), 0, hasEsr],
  ['an SError', oldHost, eventsOf({ 0: 1 }), 0, eventsOf({ 0: 1, 1: 1, 11: 1 })],
  ['an SError with a syndrome', oldHost, eventsOf({ 0: 1, 1: 1, 8: 7 }), 0, eventsOf({ 0: 1, 1: 1, 8: 7 })],
  ['a syndrome of too many bits', oldHost, eventsOf({ 0: 1, 1: 1, 11: 2 }), 'EINVAL', hasEsr],
  ['an SError on a host without RAS', withoutRas, eventsOf({ 0: 1 }), 0, eventsOf({ 0: 1 })],
  ['a syndrome on a host without RAS', withoutRas, eventsOf({ 0: 1, 1: 1 }), 'EINVAL', eventsOf({})],
  ['an external abort', oldHost, eventsOf({ 2: 1 }), 0, hasEsr],
  ['a byte of padding', oldHost, eventsOf({ 3: 1 }), 'EINVAL', hasEsr],
  ['a reserved byte', oldHost, eventsOf({ 63: 1 }), 'EINVAL', hasEsr],
]
for (const [what, report, set, outcome, after] of injected) {
  test(`KVM_SET_VCPU_EVENTS with ${what}: ${outcome}`, () => {
    const { vcpu } = start(report)
    assert.equal(outcomeName(vcpu.setVcpuEvents(set)), outcome)
    const found = new Uint8Array(64).fill(9)
    assert.equal(vcpu.getVcpuEvents(found), 0)
    assert.deepEqual(found, after)
  })
}
