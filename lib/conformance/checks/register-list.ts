/** `KVM_GET_REG_LIST`, and the registers it lists. */
import type { VcpuFd } from '../../backend.js'
import type { Kvm, Registers, Vcpu } from '../../kvm/index.js'
import {
  arm64Id,
  coprocessors,
  decodeRegister,
  encodeRegister,
  hex,
  type RegisterName,
  registerName,
  registerWidth,
  sizes,
  U64,
  withSize,
} from '../../registers/index.js'
import { KVM_ARM_VCPU_SVE, type VcpuFeature } from '../../uapi.js'
import { type Check, type CheckGroup, deviates, violated } from '../check.js'
import {
  answerOf,
  answerOfOutcome,
  expect,
  expectRead,
  expectWrite,
  needFeatures,
  onBareVcpu,
  onTwoVcpus,
  onVcpu,
  SUCCESS,
} from '../experiments.js'

const SELFTEST = 'selftest get-reg-list'
const LIST = 'api.rst, KVM_GET_REG_LIST'
const ONE_REG = 'api.rst, KVM_SET_ONE_REG and KVM_GET_ONE_REG'
const SVE = 'api.rst, KVM_ARM_VCPU_FINALIZE; arm64 SVE registers'

const VLS = encodeRegister('KVM_REG_ARM64_SVE_VLS')
const KVM_REG_ARM64 = 6n

/** Sets of features whose lists are checked, if the host has them. */
const featureSets: readonly (readonly VcpuFeature[])[] = [
  [],
  ['pmu-v3'],
  ['sve'],
  ['ptrauth-address', 'ptrauth-generic'],
]

function listOf(kvm: Kvm, features: readonly VcpuFeature[]): Set<string> {
  return onVcpu(kvm, ({ registers }) => namesOf(registers), ['psci-0.2', ...features])
}

function namesOf(registers: Registers): Set<string> {
  return new Set([...registers.list()].map(registerName))
}

/** Requests the list with the count `room`, and provides space for more. */
function listInto(vcpu: VcpuFd, room: bigint): { answer: string; count: bigint } {
  const list = new BigUint64Array(4097)
  list[0] = room
  return { answer: answerOfOutcome(vcpu.getRegList(list)), count: list[0] }
}

function countOf(vcpu: VcpuFd): bigint {
  return listInto(vcpu, 0n).count
}

const list: Check[] = [
  {
    name: 'A list without room is E2BIG, and tells how much is needed',
    promise: 'E2BIG, and n is the number of registers',
    source: LIST,
    mark: 'promised',
    experiment: (kvm) =>
      onBareVcpu(kvm, ['psci-0.2'], (vcpu) => {
        const needed = countOf(vcpu)
        for (const room of [0n, 1n, needed - 1n]) {
          const { answer, count } = listInto(vcpu, room)
          expect(`room for ${room}`, answer, 'E2BIG')
          if (count !== needed) violated(`room for ${room}: n becomes ${count}, not ${needed}`)
        }
        expect(`room for ${needed}`, listInto(vcpu, needed).answer, SUCCESS)
        return `E2BIG up to one less than n, which becomes ${needed}`
      }),
  },
  {
    name: 'A list with more room than needed tells how much was used',
    promise: 'n is the number of registers',
    source: LIST,
    mark: 'promised',
    experiment: (kvm) =>
      onBareVcpu(kvm, ['psci-0.2'], (vcpu) => {
        const needed = countOf(vcpu)
        const { answer, count } = listInto(vcpu, needed + 1000n)
        expect('room for 1000 more', answer, SUCCESS)
        return count === needed ? `n becomes ${needed}` : violated(`n becomes ${count}, not ${needed}`)
      }),
  },
  {
    name: 'The room of a list is a number of 64 bits',
    promise: 'struct kvm_reg_list.n is a u64',
    source: LIST,
    mark: 'promised',
    experiment: (kvm) =>
      onBareVcpu(kvm, ['psci-0.2'], (vcpu) => {
        const { answer } = listInto(vcpu, 1n << 32n)
        if (answer === SUCCESS) return 'room for 2³² is enough'
        expect('room for 2³²', answer, 'E2BIG')
        return deviates('E2BIG for room of 2³²: the lower 32 bits decide')
      }),
  },
  {
    name: 'The list is the same each time, on each vCPU and in each VM',
    promise: 'the registers of a vCPU follow from the host and the features',
    source: SELFTEST,
    mark: 'promised',
    experiment: (kvm) => {
      const lists = onTwoVcpus(kvm, (first, second) => [
        first.registers.list(),
        first.registers.list(),
        second.registers.list(),
        onVcpu(kvm, ({ registers }) => registers.list()),
      ])
      const texts = new Set(lists.map(String))
      return texts.size === 1 ? `${lists[0]!.length} registers` : violated('the lists differ')
    },
  },
  {
    name: 'The list does not change by the first run',
    promise: 'the registers of a vCPU follow from the host and the features',
    source: 'every release',
    mark: 'observed',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const before = vcpu.registers.list()
        vcpu.freeze()
        return String(vcpu.registers.list()) === String(before)
          ? `${before.length} registers`
          : violated('the list differs')
      }),
  },
  {
    name: 'No register is listed twice',
    promise: 'a list of the registers, for each of which KVM_GET_ONE_REG works',
    source: LIST,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, ({ registers }) => {
        const ids = registers.list()
        const twice = ids.find((id, index) => ids.indexOf(id) !== index)
        return twice === undefined ? `${ids.length} ids` : violated(`${registerName(twice)} is listed twice`)
      }),
  },
  {
    name: 'Every listed id is one of arm64, of 8 to 2048 bits',
    promise: 'ids are 0x60… with the size in bits 55:52',
    source: ONE_REG,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, ({ registers }) => {
        for (const id of registers.list()) {
          if (id >> 60n !== KVM_REG_ARM64 || registerWidth(id) > 2048) violated(hex(id))
        }
        return 'so are all'
      }),
  },
  {
    name: 'The list begins with the core registers, and keeps the firmware’s together and in order',
    promise: 'core registers, SVE, firmware, then the rest',
    source: 'every release',
    mark: 'observed',
    experiment: (kvm) =>
      onVcpu(kvm, ({ registers }) => {
        const ids = [...registers.list()]
        const spaces = ids.map((id) => decodeRegister(id).space)
        const cores = spaces.filter((space) => space === 'core').length
        const first = spaces.findIndex((space) => space === 'firmware')
        const firmware = ids.filter((_, index) => ['firmware', 'bitmap'].includes(spaces[index]!))
        const inPlace = firmware.every((id, index) => ids[first + index] === id)
        const inOrder = firmware.every((id, index) => index === 0 || firmware[index - 1]! < id)
        if (spaces.lastIndexOf('core') !== cores - 1) violated('core registers come after others')
        if (first !== cores || !inPlace || !inOrder)
          violated('the firmware’s registers do not follow in order')
        return `${cores} core registers, then ${firmware.length} of the firmware`
      }),
  },
  {
    name: 'The list has every register a VMM saves of any vCPU',
    promise: 'x0 to x30, sp, pc, pstate, those of EL1, the vector registers, the firmware’s',
    source: SELFTEST,
    mark: 'promised',
    experiment: (kvm) => {
      const names = listOf(kvm, [])
      const missing = required.filter((name) => !names.has(name))
      return missing.length === 0
        ? `lists all of ${required.length}`
        : violated(`does not list ${missing.join(', ')}`)
    },
  },
]

const required: readonly string[] = [
  ...Array.from({ length: 31 }, (_, n) => `x${n}`),
  'sp',
  'pc',
  'pstate',
  'sp_el1',
  'elr_el1',
  ...Array.from({ length: 32 }, (_, n) => `v${n}`),
  'fpsr',
  'fpcr',
  'KVM_REG_ARM_PSCI_VERSION',
  'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1',
  'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2',
  'MPIDR_EL1',
  'MIDR_EL1',
  'CTR_EL0',
  'SCTLR_EL1',
  'CPACR_EL1',
  'TTBR0_EL1',
  'TTBR1_EL1',
  'TCR_EL1',
  'ESR_EL1',
  'AFSR0_EL1',
  'AFSR1_EL1',
  'FAR_EL1',
  'PAR_EL1',
  'MAIR_EL1',
  'AMAIR_EL1',
  'VBAR_EL1',
  'CONTEXTIDR_EL1',
  'TPIDR_EL0',
  'TPIDRRO_EL0',
  'TPIDR_EL1',
  'CNTKCTL_EL1',
  'CSSELR_EL1',
  'MDSCR_EL1',
  ...['PFR0', 'PFR1', 'DFR0', 'DFR1', 'ISAR0', 'ISAR1', 'ISAR2', 'MMFR0', 'MMFR1', 'MMFR2'].map(
    (name) => `ID_AA64${name}_EL1`,
  ),
]

/** Calls a function for each listed register of each feature set of this host, and returns the number of registers. */
function forEachRegister(kvm: Kvm, work: (vcpu: Vcpu, id: bigint) => void): string {
  const done: string[] = []
  for (const features of featureSets) {
    if (answerOf(() => onVcpu(kvm, () => undefined, ['psci-0.2', ...features])) !== SUCCESS) continue
    onVcpu(
      kvm,
      (vcpu) => {
        const ids = vcpu.registers.list()
        for (const id of ids) work(vcpu, id)
        done.push(`${ids.length} with ${features.join('+') || 'no feature'}`)
      },
      ['psci-0.2', ...features],
    )
  }
  return done.join(', ')
}

/** Registers of EL1 that KVM keeps when a vCPU is initialised again. */
const savedByException = ['sp_el1', 'elr_el1', 'spsr_el1'] as const
/** A PSTATE of EL0. */
const EL0 = 0x3c0n

const registers: Check[] = [
  {
    name: 'Every listed register can be read',
    promise: 'KVM_GET_ONE_REG works for each',
    source: `${LIST}; ${SELFTEST}`,
    mark: 'promised',
    experiment: (kvm) =>
      forEachRegister(kvm, (vcpu, id) => {
        expect(
          registerName(id),
          answerOf(() => vcpu.registers.get(id)),
          SUCCESS,
        )
      }),
  },
  {
    name: 'Every listed register accepts what was read from it',
    promise: 'KVM_SET_ONE_REG works with the same value, but for the vector lengths once they are final',
    source: SELFTEST,
    mark: 'promised',
    experiment: (kvm) =>
      forEachRegister(kvm, (vcpu, id) => {
        if (id !== VLS) expectWrite(vcpu, id, vcpu.registers.get(id))
      }),
  },
  {
    name: 'A general-purpose register reads as written, at its full width',
    promise: 'KVM_SET_ONE_REG sets the register',
    source: ONE_REG,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        for (const [name, value] of [
          ['x0', 0xfedc_ba98_7654_3210n],
          ['x30', U64],
          ['sp_el1', 1n << 63n],
          ['v31', (1n << 128n) - 1n],
          ['fpcr', 0x0100_0000n],
          ['TPIDR_EL0', 0x0123_4567_89ab_cdefn],
        ] as const) {
          expectWrite(vcpu, name, value)
          expectRead(vcpu, name, value)
        }
        return 'x0, x30, sp_el1, v31, fpcr, TPIDR_EL0 read as written'
      }),
  },
  {
    name: 'Another init sets a vCPU’s registers to what they were after the first',
    promise: 'KVM_ARM_VCPU_INIT called again resets all registers to their initial values',
    source: 'api.rst, KVM_ARM_VCPU_INIT',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const names: RegisterName[] = [
          'x0',
          'x30',
          'sp',
          'pc',
          'pstate',
          'v0',
          'TTBR0_EL1',
          'VBAR_EL1',
          ...savedByException,
        ]
        const initial = names.map((name) => vcpu.registers.get(name))
        for (const [index, name] of names.entries()) {
          expectWrite(vcpu, name, name === 'pstate' ? EL0 : initial[index]! + 0x1000n)
        }
        vcpu.init()
        const kept = names.filter((name, index) => vcpu.registers.get(name) !== initial[index])
        if (kept.length === 0) return `resets ${names.join(', ')}`
        return kept.every((name) => savedByException.some((saved) => saved === name))
          ? deviates(`keeps ${kept.join(', ')}`)
          : violated(`keeps ${kept.join(', ')}`)
      }),
  },
]

const errors: Check[] = [
  {
    name: 'A vCPU that was not initialised has no registers yet: ENOEXEC',
    promise: 'KVM_ARM_VCPU_INIT comes first: ENOEXEC without it',
    source: 'api.rst, KVM_ARM_VCPU_INIT and KVM_RUN',
    mark: 'promised',
    experiment: (kvm) =>
      onBareVcpu(kvm, null, (vcpu) => {
        const x0 = encodeRegister('x0')
        expect('KVM_GET_REG_LIST', listInto(vcpu, 4096n).answer, 'ENOEXEC')
        expect('KVM_GET_ONE_REG', answerOfOutcome(vcpu.getOneReg(x0)), 'ENOEXEC')
        expect('KVM_SET_ONE_REG', answerOfOutcome(vcpu.setOneReg(x0, 0n)), 'ENOEXEC')
        expect('KVM_RUN', answerOfOutcome(vcpu.runSync(100)), 'ENOEXEC')
        expect('KVM_ARM_VCPU_FINALIZE', answerOfOutcome(vcpu.finalize(KVM_ARM_VCPU_SVE)), 'ENOEXEC')
        return 'ENOEXEC for the list, for reading and writing a register, KVM_RUN and KVM_ARM_VCPU_FINALIZE'
      }),
  },
  {
    name: 'A register nobody has is ENOENT',
    promise: 'ENOENT: no such register',
    source: ONE_REG,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        // An implementation-defined system register, one of op0 0, a demux selector beyond all, a space without a meaning.
        for (const id of [
          encodeRegister('S3_7_C15_C15_7'),
          arm64Id(sizes.U64, coprocessors.SYSREG, 0),
          arm64Id(sizes.U32, coprocessors.DEMUX, 0xff),
          arm64Id(sizes.U64, 0x12, 0),
        ]) {
          expect(
            `reading ${hex(id)}`,
            answerOf(() => vcpu.registers.get(id)),
            'ENOENT',
          )
          expectWrite(vcpu, id, 0n, 'ENOENT')
        }
        return 'ENOENT, read and written'
      }),
  },
  {
    name: 'An id of another architecture is EINVAL',
    promise: 'EINVAL: invalid register id',
    source: ONE_REG,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const low = encodeRegister('x0') & ((1n << 60n) - 1n)
        for (const architecture of [2n, 4n, 8n]) {
          const id = (architecture << 60n) | low
          expect(
            `reading ${hex(id)}`,
            answerOf(() => vcpu.registers.get(id)),
            'EINVAL',
          )
          expectWrite(vcpu, id, 0n, 'EINVAL')
        }
        return 'EINVAL, read and written'
      }),
  },
  {
    name: 'A core register of a wrong width, or at no place of one, is EINVAL',
    promise: 'EINVAL: invalid register id',
    source: ONE_REG,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const x0 = encodeRegister('x0')
        for (const id of [withSize(x0, sizes.U32), withSize(x0, sizes.U128), x0 + 1n]) {
          expect(
            `reading ${hex(id)}`,
            answerOf(() => vcpu.registers.get(id)),
            'EINVAL',
          )
          expectWrite(vcpu, id, 0n, 'EINVAL')
        }
        return 'EINVAL, read and written'
      }),
  },
  {
    name: 'A value that cannot be read or written is EFAULT',
    promise: 'a faulting address',
    source: 'every release',
    mark: 'observed',
    experiment: (kvm) =>
      onBareVcpu(kvm, ['psci-0.2'], (vcpu) => {
        for (const name of ['x0', 'v0', 'TPIDR_EL0', 'KVM_REG_ARM_PSCI_VERSION']) {
          const id = encodeRegister(name)
          expect(`${name} to a null address`, answerOfOutcome(vcpu.getOneRegAtNull(id)), 'EFAULT')
          expect(`${name} from a null address`, answerOfOutcome(vcpu.setOneRegAtNull(id)), 'EFAULT')
        }
        return 'EFAULT'
      }),
  },
]

/** Registers that show whether a list includes a feature. */
function featureCheck(
  what: string,
  features: readonly VcpuFeature[],
  present: readonly string[],
  absent: readonly string[] = [],
): Check {
  return {
    name: `The registers of ${what} are listed for a vCPU that has it, and for no other`,
    promise: `${present.join(', ')} only with ${features.join(', ')}`,
    source: SELFTEST,
    mark: 'promised',
    experiment: (kvm) => {
      needFeatures(kvm, features)
      const [without, having] = [listOf(kvm, []), listOf(kvm, features)]
      const missing = present.filter((name) => !having.has(name))
      const left = absent.filter((name) => having.has(name))
      if (missing.length > 0) violated(`${missing.join(', ')} not listed with it`)
      if (left.length > 0) violated(`${left.join(', ')} listed with it`)
      const stray = present.filter((name) => without.has(name))
      if (stray.length === 0) return `${without.size} registers without it, ${having.size} with it`
      // Kernels before 5.12 hid the PMU's registers from no vCPU.
      return stray.length === present.length && what === 'the PMU'
        ? deviates('listed for every vCPU')
        : violated(`${stray.join(', ')} listed without it`)
    },
  }
}

const features: Check[] = [
  featureCheck('the PMU', ['pmu-v3'], ['PMCR_EL0', 'PMCCNTR_EL0', 'PMUSERENR_EL0', 'PMCCFILTR_EL0']),
  featureCheck(
    'SVE',
    ['sve'],
    ['KVM_REG_ARM64_SVE_VLS', 'z0', 'z31', 'p0', 'p15', 'ffr', 'ZCR_EL1'],
    ['v0', 'v31'],
  ),
  featureCheck(
    'pointer authentication',
    ['ptrauth-address', 'ptrauth-generic'],
    ['APIAKEYLO_EL1', 'APIBKEYHI_EL1', 'APDAKEYLO_EL1', 'APDBKEYHI_EL1', 'APGAKEYLO_EL1'],
  ),
  {
    name: 'A vCPU with SVE must be finalized before it is listed or run: EPERM',
    promise: 'EPERM for KVM_GET_REG_LIST, KVM_RUN and the SVE registers but for the vector lengths',
    source: SVE,
    mark: 'promised',
    experiment: (kvm) => {
      needFeatures(kvm, ['sve'])
      return onBareVcpu(kvm, ['psci-0.2', 'sve'], (vcpu) => {
        expect('KVM_GET_REG_LIST', listInto(vcpu, 4096n).answer, 'EPERM')
        expect('KVM_RUN', answerOfOutcome(vcpu.runSync(100)), 'EPERM')
        expect('reading z0', answerOfOutcome(vcpu.getOneReg(encodeRegister('z0'))), 'EPERM')
        expect('reading the vector lengths', answerOfOutcome(vcpu.getOneReg(VLS)), SUCCESS)
        expect('reading x0', answerOfOutcome(vcpu.getOneReg(encodeRegister('x0'))), SUCCESS)
        return 'EPERM for the list, KVM_RUN and z0'
      })
    },
  },
  {
    name: 'The vector lengths may be limited until they are final, and then are EPERM',
    promise: 'KVM_REG_ARM64_SVE_VLS is writable before KVM_ARM_VCPU_FINALIZE and EPERM after it',
    source: `${SVE}; ${SELFTEST}`,
    mark: 'promised',
    experiment: (kvm) => {
      needFeatures(kvm, ['sve'])
      return onBareVcpu(kvm, ['psci-0.2', 'sve'], (vcpu) => {
        const lengths = vcpu.getOneReg(VLS)
        if (typeof lengths === 'number' || (lengths & 1n) === 0n) violated('128 bits are no vector length')
        expect('128 bits only', answerOfOutcome(vcpu.setOneReg(VLS, 1n)), SUCCESS)
        if (vcpu.getOneReg(VLS) !== 1n) violated('reads other than written')
        expect('no length at all', answerOfOutcome(vcpu.setOneReg(VLS, 0n)), 'EINVAL')
        expect('KVM_ARM_VCPU_FINALIZE', answerOfOutcome(vcpu.finalize(KVM_ARM_VCPU_SVE)), SUCCESS)
        expect('written when final', answerOfOutcome(vcpu.setOneReg(VLS, 1n)), 'EPERM')
        return `${hex(lengths)} limited to 0x1; EINVAL for none, and EPERM when final`
      })
    },
  },
  {
    name: 'KVM_ARM_VCPU_FINALIZE works once, for what a vCPU has',
    promise: 'EPERM for what is final, EINVAL for what the vCPU has not or nobody knows',
    source: 'api.rst, KVM_ARM_VCPU_FINALIZE',
    mark: 'promised',
    experiment: (kvm) => {
      onBareVcpu(kvm, ['psci-0.2'], (vcpu) => {
        for (const feature of [0, 3, KVM_ARM_VCPU_SVE, 31]) {
          expect(`feature ${feature}`, answerOfOutcome(vcpu.finalize(feature)), 'EINVAL')
        }
      })
      if (answerOf(() => onVcpu(kvm, () => undefined, ['psci-0.2', 'sve'])) !== SUCCESS) {
        return 'EINVAL for a vCPU without SVE'
      }
      return onBareVcpu(kvm, ['psci-0.2', 'sve'], (vcpu) => {
        expect('SVE', answerOfOutcome(vcpu.finalize(KVM_ARM_VCPU_SVE)), SUCCESS)
        expect('SVE again', answerOfOutcome(vcpu.finalize(KVM_ARM_VCPU_SVE)), 'EPERM')
        expect('feature 31', answerOfOutcome(vcpu.finalize(31)), 'EINVAL')
        return 'EINVAL for a vCPU without SVE, EPERM the second time with it'
      })
    },
  },
]

export const registerList: CheckGroup = {
  title: 'Register list',
  checks: [...list, ...registers, ...errors, ...features],
}
