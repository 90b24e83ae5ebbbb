import assert from 'node:assert/strict'
import { test } from 'vitest'
import { encodeRegister, registerName } from '../../lib/registers/index.js'
import type { Report } from '../../lib/report/report.js'
import { newHost, oldestHost, oldHost, start, outcomeName, withTraits, type Outcome } from './fixture.js'

const unfixedWidth = withTraits(oldHost, { firmwareWidthChecked: false })

/** With a table of the host's own registers, MIDR_EL1 and CLIDR_EL1, before that of all others. */
const tabled: Report = { ...oldHost, registers: withFirst(oldHost.registers) }
const tabledWithoutBitmaps: Report = { ...oldestHost, registers: withFirst(oldestHost.registers) }

function withFirst(registers: Report['registers']): Report['registers'] {
  const id = encodeRegister('DBGBVR0_EL1')
  const place = registers.findIndex(({ name }) => name === 'MPIDR_EL1')
  const first = { id: `0x${id.toString(16)}`, name: registerName(id), value: '0x0' }
  return registers.toSpliced(place, 0, first)
}

/** An id's answers: `KVM_GET_ONE_REG`, `KVM_SET_ONE_REG`, and both with an unreadable value. */
type Answers = [get: Outcome, set: Outcome, getAtNull: Outcome, setAtNull: Outcome]

const READ = 'value'
const ids: [what: string, report: Report, id: bigint, answers: Answers][] = [
  ['a listed core register', oldHost, 0x6030000000100000n, [READ, 0, 'EFAULT', 'EFAULT']],
  ['a listed system register', oldHost, encodeRegister('SCTLR_EL1'), [READ, 0, 'EFAULT', 'EFAULT']],
  ['a listed firmware register', oldHost, 0x6030000000140000n, [READ, 'EINVAL', 'EFAULT', 'EFAULT']],

  ['no architecture', oldHost, 0x0030000000100000n, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']],
  ['another architecture', oldHost, 0x8030000000100000n, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']],
  ['bit 32', oldHost, 0x6030000100100000n, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']],
  ['bit 51', oldHost, 0x6038000000100000n, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']],
  ['bit 56', oldHost, 0x6130000000100000n, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']],

  ['core, half of x0', oldHost, 0x6020000000100000n, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']],
  ['core, second half of x0', oldHost, 0x6030000000100001n, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']],
  ['core, twice x0', oldHost, 0x6040000000100000n, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']],
  ['core, a byte of x0', oldHost, 0x6000000000100000n, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']],
  ['core, last word', oldHost, 0x60200000001000d6n, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']],
  ['core, over the end', oldHost, 0x60300000001000d6n, ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],
  ['core, behind the end', oldHost, 0x60200000001000d8n, ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],
  ['core, with bit 28', oldHost, 0x6030000010100000n, ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],

  ['demux, another cache', oldHost, 0x602000000011000dn, ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],
  ['demux, 64 bits', oldHost, 0x6030000000110000n, ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],

  ['an unknown system register', oldHost, 0x603000000013ffffn, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],
  ['a 32-bit system register', oldHost, 0x602000000013c080n, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],
  ['an unknown system register', oldestHost, 0x603000000013ffffn, ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],

  ['an unknown space', oldHost, 0x6030000000000000n, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],
  ['an unknown space', oldHost, 0x603000000fff0000n, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],
  ['an unknown space', oldestHost, 0x6030000000120000n, ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],

  ['MIDR_EL1 in an unknown space', tabled, 0x603000000017c000n, [READ, 'EINVAL', 'EFAULT', 'EFAULT']],
  ['CLIDR_EL1 in another', tabled, 0x603000000000c801n, [READ, 'EINVAL', 'EFAULT', 'EFAULT']],
  ['MPIDR_EL1 in an unknown space', tabled, 0x603000000017c005n, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],
  ['MIDR_EL1 in no table', oldHost, 0x603000000017c000n, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],
  ['32 bits of it', tabled, 0x602000000017c000n, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],
  ['it with bit 28', tabled, 0x603000001017c000n, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],
  ['it of no architecture', tabled, 0x003000000017c000n, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']],
  ['its index among bitmaps', tabled, 0x603000000016c000n, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],
  [
    'and where there are none',
    tabledWithoutBitmaps,
    0x603000000016c000n,
    [READ, 'EINVAL', 'EFAULT', 'EFAULT'],
  ],
  ['its index in a known space', tabled, 0x603000000014c000n, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],

  ['firmware, unknown index', oldHost, 0x6030000000140004n, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],
  ['firmware, 32 bits', oldHost, 0x6020000000140000n, ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],
  ['firmware, bit 28', oldHost, 0x6030000010140000n, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],
  [
    'firmware, 32 bits, unchecked',
    unfixedWidth,
    0x6020000000140000n,
    ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT'],
  ],
  ['bitmap, unknown index', oldHost, 0x6030000000160003n, ['ENOENT', 'ENOENT', 'ENOENT', 'EFAULT']],
  ['bitmap, 128 bits', oldHost, 0x6040000000160000n, ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],
  ['bitmap where there is none', oldestHost, 0x6030000000160000n, ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],

  [
    'vector lengths without SVE',
    oldHost,
    encodeRegister('SVE_VLS'),
    ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT'],
  ],
  ['z0 without SVE', oldHost, encodeRegister('z0'), ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],
  ['z1, slice 3', oldHost, encodeRegister('z1[3]'), ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],
  ['z31, slice 1', oldHost, encodeRegister('z31[1]'), ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],
  ['p15, slice 1', oldHost, encodeRegister('p15[1]'), ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],
  ['ffr, slice 1', oldHost, encodeRegister('ffr[1]'), ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']],
  ['SVE, unknown', oldHost, 0x6030000000150000n, ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']],
]
for (const [what, report, id, answers] of ids) {
  test(`${what} (0x${id.toString(16)}) on the ${report.host.release} host: ${answers.join(', ')}`, () => {
    const { vcpu } = start(report)
    const found = vcpu.getOneReg(id)
    assert.deepEqual(
      [
        typeof found === 'bigint' ? READ : outcomeName(found),
        outcomeName(vcpu.setOneReg(id, 0n)),
        outcomeName(vcpu.getOneRegAtNull(id)),
        outcomeName(vcpu.setOneRegAtNull(id)),
      ],
      answers,
    )
  })
}

test('a register of the host takes its value in an unknown space too', () => {
  const { vcpu } = start(tabled)
  const value = vcpu.getOneReg(encodeRegister('MIDR_EL1'))
  assert.equal(vcpu.getOneReg(0x603000000017c000n), value)
  assert.equal(outcomeName(vcpu.setOneReg(0x603000000017c000n, value as bigint)), 0)
})

test('before SVE is final its registers are EPERM before the value is looked at, after it the lengths are', () => {
  const { vcpu } = start(newHost, ['psci-0.2', 'sve'])
  const [z0, lengths] = [encodeRegister('z0'), encodeRegister('SVE_VLS')]
  assert.equal(outcomeName(vcpu.getOneRegAtNull(z0)), 'EPERM')
  assert.equal(outcomeName(vcpu.setOneRegAtNull(z0)), 'EPERM')
  assert.equal(outcomeName(vcpu.setOneRegAtNull(lengths)), 'EFAULT')
  vcpu.finalize(4)
  assert.equal(outcomeName(vcpu.getOneRegAtNull(z0)), 'EFAULT')
  assert.equal(outcomeName(vcpu.setOneRegAtNull(z0)), 'EFAULT')
  assert.equal(outcomeName(vcpu.setOneRegAtNull(lengths)), 'EPERM')
})

test('with SVE the vector registers of the core space are EINVAL', () => {
  const { vcpu } = start(newHost, ['psci-0.2', 'sve'])
  assert.equal(outcomeName(vcpu.getOneReg(encodeRegister('v0'))), 'EINVAL')
})
