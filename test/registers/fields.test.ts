import assert from 'node:assert/strict'
import { test } from 'vitest'
import * as fc from 'fast-check'
import {
  decodeFields,
  encodeRegister,
  type Field,
  fieldValue,
  registerFields,
  registerName,
  systemRegisterId,
} from '../../lib/registers/index.js'

function fieldOf(register: string, name: string): Field {
  const field = registerFields(encodeRegister(register)).find((candidate) => candidate.name === name)
  assert.ok(field, `${register}.${name}`)
  return field
}

/** The ID space: op0 3, op1 0, CRn 0, CRm 1 to 7. */
const idSpace = Array.from({ length: 56 }, (_, n) =>
  systemRegisterId({ op0: 3, op1: 0, crn: 0, crm: 1 + (n >> 3), op2: n & 7 }),
)

/** Implementation defined, or without a field so far. */
const WITHOUT_FIELDS = new Set(['ID_AA64AFR1_EL1'])

test('every named ID register has fields, which lie within 64 bits and do not overlap', () => {
  const others = ['MIDR_EL1', 'MPIDR_EL1', 'CTR_EL0', 'DCZID_EL0', 'CLIDR_EL1', 'CCSIDR_EL1', 'CCSIDR_EL1[0]']
  const pseudo = ['PSCI_VERSION', ...[1, 2, 3].map((n) => `SMCCC_ARCH_WORKAROUND_${n}`)]
  for (const id of [...idSpace, ...[...others, ...pseudo].map(encodeRegister)]) {
    const name = registerName(id)
    const fields = registerFields(id)
    if (name.startsWith('S3_') || WITHOUT_FIELDS.has(name)) {
      assert.deepEqual(fields, [], name)
      continue
    }
    assert.ok(fields.length > 0, name)
    let above = 64
    for (const { name: field, lsb, width, meanings, signed } of fields) {
      assert.match(field, /^[A-Za-z][A-Za-z0-9_]*$/)
      assert.ok(width >= 1 && lsb >= 0 && lsb + width <= above, `${name}.${field}`)
      above = lsb
      for (const value of meanings.keys()) {
        const wrapped = signed ? BigInt.asIntN(width, value) : BigInt.asUintN(width, value)
        assert.equal(wrapped, value, `${name}.${field} cannot hold ${value}`)
      }
    }
  }
})

test('fields lie where the architecture puts them', () => {
  for (const [register, name, lsb, width] of [
    ['ID_AA64PFR0_EL1', 'CSV3', 60, 4],
    ['ID_AA64PFR1_EL1', 'SSBS', 4, 4],
    ['ID_AA64PFR2_EL1', 'FPMR', 32, 4],
    ['ID_AA64SMFR0_EL1', 'FA64', 63, 1],
    ['ID_AA64FPFR0_EL1', 'F8CVT', 31, 1],
    ['ID_AA64DFR0_EL1', 'PMUVer', 8, 4],
    ['ID_AA64DFR1_EL1', 'ABL_CMPs', 56, 8],
    ['ID_AA64ISAR0_EL1', 'RNDR', 60, 4],
    ['ID_AA64ISAR2_EL1', 'WFxT', 0, 4],
    ['ID_AA64MMFR0_EL1', 'TGRAN4', 28, 4],
    ['ID_AA64MMFR2_EL1', 'CCIDX', 20, 4],
    ['ID_AA64MMFR4_EL1', 'E2H0', 24, 4],
    ['ID_DFR0_EL1', 'PerfMon', 24, 4],
    ['MVFR0_EL1', 'SIMDReg', 0, 4],
    ['CTR_EL0', 'L1Ip', 14, 2],
    ['CLIDR_EL1', 'LoC', 24, 3],
    ['CCSIDR_EL1[4]', 'NumSets', 13, 15],
    ['MIDR_EL1', 'PartNum', 4, 12],
    ['MPIDR_EL1', 'Aff3', 32, 8],
    ['PSCI_VERSION', 'Major', 16, 16],
    ['SMCCC_ARCH_WORKAROUND_2', 'Enabled', 4, 1],
  ] as const) {
    const field = fieldOf(register, name)
    assert.deepEqual([field.lsb, field.width], [lsb, width], `${register}.${name}`)
  }
})

test('exactly the fields whose all-ones value means less than 0 are signed', () => {
  const signed = idSpace.flatMap((id) =>
    registerFields(id)
      .filter((field) => field.signed)
      .map((field) => `${registerName(id)}.${field.name}`),
  )
  assert.deepEqual(signed, [
    'ID_MMFR0_EL1.InnerShr',
    'ID_MMFR0_EL1.OuterShr',
    'ID_MMFR3_EL1.Supersec',
    'ID_DFR1_EL1.MTPMU',
    'ID_AA64PFR0_EL1.AdvSIMD',
    'ID_AA64PFR0_EL1.FP',
    'ID_AA64PFR1_EL1.MTE_frac',
    'ID_AA64DFR0_EL1.MTPMU',
    'ID_AA64DFR0_EL1.DoubleLock',
    'ID_AA64MMFR0_EL1.TGRAN4',
    'ID_AA64MMFR0_EL1.TGRAN64',
    'ID_AA64MMFR4_EL1.E2H0',
  ])
})

test('a lower value is the safe one but where the kernel says otherwise', () => {
  for (const [register, name, safe] of [
    ['ID_AA64ISAR0_EL1', 'AES', 'lower'],
    ['ID_AA64DFR0_EL1', 'PMUVer', 'lower'],
    ['ID_AA64MMFR1_EL1', 'SpecSEI', 'higher'],
    ['CTR_EL0', 'CWG', 'higher-or-zero'],
    ['CTR_EL0', 'L1Ip', { only: 2n }],
    ['ID_AA64MMFR0_EL1', 'TGRAN4_2', { only: 1n }],
    ['ID_AA64FPFR0_EL1', 'F8E4M3', { only: 0n }],
    ['MIDR_EL1', 'PartNum', undefined],
  ] as const) {
    assert.deepEqual(fieldOf(register, name).safe, safe, `${register}.${name}`)
  }
})

test('a value splits into its fields with what they mean', () => {
  // Neoverse N1 under KVM, as in the kernel's register lists of a Graviton 2.
  const n1 = decodeFields(encodeRegister('ID_AA64PFR0_EL1'), 0x1100000011111112n)
  const told = new Map(n1.map(({ field, value, meaning }) => [field.name, { value, meaning }]))
  assert.deepEqual(told.get('EL0'), { value: 2n, meaning: 'AArch64 and AArch32' })
  assert.deepEqual(told.get('AdvSIMD'), { value: 1n, meaning: 'with half precision' })
  assert.deepEqual(told.get('SVE'), { value: 0n, meaning: 'no' })

  const without = decodeFields(encodeRegister('ID_AA64PFR0_EL1'), 0xff0000n)
  assert.deepEqual(
    without
      .filter(({ value }) => value < 0n)
      .map(({ field, value, meaning }) => [field.name, value, meaning]),
    [
      ['AdvSIMD', -1n, 'no'],
      ['FP', -1n, 'no'],
    ],
  )
})

test('the fields of a value put together are the value, but for bits that are no field', () => {
  const id = fc.constantFrom(...idSpace)
  fc.assert(
    fc.property(id, fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (register, value) => {
      let mask = 0n
      let sum = 0n
      for (const { field, value: content } of decodeFields(register, value)) {
        assert.equal(fieldValue(field, value), content)
        mask |= ((1n << BigInt(field.width)) - 1n) << BigInt(field.lsb)
        sum |= BigInt.asUintN(field.width, content) << BigInt(field.lsb)
      }
      assert.equal(sum, value & mask)
    }),
  )
})

test('a register without described fields has none', () => {
  for (const name of ['x0', 'SCTLR_EL1', 'KVM_REG_ARM_STD_BMAP', 'S3_0_C0_C4_3', '0x1']) {
    assert.deepEqual(registerFields(encodeRegister(name)), [], name)
  }
})
