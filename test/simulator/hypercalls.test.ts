import assert from 'node:assert/strict'
import { test } from 'vitest'
import * as fc from 'fast-check'
import type { Conduit, VcpuFd, VmFd } from '../../lib/backend.js'
import { functionIds, hypercallFunctions } from '../../lib/hypercalls/index.js'
import type { Report } from '../../lib/report/report.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { capabilities, mpStates, type VcpuFeature } from '../../lib/uapi.js'
import { get, newHost, oldestHost, oldHost, set, outcomeName, withTraits } from './fixture.js'
import { call, guestOf } from './guest.js'

const REFUSED = '-1 0 0 0'
const {
  SMCCC_VERSION,
  SMCCC_ARCH_FEATURES,
  SMCCC_ARCH_WORKAROUND_1,
  SMCCC_ARCH_WORKAROUND_2,
  SMCCC_ARCH_WORKAROUND_3,
  TRNG_FEATURES,
  TRNG_RND32,
  TRNG_RND64,
  PV_TIME_FEATURES,
  PV_TIME_ST,
  KVM_FEATURES,
  KVM_PTP,
} = functionIds

/** A call on the only vCPU of a fresh VM, its x1 to x3 as given. */
function onFresh(report: Report, conduit: Conduit, functionId: number, ...args: bigint[]): string {
  return call(guestOf(report).vcpus[0]!, conduit, BigInt(functionId), ...args)
}

const answers: [
  what: string,
  report: Report,
  conduit: Conduit,
  id: number,
  args: bigint[],
  expected: string,
][] = [
  ['SMCCC_VERSION', oldestHost, 'hvc', SMCCC_VERSION, [], '10001 0 0 0'],
  ['smc where it reaches the handler', newHost, 'smc', SMCCC_VERSION, [7n, 8n, 9n], '10001 0 0 0'],
  ['smc where it does not', oldHost, 'smc', SMCCC_VERSION, [7n, 8n, 9n], '-1 7 8 9'],
  ['workaround 1 by hvc', newHost, 'hvc', SMCCC_ARCH_WORKAROUND_1, [7n, 8n, 9n], '0 0 8 9'],
  ['workaround 2 by hvc', newHost, 'hvc', SMCCC_ARCH_WORKAROUND_2, [7n, 8n, 9n], '0 0 8 9'],
  ['workaround 3 by hvc', newHost, 'hvc', SMCCC_ARCH_WORKAROUND_3, [7n, 8n, 9n], '0 0 8 9'],
  ['workaround 1 by smc', newHost, 'smc', SMCCC_ARCH_WORKAROUND_1, [7n, 8n, 9n], REFUSED],
  ['features of workaround 1, unaffected', newHost, 'hvc', SMCCC_ARCH_FEATURES, [0x8000_8000n], '1 0 0 0'],
  ['features of workaround 2, vulnerable', newHost, 'hvc', SMCCC_ARCH_FEATURES, [0x8000_7fffn], REFUSED],
  ['features of workaround 3, mitigated', newHost, 'hvc', SMCCC_ARCH_FEATURES, [0x8000_3fffn], '0 0 0 0'],
  ['features of PV time', newHost, 'hvc', SMCCC_ARCH_FEATURES, [0xc500_0020n], '0 0 0 0'],
  [
    'features of PV time, high bits dropped',
    newHost,
    'hvc',
    SMCCC_ARCH_FEATURES,
    [0x1_c500_0020n],
    '0 0 0 0',
  ],
  ['features of itself', newHost, 'hvc', SMCCC_ARCH_FEATURES, [0x8000_0001n], REFUSED],
  ['TRNG_VERSION', newHost, 'hvc', 0x8400_0050, [], '10000 0 0 0'],
  ['TRNG_VERSION where there is none', oldestHost, 'hvc', 0x8400_0050, [], REFUSED],
  ['TRNG_FEATURES of RND64', newHost, 'hvc', TRNG_FEATURES, [0xc400_0053n], '0 0 0 0'],
  ['TRNG_FEATURES, high bits kept', newHost, 'hvc', TRNG_FEATURES, [0x1_c400_0053n], REFUSED],
  ['TRNG_GET_UUID', newHost, 'hvc', 0x8400_0052, [], 'e0210d eb118443 44527080 4c5a4e55'],
  ['RND32 of no bits', newHost, 'hvc', TRNG_RND32, [0n], '0 0 0 0'],
  ['RND32 of 97 bits', newHost, 'hvc', TRNG_RND32, [97n], '-2 0 0 0'],
  ['RND64 of 193 bits', newHost, 'hvc', TRNG_RND64, [193n], '-2 0 0 0'],
  ['CALL_UID', newHost, 'hvc', 0x8600_ff01, [], 'b66fb428 e911c52e 564bcaa9 743a004d'],
  ['KVM_FEATURES', newHost, 'hvc', KVM_FEATURES, [], '3 0 0 0'],
  ['KVM_PTP of no counter', newHost, 'hvc', KVM_PTP, [2n], REFUSED],
  ['PV_TIME_FEATURES without a structure', newHost, 'hvc', PV_TIME_FEATURES, [0xc500_0021n], REFUSED],
  ['PV_TIME_ST without a structure', newHost, 'hvc', PV_TIME_ST, [], REFUSED],
  ['DISCOVER_IMPL_VER', newHost, 'hvc', functionIds.KVM_DISCOVER_IMPL_VER, [], REFUSED],
  ['a protected VM’s call', newHost, 'hvc', functionIds.KVM_MEM_SHARE, [], REFUSED],
  ['an id through PSCI’s gate that is not PSCI’s', newHost, 'hvc', 0x0400_0003, [], REFUSED],
  ['an id nobody has', oldestHost, 'hvc', 0xbf00_0000, [], REFUSED],
]

for (const [what, report, conduit, id, args, expected] of answers) {
  test(`${what} (${report.host.release}) is answered ${expected}`, () => {
    assert.equal(onFresh(report, conduit, id, ...args), expected)
  })
}

test('random bits are as many as asked for, the lowest in the last register', () => {
  const [vcpu] = guestOf(newHost).vcpus
  fc.assert(
    fc.property(fc.boolean(), fc.integer({ min: 0, max: 192 }), (isWide, wanted) => {
      const width = isWide ? 64n : 32n
      const count = BigInt(isWide ? wanted : wanted >> 1)
      const words = call(vcpu!, 'hvc', BigInt(isWide ? TRNG_RND64 : TRNG_RND32), count)
        .split(' ')
        .map((word) => BigInt.asUintN(64, word.startsWith('-') ? BigInt(word) : BigInt(`0x${word}`)))
      assert.equal(words[0], 0n)
      assert.ok(words.every((word) => word < 1n << width))
      assert.ok(((words[1]! << (2n * width)) | (words[2]! << width) | words[3]!) < 1n << count)
    }),
  )
})

test('the wall clock and a counter come as halves', () => {
  const [vcpu] = guestOf(newHost).vcpus
  for (const counter of [0n, 1n]) {
    const before = Date.now()
    const words = call(vcpu!, 'hvc', BigInt(KVM_PTP), counter)
      .split(' ')
      .map((word) => Number.parseInt(word, 16))
    assert.ok(words.every((word) => word < 2 ** 32))
    const wall = (words[0]! * 2 ** 32 + words[1]!) / 1e6
    assert.ok(wall >= before - 1 && wall <= Date.now() + 1)
  }
})

test('stolen time is announced where the vCPU has a structure, which is zeroed', () => {
  const { vcpus } = guestOf(newHost, [['psci-0.2'], ['psci-0.2']])
  const [vcpu, other] = vcpus
  const address = 0x0f00_8000n
  const data = new Uint8Array(BigUint64Array.of(address).buffer)
  assert.equal(outcomeName(vcpu!.setDeviceAttr(2, 0n, data)), 0)
  assert.equal(call(vcpu!, 'hvc', BigInt(PV_TIME_FEATURES), 0xc500_0021n), '0 0 0 0')
  assert.equal(call(vcpu!, 'hvc', BigInt(PV_TIME_FEATURES), 0xc500_0020n), '0 0 0 0')
  assert.equal(call(vcpu!, 'hvc', BigInt(PV_TIME_FEATURES), 0xc400_0053n), REFUSED)
  assert.equal(call(vcpu!, 'hvc', BigInt(PV_TIME_ST)), 'f008000 0 0 0')
  assert.equal(call(other!, 'hvc', BigInt(PV_TIME_ST)), REFUSED)
})

const elections: [register: string, value: bigint, hidden: number[], shown: number[]][] = [
  ['STD_BMAP', 0n, [0x8400_0050, TRNG_RND64], [KVM_FEATURES]],
  ['STD_HYP_BMAP', 0n, [PV_TIME_FEATURES], [0x8400_0050]],
  ['VENDOR_HYP_BMAP', 2n, [KVM_FEATURES, 0x8600_ff01], [0x8400_0050]],
  ['VENDOR_HYP_BMAP', 1n, [KVM_PTP], [0x8600_ff01]],
]

for (const [register, value, hidden, shown] of elections) {
  test(`${register} = ${value} hides what it stands for and nothing else`, () => {
    const [vcpu] = guestOf(newHost).vcpus
    assert.equal(set(vcpu!, register, value), 0)
    for (const id of hidden) assert.equal(call(vcpu!, 'hvc', BigInt(id)), REFUSED, id.toString(16))
    for (const id of shown) assert.notEqual(call(vcpu!, 'hvc', BigInt(id)), REFUSED, id.toString(16))
  })
}

test('ARCH_FEATURES does not tell of PV time that is hidden', () => {
  const [vcpu] = guestOf(newHost).vcpus
  set(vcpu!, 'STD_HYP_BMAP', 0n)
  assert.equal(call(vcpu!, 'hvc', BigInt(SMCCC_ARCH_FEATURES), BigInt(PV_TIME_FEATURES)), REFUSED)
})

test('KVM_FEATURES shows both bitmaps, or what there is on a host without them', () => {
  const [vcpu] = guestOf(builtInReport('linux-7.2-neoverse-n1')).vcpus
  set(vcpu!, 'VENDOR_HYP_BMAP', 1n)
  set(vcpu!, 'VENDOR_HYP_BMAP_2', 2n)
  assert.equal(call(vcpu!, 'hvc', BigInt(KVM_FEATURES)), '1 0 2 0')
  assert.equal(onFresh(builtInReport('seed-v6'), 'hvc', KVM_FEATURES), '3 0 0 0')
})

/** The answers of PSCI 0.2's VERSION and such by version, `undefined` on the left for a vCPU without the feature. */
const versions: [version: bigint | null, id: number, argument: bigint, expected: string][] = [
  [null, 0x8400_0000, 0n, REFUSED],
  [null, 0x95c1_ba5e, 0n, REFUSED],
  [null, 0x95c1_ba60, 0n, '-2 0 0 0'],
  [2n, 0x8400_0000, 0n, '2 0 0 0'],
  [2n, 0x95c1_ba60, 0n, REFUSED],
  [2n, 0x8400_000a, 0x8400_0000n, REFUSED],
  [2n, 0x8400_0006, 0n, '2 0 0 0'],
  [2n, 0x8400_0012, 0n, REFUSED],
  [0x10000n, 0x8400_0000, 0n, '10000 0 0 0'],
  [0x10000n, 0x8400_000a, 0x8400_0001n, '0 0 0 0'],
  [0x10000n, 0x8400_000a, 0x8000_0000n, '0 0 0 0'],
  [0x10000n, 0x8400_000a, 0x8000_0001n, REFUSED],
  [0x10000n, 0x8400_000a, 0x8400_0012n, REFUSED],
  [0x10000n, 0x8400_000a, 0x8400_0005n, REFUSED],
  [0x10000n, 0x8400_000e, 0n, REFUSED],
  [0x10001n, 0x8400_000a, 0x8400_0012n, '0 0 0 0'],
  [0x10001n, 0xc400_0012, 1n, '-2 0 0 0'],
  [0x10002n, 0x8400_0015, 0n, REFUSED],
  [0x10003n, 0x8400_000a, 0xc400_0015n, '1 0 0 0'],
  [0x10003n, 0x8400_0015, 2n, '-2 0 0 0'],
]

for (const [version, id, argument, expected] of versions) {
  const name = version === null ? 'PSCI 0.1' : `PSCI ${version.toString(16)}`
  test(`${name}: ${id.toString(16)} of ${argument.toString(16)} is answered ${expected}`, () => {
    const [vcpu] = guestOf(builtInReport('linux-7.2-neoverse-n1'), [
      version === null ? [] : ['psci-0.2'],
    ]).vcpus
    if (version !== null) assert.equal(set(vcpu!, 'PSCI_VERSION', version), 0)
    assert.equal(call(vcpu!, 'hvc', BigInt(id), argument), expected)
  })
}

const stops: [id: number, args: bigint[], expected: string][] = [
  [0x8400_0008, [7n, 8n, 9n], 'shutdown: -6 0 0 0'],
  [0x8400_0009, [7n, 8n, 9n], 'reset: -6 0 0 0'],
  [0x8400_0012, [1n << 32n, 5n, 9n], 'reset flags 1: -6 0 5 9'],
  [0xc400_0012, [0x8000_0000n, 5n, 9n], 'reset flags 1: -6 80000000 5 9'],
  [0x8400_0015, [1n, 0n, 9n], 'shutdown flags 1: -6 0 0 0'],
]

for (const [id, args, expected] of stops) {
  test(`${id.toString(16)} stops every vCPU and ends the run with ${expected}`, () => {
    const { vcpus } = guestOf(builtInReport('linux-7.2-neoverse-n1'), [['psci-0.2'], ['psci-0.2']])
    const [vcpu, other] = vcpus
    assert.equal(call(vcpu!, 'hvc', BigInt(id), ...args), expected)
    assert.deepEqual([vcpu!.getMpState(), other!.getMpState()], [mpStates.stopped, mpStates.stopped])
    assert.equal(call(other!, 'hvc', BigInt(SMCCC_VERSION)), 'EINTR: 80000000 0 0 0')
    other!.setMpState(mpStates.runnable)
    assert.equal(call(other!, 'hvc', BigInt(SMCCC_VERSION)), '10001 0 0 0')
  })
}

test('SYSTEM_OFF2 with a cookie is refused, and stops nothing', () => {
  const [vcpu] = guestOf(builtInReport('linux-7.2-neoverse-n1')).vcpus
  assert.equal(call(vcpu!, 'hvc', 0xc400_0015n, 1n, 1n << 32n), '-2 0 0 0')
  assert.equal(call(vcpu!, 'hvc', 0x8400_0015n, 1n, 1n << 32n), 'shutdown flags 1: -6 0 0 0')
})

function enableSuspend(vm: VmFd): void {
  assert.equal(vm.enableCap(capabilities.KVM_CAP_ARM_SYSTEM_SUSPEND, 0, []), 0)
}

test('SYSTEM_SUSPEND is userspace’s where it asked for it, and leaves the registers', () => {
  const [vcpu] = guestOf(newHost, [['psci-0.2']], enableSuspend).vcpus
  assert.equal(call(vcpu!, 'hvc', 0x8400_000an, 0x8400_000en), '0 0 0 0')
  assert.equal(call(vcpu!, 'hvc', 0xc400_000en, 1n << 32n, 5n), 'suspend: c400000e 100000000 5 0')
  assert.equal(call(vcpu!, 'hvc', 0x8400_000en, 1n << 32n, 5n), 'suspend: 8400000e 0 5 0')
  assert.equal(vcpu!.getMpState(), mpStates.runnable)
})

test('CPU_SUSPEND waits for an interrupt, and has succeeded when the run is interrupted', () => {
  const [vcpu] = guestOf(newHost).vcpus
  assert.equal(call(vcpu!, 'hvc', 0x8400_0001n, 5n), 'EINTR: 0 0 0 0')
  assert.equal(vcpu!.getMpState(), mpStates.runnable)
})

test('CPU_OFF stops its caller alone', () => {
  const { vcpus } = guestOf(newHost, [['psci-0.2'], ['psci-0.2']])
  assert.equal(call(vcpus[0]!, 'hvc', 0x8400_0002n, 5n), 'EINTR: 0 0 0 0')
  assert.deepEqual(
    vcpus.map((vcpu) => vcpu.getMpState()),
    [mpStates.stopped, mpStates.runnable],
  )
})

for (const [host, outcome, wakeup] of [
  [newHost, '0 0 0 0', 'wakeup: c4000001 0 0 0'],
  [oldHost, 'EINTR: 0 0 0 0', 'EINTR: c4000001 0 0 0'],
] as const) {
  test(`a pending SError ends ${host === newHost ? 'a' : 'no'} wait on the ${host.host.release} host`, () => {
    const vcpu = guestOf(host).vcpus[0]!
    const events = new Uint8Array(64)
    events[0] = 1
    assert.equal(vcpu.setVcpuEvents(events), 0)
    assert.equal(call(vcpu, 'hvc', 0xc400_0001n), outcome)
    vcpu.setMpState(mpStates.suspended)
    assert.equal(call(vcpu, 'hvc', 0xc400_0001n), wakeup)
    assert.equal(vcpu.getMpState(), mpStates.suspended)
  })
}

const OFF: VcpuFeature[] = ['psci-0.2', 'power-off']

test('CPU_ON resets its target when it is next looked at', () => {
  const { vcpus } = guestOf(newHost, [['psci-0.2'], OFF])
  const [vcpu, target] = vcpus
  set(target!, 'x5', 5n)
  assert.equal(call(vcpu!, 'hvc', 0xc400_0003n, 1n, 0x1_0000_1000n, 7n), '0 0 0 0')
  assert.equal(target!.getMpState(), mpStates.runnable)
  assert.deepEqual([get(target!, 'pc'), get(target!, 'x0'), get(target!, 'x5')], [0x1_0000_1000n, 7n, 0n])
  assert.equal(call(vcpu!, 'hvc', 0xc400_0003n, 1n), '-4 0 0 0')
  assert.equal(call(target!, 'hvc', BigInt(SMCCC_VERSION)), '10001 0 0 0')
})

for (const [host, meant] of [
  [oldHost, 'first'],
  [newHost, 'last'],
] as const) {
  test(`of two vCPUs with one affinity CPU_ON means the ${meant} on the ${host.host.release} host`, () => {
    const { vcpus } = guestOf(host, [['psci-0.2'], OFF])
    set(vcpus[0]!, 'MPIDR_EL1', get(vcpus[1]!, 'MPIDR_EL1') as bigint)
    assert.equal(call(vcpus[0]!, 'hvc', 0xc400_0003n, 1n), meant === 'last' ? '0 0 0 0' : '-4 0 0 0')
  })
}

test('a vCPU that is refused for its id, too, lets the first of two with one affinity be meant', () => {
  const { vm, vcpus } = guestOf(newHost, [['psci-0.2'], OFF])
  set(vcpus[0]!, 'MPIDR_EL1', get(vcpus[1]!, 'MPIDR_EL1') as bigint)
  call(vcpus[0]!, 'hvc', BigInt(SMCCC_VERSION))
  assert.equal(outcomeName(vm.createVcpu(1)), 'EEXIST')
  assert.equal(call(vcpus[0]!, 'hvc', 0xc400_0003n, 1n), '-4 0 0 0')
})

test('CPU_ON by its SMC32 id cuts the entry to 32 bits', () => {
  const { vcpus } = guestOf(newHost, [['psci-0.2'], OFF])
  assert.equal(call(vcpus[0]!, 'hvc', 0x8400_0003n, (1n << 32n) | 1n, 0x1_0000_1000n, 7n), '0 0 0 0')
  assert.equal(get(vcpus[1]!, 'pc'), 0x1000n)
})

test('an init of the target takes what CPU_ON gave it', () => {
  const { vcpus } = guestOf(newHost, [['psci-0.2'], OFF])
  call(vcpus[0]!, 'hvc', 0x8400_0003n, 1n, 0x1000n, 7n)
  assert.equal(vcpus[1]!.init(5, [4]), 0)
  assert.deepEqual([get(vcpus[1]!, 'pc'), get(vcpus[1]!, 'x0')], [0n, 0n])
})

test('CPU_ON lets a run in flight go on', async () => {
  const { vcpus } = guestOf(newHost, [['psci-0.2'], OFF])
  const flight = vcpus[1]!.run()
  // The stub's store, where x7 is 0: no memory is there.
  assert.equal(call(vcpus[0]!, 'hvc', 0x8400_0003n, 1n, 0x0f00_0004n), '0 0 0 0')
  assert.equal(await flight, 0)
})

test('CPU_ON to code that is not executed is an error of the target’s run, not of the caller’s', async () => {
  const { vcpus } = guestOf(newHost, [['psci-0.2'], OFF])
  const flight = vcpus[1]!.run()
  const rejection = assert.rejects(flight, { code: 'ERR_KVM_SIMULATOR_NO_GUEST_CODE' })
  // Past the stub's code its memory is empty.
  assert.equal(call(vcpus[0]!, 'hvc', 0x8400_0003n, 1n, 0x0f00_0100n), '0 0 0 0')
  await rejection
  assert.equal(call(vcpus[0]!, 'hvc', 0x8400_0004n, 1n), '0 0 0 0')
  assert.equal(vcpus[1]!.setMpState(mpStates.stopped), 0)
  const again = vcpus[1]!.run()
  vcpus[1]!.kick()
  assert.equal(outcomeName(await again), 'EINTR')
})

const affinities: [report: Report, id: bigint, affinity: bigint, level: bigint, expected: string][] = [
  [newHost, 0x8400_0004n, 0n, 0n, '0 0 0 0'],
  [newHost, 0x8400_0004n, 1n, 0n, '1 0 0 0'],
  [newHost, 0x8400_0004n, 1n, 1n, '0 0 0 0'],
  [newHost, 0x8400_0004n, 2n, 0n, '-2 0 0 0'],
  [newHost, 0x8400_0004n, 0n, 3n, '0 0 0 0'],
  [newHost, 0x8400_0004n, 0n, 4n, '-2 0 0 0'],
  [newHost, 0xc400_0004n, 0n, 1n << 32n, '-2 0 0 0'],
  [newHost, 0x8400_0004n, 1n << 31n, 0n, '-2 0 0 0'],
  [oldestHost, 0x8400_0004n, 1n << 31n, 0n, '0 0 0 0'],
  [newHost, 0x8400_0003n, 2n, 0n, '-2 0 0 0'],
  [newHost, 0x8400_0003n, (1n << 31n) | 1n, 0n, '-2 0 0 0'],
  [oldestHost, 0x8400_0003n, 1n << 31n, 0n, '-4 0 0 0'],
]

for (const [report, id, affinity, level, expected] of affinities) {
  test(`${id.toString(16)} of affinity ${affinity.toString(16)}, level ${level}, is ${expected} on the ${report.host.release} host`, () => {
    const [vcpu] = guestOf(report, [['psci-0.2'], OFF]).vcpus
    assert.equal(call(vcpu!, 'hvc', id, affinity, level), expected)
  })
}

test('PSCI 0.1 starts and stops vCPUs with its own ids and codes', () => {
  const { vcpus } = guestOf(newHost, [[], ['power-off']])
  assert.equal(call(vcpus[0]!, 'hvc', 0x95c1_ba60n, 1n, 0x1000n, 7n), '0 0 0 0')
  assert.equal(call(vcpus[0]!, 'hvc', 0x95c1_ba60n, 1n), '-2 0 0 0')
  assert.equal(call(vcpus[1]!, 'hvc', 0x95c1_ba5fn), 'EINTR: 0 0 0 0')
  assert.equal(vcpus[1]!.getMpState(), mpStates.stopped)
})

/** `struct kvm_smccc_filter` for one function. */
function filter(base: number, action: number): Uint8Array {
  const data = new Uint8Array(24)
  new DataView(data.buffer).setUint32(0, base, true)
  data[4] = 1
  data[8] = action
  return data
}

test('the filter comes before the bitmaps, and never shows what they hide', () => {
  const [vcpu] = guestOf(newHost, [['psci-0.2']], (vm) => {
    assert.equal(vm.setDeviceAttr(0, 0n, filter(0x8400_0000, 1)), 0)
    assert.equal(vm.setDeviceAttr(0, 0n, filter(0x8400_0050, 2)), 0)
    assert.equal(vm.setDeviceAttr(0, 0n, filter(0x8400_0052, 0)), 0)
    assert.equal(vm.setDeviceAttr(0, 0n, filter(0x0000_0001, 2)), 0)
  }).vcpus
  set(vcpu!, 'STD_BMAP', 0n)
  assert.equal(call(vcpu!, 'hvc', 0x8400_0000n, 7n), REFUSED)
  assert.equal(call(vcpu!, 'hvc', 0x5_8400_0050n, 7n), 'hvc 84000050: 584000050 7 0 0')
  assert.equal(call(vcpu!, 'smc', 0x8400_0050n, 7n), 'smc 84000050: 84000050 7 0 0')
  assert.equal(call(vcpu!, 'hvc', 0x8400_0052n), REFUSED)
  assert.equal(call(vcpu!, 'smc', 1n), 'smc 1: 1 0 0 0')
})

test('a service the host has not is refused though its bit is set', () => {
  const [vcpu] = guestOf(
    withTraits(newHost, { hypercalls: { ...newHost.traits.hypercalls, services: [] } }),
  ).vcpus
  for (const id of [0x8400_0050, KVM_FEATURES, KVM_PTP, 0x8600_ff01]) {
    assert.equal(call(vcpu!, 'hvc', BigInt(id)), REFUSED)
  }
  assert.equal(call(vcpu!, 'hvc', BigInt(SMCCC_ARCH_FEATURES), BigInt(PV_TIME_FEATURES)), REFUSED)
})

/** `kvm_hvc_call_allowed` and `kvm_hvc_call_default_allowed` of the seed, line by line. */
function seedAllows(functionId: number, stdBitmap: bigint, isPsci01: boolean): boolean {
  const trng = [0x8400_0050, 0x8400_0051, 0x8400_0052, 0x8400_0053, 0xc400_0053]
  if (trng.includes(functionId)) return (stdBitmap & 1n) === 1n
  const always = [0x8000_0000, 0x8000_0001, 0xc500_0020, 0xc500_0021, 0x8600_ff01, 0x8600_0000, 0x8600_0001]
  if (always.includes(functionId)) return true
  if (isPsci01) return functionId === 0x95c1_ba5f || functionId === 0x95c1_ba60
  return ((functionId >>> 24) & 0x3f) === 4 && (functionId & 0xffff) <= 0x1f
}

test('the seed’s host refuses every call that the seed’s gate refuses, PSCI 0.1 rule included', () => {
  const report = builtInReport('seed-v6')
  const atEl2 = new Set<number>([SMCCC_ARCH_WORKAROUND_1, SMCCC_ARCH_WORKAROUND_2, SMCCC_ARCH_WORKAROUND_3])
  const ids = new Set(hypercallFunctions.flatMap(({ id }) => [id - 1, id, id + 1].map((each) => each >>> 0)))
  let refused = 0
  for (const isPsci01 of [false, true]) {
    for (const stdBitmap of [0n, 1n]) {
      const [vcpu] = guestOf(report, [isPsci01 ? [] : ['psci-0.2']]).vcpus as [VcpuFd]
      assert.equal(set(vcpu, 'STD_BMAP', stdBitmap), 0)
      for (const id of ids) {
        if (atEl2.has(id) || seedAllows(id, stdBitmap, isPsci01)) continue
        assert.equal(call(vcpu, 'hvc', BigInt(id)), REFUSED, id.toString(16))
        refused++
      }
    }
  }
  assert.ok(refused > 200)
})

test('the seed’s host answers its always allowed calls whatever STD_BMAP holds', () => {
  const [vcpu] = guestOf(builtInReport('seed-v6')).vcpus
  set(vcpu!, 'STD_BMAP', 0n)
  assert.equal(call(vcpu!, 'hvc', 0x8400_0050n), REFUSED)
  assert.equal(call(vcpu!, 'hvc', BigInt(SMCCC_ARCH_FEATURES), BigInt(PV_TIME_FEATURES)), '0 0 0 0')
  assert.equal(call(vcpu!, 'hvc', BigInt(KVM_FEATURES)), '3 0 0 0')
  assert.equal(call(vcpu!, 'hvc', 0x8600_ff01n), 'b66fb428 e911c52e 564bcaa9 743a004d')
})
