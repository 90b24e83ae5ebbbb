import assert from 'node:assert/strict'
import { test } from 'vitest'
import {
  encodeRegister,
  featureIdAt,
  featureIdIndex,
  isAArch32IdRegister,
  isFeatureIdRegister,
  isIdRegister,
} from '../../lib/registers/index.js'
import { KVM_ARM_FEATURE_ID_RANGE_SIZE } from '../../lib/uapi.js'

test('every entry of the writable masks is a register of its own, and the register knows its entry', () => {
  for (let index = 0; index < KVM_ARM_FEATURE_ID_RANGE_SIZE; index++) {
    assert.equal(featureIdIndex(featureIdAt(index)), index)
  }
  assert.equal(featureIdAt(0), encodeRegister('MIDR_EL1'))
  assert.equal(featureIdAt(71), encodeRegister('AIDR_EL1'))
  assert.equal(featureIdAt(129), encodeRegister('CTR_EL0'))
})

/** In the feature ID space, of `ID_*`, of AArch32's, for userspace to limit. */
const registers: Readonly<Record<string, readonly [boolean, boolean, boolean, boolean]>> = {
  MIDR_EL1: [true, false, false, false],
  MPIDR_EL1: [true, false, false, false],
  ID_PFR0_EL1: [true, true, true, true],
  ID_MMFR5_EL1: [true, true, true, true],
  ID_AA64PFR0_EL1: [true, true, false, true],
  S3_0_C0_C7_7: [true, true, false, true],
  S3_0_C0_C8_0: [false, false, false, false],
  CLIDR_EL1: [true, false, false, true],
  CTR_EL0: [true, false, false, true],
  DCZID_EL0: [true, false, false, false],
  CSSELR_EL1: [false, false, false, false],
  SCTLR_EL1: [false, false, false, false],
  x0: [false, false, false, false],
  KVM_REG_ARM_STD_BMAP: [false, false, false, false],
}

for (const [name, expected] of Object.entries(registers)) {
  test(`what kind of ID register ${name} is`, () => {
    const id = encodeRegister(name)
    assert.deepEqual(
      [featureIdIndex(id) !== undefined, isIdRegister(id), isAArch32IdRegister(id), isFeatureIdRegister(id)],
      expected,
    )
  })
}
