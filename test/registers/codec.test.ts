import assert from 'node:assert/strict'
import { fc, test } from '@fast-check/vitest'
import {
  decodeRegister,
  encodeRegister,
  idFromParts,
  idParts,
  registerName,
  registerWidth,
  systemRegisterId,
} from '../../lib/registers/index.js'

const anyId = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn })
/** Ids that look like KVM's: right architecture, some size, some space, some index. */
const likelyId = fc
  .tuple(
    fc.integer({ min: 0, max: 9 }),
    fc.integer({ min: 0xf, max: 0x18 }),
    fc.integer({ min: 0, max: 0xffff }),
  )
  .map(([size, coproc, index]) => idFromParts({ arch: 6, size, coproc, index, stray: 0n }))
const ids = fc.oneof(anyId, likelyId, { weight: 3, arbitrary: likelyId })

const golden: [id: bigint, name: string, space: string, width: number][] = [
  [0x6030000000100000n, 'x0', 'core', 64],
  [0x603000000010003cn, 'x30', 'core', 64],
  [0x603000000010003en, 'sp', 'core', 64],
  [0x6030000000100040n, 'pc', 'core', 64],
  [0x6030000000100042n, 'pstate', 'core', 64],
  [0x6030000000100044n, 'sp_el1', 'core', 64],
  [0x6030000000100046n, 'elr_el1', 'core', 64],
  [0x6030000000100048n, 'spsr_el1', 'core', 64],
  [0x603000000010004an, 'spsr_abt', 'core', 64],
  [0x603000000010004cn, 'spsr_und', 'core', 64],
  [0x603000000010004en, 'spsr_irq', 'core', 64],
  [0x6030000000100050n, 'spsr_fiq', 'core', 64],
  [0x6040000000100054n, 'v0', 'core', 128],
  [0x60400000001000d0n, 'v31', 'core', 128],
  [0x60200000001000d4n, 'fpsr', 'core', 32],
  [0x60200000001000d5n, 'fpcr', 'core', 32],
  [0x6020000000110000n, 'CCSIDR_EL1[0]', 'demux', 32],
  [0x602000000011000dn, 'CCSIDR_EL1[13]', 'demux', 32],
  [0x6030000000138004n, 'DBGBVR0_EL1', 'sysreg', 64],
  [0x6030000000138012n, 'MDSCR_EL1', 'sysreg', 64],
  [0x603000000013808cn, 'OSLSR_EL1', 'sysreg', 64],
  [0x603000000013c000n, 'MIDR_EL1', 'sysreg', 64],
  [0x603000000013c005n, 'MPIDR_EL1', 'sysreg', 64],
  [0x603000000013c006n, 'REVIDR_EL1', 'sysreg', 64],
  [0x603000000013c020n, 'ID_AA64PFR0_EL1', 'sysreg', 64],
  [0x603000000013c021n, 'ID_AA64PFR1_EL1', 'sysreg', 64],
  [0x603000000013c024n, 'ID_AA64ZFR0_EL1', 'sysreg', 64],
  [0x603000000013c030n, 'ID_AA64ISAR0_EL1', 'sysreg', 64],
  [0x603000000013c103n, 'TCR2_EL1', 'sysreg', 64],
  [0x603000000013c512n, 'PIRE0_EL1', 'sysreg', 64],
  [0x603000000013c513n, 'PIR_EL1', 'sysreg', 64],
  [0x603000000013d801n, 'CTR_EL0', 'sysreg', 64],
  [0x603000000013d807n, 'DCZID_EL0', 'sysreg', 64],
  [0x603000000013df40n, 'PMEVCNTR0_EL0', 'sysreg', 64],
  [0x603000000013df7en, 'PMEVTYPER30_EL0', 'sysreg', 64],
  [0x603000000013df7fn, 'PMCCFILTR_EL0', 'sysreg', 64],
  [0x603000000013e180n, 'DACR32_EL2', 'sysreg', 64],
  [0x603000000013c023n, 'S3_0_C0_C4_3', 'sysreg', 64],
  [0x6030000000140000n, 'KVM_REG_ARM_PSCI_VERSION', 'firmware', 64],
  [0x6030000000140001n, 'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1', 'firmware', 64],
  [0x6030000000140002n, 'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2', 'firmware', 64],
  [0x6030000000140003n, 'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3', 'firmware', 64],
  [0x6030000000140004n, 'KVM_REG_ARM_FW_REG(4)', 'firmware', 64],
  [0x6030000000160000n, 'KVM_REG_ARM_STD_BMAP', 'bitmap', 64],
  [0x6030000000160001n, 'KVM_REG_ARM_STD_HYP_BMAP', 'bitmap', 64],
  [0x6030000000160002n, 'KVM_REG_ARM_VENDOR_HYP_BMAP', 'bitmap', 64],
  [0x6030000000160003n, 'KVM_REG_ARM_VENDOR_HYP_BMAP_2', 'bitmap', 64],
  [0x6030000000160007n, 'KVM_REG_ARM_FW_FEAT_BMAP_REG(7)', 'bitmap', 64],
  [0x6080000000150000n, 'z0', 'sve', 2048],
  [0x60800000001503ffn, 'z31[31]', 'sve', 2048],
  [0x6050000000150400n, 'p0', 'sve', 256],
  [0x60500000001505e0n, 'p15', 'sve', 256],
  [0x6050000000150600n, 'ffr', 'sve', 256],
  [0x606000000015ffffn, 'KVM_REG_ARM64_SVE_VLS', 'sve', 512],
]

test('known ids have the names, spaces and widths of the kernel', () => {
  for (const [id, name, space, width] of golden) {
    const register = decodeRegister(id)
    const { name: decoded, space: inSpace, width: wide } = register
    assert.deepEqual([decoded, inSpace, wide], [name, space, width], `0x${id.toString(16)}`)
    assert.equal(encodeRegister(name), id, name)
  }
})

test.prop([ids], { numRuns: 20_000 })('every 64-bit id is what its name encodes to', (id) => {
  assert.equal(encodeRegister(decodeRegister(id).name), id)
})

test('every index of every space is what its name encodes to, and no two share a name', () => {
  for (const [coproc, sizes] of [
    [0x10, [2, 3, 4]],
    [0x11, [2]],
    [0x13, [3]],
    [0x14, [3]],
    [0x15, [5, 6, 8]],
    [0x16, [3]],
  ] as const) {
    const names = new Set<string>()
    for (const size of sizes) {
      for (let index = 0; index <= 0xffff; index++) {
        const id = idFromParts({ arch: 6, size, coproc, index, stray: 0n })
        const name = registerName(id)
        assert.ok(!names.has(name.toLowerCase()), name)
        names.add(name.toLowerCase())
        if (encodeRegister(name) !== id) assert.fail(`${name} does not encode to 0x${id.toString(16)}`)
      }
    }
  }
})

test.prop([ids])('every id is the sum of its parts', (id) => {
  assert.equal(idFromParts(idParts(id)), id)
})

test.prop([ids])('registerName and registerWidth agree with decodeRegister', (id) => {
  const { name, width } = decodeRegister(id)
  assert.equal(registerName(id), name)
  assert.equal(registerWidth(id), width)
})

const encodings = fc.record({
  op0: fc.integer({ min: 0, max: 3 }),
  op1: fc.integer({ min: 0, max: 7 }),
  crn: fc.integer({ min: 0, max: 15 }),
  crm: fc.integer({ min: 0, max: 15 }),
  op2: fc.integer({ min: 0, max: 7 }),
})

test.prop([encodings])('every system register encoding is the id of its parts', (parts) => {
  const register = decodeRegister(systemRegisterId(parts))
  assert.ok(register.space === 'sysreg' || register.space === 'timer')
  const { op0, op1, crn, crm, op2 } = register.parts
  assert.deepEqual({ op0, op1, crn, crm, op2 }, { ...parts })
  const { op0: a, op1: b, crn: c, crm: d, op2: e } = parts
  assert.equal(encodeRegister(`s${a}_${b}_c${c}_c${d}_${e}`), register.id)
})

test('a part beyond its bits makes no id', () => {
  assert.throws(() => systemRegisterId({ op0: 3, op1: 8, crn: 0, crm: 0, op2: 0 }), /op1.*0 to 7, not 8/)
})

test('the two swapped ids of the virtual timer have the name of what they hold', () => {
  for (const [id, name, content] of [
    [0x603000000013df19n, 'KVM_REG_ARM_TIMER_CTL', 'CNTV_CTL_EL0'],
    [0x603000000013df1an, 'KVM_REG_ARM_TIMER_CNT', 'CNTVCT_EL0'],
    [0x603000000013df02n, 'KVM_REG_ARM_TIMER_CVAL', 'CNTV_CVAL_EL0'],
    [0x603000000013df11n, 'KVM_REG_ARM_PTIMER_CTL', 'CNTP_CTL_EL0'],
    [0x603000000013df12n, 'KVM_REG_ARM_PTIMER_CVAL', 'CNTP_CVAL_EL0'],
    [0x603000000013df01n, 'KVM_REG_ARM_PTIMER_CNT', 'CNTPCT_EL0'],
  ] as const) {
    const register = decodeRegister(id)
    assert.equal(register.space, 'timer')
    assert.equal(register.name, name)
    assert.match(register.description ?? '', new RegExp(`holds ${content}`))
    for (const spelling of [name, name.slice('KVM_REG_ARM_'.length), content]) {
      assert.equal(encodeRegister(spelling), id, spelling)
    }
  }
  const count = decodeRegister(0x603000000013df1an)
  assert.match(count.description ?? '', /encoding of CNTV_CVAL_EL0 \(a historic swap\)/)
  assert.equal(encodeRegister('S3_3_C14_C3_2'), count.id)
  assert.equal(systemRegisterId({ op0: 3, op1: 3, crn: 14, crm: 3, op2: 2 }), count.id)
})

test('a system register that KVM gives as a core register means the core register', () => {
  const cases: [name: string, id: bigint, encoding: string][] = [
    ['FPCR', 0x60200000001000d5n, 'S3_3_C4_C4_0'],
    ['ELR_EL1', 0x6030000000100046n, 'S3_0_C4_C0_1'],
    ['SP_EL0', 0x603000000010003en, 'S3_0_C4_C1_0'],
    ['SPSR_svc', 0x6030000000100048n, 'S3_0_C4_C0_0'],
  ]
  for (const [name, id, encoding] of cases) {
    assert.equal(encodeRegister(name), id)
    const register = decodeRegister(encodeRegister(encoding))
    assert.equal(register.name, encoding)
    assert.match(register.description ?? '', /core register/)
  }
})

test('names are found in any case and without the prefix of the kernel', () => {
  for (const [spelling, id] of [
    ['VENDOR_HYP_BMAP', 0x6030000000160002n],
    ['vendor_hyp_bmap_2', 0x6030000000160003n],
    ['kvm_reg_arm_std_bmap', 0x6030000000160000n],
    ['psci_version', 0x6030000000140000n],
    ['id_aa64pfr0_el1', 0x603000000013c020n],
    ['X0', 0x6030000000100000n],
    ['sve_vls', 0x606000000015ffffn],
    ['Z3[0]', 0x6080000000150060n],
    ['ccsidr_el1[2]', 0x6020000000110002n],
    ['DBGDTRTX_EL0', 0x6030000000139828n],
    [' 0x6030000000140000 ', 0x6030000000140000n],
    ['0X6030000000140000', 0x6030000000140000n],
  ] as const) {
    assert.equal(encodeRegister(spelling as string), id, spelling)
  }
})

test('a name no register has is refused with names spelled alike', () => {
  for (const [name, nearest] of [
    ['ID_AA64PRF0_EL1', 'ID_AA64PFR0_EL1'],
    ['VENDOR_HYPE_BMAP', 'KVM_REG_ARM_VENDOR_HYP_BMAP'],
    ['STD_BITMAP', 'KVM_REG_ARM_STD_BMAP'],
    ['x31', 'x1'],
  ] as const) {
    assert.throws(
      () => encodeRegister(name as string),
      (error: unknown) => {
        assert.ok(error instanceof RangeError)
        const { code, message, nearest: proposed } = error as RangeError & { code: string; nearest: string[] }
        assert.equal(code, 'ERR_KVM_UNKNOWN_REGISTER')
        assert.ok(message.includes(name) && message.includes(nearest), message)
        assert.ok(proposed.includes(nearest))
        return true
      },
    )
  }
})

test('what cannot be an id or a name is refused by a coded error', () => {
  for (const text of [
    '',
    '0x',
    '0xg',
    '0x16030000000140000',
    '-1',
    'z32',
    'p16',
    'x',
    'S4_0_C0_C0_0',
    'CCSIDR_EL1[256]',
  ]) {
    assert.throws(() => encodeRegister(text), { code: 'ERR_KVM_UNKNOWN_REGISTER' }, text)
  }
})

test.prop([fc.string()])('any text is a name or refused by a coded error', (text) => {
  try {
    decodeRegister(encodeRegister(text))
  } catch (error) {
    assert.equal((error as { code?: string }).code, 'ERR_KVM_UNKNOWN_REGISTER')
  }
})

test('a number that does not fit 64 bits is no id', () => {
  for (const id of [-1n, 1n << 64n]) {
    for (const read of [decodeRegister, registerName, registerWidth, idParts])
      assert.throws(() => read(id), RangeError)
  }
})

test('an id of another architecture, width or space is told by its parts', () => {
  for (const id of [
    0x2030000000100000n,
    0x6030000000130001n ^ (1n << 30n),
    0x6020000000140000n,
    0x6030000000120000n,
  ]) {
    const register = decodeRegister(id)
    assert.equal(register.space, 'unknown')
    assert.equal(register.name, `0x${id.toString(16)}`)
    assert.equal(idFromParts(register.parts as never), id)
  }
})
