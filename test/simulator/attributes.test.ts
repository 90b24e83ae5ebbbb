import assert from 'node:assert/strict'
import { test } from 'vitest'
import type { DeviceFd, VcpuFd, VmFd } from '../../lib/backend.js'
import {
  made,
  newHost,
  oldestHost,
  oldHost,
  runOnce,
  start,
  systemOf,
  outcomeName,
  vcpuOf,
  vmOf,
  withCapabilities,
  withTraits,
  type Outcome,
} from './fixture.js'

function word32(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer)
}

function word64(value: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(value).buffer)
}

function filter(base: number, count: number, action = 1, pad = 0): Uint8Array {
  const data = new Uint8Array(24)
  const view = new DataView(data.buffer)
  view.setUint32(0, base, true)
  view.setUint32(4, count, true)
  data[8] = action
  data[23] = pad
  return data
}

test('the SMCCC filter is a VM’s only attribute, and cannot be read', () => {
  const vm = vmOf(newHost)
  assert.equal(vm.hasDeviceAttr(0, 0n), 0)
  assert.equal(outcomeName(vm.hasDeviceAttr(0, 1n)), 'ENXIO')
  assert.equal(outcomeName(vm.hasDeviceAttr(1, 0n)), 'ENXIO')
  assert.equal(outcomeName(vm.getDeviceAttr(0, 0n, new Uint8Array(24))), 'EINVAL')
  assert.equal(outcomeName(vm.getDeviceAttr(5, 0n, new Uint8Array(24))), 'EINVAL')
  assert.equal(outcomeName(vm.setDeviceAttr(0, 1n, null)), 'ENXIO')
})

test('a kernel without the filter has no attributes of a VM at all', () => {
  const vm = vmOf(oldHost)
  for (const outcome of [
    vm.hasDeviceAttr(0, 0n),
    vm.getDeviceAttr(0, 0n, new Uint8Array(24)),
    vm.setDeviceAttr(0, 0n, filter(0, 1)),
  ]) {
    assert.equal(outcomeName(outcome), 'EINVAL')
  }
})

const filters: [what: string, data: Uint8Array | null, outcome: Outcome][] = [
  ['no data', null, 'EFAULT'],
  ['the last id', filter(0xffff_ffff, 1), 0],
  ['beyond the last id', filter(0xffff_ffff, 2), 'EINVAL'],
  ['the first id', filter(0, 1), 0],
  ['no ids', filter(1, 0), 'EINVAL'],
  ['no ids from 0', filter(0, 0), 'EEXIST'],
  ['an action there is not', filter(1, 1, 3), 'EINVAL'],
  ['a byte of padding', filter(0x8000_0000, 1, 9, 1), 'EINVAL'],
  ['below the architecture’s calls', filter(0x7fff_fffe, 2), 0],
  ['into the architecture’s calls', filter(0x7fff_ffff, 2), 'EEXIST'],
  ['of the architecture’s calls, handled', filter(0x8000_8000, 1, 0), 'EEXIST'],
  ['of the architecture’s 64-bit calls', filter(0xc000_ffff, 1), 'EEXIST'],
  ['above the architecture’s calls', filter(0x8001_0000, 1), 0],
]
for (const [what, data, outcome] of filters) {
  test(`an SMCCC filter for ${what}: ${outcome}`, () => {
    assert.equal(outcomeName(vmOf(newHost).setDeviceAttr(0, 0n, data)), outcome)
  })
}

test('no ids from 0 are EINVAL on kernels that look, before the run is', () => {
  const { vm, vcpu } = start(withTraits(newHost, { smcccFilter: { emptyRangeAtZero: 'EINVAL' } }))
  assert.equal(outcomeName(vm.setDeviceAttr(0, 0n, filter(0, 0))), 'EINVAL')
  runOnce(vcpu)
  assert.equal(outcomeName(vm.setDeviceAttr(0, 0n, filter(0, 0))), 'EINVAL')
})

test('filtered ranges do not overlap, and the run freezes them', () => {
  const { vm, vcpu } = start(newHost)
  assert.equal(outcomeName(vm.setDeviceAttr(0, 0n, filter(0x8400_0000, 0x10))), 0)
  assert.equal(outcomeName(vm.setDeviceAttr(0, 0n, filter(0x8400_0000, 0x10))), 'EEXIST')
  assert.equal(outcomeName(vm.setDeviceAttr(0, 0n, filter(0x8400_000f, 1))), 'EEXIST')
  assert.equal(outcomeName(vm.setDeviceAttr(0, 0n, filter(0x8400_0010, 1))), 0)
  runOnce(vcpu)
  assert.equal(outcomeName(vm.setDeviceAttr(0, 0n, filter(0x8400_0010, 1))), 'EBUSY')
  assert.equal(outcomeName(vm.setDeviceAttr(0, 0n, filter(1, 0))), 'EINVAL')
})

test('a payload too short for its attribute is thrown back', () => {
  assert.throws(() => vmOf(newHost).setDeviceAttr(0, 0n, new Uint8Array(23)), RangeError)
})

test('stolen time: where its structure lies is set once, aligned, in writable memory, also before the init', () => {
  const kvm = systemOf(oldHost)
  const vm = made(kvm.createVm(0n))
  const vcpu = made(vm.createVcpu(0))
  const memory = made(kvm.createMemory(8192))
  vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0x1000n, memory, offset: 0, size: 4096 })
  vm.setUserMemoryRegion({ slot: 1, flags: 2, address: 0x2000n, memory, offset: 4096, size: 4096 })
  const base = new Uint8Array(8)
  assert.equal(vcpu.hasDeviceAttr(2, 0n), 0)
  assert.equal(outcomeName(vcpu.hasDeviceAttr(2, 1n)), 'ENXIO')
  assert.equal(vcpu.getDeviceAttr(2, 0n, base), 0)
  assert.deepEqual(base, word64(0xffff_ffff_ffff_ffffn))
  const sets: [data: Uint8Array | null, outcome: Outcome][] = [
    [null, 'EFAULT'],
    [word64(0x1001n), 'EINVAL'],
    [word64(0x4000n), 'EINVAL'],
    [word64(0x2000n), 'EINVAL'],
    [word64(0x1040n), 0],
    [word64(0x1040n), 'EEXIST'],
    [word64(0x1001n), 'EINVAL'],
  ]
  for (const [data, outcome] of sets) assert.equal(outcomeName(vcpu.setDeviceAttr(2, 0n, data)), outcome)
  vcpu.getDeviceAttr(2, 0n, base)
  assert.deepEqual(base, word64(0x1040n))
})

test('stolen time is ENXIO on a host without it', () => {
  const vcpu = made(vmOf(withCapabilities(oldHost, { KVM_CAP_STEAL_TIME: [0, 0] })).createVcpu(0))
  assert.equal(outcomeName(vcpu.hasDeviceAttr(2, 0n)), 'ENXIO')
  assert.equal(outcomeName(vcpu.getDeviceAttr(2, 0n, new Uint8Array(8))), 'ENXIO')
  assert.equal(outcomeName(vcpu.setDeviceAttr(2, 0n, null)), 'ENXIO')
})

test('an unknown group of a vCPU is ENXIO', () => {
  const vcpu = made(vmOf(oldHost).createVcpu(0))
  assert.equal(outcomeName(vcpu.hasDeviceAttr(9, 0n)), 'ENXIO')
  assert.equal(outcomeName(vcpu.getDeviceAttr(9, 0n, new Uint8Array(8))), 'ENXIO')
  assert.equal(outcomeName(vcpu.setDeviceAttr(9, 0n, null)), 'ENXIO')
})

function pmuOf(vcpu: VcpuFd): { has: unknown; irq: unknown; set(irq: number): unknown; init(): unknown } {
  return {
    has: outcomeName(vcpu.hasDeviceAttr(0, 0n)),
    irq: outcomeName(vcpu.getDeviceAttr(0, 0n, new Uint8Array(4))),
    set: (irq) => outcomeName(vcpu.setDeviceAttr(0, 0n, word32(irq))),
    init: () => outcomeName(vcpu.setDeviceAttr(0, 1n, null)),
  }
}

test('a PMU without a GIC takes no interrupt and is initialised once', () => {
  const { vcpu } = start(oldHost, ['psci-0.2', 'pmu-v3'])
  const pmu = pmuOf(vcpu)
  assert.equal(pmu.has, 0)
  assert.equal(pmu.irq, 'EINVAL')
  assert.equal(pmu.set(23), 'EINVAL')
  assert.equal(outcomeName(vcpu.hasDeviceAttr(0, 9n)), 'ENXIO')
  assert.equal(outcomeName(vcpu.setDeviceAttr(0, 9n, null)), 'ENXIO')
  assert.equal(outcomeName(vcpu.getDeviceAttr(0, 1n, new Uint8Array(4))), 'ENXIO')
  assert.equal(pmu.init(), 0)
  assert.equal(pmu.init(), 'EBUSY')
})

test('a vCPU without a PMU has none of its attributes', () => {
  const { vm, vcpu } = start(oldHost)
  const pmu = pmuOf(vcpu)
  assert.equal(pmu.has, 'ENXIO')
  assert.equal(pmu.set(23), 'ENODEV')
  made(vm.createDevice(7, 0))
  assert.equal(pmuOf(vcpu).irq, 'ENODEV')
})

test('a PMU with a GIC needs the GIC initialised and an interrupt', () => {
  const vm = vmOf(oldHost)
  const vcpus = [0, 1, 2].map((id) => vcpuOf(vm, id, ['psci-0.2', 'pmu-v3']))
  const gic = made(vm.createDevice(7, 0))
  const [first, second, third] = vcpus.map(pmuOf)
  assert.equal(first!.irq, 'ENXIO')
  assert.equal(outcomeName(vcpus[0]!.setDeviceAttr(0, 0n, null)), 'EFAULT')
  for (const irq of [15, 1020]) assert.equal(first!.set(irq), 'EINVAL')
  assert.equal(first!.set(23), 0)
  assert.equal(first!.set(23), 'EBUSY')
  assert.equal(second!.set(24), 'EINVAL', 'a private interrupt is the same on all vCPUs')
  assert.equal(second!.set(40), 0)
  assert.equal(third!.set(40), 'EINVAL', 'a shared interrupt is one vCPU’s')
  assert.equal(first!.init(), 'ENODEV')
  gic.setDeviceAttr(4, 0n, null)
  assert.equal(third!.init(), 'ENXIO')
  assert.equal(third!.set(300), 0)
  assert.equal(third!.init(), 'EINVAL', 'the GIC has 256 interrupts')
  assert.equal(first!.init(), 0)
  const irq = new Uint8Array(4)
  assert.equal(vcpus[0]!.getDeviceAttr(0, 0n, irq), 0)
  assert.deepEqual(irq, word32(23))
})

/** Gives a GIC all it needs for a run, once the vCPUs are made. */
function wholeGic(vm: VmFd, gic: DeviceFd = made(vm.createDevice(7, 0))): DeviceFd {
  gic.setDeviceAttr(0, 2n, word64(0n))
  gic.setDeviceAttr(0, 3n, word64(0x10000n))
  gic.setDeviceAttr(4, 0n, null)
  return gic
}

test('a timer whose interrupt is a PMU’s refuses the run', () => {
  const { vm, vcpu } = start(oldHost, ['psci-0.2', 'pmu-v3'])
  wholeGic(vm)
  assert.equal(pmuOf(vcpu).set(27), 0)
  assert.equal(pmuOf(vcpu).init(), 0)
  assert.equal(runOnce(vcpu), 'EINVAL')
})

test('a PMU initialised before there was a GIC has no interrupt to run with', () => {
  const { vm, vcpu } = start(oldHost, ['psci-0.2', 'pmu-v3'])
  assert.equal(pmuOf(vcpu).init(), 0)
  wholeGic(vm)
  assert.equal(runOnce(vcpu), 'EINVAL')
})

function eventFilter(first: number, count: number, action = 1): Uint8Array {
  return word64(BigInt(first) | (BigInt(count) << 16n) | (BigInt(action) << 32n))
}

const eventFilters: [what: string, data: Uint8Array | null, outcome: Outcome][] = [
  ['no data', null, 'EFAULT'],
  ['the last event', eventFilter(0x3ff, 1), 0],
  ['an event beyond the last', eventFilter(0x3ff, 2), 'EINVAL'],
  ['no event beyond the last', eventFilter(0x400, 0), 0],
  ['an action there is not', eventFilter(0, 1, 2), 'EINVAL'],
]
for (const [what, data, outcome] of eventFilters) {
  test(`a filter for ${what} of a PMU: ${outcome}`, () => {
    assert.equal(outcomeName(start(oldHost, ['psci-0.2', 'pmu-v3']).vcpu.setDeviceAttr(0, 2n, data)), outcome)
  })
}

test('the first run freezes the filter of a PMU and its choice, of the siblings too', () => {
  for (const afterRun of [false, true]) {
    const pmu = { ...oldHost.traits.pmu!, filter: { events: 0x400, afterRun } }
    const { vm, vcpu } = start(withTraits(oldHost, { pmu }), ['psci-0.2', 'pmu-v3'])
    const sibling = vcpuOf(vm, 1, ['psci-0.2', 'pmu-v3'])
    assert.equal(sibling.setDeviceAttr(0, 2n, eventFilter(1, 1)), 0)
    pmuOf(vcpu).init()
    runOnce(vcpu)
    assert.equal(outcomeName(sibling.setDeviceAttr(0, 2n, eventFilter(1, 1))), afterRun ? 0 : 'EBUSY')
    assert.equal(outcomeName(sibling.setDeviceAttr(0, 2n, eventFilter(1, 1, 2))), 'EINVAL')
    assert.equal(outcomeName(sibling.setDeviceAttr(0, 3n, word32(8))), 'EBUSY')
  }
})

test('another PMU of the host is chosen before the filter, not after', () => {
  const { vcpu } = start(oldHost, ['psci-0.2', 'pmu-v3'])
  assert.equal(vcpu.hasDeviceAttr(0, 3n), 0)
  assert.equal(outcomeName(vcpu.setDeviceAttr(0, 3n, null)), 'EFAULT')
  assert.equal(outcomeName(vcpu.setDeviceAttr(0, 3n, word32(7))), 'ENXIO')
  assert.equal(vcpu.setDeviceAttr(0, 3n, word32(9)), 0)
  vcpu.setDeviceAttr(0, 2n, eventFilter(0, 1))
  assert.equal(vcpu.setDeviceAttr(0, 3n, word32(9)), 0)
  assert.equal(outcomeName(vcpu.setDeviceAttr(0, 3n, word32(8))), 'EBUSY')
})

test('a VM’s PMUs can be left fewer counters where the kernel lets them', () => {
  assert.equal(outcomeName(start(oldHost, ['psci-0.2', 'pmu-v3']).vcpu.hasDeviceAttr(0, 4n)), 'ENXIO')
  const pmu = { filter: null, ids: null, counters: 6 }
  const { vcpu } = start(withTraits(oldHost, { pmu }), ['psci-0.2', 'pmu-v3'])
  assert.equal(vcpu.hasDeviceAttr(0, 4n), 0)
  assert.equal(outcomeName(vcpu.setDeviceAttr(0, 4n, null)), 'EFAULT')
  assert.equal(outcomeName(vcpu.setDeviceAttr(0, 4n, word32(7))), 'EINVAL')
  assert.equal(vcpu.setDeviceAttr(0, 4n, word32(6)), 0)
  assert.equal(outcomeName(vcpu.setDeviceAttr(0, 2n, eventFilter(0, 1))), 'ENXIO')
  assert.equal(outcomeName(vcpu.setDeviceAttr(0, 3n, word32(8))), 'ENXIO')
})

test('the timers’ interrupts are private, and fixed by the run', () => {
  const { vm, vcpu } = start(newHost)
  const irq = new Uint8Array(4)
  const sibling = vcpuOf(vm, 1)
  for (const [timer, interrupt] of [27, 30, 28, 26].entries()) {
    assert.equal(vcpu.hasDeviceAttr(1, BigInt(timer)), 0)
    assert.equal(vcpu.getDeviceAttr(1, BigInt(timer), irq), 0)
    assert.deepEqual(irq, word32(interrupt))
  }
  assert.equal(outcomeName(vcpu.hasDeviceAttr(1, 4n)), 'ENXIO')
  assert.equal(outcomeName(vcpu.getDeviceAttr(1, 4n, irq)), 'ENXIO')
  assert.equal(outcomeName(vcpu.setDeviceAttr(1, 0n, word32(28))), 'EINVAL', 'without a GIC')
  wholeGic(vm)
  assert.equal(outcomeName(vcpu.setDeviceAttr(1, 0n, null)), 'EFAULT')
  assert.equal(outcomeName(vcpu.setDeviceAttr(1, 0n, word32(32))), 'EINVAL')
  assert.equal(outcomeName(vcpu.setDeviceAttr(1, 4n, word32(28))), 'ENXIO')
  assert.equal(vcpu.setDeviceAttr(1, 1n, word32(29)), 0)
  sibling.getDeviceAttr(1, 1n, irq)
  assert.deepEqual(irq, word32(29))
  runOnce(vcpu)
  assert.equal(outcomeName(sibling.setDeviceAttr(1, 1n, word32(30))), 'EBUSY')
})

for (const [whose, host, interrupt, run, change] of [
  ['the VM’s, and so a later vCPU’s', newHost, 29, 'EINTR', 'EBUSY'],
  ['each vCPU’s own, and all must have the same', oldHost, 30, 'EINVAL', 0],
] as const) {
  test(`the timers’ interrupts are ${whose}`, () => {
    const { vm, vcpu } = start(host)
    const irq = new Uint8Array(4)
    const gic = made(vm.createDevice(7, 0))
    vcpu.setDeviceAttr(1, 1n, word32(29))
    const later = vcpuOf(vm, 1)
    later.getDeviceAttr(1, 1n, irq)
    assert.deepEqual(irq, word32(interrupt))
    wholeGic(vm, gic)
    assert.equal(runOnce(later), run)
    assert.equal(outcomeName(vcpu.setDeviceAttr(1, 1n, word32(28))), change)
  })
}

test('two timers with one interrupt refuse the run, until one has another', () => {
  for (const host of [oldHost, newHost]) {
    const { vm, vcpu } = start(host)
    wholeGic(vm)
    vcpu.setDeviceAttr(1, 1n, word32(27))
    assert.equal(runOnce(vcpu), 'EINVAL')
    vcpu.setDeviceAttr(1, 1n, word32(30))
    assert.equal(runOnce(vcpu), 'EINTR')
  }
})

test('a GIC knows its addresses, its interrupts and its initialisation', () => {
  const gic: DeviceFd = made(vmOf(newHost).createDevice(7, 0))
  const known: [group: number, attribute: bigint, outcome: Outcome][] = [
    [0, 2n, 0],
    [0, 3n, 0],
    [0, 0n, 'ENXIO'],
    [3, 0n, 0],
    [4, 0n, 0],
    [4, 9n, 'ENXIO'],
    [9, 0n, 0],
    [10, 0n, 'ENXIO'],
  ]
  for (const [group, attribute, outcome] of known) {
    assert.equal(outcomeName(gic.hasDeviceAttr(group, attribute)), outcome)
  }
  assert.equal(outcomeName(gic.setDeviceAttr(10, 0n, null)), 'ENXIO')
  assert.equal(outcomeName(gic.getDeviceAttr(10, 0n, new Uint8Array(8))), 'ENXIO')
})

test('a GIC’s addresses are aligned, inside the VM’s address space and set once', () => {
  const gic = made(vmOf(newHost).createDevice(7, 0))
  const address = new Uint8Array(8)
  gic.getDeviceAttr(0, 2n, address)
  assert.deepEqual(address, word64(0xffff_ffff_ffff_ffffn))
  const sets: [data: Uint8Array | null, outcome: Outcome][] = [
    [null, 'EFAULT'],
    [word64(0x1000n), 'EINVAL'],
    [word64(1n << 40n), 'E2BIG'],
    [word64(0x800_0000n), 0],
    [word64(0x800_0000n), 'EEXIST'],
  ]
  for (const [data, outcome] of sets) assert.equal(outcomeName(gic.setDeviceAttr(0, 2n, data)), outcome)
  gic.getDeviceAttr(0, 2n, address)
  assert.deepEqual(address, word64(0x800_0000n))
})

test('where they are checked first, EEXIST comes last, and for redistributors never', () => {
  const gic = made(vmOf(oldestHost).createDevice(7, 0))
  const sets: [attribute: bigint, address: bigint, outcome: Outcome][] = [
    [2n, 0x1000n, 'EINVAL'],
    [2n, (1n << 40n) + 0x1000n, 'E2BIG'],
    [2n, (1n << 40n) - 0x1_0000n, 0],
    [2n, 0x800_0000n, 'EEXIST'],
    [2n, 0x800_1000n, 'EINVAL'],
    [2n, 1n << 41n, 'E2BIG'],
    [3n, 0x1000n, 'EINVAL'],
    [3n, 0x80a_0000n, 0],
    [3n, 0x80a_0000n, 'EINVAL'],
    [3n, 1n << 41n, 'EINVAL'],
  ]
  for (const [attribute, address, outcome] of sets) {
    assert.equal(
      outcomeName(gic.setDeviceAttr(0, attribute, word64(address))),
      outcome,
      `${attribute} ${address}`,
    )
  }
})

test('a GIC has 64 to 992 interrupts by 32, set once, 256 where not set', () => {
  const gic = made(vmOf(newHost).createDevice(7, 0))
  const count = new Uint8Array(4)
  for (const irqs of [32, 65, 1024, 1056])
    assert.equal(outcomeName(gic.setDeviceAttr(3, 0n, word32(irqs))), 'EINVAL')
  assert.equal(outcomeName(gic.setDeviceAttr(3, 0n, word32(96))), 0)
  assert.equal(outcomeName(gic.setDeviceAttr(3, 0n, word32(96))), 'EBUSY')
  gic.setDeviceAttr(4, 0n, null)
  gic.getDeviceAttr(3, 0n, count)
  assert.deepEqual(count, word32(96))
  const other = made(vmOf(newHost).createDevice(7, 0))
  other.setDeviceAttr(4, 0n, null)
  other.getDeviceAttr(3, 0n, count)
  assert.deepEqual(count, word32(256))
})
