/** Two small reports, one of each generation of KVM, and the handles tests begin with. */
import assert from 'node:assert/strict'
import type { SystemFd, VcpuFd, VmFd } from '../../lib/backend.js'
import { encodeRegister, registerName } from '../../lib/registers/index.js'
import type { Report, ReportedRegister, Traits } from '../../lib/report/report.js'
import { type NibblesRule, nibblesRule, type WriteRule } from '../../lib/report/write-rule.js'
import { simulatorBackend } from '../../lib/simulator/index.js'
import { errnos, type VcpuFeature, vcpuFeatures } from '../../lib/uapi.js'

export function hex(value: bigint): string {
  return `0x${value.toString(16)}`
}

/** A register of a report by its name; `value` null counts time. */
function register(name: string, value: bigint | null = 0n, write?: WriteRule): ReportedRegister {
  const id = encodeRegister(name)
  const described = { id: hex(id), name: registerName(id), value: value === null ? null : hex(value) }
  return write === undefined ? described : { ...described, write }
}

function withMask(mask: string, { write, ...row }: ReportedRegister): ReportedRegister {
  return { ...row, mask, ...(write && { write }) }
}

function idAndName(name: string): { id: string; name: string } {
  const { id, name: canonical } = register(name)
  return { id, name: canonical }
}

/** The rule of a register with this value of which some nibbles accept other values. */
export function nibbles(
  value: bigint,
  free: Record<number, readonly number[]>,
  more: Pick<NibblesRule, 'invalidAfterRun' | 'storedAs'> = {},
): WriteRule {
  const sets = Array.from({ length: 16 }, (_, index) => {
    const own = Number((value >> BigInt(4 * index)) & 0xfn)
    return (free[index] ?? [own]).reduce((bits, nibble) => bits | (1 << nibble), 0)
  })
  return nibblesRule(sets, value, more)
}

const general = [
  ...Array.from({ length: 31 }, (_, n) => register(`x${n}`)),
  register('sp'),
  register('pc'),
  register('pstate', 0x3c5n),
  register('sp_el1'),
]
const vectors = Array.from({ length: 2 }, (_, n) => register(`v${n}`))
const floatingPoint = [register('fpsr'), register('fpcr')]

const EINVAL: WriteRule = { rule: 'fixed', errno: 'EINVAL' }

/** CSV2 1, GIC 1, AdvSIMD and FP 0, EL3 0, EL2 0, EL1 1, EL0 2 (AArch32 too). */
const PFR0 = 0x0100_0000_0100_0012n

const checked = (accepts: string[]): WriteRule => ({ rule: 'checked', accepts })

function firmware(
  bitmaps: readonly string[],
  psci: bigint,
  versions: readonly string[],
  withoutSsbs?: Extract<WriteRule, { rule: 'checked' }>['withoutSsbs'],
): ReportedRegister[] {
  return [
    register('KVM_REG_ARM_PSCI_VERSION', psci, { rule: 'values', accepts: [...versions] }),
    register('KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1', 2n, checked(['0x0', '0x1', '0x2'])),
    register('KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2', 0n, {
      rule: 'checked',
      accepts: ['0x0', '0x1'],
      ...(withoutSsbs && { withoutSsbs }),
    }),
    register('KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3', 1n, checked(['0x0', '0x1'])),
    ...bitmaps.map((name) => {
      const value = name.endsWith('_2') ? 0n : name.includes('VENDOR') ? 3n : 1n
      return register(name, value, { rule: 'subset', of: name.includes('VENDOR') ? '0x3' : '0x1' })
    }),
  ]
}

const commonCapabilities: Report['capabilities'] = {
  KVM_CAP_IRQCHIP: [1, 1],
  KVM_CAP_NR_MEMSLOTS: [32767, 32767],
  KVM_CAP_COALESCED_MMIO: [1, 1],
  KVM_CAP_MAX_VCPUS: [512, 512],
  KVM_CAP_READONLY_MEM: [1, 1],
  KVM_CAP_ARM_VM_IPA_SIZE: [44, 44],
  KVM_CAP_MSI_DEVID: [-22, 1],
  KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: [3, 3],
  KVM_CAP_HALT_POLL: [1, 1],
  KVM_CAP_ARM_NISV_TO_USER: [1, 1],
  KVM_CAP_ARM_INJECT_SERROR_ESR: [1, 1],
  KVM_CAP_STEAL_TIME: [1, 1],
  KVM_CAP_ARM_SYSTEM_SUSPEND: [1, 1],
  KVM_CAP_SYSTEM_EVENT_DATA: [1, 1],
  KVM_CAP_ARM_MTE: [0, 0],
}

const THREE_BITMAPS = ['KVM_REG_ARM_STD_BMAP', 'KVM_REG_ARM_STD_HYP_BMAP', 'KVM_REG_ARM_VENDOR_HYP_BMAP']
const FOUR_BITMAPS = [...THREE_BITMAPS, 'KVM_REG_ARM_VENDOR_HYP_BMAP_2']

/** Features of each vCPU, ID registers all but fixed: as Linux 6.1. */
export const oldHost: Report = {
  format: 'kvm-arm64/report',
  version: 2,
  probedAt: '2026-01-01T00:00:00.000Z',
  host: { release: 'old', build: 'fixture' },
  origin: { kind: 'kernel' },
  capabilities: commonCapabilities,
  otherCapabilities: { '162': [1, 1], '195': [0, 0x30003] },
  vmTypes: {
    ipaSizes: '0,32-44',
    protected: false,
  },
  guestReads: [
    { ...idAndName('CNTFRQ_EL0'), value: '0x3b9aca00' },
    { ...idAndName('CTR_EL0'), value: '0x8444c004' },
    { ...idAndName('DCZID_EL0'), value: '0x4' },
    { ...idAndName('MIDR_EL1'), value: '0x410fd0c1' },
  ],
  cpus: {
    probed: 1,
    kinds: [
      { cpus: '0-3', midr: '0x410fd034', revidr: '0x0', caches: [{ level: 1, type: 'data' }] },
      {
        cpus: '4,6-7',
        midr: '0x410fd0c1',
        revidr: '0x0',
        caches: [{ level: 1, type: 'data', size: 65536, line: 64, ways: 4, sets: 256 }],
      },
    ],
  },
  vcpuMmapSize: 8192,
  preferredTarget: 2,
  registers: [
    ...general,
    ...vectors,
    ...floatingPoint,
    ...firmware(THREE_BITMAPS, 0x10001n, ['0x2', '0x10000', '0x10001']),
    register('KVM_REG_ARM_TIMER_CTL', 4n, { rule: 'bits', bits: '0xfffffffb' }),
    register('KVM_REG_ARM_TIMER_CNT', null),
    register('KVM_REG_ARM_TIMER_CVAL'),
    register('MIDR_EL1', 0x410fd0c1n, EINVAL),
    register('CLIDR_EL1', 0xa200023n, EINVAL),
    register('MPIDR_EL1', 0x8000_0000n),
    register('ID_AA64PFR0_EL1', PFR0, nibbles(PFR0, { 14: [0, 1] })),
    register('ID_AA64PFR1_EL1', 0x20n, EINVAL),
    register('SCTLR_EL1', 0xc50078n),
    register('PAR_EL1', 0n, { rule: 'bits', bits: '0xff' }),
    register('TPIDR_EL0', 0n),
    register('PMINTENSET_EL1', 0n, { rule: 'sets', bits: '0xff' }),
    register('PMINTENCLR_EL1', 0n, { rule: 'clears', bits: '0xff' }),
    register('PMCNTENCLR_EL0', 0n),
    register('PMCNTENSET_EL0', 0n),
    register('CCSIDR_EL1[0]', 0x701fe01an, nibbles(0x701fe01an, { 0: [8, 10] })),
    register('AFSR0_EL1', 0x1de7n),
  ],
  configurations: [
    {
      features: ['psci-0.2', 'el1-32bit'],
      removed: [],
      added: [],
      changed: [{ ...idAndName('pstate'), value: '0x1d3' }],
    },
    {
      features: ['psci-0.2', 'pmu-v3'],
      removed: [],
      added: [
        { ...register('PMCR_EL0', 0x41033000n), index: 51 },
        { ...register('PMCCNTR_EL0', 0n), index: 52 },
      ],
      changed: [],
    },
    { features: ['psci-0.2', 'el1-32bit', 'pmu-v3'], refused: 'ENODEV' },
  ],
  traits: {
    init: {
      targets: [2],
      knownFeatures: 7,
      supported: ['power-off', 'el1-32bit', 'psci-0.2', 'pmu-v3'],
      scope: 'vcpu',
      powerOff: 'sticky',
      leaksRefusedFeatures: true,
      registerWidth: 'vm',
      kept: [hex(encodeRegister('sp_el1'))],
      keepsSError: false,
    },
    bitmapAfterRun: 'busy-if-changed',
    idRegisterAfterRun: 'unguarded',
    changedByFirstRun: [],
    lossyRegisters: [{ ...idAndName('AFSR0_EL1'), by: 'guest', kept: '0xff' }],
    firmwareWidthChecked: true,
    setReadsValueFirst: { systemRegister: true, unknownSpace: true },
    faultingSetZeroes: false,
    vcpuEventsNeedInit: false,
    sErrorWakes: false,
    smcccFilter: null,
    hypercalls: {
      services: ['trng-v1.0', 'pv-time', 'features', 'ptp'],
      smc: false,
      affinityMasked: false,
      sameAffinity: 'first',
    },
    devices: ['KVM_DEV_TYPE_ARM_VGIC_V3', 'KVM_DEV_TYPE_ARM_VGIC_ITS'],
    timers: { interrupts: [27, 30], scope: 'vcpu' },
    pmu: { filter: { events: 0x400, afterRun: false }, ids: [8, 9], counters: null },
    runWithoutPmuInit: 'EINVAL',
    runWithoutVgicInit: { errno: 'ENXIO', killsVm: true },
  },
}

/** EL0, nibble 0, cannot be 0, not even after the run. */
const NO_EL0 = { '3:0': '0' }
/** MTE_frac and SSBS may be hidden. */
const PFR1 = 0x21n
const DFR0 = 0x1010_0006n
/** Vectors of 128, 256 and 512 bits. */
const VECTOR_LENGTHS = 0b1011n

/** Features and ID registers of the VM, vectors: as Linux 6.18. */
export const newHost: Report = {
  ...oldHost,
  host: { release: 'new', build: 'fixture' },
  capabilities: {
    ...commonCapabilities,
    KVM_CAP_ARM_SVE: [1, 1],
    KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES: [0x40201000, 0x40201000],
    KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES: [1, 1],
    KVM_CAP_ARM_WRITABLE_IMP_ID_REGS: [1, 1],
  },
  preferredTarget: 5,
  registers: [
    ...general,
    ...vectors,
    ...floatingPoint,
    ...firmware(FOUR_BITMAPS, 0x10003n, ['0x2', '0x10000', '0x10001', '0x10002', '0x10003'], {
      value: '0x3',
      accepts: ['0x0', '0x1', '0x2', '0x3', '0x12'],
    }),
    withMask('0xffffffff', register('MIDR_EL1', 0x410fd0c1n, EINVAL)),
    register('MPIDR_EL1', 0x8000_0000n),
    register('ID_PFR0_EL1', 0n, { rule: 'bits', bits: '0x0' }),
    withMask(
      '0xff0000000f00000f',
      register(
        'ID_AA64PFR0_EL1',
        PFR0,
        nibbles(PFR0, { 0: [1, 2], 6: [0, 1], 14: [0, 1] }, { invalidAfterRun: NO_EL0 }),
      ),
    ),
    register(
      'ID_AA64PFR1_EL1',
      PFR1,
      nibbles(PFR1, { 0: [0, 1, 3], 1: [0, 1, 2] }, { storedAs: { '3:0': { 3: '1' } } }),
    ),
    register('S3_0_C0_C4_3', 0n, EINVAL),
    register('ID_AA64DFR0_EL1', DFR0, EINVAL),
    register('SCTLR_EL1', 0xc50078n),
    register('KVM_REG_ARM_PTIMER_CNT', null),
    withMask('0x7fffffffffff', register('CLIDR_EL1', 0xa200023n, nibbles(0xa200023n, { 0: [0, 1, 2, 3] }))),
    register('AIDR_EL1', 0n, EINVAL),
    withMask('0x300fc00f', register('CTR_EL0', 0x8444c004n, nibbles(0x8444c004n, { 0: [0, 1, 2, 3, 4] }))),
    register('AFSR0_EL1', 0x1de7n),
    register('TPIDR_EL0'),
  ],
  configurations: [
    {
      features: ['psci-0.2', 'sve'],
      removed: vectors.map(({ id }) => id),
      added: [
        {
          ...register('KVM_REG_ARM64_SVE_VLS', VECTOR_LENGTHS, { rule: 'refused', errno: 'EPERM' }),
          index: 37,
        },
        { ...register('z0', 0n, { rule: 'bits', bits: hex((1n << 512n) - 1n) }), index: 38 },
        { ...register('z31', 0n, { rule: 'bits', bits: hex((1n << 512n) - 1n) }), index: 39 },
        { ...register('p0', 0n, { rule: 'bits', bits: hex((1n << 64n) - 1n) }), index: 40 },
        { ...register('ffr', 0n, { rule: 'bits', bits: hex((1n << 64n) - 1n) }), index: 41 },
        { ...register('ZCR_EL1'), index: 58 },
      ],
      changed: [
        register(
          'ID_AA64PFR0_EL1',
          PFR0 | (1n << 32n),
          nibbles(
            PFR0 | (1n << 32n),
            { 0: [1, 2], 6: [0, 1], 8: [0, 1], 14: [0, 1] },
            { invalidAfterRun: NO_EL0 },
          ),
        ),
      ],
    },
    {
      features: ['psci-0.2', 'ptrauth-address', 'ptrauth-generic'],
      removed: [],
      added: [],
      changed: [],
    },
    { features: ['psci-0.2', 'sve', 'ptrauth-address', 'ptrauth-generic'], refused: 'ENODEV' },
  ],
  traits: {
    ...oldHost.traits,
    init: {
      targets: [2, 5],
      knownFeatures: 9,
      supported: ['power-off', 'psci-0.2', 'sve', 'ptrauth-address', 'ptrauth-generic'],
      scope: 'vm',
      powerOff: 'ephemeral',
      leaksRefusedFeatures: false,
      kept: [],
      keepsSError: true,
    },
    idRegisterAfterRun: 'busy-if-changed',
    changedByFirstRun: [{ ...idAndName('ID_AA64PFR0_EL1'), mask: '0x1000000', value: '0x0' }],
    changedByVgic: [{ ...idAndName('ID_AA64PFR0_EL1'), mask: '0x1000000', value: '0x1000000' }],
    hiddenRegisters: [
      {
        ...idAndName('ID_AA64PFR1_EL1'),
        nibble: '7:4',
        values: '0-1',
        hides: [idAndName('AFSR0_EL1')],
      },
    ],
    lossyRegisters: [{ ...idAndName('AFSR0_EL1'), by: 'run', kept: '0x0' }],
    vcpuEventsNeedInit: true,
    sErrorWakes: true,
    timers: { interrupts: [27, 30, 28, 26], scope: 'vm' },
    pmu: null,
    runWithoutPmuInit: null,
    smcccFilter: { emptyRangeAtZero: 'EEXIST' },
    hypercalls: {
      services: ['trng-v1.0', 'pv-time', 'features', 'ptp'],
      smc: true,
      affinityMasked: false,
      sameAffinity: 'last',
    },
  },
}

/** A host as in a fixture but for some traits. */
export function withTraits(
  base: Report,
  traits: Partial<Omit<Traits, 'init'>> & { init?: Partial<Traits['init']> },
): Report {
  return {
    ...base,
    traits: { ...base.traits, ...traits, init: { ...base.traits.init, ...traits.init } },
  }
}

/** A host as in a fixture but for some capabilities, the same on both descriptors. */
export function withCapabilities(base: Report, answers: Report['capabilities']): Report {
  return { ...base, capabilities: { ...base.capabilities, ...answers } }
}

/** A report that does not record what reports hold only since they have these entries. */
export function withoutMachine(report: Report): Report {
  const {
    otherCapabilities: _capabilities,
    vmTypes: _types,
    guestReads: _reads,
    cpus: _cpus,
    ...rest
  } = report
  return rest
}

/** A host without bitmap registers, where `KVM_SET_ONE_REG` looks before it reads: as Linux 5.10. */
export const oldestHost: Report = withTraits(
  {
    ...withoutMachine(oldHost),
    registers: oldHost.registers.filter(({ name }) => !name.endsWith('_BMAP')),
    capabilities: { ...oldHost.capabilities, KVM_CAP_ARM_SYSTEM_SUSPEND: [0, 0] },
  },
  {
    bitmapAfterRun: null,
    setReadsValueFirst: { systemRegister: false, unknownSpace: false },
    faultingSetZeroes: true,
    runWithoutPmuInit: null,
    vgicAddressCheckedFirst: true,
    runWithoutVgicInit: { errno: 'ENXIO', killsVm: false },
    init: { registerWidth: 'every-vcpu' },
    hypercalls: { services: ['pv-time'], smc: false, affinityMasked: true, sameAffinity: 'first' },
  },
)

/** What an ioctl answered: an errno's name, or the number itself. */
export type Outcome = string | number

/** An outcome as a person reads it: the errno's name, or what it is. */
export function outcomeName<T>(outcome: T): T | string {
  if (typeof outcome !== 'number' || outcome >= 0) return outcome
  return Object.entries(errnos).find(([, errno]) => errno === -outcome)?.[0] ?? outcome
}

/** The handle an ioctl made. */
export function made<T>(handle: T | number): T {
  assert.ok(typeof handle !== 'number', `made no handle: ${String(outcomeName(handle))}`)
  return handle
}

export function word(features: readonly VcpuFeature[]): number {
  return features.reduce((bits, feature) => bits | (1 << vcpuFeatures[feature]), 0)
}

export function systemOf(report: Report): SystemFd {
  return made(simulatorBackend(report).open())
}

export function vmOf(report: Report): VmFd {
  return made(systemOf(report).createVm(0n))
}

/** A new vCPU of a VM, initialised for the host's target. */
export function vcpuOf(vm: VmFd, id: number, features: readonly VcpuFeature[] = ['psci-0.2']): VcpuFd {
  const vcpu = made(vm.createVcpu(id))
  const init = new Uint32Array(8)
  vm.getPreferredTarget(init)
  assert.equal(outcomeName(vcpu.init(init[0]!, [word(features)])), 0)
  return vcpu
}

/** A VM of the host with vCPU 0. */
export function start(
  report: Report,
  features: readonly VcpuFeature[] = ['psci-0.2'],
): { vm: VmFd; vcpu: VcpuFd } {
  const vm = vmOf(report)
  return { vm, vcpu: vcpuOf(vm, 0, features) }
}

/** A run that executes nothing and counts as one. */
export function runOnce(vcpu: VcpuFd): string | number {
  const page = new Uint8Array(vcpu.runPage)
  page[1] = 1
  const outcome = outcomeName(vcpu.runSync(0))
  page[1] = 0
  return outcome
}

export function get(vcpu: VcpuFd, name: string): bigint | number | string {
  return outcomeName(vcpu.getOneReg(encodeRegister(name)))
}

export function set(vcpu: VcpuFd, name: string, value: bigint): number | string {
  return outcomeName(vcpu.setOneReg(encodeRegister(name), value))
}

/** Every id of a vCPU's list. */
export function listOf(vcpu: VcpuFd): bigint[] {
  const list = new BigUint64Array(1000)
  list[0] = 999n
  assert.equal(outcomeName(vcpu.getRegList(list)), 0)
  return [...list.subarray(1, 1 + Number(list[0]))]
}
