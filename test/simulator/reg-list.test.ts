import assert from 'node:assert/strict'
import { test } from 'vitest'
import { registerName } from '../../lib/registers/index.js'
import { get, listOf, newHost, oldHost, start, outcomeName, vcpuOf, vmOf, type Outcome } from './fixture.js'

const idsOf = (report: typeof oldHost): bigint[] => report.registers.map(({ id }) => BigInt(id))

test('the list is the recorded one, in its order', () => {
  assert.deepEqual(listOf(start(oldHost).vcpu), idsOf(oldHost))
})

test('a vCPU without psci-0.2 has the same list, and PSCI 0.1', () => {
  const { vcpu } = start(oldHost, [])
  assert.deepEqual(listOf(vcpu), idsOf(oldHost))
  assert.equal(get(vcpu, 'PSCI_VERSION'), 1n)
})

test('every listed register reads as recorded', () => {
  for (const report of [oldHost, newHost]) {
    const { vcpu } = start(report)
    for (const { id, name, value } of report.registers) {
      const found = vcpu.getOneReg(BigInt(id))
      if (value === null) assert.equal(typeof found, 'bigint', name)
      else assert.equal(found, BigInt(value), name)
    }
  }
})

test('a feature adds its registers at their places and removes others', () => {
  const { vcpu } = start(newHost, ['psci-0.2', 'sve'])
  vcpu.finalize(4)
  const names = listOf(vcpu).map(registerName)
  assert.deepEqual(names.slice(34, 44), [
    'sp_el1',
    'fpsr',
    'fpcr',
    'KVM_REG_ARM64_SVE_VLS',
    'z0',
    'z31',
    'p0',
    'ffr',
    'KVM_REG_ARM_PSCI_VERSION',
    'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1',
  ])
  assert.equal(names[58], 'ZCR_EL1')
  assert.equal(names.includes('v0'), false)
  assert.equal(get(vcpu, 'ID_AA64PFR0_EL1'), 0x0100_0001_0100_0012n)
})

test('vCPUs of one VM with different features have different lists', () => {
  const vm = vmOf(oldHost)
  const [plain, withPmu] = [vcpuOf(vm, 0), vcpuOf(vm, 1, ['psci-0.2', 'pmu-v3'])]
  assert.equal(listOf(withPmu).length, listOf(plain).length + 2)
  assert.equal(get(withPmu, 'PMCR_EL0'), 0x41033000n)
  assert.equal(get(plain, 'PMCR_EL0'), 'ENOENT')
})

const rooms: [what: string, room: (count: bigint) => bigint, outcome: Outcome][] = [
  ['no room', () => 0n, 'E2BIG'],
  ['one too few', (count) => count - 1n, 'E2BIG'],
  ['just enough', (count) => count, 0],
  ['plenty', (count) => count + 5n, 0],
  ['2³², of which the kernel sees 0', () => 1n << 32n, 'E2BIG'],
  ['2³² and just enough', (count) => (1n << 32n) + count, 0],
]
for (const [what, room, outcome] of rooms) {
  test(`KVM_GET_REG_LIST with room for ${what}: ${outcome}, and n is the count`, () => {
    const count = BigInt(oldHost.registers.length)
    const list = new BigUint64Array(Number(count) + 6)
    list[0] = room(count)
    assert.equal(outcomeName(start(oldHost).vcpu.getRegList(list)), outcome)
    assert.equal(list[0], count)
    assert.equal(list[1], outcome === 0 ? BigInt(oldHost.registers[0]!.id) : 0n)
  })
}

test('KVM_GET_REG_LIST is EPERM until SVE is final', () => {
  const { vcpu } = start(newHost, ['psci-0.2', 'sve'])
  assert.equal(outcomeName(vcpu.getRegList(new BigUint64Array(1))), 'EPERM')
  vcpu.finalize(4)
  assert.equal(outcomeName(vcpu.getRegList(new BigUint64Array(1))), 'E2BIG')
})

test('a batch reads and writes every register it can and counts the others', () => {
  const { vcpu } = start(oldHost)
  const ids = BigUint64Array.of(
    0x6030000000100000n,
    0x6030000000000000n,
    0x6040000000100054n,
    0x60200000001000d4n,
  )
  const errnos = new Int32Array(4)
  const values = BigUint64Array.of(7n, 8n, 9n, 10n)
  assert.equal(vcpu.setRegs(ids, values, errnos), 2)
  assert.deepEqual([...errnos].map(outcomeName), [0, 'ENOENT', 'EINVAL', 0])
  values.fill(1n)
  assert.equal(vcpu.getRegs(ids, values, errnos), 2)
  assert.deepEqual([...errnos].map(outcomeName), [0, 'ENOENT', 'EINVAL', 0])
  assert.deepEqual([...values], [7n, 0n, 0n, 10n])
})

test('a batch with a value too wide for its register writes nothing', () => {
  const { vcpu } = start(oldHost)
  const ids = BigUint64Array.of(0x6030000000100000n, 0x60200000001000d4n)
  assert.throws(() => vcpu.setRegs(ids, BigUint64Array.of(7n, 1n << 32n), new Int32Array(2)), RangeError)
  assert.equal(get(vcpu, 'x0'), 0n)
})
