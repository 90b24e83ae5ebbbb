/** Registers as C programs and messages spell them: macros, QEMU's and Firecracker's complaints. */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { builtInReport } from '../../lib/hosts/index.js'
import {
  decodeRegister,
  encodeRegister,
  registerMentions,
  registerName,
  UnknownRegisterError,
} from '../../lib/registers/index.js'
import { coreRegisters } from '../../lib/registers/core.js'

describe('a macro names a register', () => {
  const macros: [macro: string, name: string][] = [
    ['ARM64_SYS_REG(3, 0, 0, 4, 0)', 'ID_AA64PFR0_EL1'],
    ['arm64_sys_reg( 3,0,0,4,0 )', 'ID_AA64PFR0_EL1'],
    ['__ARM64_SYS_REG(3, 0, 0x0, 4, 0)', 'ID_AA64PFR0_EL1'],
    ['sys_reg(3, 3, 9, 12, 0)', 'PMCR_EL0'],
    ['KVM_ARM64_SYS_REG(SYS_MIDR_EL1)', 'MIDR_EL1'],
    ['SYS_ID_AA64PFR0_EL1', 'ID_AA64PFR0_EL1'],
    // In C a timer's name is its encoding, and two of the ids hold the other's content.
    ['SYS_CNTV_CVAL_EL0', 'KVM_REG_ARM_TIMER_CNT'],
    ['KVM_ARM64_SYS_REG(SYS_CNTVCT_EL0)', 'KVM_REG_ARM_TIMER_CVAL'],
    ['KVM_REG_ARM64_SVE_ZREG(0, 0)', 'z0'],
    ['KVM_REG_ARM64_SVE_ZREG(31, 2)', 'z31[2]'],
    ['KVM_REG_ARM64_SVE_PREG(15, 0)', 'p15'],
    ['KVM_REG_ARM64_SVE_FFR(0)', 'ffr'],
    ['KVM_REG_ARM_CORE_REG(regs.pc)', 'pc'],
    ['ARM64_CORE_REG(regs.regs[30])', 'x30'],
    ['AARCH64_CORE_REG(elr_el1)', 'elr_el1'],
    ['ARM64_CORE_REG(spsr[KVM_SPSR_EL1])', 'spsr_el1'],
    ['ARM64_CORE_REG(spsr[4])', 'spsr_fiq'],
    ['AARCH64_SIMD_CORE_REG(fp_regs.vregs[31])', 'v31'],
    ['AARCH64_SIMD_CTRL_REG(fp_regs.fpcr)', 'fpcr'],
    ['KVM_REG_ARM_FW_REG(0)', 'KVM_REG_ARM_PSCI_VERSION'],
    ['KVM_REG_ARM_FW_FEAT_BMAP_REG(3)', 'KVM_REG_ARM_VENDOR_HYP_BMAP_2'],
  ]
  for (const [macro, name] of macros) {
    test(`${macro} is ${name}`, () => {
      assert.equal(registerName(encodeRegister(macro)), name)
    })
  }

  for (const wrong of [
    'ARM64_SYS_REG(4, 0, 0, 4, 0)',
    'ARM64_SYS_REG(3, 0, 0, 4)',
    'ARM64_SYS_REG(3, 0, 0, 4, 0, 0)',
    'ARM64_SYS_REG(3, 0, 16, 4, 0)',
    'KVM_REG_ARM64_SVE_ZREG(32, 0)',
    'KVM_REG_ARM64_SVE_PREG(16, 0)',
    'KVM_REG_ARM_CORE_REG(regs.regs[31])',
    'KVM_REG_ARM_CORE_REG()',
    'SYS_WINGS_EL1',
    'toString(1)',
    '__proto__(1)',
  ]) {
    test(`${wrong} is none`, () => {
      assert.throws(() => encodeRegister(wrong), UnknownRegisterError)
    })
  }

  test('ARM64_SYS_REG of every encoding is the register with that encoding', () => {
    for (let index = 0; index < 0x1_0000; index += 37) {
      const parts = [index >> 14, (index >> 11) & 7, (index >> 7) & 15, (index >> 3) & 15, index & 7]
      assert.equal(
        encodeRegister(`ARM64_SYS_REG(${parts.join(', ')})`),
        0x6030_0000_0013_0000n | BigInt(index),
      )
    }
  })

  test('each core register is a field of struct kvm_regs', () => {
    for (const { name, id } of coreRegisters) {
      const [, kind = '', number] = /^([xv])(\d+)$/.exec(name) ?? []
      const field = { x: `regs.regs[${number}]`, v: `fp_regs.vregs[${number}]` }[kind] ?? name
      assert.equal(encodeRegister(`KVM_REG_ARM_CORE_REG(${field})`), id)
    }
  })
})

describe('an id of another architecture is named as such', () => {
  test('that of 32-bit Arm with its coprocessor register', () => {
    // What QEMU's TCG calls DBGDTRTX.
    const register = decodeRegister(0x4020_0000_200e_0298n)
    assert.equal(register.space, 'unknown')
    assert.equal(
      register.description,
      'an id of 32-bit Arm, which arm64 KVM does not know: coprocessor 14, opc1 3, CRn 0, CRm 5, opc2 0',
    )
    assert.match(decodeRegister(0x4020_0000_0010_0000n).description!, /^an id of 32-bit Arm, which .* know$/)
  })

  test('others by their architecture', () => {
    assert.match(decodeRegister(0x2030_0000_0000_0001n).description!, /^an id of x86,/)
    assert.equal(decodeRegister(0xf030_0000_0000_0001n).description, undefined)
    // A stray bit makes an id of arm64 unknown, not foreign.
    assert.equal(decodeRegister(0x6030_0001_0013_c020n).description, undefined)
  })
})

describe('a line speaks of registers', () => {
  type Spoken = [name: string, written?: bigint, held?: bigint]
  const lines: [line: string, registers: Spoken[]][] = [
    [
      'qemu-system-aarch64: Could not set register system register op0:3 op1:0 crn:0 crm:5 op2:0 to 10305408 (is 10305406)',
      [['ID_AA64DFR0_EL1', 0x10305408n, 0x10305406n]],
    ],
    [
      'qemu-system-aarch64: handle_cpreg_only_in_incoming_stream: demuxed reg 602000000011000d in the incoming stream but unknown on the destination: fail migration',
      [['CCSIDR_EL1[13]']],
    ],
    [
      'warning: handle_cpreg_missing_in_incoming_stream: fw feat reg 3 expected by the destination but not in the incoming stream: skip it',
      [['KVM_REG_ARM_VENDOR_HYP_BMAP_2']],
    ],
    [
      'Could not set register fw reg 0 to 10003 (is 10001)',
      [['KVM_REG_ARM_PSCI_VERSION', 0x10003n, 0x10001n]],
    ],
    ['core reg 6030000000100040, sve reg 606000000015ffff', [['pc'], ['KVM_REG_ARM64_SVE_VLS']]],
    [
      'kvm_arm_cpu_post_load Unexpected register in input stream: 0 0x603000000013c103 op0:3 op1:0 crn:2 crm:0 op2:3',
      [['TCR2_EL1']],
    ],
    [
      'Failed to set register 0x603000000013c020 to value 1224979098644774929: Invalid argument (os error 22)',
      [['ID_AA64PFR0_EL1', 0x1100000000000011n]],
    ],
    ['Failed to get register 6931039826524504064: No such file', [['KVM_REG_ARM_PSCI_VERSION']]],
    [
      'cannot write ID_AA64MMFR0_EL1 and KVM_REG_ARM_STD_BMAP',
      [['ID_AA64MMFR0_EL1'], ['KVM_REG_ARM_STD_BMAP']],
    ],
    ['{ ARM64_SYS_REG(3, 0, 0, 0, 0), ARM64_CORE_REG(regs.sp) },', [['MIDR_EL1'], ['sp']]],
    ['DBGDTRTX is 0x40200000200e0298', [['0x40200000200e0298']]],
    ['trapped S3_0_C0_C4_0 of CCSIDR_EL1[2]', [['ID_AA64PFR0_EL1'], ['CCSIDR_EL1[2]']]],
    // Values, addresses and words.
    ['value 0x1100000011111112 at 0xffff800010000000: sp and pc are words, memcpy(1, 2) a call', []],
    ['', []],
  ]
  for (const [line, expected] of lines) {
    test(JSON.stringify(line), () => {
      const found = registerMentions(line).map(({ id, written, held }): Spoken => {
        const spoken: Spoken = [registerName(id)]
        if (written !== undefined) spoken.push(written)
        if (held !== undefined) spoken.push(held)
        return spoken
      })
      assert.deepEqual(found, expected)
    })
  }

  test('as QEMU names every register of a host', () => {
    for (const { id: text, name } of builtInReport('linux-7.2-max').registers) {
      const id = BigInt(text)
      const register = decodeRegister(id)
      const spelled = qemuName(id)
      assert.deepEqual(
        registerMentions(`x: Could not set register ${spelled} to 1f (is 2)`),
        [{ id, text: spelled, written: 0x1fn, held: 2n }],
        `${name} ${register.space}`,
      )
    }
  })
})

/** `target/arm/kvm.c:kvm_print_register_name` of QEMU 11.1. */
function qemuName(id: bigint): string {
  const digits = id.toString(16)
  const index = Number(id & 0xffffn)
  switch ((id >> 16n) & 0xfffn) {
    case 0x10n:
      return `core reg ${digits}`
    case 0x11n:
      return `demuxed reg ${digits}`
    case 0x13n: {
      const [op0, op1, crn, crm, op2] = [
        index >> 14,
        (index >> 11) & 7,
        (index >> 7) & 15,
        (index >> 3) & 15,
        index & 7,
      ]
      return `system register op0:${op0} op1:${op1} crn:${crn} crm:${crm} op2:${op2}`
    }
    case 0x14n:
      return `fw reg ${index}`
    case 0x15n:
      return `sve reg ${digits}`
    default:
      return `fw feat reg ${index}`
  }
}
