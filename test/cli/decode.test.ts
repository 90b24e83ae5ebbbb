import assert from 'node:assert/strict'
import { test } from 'vitest'
import { kvmArm64, type Outcome } from './run.js'

function decode(...args: string[]): Outcome {
  return kvmArm64(['decode', ...args])
}

function decodeJson(...args: string[]): Record<string, unknown>[] {
  const { out, status } = decode('--json', ...args)
  assert.equal(status, 0)
  return JSON.parse(out) as Record<string, unknown>[]
}

test('a bitmap is explained by its services and the functions they gate', () => {
  const { out, status } = decode('0x6030000000160002')
  assert.equal(status, 0)
  assert.match(out, /^KVM_REG_ARM_VENDOR_HYP_BMAP {2}0x6030000000160002$/m)
  assert.match(out, /^ {2}bitmap of hypercall services, 64 bits: index 2$/m)
  assert.match(out, /^ {2}reset value 0x3$/m)
  assert.match(out, /0 +features +gates +VENDOR_HYP_CALL_UID 0x8600ff01, KVM_FEATURES 0x86000000/)
  assert.match(out, /1 +ptp +gates +KVM_PTP 0x86000001/)
  assert.match(decode('VENDOR_HYP_BMAP', '--value', '0x12').out, /value 0x12: shows ptp, bit-4/)
  assert.match(
    decode('VENDOR_HYP_BMAP_2').out,
    /0 +discover-impl-ver +advertises +KVM_DISCOVER_IMPL_VER 0xc6000040/,
  )
})

test('an ID register is explained by its fields, and a value by what they mean', () => {
  const fields = decode('id_aa64pfr0_el1').out
  assert.match(fields, /system register, 64 bits: op0 3, op1 0, crn 0, crm 4, op2 0/)
  assert.match(fields, /19:16 +FP +signed +lower +0 yes; 1 with half precision; -1 no/)
  const value = decode('ID_AA64PFR0_EL1', '--value', '0x1100000011111112').out
  assert.match(value, /value 0x1100000011111112/)
  assert.match(value, /3:0 +EL0 +2 +AArch64 and AArch32/)
})

test('the trap of the swapped timer ids is told', () => {
  assert.match(
    decode('0x603000000013df1a').out,
    /KVM_REG_ARM_TIMER_CNT[^]*encoding of CNTV_CVAL_EL0 \(a historic swap\)/,
  )
})

test('a number of 32 bits is a hypercall', () => {
  const { out } = decode('0x84000050', '0xc6000040', '0x80000000', '0x82000000')
  assert.match(out, /^TRNG_VERSION {2}0x84000050$/m)
  assert.match(out, /fast SMC32\/HVC32 call, owner 4 \(standard secure service\), function 0x50/)
  assert.match(out, /needs bit 0 \(trng-v1\.0\) of KVM_REG_ARM_STD_BMAP 0x6030000000160000/)
  assert.match(out, /KVM_DISCOVER_IMPL_VER[^]*refuses it with NOT_SUPPORTED/)
  assert.match(out, /SMCCC_VERSION[^]*whatever the bitmaps say/)
  assert.match(out, /^0x82000000$/m)
})

test('a number may be decimal', () => {
  assert.equal(decode('2214592512').out, decode('0x84000000').out)
  assert.equal(decode('6931039826524504064').out, decode(`0x${6931039826524504064n.toString(16)}`).out)
})

test('the help tells the status of a number without a meaning', () => {
  const { status, out } = decode('0xdeadbeefdeadbeef')
  assert.equal(status, 0)
  assert.match(out, /no register of any kernel/)
  assert.match(
    decode('--help').out,
    /Unknown ids are still split into\nfields, and marked as unknown\.[^]*\n\nExit status: .*2 for an unknown name\./,
  )
})

test('a name that is a register and a function is explained as both', () => {
  assert.deepEqual(
    decodeJson('PSCI_VERSION').map(({ kind, id }) => [kind, id]),
    [
      ['register', '0x6030000000140000'],
      ['function', '0x84000000'],
    ],
  )
  assert.match(decode('PSCI_VERSION', '--value', '0x10001').out, /value 0x10001: PSCI 1\.1/)
})

test('JSON has ids and values as hexadecimal strings', () => {
  const [bitmap, id, unknown, hypercall] = decodeJson(
    'STD_BMAP',
    'MIDR_EL1',
    '0x2030000000000001',
    '0xc4000053',
  )
  assert.deepEqual(bitmap, {
    kind: 'register',
    id: '0x6030000000160000',
    name: 'KVM_REG_ARM_STD_BMAP',
    space: 'bitmap',
    width: 64,
    parts: { index: 0 },
    description: 'standard secure services the guest may discover',
    resetValue: '0x1',
    services: [
      {
        name: 'trng-v1.0',
        bit: 0,
        kernelName: 'KVM_REG_ARM_STD_BIT_TRNG_V1_0',
        gated: true,
        functions: [
          { id: '0x84000050', name: 'TRNG_VERSION' },
          { id: '0x84000051', name: 'TRNG_FEATURES' },
          { id: '0x84000052', name: 'TRNG_GET_UUID' },
          { id: '0x84000053', name: 'TRNG_RND32' },
          { id: '0xc4000053', name: 'TRNG_RND64' },
        ],
      },
    ],
  })
  const fields = id?.['fields'] as { name: string; bits: string }[] | undefined
  assert.deepEqual(
    fields?.map(({ name, bits }) => `${name} ${bits}`),
    ['Implementer 31:24', 'Variant 23:20', 'Architecture 19:16', 'PartNum 15:4', 'Revision 3:0'],
  )
  assert.deepEqual(
    [unknown?.['space'], unknown?.['parts']],
    ['unknown', { arch: 2, size: 3, coproc: 0, index: 1, stray: '0x0' }],
  )
  assert.deepEqual(hypercall?.['gate'], {
    register: 'KVM_REG_ARM_STD_BMAP',
    id: '0x6030000000160000',
    bit: 0,
    service: 'trng-v1.0',
  })
})

test('what is unknown or malformed is named on stderr, with exit status 2 and nothing on stdout', () => {
  for (const [args, complaint] of [
    [['ID_AA64PRF0_EL1'], /"ID_AA64PRF0_EL1"; did you mean ID_AA64PFR0_EL1/],
    [['TRNG_RDN64'], /"TRNG_RDN64"; did you mean TRNG_RND64/],
    [['VENDOR_HYPE_BMAP'], /did you mean KVM_REG_ARM_VENDOR_HYP_BMAP/],
    [
      ['x0', '0x', 'pc', '0x11112222333344445'],
      /"0x" is no register id[^]*"0x11112222333344445" is no register id/,
    ],
    [['x0', '--value', '12'], /--value: expected 0x and hexadecimal digits, found "12"/],
    [['fpcr', '--value', '0x100000000'], /0x100000000 does not fit the 32 bits of fpcr/],
    [['x0', 'x1', '--value', '0x1'], /--value applies to one register; found 2 arguments/],
    [['0x84000050', '--value', '0x1'], /"0x84000050" is a hypercall/],
  ] as const) {
    const { out, error, status } = decode(...args)
    assert.deepEqual([out, status], ['', 2], args.join(' '))
    assert.match(error, complaint)
  }
})

test('a hypercall is explained for a PSCI version', () => {
  assert.match(decode('PSCI_CPU_ON').out, /reaches KVM’s handler[^]*handler refuses it under PSCI 0\.1/)
  assert.match(decode('0x95c1ba5f').out, /handler answers it under PSCI 0\.1 only/)
  assert.match(decode('0x95c1ba5e').out, /refuses it under every PSCI version/)
  const old = decode('PSCI_CPU_ON', '--psci', '0.1')
  assert.match(old.out, /from a vCPU of PSCI 0\.1, KVM refuses it with NOT_SUPPORTED/)
  assert.match(decode('PSCI_CPU_ON', '--psci', '1.1').out, /from a vCPU of PSCI 1\.1, reaches KVM’s handler/)
  const [explained] = JSON.parse(decode('0x95c1ba60', '--psci', '1.0', '--json').out) as object[]
  const { psci, gate, reachedUnder } = explained as Record<string, unknown>
  assert.deepEqual({ psci, gate, reachedUnder }, { psci: '1.0', gate: 'denied', reachedUnder: ['0.1'] })
  const register = decode('x0', '--psci', '0.1')
  assert.equal(register.status, 2)
  assert.match(register.error, /--psci applies to hypercalls, and "x0" is a register/)
})

test('the kernel’s macros are names too', () => {
  assert.equal(decode('ARM64_SYS_REG(3, 0, 0, 4, 0)').out, decode('ID_AA64PFR0_EL1').out)
  assert.equal(
    decode('SYS_ID_AA64PFR0_EL1', '--value', '0x11').out,
    decode('ID_AA64PFR0_EL1', '--value', '0x11').out,
  )
  assert.match(decode('ARM64_SYS_REG(9, 0, 0, 4, 0)').error, /No arm64 register or hypercall is called/)
  assert.match(
    decode('0x40200000200e0298').out,
    /register of another architecture[^]*32-bit Arm[^]*coprocessor 14, opc1 3, CRn 0, CRm 5, opc2 0/,
  )
})

test('an argument may be what QEMU calls a register, or its whole complaint', () => {
  assert.equal(decode('fw feat reg 3').out, decode('VENDOR_HYP_BMAP_2').out)
  const complaint =
    'Could not set register system register op0:3 op1:0 crn:0 crm:5 op2:0 to 10305408 (is 10305406)'
  const { out, status } = decode(complaint)
  assert.equal(status, 0)
  assert.match(out, /^ID_AA64DFR0_EL1 {2}0x603000000013c028$/m)
  assert.match(out, /^ {2}3:0 +DebugVer +8 \(Debugv8p2\) +6 \(Armv8\)$/m)
  assert.doesNotMatch(out, /BRPs/)
  const [explained] = decodeJson(complaint)
  assert.deepEqual(
    [explained?.['text'], explained?.['written'], explained?.['held']],
    ['system register op0:3 op1:0 crn:0 crm:5 op2:0', '0x10305408', '0x10305406'],
  )
})

test('a log on standard input is explained line by line', () => {
  const log = [
    'qemu-system-aarch64: \u001B[31mwarning: handle_cpreg_missing_in_incoming_stream: fw feat reg 3 expected by the destination',
    'qemu-system-aarch64: Failed to put registers after init: Invalid argument',
    'Failed to set register 0x6030000000140000 to value 0x10003: Invalid argument (os error 22)',
    'and fw feat reg 3 again',
  ].join('\n')
  const { out, status, error } = kvmArm64(['decode'], { input: log })
  assert.deepEqual([status, error], [0, ''])
  const [first, second, third, ...others] = out.split('\n\n')
  assert.match(first!, /KVM_REG_ARM_VENDOR_HYP_BMAP_2 {2}0x6030000000160003/)
  assert.ok(!out.includes('\u001B'))
  assert.match(second!, /0x10003 \(PSCI 1\.3\) was to be written/)
  // Explained above.
  assert.match(third!, /^and fw feat reg 3 again\n {2}KVM_REG_ARM_VENDOR_HYP_BMAP_2\n$/)
  assert.deepEqual(others, [])
  const lines = JSON.parse(kvmArm64(['decode', '--json'], { input: log }).out) as { line: string }[]
  assert.equal(lines.length, 3)
  const none = kvmArm64(['decode'], { input: 'no such thing\n' })
  assert.deepEqual([none.status, none.out], [1, ''])
  assert.match(none.error, /no line names a register/)
})
