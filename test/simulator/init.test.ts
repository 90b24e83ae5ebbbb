import assert from 'node:assert/strict'
import { test } from 'vitest'
import type { Report, ReportedRegister } from '../../lib/report/report.js'
import type { WriteRule } from '../../lib/report/write-rule.js'
import { encodeRegister, registerName } from '../../lib/registers/index.js'
import { mpStates } from '../../lib/uapi.js'
import {
  get,
  hex,
  made,
  newHost,
  nibbles,
  oldestHost,
  oldHost,
  set,
  start,
  outcomeName,
  vcpuOf,
  vmOf,
  withTraits,
  word,
  type Outcome,
} from './fixture.js'

const PSCI = word(['psci-0.2'])
const PMU = word(['psci-0.2', 'pmu-v3'])
const AARCH32 = word(['psci-0.2', 'el1-32bit'])

/** Outcomes of one init after the other on one vCPU. */
const sequences: [
  what: string,
  report: Report,
  inits: [target: number, words: number[], outcome: Outcome][],
][] = [
  [
    'a target the host does not have is EINVAL',
    oldHost,
    [
      [5, [PSCI], 'EINVAL'],
      [16, [PSCI], 'EINVAL'],
    ],
  ],
  [
    'the generic target is accepted beside the own',
    newHost,
    [
      [2, [PSCI], 0],
      [5, [PSCI], 0],
    ],
  ],
  [
    'a feature the kernel does not know is ENOENT',
    oldHost,
    [
      [2, [1 << 7], 'ENOENT'],
      [2, [(1 << 31) >>> 0], 'ENOENT'],
    ],
  ],
  [
    'words beyond the first hold no feature',
    newHost,
    [
      [5, [PSCI, 0, 1], 'ENOENT'],
      [5, [PSCI, 0, 0], 0],
    ],
  ],
  [
    'a feature the host does not have is EINVAL',
    oldHost,
    [
      [2, [word(['sve'])], 'EINVAL'],
      [2, [PSCI], 0],
    ],
  ],
  [
    'unknown beats unsupported',
    newHost,
    [
      [5, [(1 << 9) | word(['has-el2'])], 'ENOENT'],
      [5, [word(['has-el2'])], 'EINVAL'],
    ],
  ],
  ['the target is looked at before the features', newHost, [[3, [1 << 20], 'EINVAL']]],
  [
    'pointer authentication comes as a pair',
    newHost,
    [
      [5, [word(['ptrauth-address'])], 'EINVAL'],
      [5, [word(['ptrauth-generic'])], 'EINVAL'],
      [5, [word(['ptrauth-address', 'ptrauth-generic'])], 0],
    ],
  ],
  [
    'a refused combination has its own errno',
    newHost,
    [[5, [word(['sve', 'ptrauth-address', 'ptrauth-generic'])], 'ENODEV']],
  ],
  [
    'so it has where features are the vCPU’s',
    oldHost,
    [
      [2, [AARCH32 | PMU], 'ENODEV'],
      [2, [AARCH32], 0],
    ],
  ],
  [
    'what differs from the VM is EINVAL before the combination is tried',
    newHost,
    [
      [5, [PSCI], 0],
      [5, [word(['sve', 'ptrauth-address', 'ptrauth-generic'])], 'EINVAL'],
    ],
  ],
  [
    'another init needs the same features',
    oldHost,
    [
      [2, [PSCI], 0],
      [2, [PSCI], 0],
      [2, [0], 'EINVAL'],
      [2, [PMU], 'EINVAL'],
      [2, [PSCI], 0],
    ],
  ],
  [
    'a lower bit that differs is found before a higher one that is unknown',
    oldHost,
    [
      [2, [PSCI], 0],
      [2, [1 << 8], 'EINVAL'],
      [2, [PSCI | (1 << 8)], 'ENOENT'],
      [2, [PSCI], 0],
    ],
  ],
  [
    'a sticky power-off must be repeated',
    oldHost,
    [
      [2, [PSCI | 1], 0],
      [2, [PSCI], 'EINVAL'],
      [2, [PSCI | 1], 0],
    ],
  ],
  [
    'an ephemeral power-off need not be repeated',
    newHost,
    [
      [5, [PSCI | 1], 0],
      [5, [PSCI], 0],
    ],
  ],
]
for (const [what, report, inits] of sequences) {
  test(`KVM_ARM_VCPU_INIT: ${what}`, () => {
    const vcpu = made(vmOf(report).createVcpu(0))
    for (const [index, [target, words, outcome]] of inits.entries()) {
      assert.equal(outcomeName(vcpu.init(target, words)), outcome, `init ${index}`)
    }
  })
}

test('features left by a refused init are inherited by the next one', () => {
  const vcpu = made(vmOf(oldHost).createVcpu(0))
  assert.equal(outcomeName(vcpu.init(2, [PSCI | (1 << 10)])), 'ENOENT')
  assert.equal(vcpu.init(2, [0]), 0)
  assert.equal(get(vcpu, 'PSCI_VERSION'), 0x10001n)
  assert.equal(outcomeName(vcpu.init(2, [0])), 'EINVAL', 'the inherited feature counts')
})

test('an init refused for another reason has fixed the width of the VM', () => {
  const vm = vmOf(oldHost)
  assert.equal(outcomeName(made(vm.createVcpu(0)).init(2, [AARCH32 | PMU])), 'ENODEV')
  assert.equal(outcomeName(made(vm.createVcpu(1)).init(2, [PSCI])), 'EINVAL')
})

test('features are not left where the kernel does not leave them', () => {
  for (const report of [newHost, withTraits(oldHost, { init: { leaksRefusedFeatures: false } })]) {
    const vcpu = made(vmOf(report).createVcpu(0))
    assert.equal(outcomeName(vcpu.init(2, [PSCI | (1 << 10)])), 'ENOENT')
    assert.equal(vcpu.init(2, [0]), 0)
    assert.equal(get(vcpu, 'PSCI_VERSION'), 1n)
  }
})

test('features that were refused as unsupported are forgotten', () => {
  const vcpu = made(vmOf(oldHost).createVcpu(0))
  assert.equal(outcomeName(vcpu.init(2, [PSCI | word(['sve'])])), 'EINVAL')
  assert.equal(vcpu.init(2, [0]), 0)
  assert.equal(get(vcpu, 'PSCI_VERSION'), 1n)
})

test('vCPUs of one VM may differ where features are their own', () => {
  const { vm } = start(oldHost, ['psci-0.2'])
  assert.equal(get(vcpuOf(vm, 1, []), 'PSCI_VERSION'), 1n)
})

test('the first init fixes the features of all vCPUs where they are the VM’s', () => {
  const { vm } = start(newHost, ['psci-0.2'])
  const second = made(vm.createVcpu(1))
  assert.equal(outcomeName(second.init(5, [0])), 'EINVAL')
  assert.equal(outcomeName(second.getOneReg(0x6030_0000_0010_0000n)), 'ENOEXEC')
  assert.equal(second.init(5, [PSCI]), 0)
})

const widths: [what: string, report: Report, inits: [vcpu: number, features: number, outcome: Outcome][]][] =
  [
    [
      'the first init fixes the width',
      oldHost,
      [
        [0, AARCH32, 0],
        [1, PSCI, 'EINVAL'],
        [1, AARCH32, 0],
      ],
    ],
    [
      'the width is compared with vCPUs not yet initialised',
      oldestHost,
      [
        [0, AARCH32, 'EINVAL'],
        [0, PSCI, 0],
        [1, AARCH32, 'EINVAL'],
        [1, PSCI, 0],
      ],
    ],
    [
      'widths may be mixed',
      withTraits(oldHost, { init: { registerWidth: 'vcpu' } }),
      [
        [0, AARCH32, 0],
        [1, PSCI, 0],
      ],
    ],
    [
      'a host without AArch32 at EL1 fixes nothing by refusing it',
      withTraits(oldHost, { init: { supported: ['psci-0.2'] } }),
      [
        [0, AARCH32, 'EINVAL'],
        [0, PSCI, 0],
      ],
    ],
  ]
for (const [what, report, inits] of widths) {
  test(`el1-32bit: ${what}`, () => {
    const vm = vmOf(report)
    const vcpus = [made(vm.createVcpu(0)), made(vm.createVcpu(1))]
    for (const [vcpu, features, outcome] of inits) {
      assert.equal(outcomeName(vcpus[vcpu]!.init(2, [features])), outcome)
    }
  })
}

test('a refused re-init leaves the vCPU uninitialised where the kernel compares with new vCPUs', () => {
  const vm = vmOf(oldestHost)
  const vcpu = made(vm.createVcpu(0))
  assert.equal(vcpu.init(2, [AARCH32]), 0)
  made(vm.createVcpu(1))
  assert.equal(outcomeName(vcpu.init(2, [AARCH32])), 'EINVAL')
  assert.equal(get(vcpu, 'x0'), 'ENOEXEC')
})

test('power-off stops the vCPU, an init without it starts it', () => {
  const vcpu = made(vmOf(newHost).createVcpu(0))
  assert.equal(vcpu.getMpState(), mpStates.runnable)
  vcpu.init(5, [PSCI | 1])
  assert.equal(vcpu.getMpState(), mpStates.stopped)
  vcpu.init(5, [PSCI])
  assert.equal(vcpu.getMpState(), mpStates.runnable)
  const old = made(vmOf(oldHost).createVcpu(0))
  old.init(2, [PSCI | 1])
  assert.equal(old.getMpState(), mpStates.stopped)
})

test('an init resets registers but for those the kernel keeps', () => {
  const { vcpu } = start(oldHost)
  for (const name of ['x3', 'sp_el1', 'SCTLR_EL1']) assert.equal(set(vcpu, name, 7n), 0)
  vcpu.init(2, [PSCI])
  assert.deepEqual(
    ['x3', 'sp_el1', 'SCTLR_EL1'].map((name) => get(vcpu, name)),
    [0n, 7n, 0xc50078n],
  )
})

test('an init takes back nothing of the VM’s', () => {
  const { vcpu } = start(newHost)
  set(vcpu, 'PSCI_VERSION', 0x10000n)
  set(vcpu, 'STD_BMAP', 0n)
  set(vcpu, 'ID_AA64PFR1_EL1', 0x11n)
  vcpu.init(5, [PSCI])
  assert.equal(get(vcpu, 'PSCI_VERSION'), 0x10000n)
  assert.equal(get(vcpu, 'STD_BMAP'), 0n)
  assert.equal(get(vcpu, 'ID_AA64PFR1_EL1'), 0x11n)
})

test('before its init a vCPU has no registers, no list and no run', () => {
  const vcpu = made(vmOf(newHost).createVcpu(0))
  const id = 0x6030_0000_0010_0000n
  const outcomes = [
    vcpu.getOneReg(id),
    vcpu.setOneReg(id, 0n),
    vcpu.getOneReg(0n),
    vcpu.getOneRegAtNull(id),
    vcpu.setOneRegAtNull(id),
    vcpu.getRegList(new BigUint64Array(1)),
    vcpu.finalize(4),
    vcpu.runSync(0),
  ]
  for (const outcome of outcomes) assert.equal(outcomeName(outcome), 'ENOEXEC')
})

test('KVM_ARM_VCPU_FINALIZE takes SVE, once, from a vCPU that has it', () => {
  const { vcpu: plain } = start(newHost)
  assert.equal(outcomeName(plain.finalize(4)), 'EINVAL')
  const { vcpu } = start(newHost, ['psci-0.2', 'sve'])
  assert.equal(outcomeName(vcpu.finalize(3)), 'EINVAL')
  assert.equal(vcpu.finalize(4), 0)
  assert.equal(outcomeName(vcpu.finalize(4)), 'EPERM')
})

test('a combination the report does not hold is refused, not made up', () => {
  const report = withTraits(newHost, { init: { supported: ['psci-0.2', 'pmu-v3'] } })
  const vcpu = made(vmOf(report).createVcpu(0))
  assert.throws(() => vcpu.init(5, [PMU]), {
    code: 'ERR_KVM_SIMULATOR_NOT_RECORDED',
    message: /features psci-0\.2, pmu-v3\./,
  })
})

test('MPIDR_EL1 counts vCPUs by sixteen', () => {
  const vm = vmOf(oldHost)
  const found = [0, 1, 15, 16, 511].map((id) => get(vcpuOf(vm, id), 'MPIDR_EL1'))
  assert.deepEqual(found, [0x80000000n, 0x80000001n, 0x8000000fn, 0x80000100n, 0x80001f0fn])
})

const PMUVER = 0x600n
const PFR0 = 0x1112n
const EVENTS = 0xf800_ffffn

function row(name: string, value: bigint, write?: WriteRule): ReportedRegister {
  const id = encodeRegister(name)
  return { id: hex(id), name: registerName(id), value: hex(value), ...(write && { write }) }
}

/** With event types, EL3, EL2 and a PMUv3p5 that the VM may do without. */
const withEvents: Report = {
  ...newHost,
  registers: [
    ...newHost.registers.filter(({ name }) => name !== 'ID_AA64DFR0_EL1' && name !== 'ID_AA64PFR0_EL1'),
    row('ID_AA64DFR0_EL1', PMUVER, nibbles(PMUVER, { 2: [0, 1, 2, 4, 6, 9, 15] })),
    row('ID_AA64PFR0_EL1', PFR0, nibbles(PFR0, { 2: [0, 1], 3: [0, 1] })),
    row('PMEVTYPER0_EL0', EVENTS),
  ],
}

for (const [what, register, value, expected] of [
  ['no PMU', 'ID_AA64DFR0_EL1', 0n, 0xf800_0000n],
  ['an implementation’s own PMU', 'ID_AA64DFR0_EL1', 0xf00n, 0xf800_0000n],
  ['PMUv3', 'ID_AA64DFR0_EL1', 0x100n, 0xf800_03ffn],
  ['a version of the PMU that is none', 'ID_AA64DFR0_EL1', 0x200n, 0xf800_0000n],
  ['a version of the PMU that KVM does not know', 'ID_AA64DFR0_EL1', 0x900n, 0xf800_0000n],
  ['PMUv3p1', 'ID_AA64DFR0_EL1', 0x400n, EVENTS],
  ['no EL2', 'ID_AA64PFR0_EL1', 0x1012n, 0xf000_ffffn],
  ['no EL3', 'ID_AA64PFR0_EL1', 0x112n, 0xc800_ffffn],
] as const) {
  test(`once a VM has ${what}, reset leaves ${hex(expected)} in its event types`, () => {
    const { vcpu } = start(withEvents)
    assert.equal(set(vcpu, register, value), 0)
    assert.equal(get(vcpu, 'PMEVTYPER0_EL0'), EVENTS)
    assert.equal(vcpu.init(5, [PSCI]), 0)
    assert.equal(get(vcpu, 'PMEVTYPER0_EL0'), expected)
  })
}

/** With SVE and all of pointer authentication, without AArch32 at EL1; features are each vCPU's. */
const ofEachVcpu = withTraits(newHost, { init: { scope: 'vcpu', powerOff: 'sticky' } })
const HALF_PTRAUTH = word(['psci-0.2', 'sve', 'ptrauth-address'])
const SVE_IN_AARCH32 = word(['psci-0.2', 'sve', 'el1-32bit'])
const BOTH = (HALF_PTRAUTH | SVE_IN_AARCH32) >>> 0

for (const [leaksSve, refused, isLeft] of [
  [undefined, HALF_PTRAUTH, false],
  [['ptrauth'], HALF_PTRAUTH, true],
  [['ptrauth'], SVE_IN_AARCH32, false],
  [['ptrauth'], BOTH, false],
  [['ptrauth', 'register-width'], SVE_IN_AARCH32, true],
  [['ptrauth', 'register-width'], BOTH, true],
  [['ptrauth'], word(['psci-0.2', 'ptrauth-address']), false],
] as const) {
  test(`an init refused for 0x${refused.toString(16)} leaves ${isLeft ? 'SVE' : 'no SVE'} where ${leaksSve?.join(' and ') ?? 'nothing'} does`, () => {
    const host = withTraits(ofEachVcpu, { init: { ...(leaksSve && { leaksSve: [...leaksSve] }) } })
    const vcpu = made(vmOf(host).createVcpu(0))
    assert.equal(outcomeName(vcpu.init(5, [refused])), 'EINVAL')
    assert.equal(vcpu.init(5, [PSCI]), 0)
    assert.equal(outcomeName(vcpu.getRegList(new BigUint64Array(1))), isLeft ? 'EPERM' : 'E2BIG')
    assert.equal(outcomeName(vcpu.finalize(4)), isLeft ? 0 : 'EINVAL')
    assert.equal(get(vcpu, 'KVM_REG_ARM64_SVE_VLS') === 'ENOENT', !isLeft)
    assert.equal(vcpu.init(5, [PSCI]), 0)
  })
}
