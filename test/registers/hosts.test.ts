import assert from 'node:assert/strict'
import { test } from 'vitest'
import { decodeRegister, encodeRegister } from '../../lib/registers/index.js'

/**
 * The ids that KVM of Linux 5.10, 6.1 and 6.18 gave on Graviton 2 and 3 (Neoverse N1 and V1), together: bits 63:16, then ranges of bits 15:0.
 */
const graviton: readonly [prefix: bigint, indexes: string][] = [
  [0x602000000010n, 'd4-d5'],
  [0x602000000011n, '0-d'],
  [
    0x603000000010n,
    '0 2 4 6 8 a c e 10 12 14 16 18 1a 1c 1e 20 22 24 26 28 2a 2c 2e 30 32 34 36 38 3a 3c 3e 42 44 46 48 4a 4c 4e 50',
  ],
  [
    0x603000000013n,
    '8004-8007 800c-8010 8012 8014-8017 801c-801f 8024-8027 802c-802f 8034-8037 803c-803f 8044-8047 804c-804f ' +
      '8054-8057 805c-805f 8064-8067 806c-806f 8074-8077 807c-807f 808c a038 c000 c005-c006 c008-c03f c080-c082 ' +
      'c100-c102 c288-c289 c290 c300 c3a0 c4f1-c4f2 c510 c518 c600 c609 c681 c684 c708 c801 c807 d000 d801 dce0-dce5 ' +
      'dce8 dcf0 dcf3 de82-de83 df02 df11-df12 df19 df40-df5e df60-df7f e180 e281 e298',
  ],
  [0x603000000014n, '0-3'],
  [0x603000000016n, '0-3'],
  [
    0x604000000010n,
    '54 58 5c 60 64 68 6c 70 74 78 7c 80 84 88 8c 90 94 98 9c a0 a4 a8 ac b0 b4 b8 bc c0 c4 c8 cc d0',
  ],
]

function idsOf(prefix: bigint, indexes: string): bigint[] {
  return indexes.split(' ').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map((hex) => Number.parseInt(hex, 16))
    return Array.from({ length: last - first + 1 }, (_, n) => (prefix << 16n) | BigInt(first + n))
  })
}

test('every id of a real host has an architectural or kernel name, but for the unallocated ID registers', () => {
  const ids = graviton.flatMap(([prefix, indexes]) => idsOf(prefix, indexes))
  assert.equal(ids.length, 328)
  const nameless: string[] = []
  for (const id of ids) {
    const { name, space } = decodeRegister(id)
    assert.notEqual(space, 'unknown')
    assert.equal(encodeRegister(name), id)
    if (/^S\d|_REG\(/.test(name)) nameless.push(name)
  }
  const unallocated = 'C3_3 C3_7 C4_3 C4_6 C5_3 C5_6 C5_7 C6_4 C6_5 C6_6 C6_7 C7_5 C7_6 C7_7'
  assert.deepEqual(
    nameless,
    unallocated.split(' ').map((rest) => `S3_0_C0_${rest}`),
  )
})

test('registers of optional features have their names', () => {
  for (const [feature, names] of Object.entries({
    'pointer authentication': [
      'APIAKEYLO_EL1',
      'APIBKEYHI_EL1',
      'APDAKEYLO_EL1',
      'APDBKEYHI_EL1',
      'APGAKEYHI_EL1',
    ],
    sve: ['ZCR_EL1', 'KVM_REG_ARM64_SVE_VLS', 'z31', 'p15', 'ffr'],
    mte: ['RGSR_EL1', 'GCR_EL1', 'TFSR_EL1', 'TFSRE0_EL1', 'GMID_EL1'],
    'permission indirection and overlays': [
      'TCR2_EL1',
      'PIR_EL1',
      'PIRE0_EL1',
      'POR_EL0',
      'POR_EL1',
      'S2POR_EL1',
    ],
    nested: [
      'HCR_EL2',
      'VTTBR_EL2',
      'VNCR_EL2',
      'CNTHCTL_EL2',
      'CNTVOFF_EL2',
      'HFGRTR2_EL2',
      'ICH_LR15_EL2',
      'SP_EL2',
    ],
    aarch32: ['DACR32_EL2', 'IFSR32_EL2', 'FPEXC32_EL2', 'DBGVCR32_EL2', 'SDER32_EL2'],
    gic: ['ICC_AP1R3_EL1', 'ICC_SRE_EL1', 'ICH_HCR_EL2', 'ICC_PPI_ENABLER1_EL1', 'ICC_IDR0_EL1'],
    others: [
      'FPMR',
      'GCSCR_EL1',
      'SCTLR2_EL1',
      'TRFCR_EL1',
      'PMSCR_EL1',
      'LORID_EL1',
      'ERRIDR_EL1',
      'DISR_EL1',
      'SMIDR_EL1',
    ],
  })) {
    for (const name of names) assert.equal(decodeRegister(encodeRegister(name)).name, name, feature)
  }
})
