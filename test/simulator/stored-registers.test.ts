import assert from 'node:assert/strict'
import { test } from 'vitest'
import { encodeRegister } from '../../lib/registers/index.js'
import type { Report } from '../../lib/report/report.js'
import type { VcpuFeature } from '../../lib/uapi.js'
import {
  get,
  newHost,
  oldestHost,
  oldHost,
  set,
  start,
  outcomeName,
  withTraits,
  type Outcome,
} from './fixture.js'

test('a register keeps what its rule lets it keep', () => {
  const { vcpu } = start(oldHost)
  const writes: [register: string, value: bigint, outcome: Outcome, after: bigint][] = [
    ['SCTLR_EL1', 0xffff_ffff_ffff_ffffn, 0, 0xffff_ffff_ffff_ffffn],
    ['PAR_EL1', 0x1234n, 0, 0x34n],
    ['CCSIDR_EL1[0]', 0x701fe01an, 0, 0x701fe01an],
    ['CCSIDR_EL1[0]', 0x701fe018n, 0, 0x701fe018n],
    ['CCSIDR_EL1[0]', 0x701fe019n, 'EINVAL', 0x701fe018n],
    ['MIDR_EL1', 0n, 'EINVAL', 0x410fd0c1n],
    ['x30', 5n, 0, 5n],
    ['v1', 1n << 127n, 0, 1n << 127n],
    ['fpcr', 0xffff_ffffn, 0, 0xffff_ffffn],
  ]
  for (const [register, value, outcome, after] of writes) {
    assert.equal(set(vcpu, register, value), outcome, register)
    assert.equal(get(vcpu, register), after, register)
  }
})

test('a timer tells whether it has fired where the kernel does', () => {
  const { vcpu } = start(oldHost)
  assert.equal(get(vcpu, 'TIMER_CTL'), 4n)
  set(vcpu, 'TIMER_CVAL', 1n << 62n)
  assert.equal(get(vcpu, 'TIMER_CTL'), 0n)
  assert.equal(set(vcpu, 'TIMER_CTL', 7n), 0)
  assert.equal(get(vcpu, 'TIMER_CTL'), 3n)
  set(vcpu, 'TIMER_CNT', 1n << 62n)
  assert.equal(get(vcpu, 'TIMER_CTL'), 7n)
})

test('a pair of PMU registers shows one bitmap, which one sets and the other clears', () => {
  const { vcpu } = start(oldHost)
  set(vcpu, 'PMINTENSET_EL1', 0x10fn)
  set(vcpu, 'PMINTENCLR_EL1', 0x3n)
  assert.equal(get(vcpu, 'PMINTENSET_EL1'), 0xcn)
  assert.equal(get(vcpu, 'PMINTENCLR_EL1'), 0xcn)
})

test('a pair without that rule is one register under two ids', () => {
  const { vcpu } = start(oldHost)
  set(vcpu, 'PMCNTENCLR_EL0', 0x5n)
  assert.equal(get(vcpu, 'PMCNTENSET_EL0'), 0x5n)
})

test('a value that cannot be read zeroes a plain system register where the kernel copies it in place', () => {
  for (const [report, after] of [
    [oldHost, 7n],
    [oldestHost, 0n],
  ] as const) {
    const { vcpu } = start(report)
    for (const name of ['TPIDR_EL0', 'TIMER_CVAL', 'x0', 'PAR_EL1']) {
      set(vcpu, name, 7n)
      assert.equal(outcomeName(vcpu.setOneRegAtNull(encodeRegister(name))), 'EFAULT')
    }
    assert.equal(get(vcpu, 'TPIDR_EL0'), after)
    assert.equal(get(vcpu, 'TIMER_CVAL'), 7n)
    assert.equal(get(vcpu, 'x0'), 7n)
    assert.equal(get(vcpu, 'PAR_EL1'), 7n)
  }
})

const onlyAArch64: Report = {
  ...oldHost,
  registers: oldHost.registers.map((register) =>
    register.name === 'ID_AA64PFR0_EL1' ? { ...register, value: '0x11' } : register,
  ),
}
const withEl2: Report = {
  ...withTraits(oldHost, { init: { knownFeatures: 9, supported: ['psci-0.2', 'has-el2'] } }),
  configurations: [{ features: ['has-el2'], removed: [], added: [], changed: [] }],
}
const modes: [what: string, report: Report, features: VcpuFeature[], accepted: number[]][] = [
  ['64-bit', oldHost, [], [0x0, 0x4, 0x5, 0x10]],
  ['64-bit without AArch32', onlyAArch64, [], [0x0, 0x4, 0x5]],
  ['32-bit', oldHost, ['el1-32bit'], [0x10, 0x11, 0x12, 0x13, 0x17, 0x1b, 0x1f]],
  ['64-bit with EL2', withEl2, ['has-el2'], [0x0, 0x4, 0x5, 0x8, 0x9, 0x10]],
]
for (const [what, report, features, accepted] of modes) {
  test(`PSTATE of a ${what} vCPU takes the modes it can be in`, () => {
    const { vcpu } = start(report, ['psci-0.2', ...features])
    const found = Array.from({ length: 32 }, (_, mode) => mode).filter(
      (mode) => set(vcpu, 'pstate', BigInt(mode) | 0xf000_0000n) === 0,
    )
    assert.deepEqual(found, accepted)
  })
}

test('a refused mode leaves PSTATE as it was', () => {
  const { vcpu } = start(oldHost)
  assert.equal(set(vcpu, 'pstate', 0x13n), 'EINVAL')
  assert.equal(get(vcpu, 'pstate'), 0x3c5n)
})

const narrowed: [mode: bigint, features: VcpuFeature[], wide: string[], narrow: string[]][] = [
  [0x10n, [], ['x15', 'sp'], ['x0', 'x14', 'pc']],
  [0x1fn, ['el1-32bit'], ['x15', 'sp'], ['x0', 'x14', 'pc']],
  [0x13n, ['el1-32bit'], ['sp'], ['x0', 'x14', 'x15', 'x30', 'pc']],
]
for (const [mode, features, wide, narrow] of narrowed) {
  test(`PSTATE of AArch32 mode 0x${mode.toString(16)} cuts ${narrow.join(', ')} to 32 bits`, () => {
    const { vcpu } = start(oldHost, ['psci-0.2', ...features])
    if (features.length > 0) assert.equal(set(vcpu, 'pstate', 0x1fn), 0)
    else for (const name of [...wide, ...narrow]) set(vcpu, name, 0xaaaa_bbbb_ccccn)
    assert.equal(set(vcpu, 'pstate', mode), 0)
    for (const name of [...wide, ...narrow]) set(vcpu, name, 0xaaaa_bbbb_ccccn)
    for (const name of wide) assert.equal(get(vcpu, name), 0xaaaa_bbbb_ccccn, name)
    for (const name of narrow) assert.equal(get(vcpu, name), 0xbbbb_ccccn, name)
  })
}

const visible: [mode: bigint, registers: number[]][] = [
  [0x10n, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]],
  [0x11n, [0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30]],
  [0x12n, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 17]],
  [0x13n, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 18, 19]],
  [0x17n, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20, 21]],
  [0x1bn, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22, 23]],
]
for (const [mode, registers] of visible) {
  test(`a kernel that narrows what AArch32 mode 0x${mode.toString(16)} sees leaves the other registers`, () => {
    const { vcpu } = start(withTraits(oldHost, { narrowedRegisters: 'visible' }), ['psci-0.2', 'el1-32bit'])
    set(vcpu, 'pstate', mode)
    const found = Array.from({ length: 31 }, (_, n) => n).filter((n) => {
      set(vcpu, `x${n}`, 1n << 32n)
      return get(vcpu, `x${n}`) === 0n
    })
    assert.deepEqual(found, registers)
  })
}

test('a kernel that compares all of PSTATE narrows every register in User mode with flags', () => {
  const { vcpu } = start(withTraits(oldHost, { narrowedRegisters: 'by-flags' }))
  for (const [pstate, outcome] of [
    [0x10n, 1n << 32n],
    [0x6000_0010n, 0n],
  ] as const) {
    set(vcpu, 'pstate', 0x5n)
    set(vcpu, 'x20', 1n << 32n)
    assert.equal(set(vcpu, 'pstate', pstate), 0)
    assert.equal(get(vcpu, 'x20'), outcome)
  }
})

function lacking(...names: string[]): Report {
  return { ...oldHost, registers: oldHost.registers.filter(({ name }) => !names.includes(name)) }
}

test('a list without PSTATE or general registers narrows nothing', () => {
  const { vcpu: stateless } = start(lacking('pstate'))
  assert.equal(set(stateless, 'x0', 1n << 40n), 0)
  assert.equal(get(stateless, 'x0'), 1n << 40n)
  const { vcpu: small } = start(lacking('x1'))
  assert.equal(set(small, 'pstate', 0x10n), 0)
})

test('a counter runs on from what is written to it, on every vCPU of the VM', () => {
  const { vcpu } = start(oldHost)
  const first = get(vcpu, 'TIMER_CNT') as bigint
  assert.ok((get(vcpu, 'TIMER_CNT') as bigint) >= first)
  assert.equal(set(vcpu, 'TIMER_CNT', 1n << 60n), 0)
  const later = get(vcpu, 'TIMER_CNT') as bigint
  assert.ok(later >= 1n << 60n && later < (1n << 60n) + 60_000_000_000n)
  assert.ok((get(start(oldHost).vcpu, 'TIMER_CNT') as bigint) < 1n << 60n)
})

const vectorLengths: [value: bigint, outcome: Outcome][] = [
  [0b1011n, 0],
  [0b0011n, 0],
  [0b0001n, 0],
  [0b0000n, 'EINVAL'],
  [0b1111n, 'EINVAL'],
  [0b1001n, 'EINVAL'],
  [0b0111n, 'EINVAL'],
  [0b11011n, 'EINVAL'],
  [1n << 511n, 'EINVAL'],
]
for (const [value, outcome] of vectorLengths) {
  test(`vector lengths 0b${value.toString(2).slice(0, 8)} of a host with 0b1011: ${outcome}`, () => {
    const { vcpu } = start(newHost, ['psci-0.2', 'sve'])
    assert.equal(set(vcpu, 'SVE_VLS', value), outcome)
    assert.equal(get(vcpu, 'SVE_VLS'), outcome === 0 ? value : 0b1011n)
  })
}

test('vector registers are there once the lengths are final, and the lengths stay', () => {
  const { vcpu } = start(newHost, ['psci-0.2', 'sve'])
  for (const name of ['z0', 'p0', 'ffr']) {
    assert.equal(get(vcpu, name), 'EPERM')
    assert.equal(set(vcpu, name, 1n), 'EPERM')
  }
  assert.equal(get(vcpu, 'STD_BMAP'), 1n)
  assert.equal(set(vcpu, 'STD_BMAP', 0n), 0)
  vcpu.finalize(4)
  assert.equal(set(vcpu, 'SVE_VLS', 0b1011n), 'EPERM')
  assert.equal(set(vcpu, 'z0', 1n), 0)
  assert.equal(get(vcpu, 'z0'), 1n)
})

test('a vector register keeps as many bits as the longest vector of the vCPU', () => {
  const { vcpu } = start(newHost, ['psci-0.2', 'sve'])
  set(vcpu, 'SVE_VLS', 0b0011n)
  vcpu.finalize(4)
  set(vcpu, 'z31', (1n << 2048n) - 1n)
  set(vcpu, 'p0', (1n << 256n) - 1n)
  assert.equal(get(vcpu, 'z31'), (1n << 256n) - 1n)
  assert.equal(get(vcpu, 'p0'), (1n << 32n) - 1n)
})

test('another init clears vectors, and keeps lengths only once they are final', () => {
  const { vcpu } = start(newHost, ['psci-0.2', 'sve'])
  set(vcpu, 'SVE_VLS', 0b0011n)
  assert.equal(outcomeName(vcpu.init(5, [0x14])), 0)
  assert.equal(get(vcpu, 'SVE_VLS'), 0b1011n)
  set(vcpu, 'SVE_VLS', 0b0011n)
  vcpu.finalize(4)
  set(vcpu, 'z0', 1n)
  vcpu.init(5, [0x14])
  assert.equal(get(vcpu, 'SVE_VLS'), 0b0011n)
  assert.equal(get(vcpu, 'z0'), 0n)
})
