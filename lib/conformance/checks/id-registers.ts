/** The feature ID registers: what a VM's guest may see of its CPU. */
import type { Vcpu, Vm } from '../../kvm/index.js'
import {
  encodeRegister,
  type Field,
  fieldMask,
  fieldValue,
  hex,
  implementationIds,
  isFeatureIdRegister,
  registerField,
  registerFields,
  registerName,
  withField,
} from '../../registers/index.js'
import { KVM_ARM_FEATURE_ID_RANGE_SIZE } from '../../uapi.js'
import { type Check, type CheckGroup, deviates, notApplicable, violated } from '../check.js'
import {
  answerOf,
  answerOfOutcome,
  expect,
  expectRead,
  expectValue,
  expectWrite,
  isListed,
  onBareVm,
  onTwoVcpus,
  onVcpu,
  start,
  SUCCESS,
  write,
} from '../experiments.js'

const MASKS = 'api.rst, KVM_ARM_GET_REG_WRITABLE_MASKS'
const FEATURES = 'arm/vcpu-features.rst, "The ID Registers"'
const SELFTEST = 'selftest set_id_regs'
const IMPLEMENTATION = 'api.rst, KVM_CAP_ARM_WRITABLE_IMP_ID_REGS'

const PFR0 = encodeRegister('ID_AA64PFR0_EL1')
const CLIDR = encodeRegister('CLIDR_EL1')

/** Lowest values KVM accepts in these fields, although a lower one would promise less. */
const floors: Readonly<Record<string, bigint>> = {
  'ID_AA64PFR0_EL1.EL0': 1n,
  'ID_AA64PFR0_EL1.EL1': 1n,
  'ID_AA64PFR0_EL1.EL2': 1n,
  'ID_AA64PFR0_EL1.EL3': 1n,
  'ID_AA64DFR0_EL1.DebugVer': 6n,
  'ID_DFR0_EL1.CopDbg': 6n,
  'ID_DFR0_EL1.PerfMon': 3n,
  // The kernel compares this without sign, like all of AArch32 for which it has no table.
  'ID_MMFR3_EL1.Supersec': 0n,
}

/** Fields in which 15 means an implementation-defined PMU, which KVM treats as none. */
const pmuVersions: ReadonlySet<string> = new Set(['ID_AA64DFR0_EL1.PMUVer', 'ID_DFR0_EL1.PerfMon'])
const OWN_PMU = 15n
/** Values from here on are not a version of Arm's PMU. */
const NO_PMU_VERSION = 10n

interface WritableField {
  id: bigint
  /** ID_AA64PFR0_EL1.CSV3 */
  name: string
  field: Field
  /** Value of the whole register, in a fresh VM. */
  limit: bigint
  /** Value of the field. */
  value: bigint
}

/** Masks of the registers that belong to the VM and need no capability. */
function masksOf(vm: Vm): Map<bigint, bigint> {
  if (vm.checkExtension('KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES') <= 0) {
    notApplicable('this kernel has no writable masks of ID registers')
  }
  const masks = vm.writableMasks()
  for (const id of [CLIDR, ...implementationIds]) masks.delete(id)
  return masks
}

/** Fields that lie entirely within their register's mask and have an order of safety. */
function writableFields(vcpu: Vcpu, vm: Vm): WritableField[] {
  return [...masksOf(vm)].flatMap(([id, mask]) => {
    const limit = vcpu.registers.get(id)
    return registerFields(id)
      .filter((field) => field.safe !== undefined && (mask & fieldMask(field)) === fieldMask(field))
      .map((field) => ({
        id,
        name: `${registerName(id)}.${field.name}`,
        field,
        limit,
        value: fieldValue(field, limit),
      }))
  })
}

function limitsOf({ signed, width }: Field): { least: bigint; most: bigint } {
  const half = 1n << BigInt(width - 1)
  return signed ? { least: -half, most: half - 1n } : { least: 0n, most: 2n * half - 1n }
}

/** Values of a field that promise a guest less than the host has: the next lower one and the least. */
function saferValues({ name, field, value }: WritableField): bigint[] {
  const { most } = limitsOf(field)
  const least = floors[name] ?? (field.signed ? -1n : 0n)
  switch (field.safe) {
    case 'lower':
      return value > least ? [...new Set([value - 1n, least])] : []
    case 'higher':
      return value < most ? [value + 1n] : []
    case 'higher-or-zero':
      return value === 0n ? [] : [0n]
    default:
      return typeof field.safe === 'object' && field.safe.only !== value ? [field.safe.only] : []
  }
}

/** Values that promise more, or that cannot be compared. */
function unsafeValues({ name, field, value }: WritableField): bigint[] {
  const { least, most } = limitsOf(field)
  switch (field.safe) {
    case 'lower':
      if (pmuVersions.has(name)) return [value + 1n]
      return value < most ? [...new Set([value + 1n, most])] : []
    case 'higher':
      return value > least ? [value - 1n] : []
    case 'higher-or-zero':
      return value > 1n ? [value - 1n] : []
    default:
      return []
  }
}

/** Returns a safer value for each register that has a field with one: the least change from a fresh VM's value. */
function saferRegisters(vcpu: Vcpu, vm: Vm): { id: bigint; limit: bigint; safer: bigint }[] {
  const changes = new Map<bigint, { id: bigint; limit: bigint; safer: bigint }>()
  for (const entry of writableFields(vcpu, vm)) {
    const [value] = saferValues(entry)
    if (value === undefined || changes.has(entry.id)) continue
    changes.set(entry.id, {
      id: entry.id,
      limit: entry.limit,
      safer: withField(entry.field, entry.limit, value),
    })
  }
  return [...changes.values()]
}

/** Returns those registers in a vCPU's list that belong to its VM. */
function listedIdRegisters({ registers }: Vcpu): bigint[] {
  return [...registers.list()].filter((id) => isFeatureIdRegister(id) && id !== CLIDR)
}

/**
 * Writes a register once for each of these bits, with that bit changed. Any answer is a problem, except `EINVAL` and a success that
 * changes nothing: a host without AArch32 ignores writes to AArch32's registers.
 */
function changeBits({ registers }: Vcpu, id: bigint, mask: bigint): { problems: string[]; tried: number } {
  const name = registerName(id)
  const value = registers.get(id)
  const bits = Array.from({ length: 64 }, (_, bit) => BigInt(bit)).filter(
    (bit) => ((mask >> bit) & 1n) === 1n,
  )
  // In one crossing to native code: there are thousands of writes.
  const outcomes = registers.write(
    new BigUint64Array(bits.length).fill(id),
    BigUint64Array.from(bits, (bit) => value ^ (1n << bit)),
  )
  const problems = bits.flatMap((bit, index) => {
    const answer = answerOfOutcome(outcomes[index]!)
    return answer === 'EINVAL' || answer === SUCCESS ? [] : [`${name} bit ${bit}: ${answer}`]
  })
  const reads = registers.get(id)
  if (reads !== value) problems.push(`${name} changed from ${hex(value)} to ${hex(reads)}`)
  return { problems, tried: bits.length }
}

/** Fails the check with the first few problems, if there are any. */
function expectNone(problems: readonly string[]): void {
  const first = problems.slice(0, 5).join('; ')
  if (problems.length > 0) violated(problems.length > 5 ? `${first}; and ${problems.length - 5} more` : first)
}

const masks: Check[] = [
  {
    name: 'KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES tells whether writable masks can be had',
    promise: 'bit 0: range 0 of KVM_ARM_GET_REG_WRITABLE_MASKS',
    source: MASKS,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (_vcpu, vm) => {
        const ranges = vm.checkExtension('KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES')
        const answer = answerOf(() => vm.writableMasks())
        expect(`the ioctl, with ranges ${hex(ranges)}`, answer, (ranges & 1) === 1 ? SUCCESS : 'EINVAL')
        return `${hex(ranges)}, ${answer}`
      }),
  },
  {
    name: 'Writable masks of a range nobody knows are EINVAL',
    promise: 'EINVAL for a range that is not supported',
    source: MASKS,
    mark: 'promised',
    experiment: (kvm) => {
      onVcpu(kvm, (_vcpu, vm) => masksOf(vm))
      return onBareVm(kvm, (vm) => {
        for (const range of [1, 2, 0xffff_ffff]) {
          const outcome = vm.getRegWritableMasks(range, new BigUint64Array(KVM_ARM_FEATURE_ID_RANGE_SIZE))
          expect(`range ${range}`, answerOfOutcome(outcome), 'EINVAL')
        }
        return 'EINVAL'
      })
    },
  },
  {
    name: 'Every register with a writable mask is listed and can be read',
    promise: 'masks are about registers that userspace sees',
    source: MASKS,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu, vm) => {
        masksOf(vm)
        const ids = [...vm.writableMasks().keys()]
        expectNone(ids.filter((id) => !isListed(vcpu, id)).map((id) => `${registerName(id)} is not listed`))
        for (const id of ids) vcpu.registers.get(id)
        return `${ids.length} registers`
      }),
  },
]

const values: Check[] = [
  {
    name: 'Every feature ID register accepts the value it has',
    promise: 'what was read can be written back',
    source: `selftest get-reg-list; ${FEATURES}`,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const ids = listedIdRegisters(vcpu)
        for (const id of ids) expectWrite(vcpu, id, vcpu.registers.get(id))
        return `${ids.length} registers`
      }),
  },
  {
    name: 'A safer value of any writable field is accepted, and reads as written',
    promise: 'features may be limited, field by field, to what another host has too',
    source: `${SELFTEST}; ${FEATURES}`,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu, vm) => {
        const problems: string[] = []
        let tried = 0
        for (const entry of writableFields(vcpu, vm)) {
          for (const value of saferValues(entry)) {
            const safer = withField(entry.field, entry.limit, value)
            const answer = write(vcpu, entry.id, safer)
            const reads = vcpu.registers.get(entry.id)
            const what = `${entry.name} from ${entry.value} to ${value}`
            if (answer !== SUCCESS) problems.push(`${what}: ${answer}`)
            else if (reads !== safer) problems.push(`${what}: reads ${hex(reads)}`)
            expectWrite(vcpu, entry.id, entry.limit)
            tried++
          }
        }
        expectNone(problems)
        return `${tried} values`
      }),
  },
  {
    name: 'A value of a writable field that promises more than the host has is EINVAL, and changes nothing',
    promise: 'features cannot be extended',
    source: `${SELFTEST}; ${FEATURES}`,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu, vm) => {
        const problems: string[] = []
        let tried = 0
        for (const entry of writableFields(vcpu, vm)) {
          for (const value of unsafeValues(entry)) {
            const answer = write(vcpu, entry.id, withField(entry.field, entry.limit, value))
            const reads = vcpu.registers.get(entry.id)
            const what = `${entry.name} from ${entry.value} to ${value}`
            if (answer !== 'EINVAL') problems.push(`${what}: ${answer}`)
            else if (reads !== entry.limit) problems.push(`${what}: EINVAL, and reads ${hex(reads)}`)
            tried++
          }
        }
        expectNone(problems)
        return `EINVAL for ${tried} values`
      }),
  },
  {
    name: 'No bit outside the writable masks can be changed',
    promise: 'EINVAL, or the write is ignored',
    source: MASKS,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu, vm) => {
        const writable = masksOf(vm)
        const problems: string[] = []
        let tried = 0
        for (const id of listedIdRegisters(vcpu)) {
          const mask = writable.get(id) ?? 0n
          const { problems: found, tried: count } = changeBits(vcpu, id, ~mask)
          problems.push(...found)
          tried += count
        }
        expectNone(problems)
        return `${tried} bits`
      }),
  },
  {
    name: 'A feature that was hidden may be shown again before the first run',
    promise: 'the host is the limit, not what was written before',
    source: 'every release with writable masks',
    mark: 'observed',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu, vm) => {
        const changes = saferRegisters(vcpu, vm)
        for (const { id, safer } of changes) expectWrite(vcpu, id, safer)
        for (const { id, limit } of changes) expectWrite(vcpu, id, limit)
        for (const { id, limit } of changes) expectRead(vcpu, id, limit, 'in the end')
        return `${changes.length} registers`
      }),
  },
  {
    name: 'Feature ID registers are the whole VM’s',
    promise: 'one value for all vCPUs, also for one created later',
    source: `${SELFTEST}; ${FEATURES}`,
    mark: 'promised',
    experiment: (kvm) =>
      onTwoVcpus(kvm, (first, second, vm) => {
        const changes = saferRegisters(first, vm)
        for (const { id, safer } of changes) expectWrite(first, id, safer)
        for (const vcpu of [second, vm.createVcpu(2)]) {
          for (const { id, safer } of changes) expectRead(vcpu, id, safer, `of vCPU ${vcpu.id}`)
        }
        return `${changes.length} registers read the same on three vCPUs`
      }),
  },
  {
    name: 'What was written survives another init of the vCPU',
    promise: 'a reset keeps the ID registers',
    source: SELFTEST,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu, vm) => {
        const changes = saferRegisters(vcpu, vm)
        for (const { id, safer } of changes) expectWrite(vcpu, id, safer)
        vcpu.init()
        for (const { id, safer } of changes) expectRead(vcpu, id, safer, 'after another init')
        return `${changes.length} registers`
      }),
  },
  {
    name: 'A PMU of the implementation’s own is taken for no PMU',
    promise: '15 is accepted, as older kernels showed it, and 0 is shown',
    source: 'arch/arm64/kvm/sys_regs.c, set_id_aa64dfr0_el1 and set_id_dfr0_el1',
    mark: 'observed',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu, vm) => {
        const fields = writableFields(vcpu, vm).filter(({ name }) => pmuVersions.has(name))
        for (const entry of fields) {
          expectWrite(vcpu, entry.id, withField(entry.field, entry.limit, OWN_PMU))
          expectRead(vcpu, entry.id, withField(entry.field, entry.limit, 0n))
          expectWrite(vcpu, entry.id, entry.limit)
        }
        return fields.map(({ name }) => `${name} reads 0`).join(', ')
      }),
  },
  {
    name: 'A version of the PMU that does not exist is EINVAL',
    promise: 'features cannot be extended',
    source: `${SELFTEST}; ${FEATURES}`,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu, vm) => {
        const accepted: string[] = []
        const fields = writableFields(vcpu, vm).filter(({ name }) => pmuVersions.has(name))
        for (const entry of fields) {
          for (let value = NO_PMU_VERSION; value < OWN_PMU; value++) {
            const answer = write(vcpu, entry.id, withField(entry.field, entry.limit, value))
            if (answer === SUCCESS) accepted.push(`${entry.name} ${value}`)
            else expect(`${entry.name} ${value}`, answer, 'EINVAL')
            expectWrite(vcpu, entry.id, entry.limit)
          }
        }
        // A kernel that treats the field as signed finds these below 0.
        return accepted.length === 0 ? 'EINVAL for 10 to 14' : deviates(`accepts ${accepted.join(', ')}`)
      }),
  },
  {
    name: 'Where no masks say otherwise, nothing but CSV2 and CSV3 can be changed',
    promise: 'EINVAL for any value but the one it has, or the write is ignored',
    source: 'every release without writable masks',
    mark: 'observed',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu, vm) => {
        if (vm.checkExtension('KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES') > 0) {
          notApplicable('this kernel has writable masks')
        }
        const mitigations = fieldMask(registerField(PFR0, 'CSV2')) | fieldMask(registerField(PFR0, 'CSV3'))
        const problems: string[] = []
        let tried = 0
        for (const id of listedIdRegisters(vcpu)) {
          const { problems: found, tried: count } = changeBits(vcpu, id, id === PFR0 ? ~mitigations : -1n)
          problems.push(...found)
          tried += count
        }
        expectNone(problems)
        return `${tried} bits`
      }),
  },
]

const afterRun: Check[] = [
  {
    name: 'A feature ID register cannot be changed once a vCPU has run: EBUSY',
    promise: 'ID registers are frozen by the first run',
    source: `${FEATURES}; ${MASKS}`,
    mark: 'promised',
    experiment: (kvm) =>
      onTwoVcpus(kvm, (first, second, vm) => {
        const saferValuesOf = saferRegisters(first, vm)
        start(first)
        // The first run itself may have set a register to that value, as it hides a GIC that does not exist.
        const changes = saferValuesOf.filter(({ id, safer }) => first.registers.get(id) !== safer)
        for (const { id, safer } of changes) {
          const frozen = first.registers.get(id)
          expectWrite(first, id, safer, 'EBUSY')
          expectWrite(second, id, safer, 'EBUSY')
          expectRead(first, id, frozen, 'after the refusal')
        }
        return `EBUSY for ${changes.length} registers, through the vCPU that ran and another`
      }),
  },
  {
    name: 'A feature ID register accepts the value it has once a vCPU has run',
    promise: 'VMMs write every register again when they reset a guest',
    source: 'every release',
    mark: 'observed',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        start(vcpu)
        const ids = listedIdRegisters(vcpu)
        for (const id of ids) expectWrite(vcpu, id, vcpu.registers.get(id))
        return `${ids.length} registers`
      }),
  },
  {
    name: 'What was written before the first run stays through run and init',
    promise: 'a reset keeps the ID registers',
    source: SELFTEST,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu, vm) => {
        const changes = saferRegisters(vcpu, vm)
        for (const { id, safer } of changes) expectWrite(vcpu, id, safer)
        start(vcpu)
        const started = changes.map(({ id }) => vcpu.registers.get(id))
        vcpu.init()
        for (const [index, { id }] of changes.entries()) {
          expectRead(vcpu, id, started[index]!, 'after run and init')
        }
        return `${changes.length} registers`
      }),
  },
]

const MPIDR = encodeRegister('MPIDR_EL1')

const ofEachVcpu: Check[] = [
  {
    name: 'MPIDR_EL1 can be given another affinity, of one vCPU alone',
    promise: 'a register of the vCPU, writable',
    source: SELFTEST,
    mark: 'promised',
    experiment: (kvm) =>
      onTwoVcpus(kvm, (first, second) => {
        const [own, other] = [first, second].map(({ registers }) => registers.get(MPIDR))
        expectWrite(first, MPIDR, own! + 8n)
        expectRead(first, MPIDR, own! + 8n)
        expectRead(second, MPIDR, other!, 'of the second vCPU')
        return `${hex(own!)} to ${hex(own! + 8n)}`
      }),
  },
  {
    name: 'CLIDR_EL1 can be given one more level of cache, of one vCPU alone',
    promise: 'a register of the vCPU, writable',
    source: SELFTEST,
    mark: 'promised',
    experiment: (kvm) =>
      onTwoVcpus(kvm, (first, second, vm) => {
        masksOf(vm)
        if (!vm.writableMasks().has(CLIDR)) notApplicable('CLIDR_EL1 has no writable mask')
        const own = first.registers.get(CLIDR)
        const level = Array.from({ length: 7 }, (_, index) => index).find(
          (index) => ((own >> BigInt(3 * index)) & 7n) === 0n,
        )
        if (level === undefined) notApplicable('this host has caches at all seven levels')
        const LOC = 1n << 24n
        const more = (own | (UNIFIED << BigInt(3 * level))) + LOC
        expectWrite(first, CLIDR, more)
        expectRead(first, CLIDR, more)
        expectRead(second, CLIDR, own, 'of the second vCPU')
        return `${hex(own)} to ${hex(more)}`
      }),
  },
]

/** CLIDR_EL1.Ctype: a cache for instructions and data. */
const UNIFIED = 4n

function needImplementationIds(vm: Vm): void {
  if (vm.checkExtension('KVM_CAP_ARM_WRITABLE_IMP_ID_REGS') <= 0) {
    notApplicable('this kernel has no KVM_CAP_ARM_WRITABLE_IMP_ID_REGS')
  }
}

const implementation: Check[] = [
  {
    name: 'MIDR_EL1, REVIDR_EL1 and AIDR_EL1 cannot be changed unless userspace asked for that: EINVAL',
    promise: 'invariant by default',
    source: `${IMPLEMENTATION}; ${SELFTEST}`,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        for (const id of implementationIds) {
          const value = vcpu.registers.get(id)
          expectWrite(vcpu, id, value + 1n, 'EINVAL')
          expectWrite(vcpu, id, value)
          expectRead(vcpu, id, value, 'after the refusal')
        }
        return 'EINVAL; the value they have is accepted'
      }),
  },
  {
    name: 'With KVM_CAP_ARM_WRITABLE_IMP_ID_REGS they can be changed, for the whole VM, until a vCPU has run',
    promise: 'writable before the VM has started',
    source: `${IMPLEMENTATION}; ${SELFTEST}`,
    mark: 'promised',
    experiment: (kvm) => {
      using vm = kvm.createVm()
      needImplementationIds(vm)
      vm.enableCapability('KVM_CAP_ARM_WRITABLE_IMP_ID_REGS')
      const [first, second] = [vm.createVcpu(0), vm.createVcpu(1)]
      for (const id of implementationIds) {
        const value = first.registers.get(id)
        expectWrite(first, id, value + 1n)
        expectRead(first, id, value + 1n)
        expectRead(second, id, value + 1n, 'of the second vCPU')
      }
      start(first)
      for (const id of implementationIds) {
        const value = first.registers.get(id)
        expectWrite(first, id, value)
        expectWrite(first, id, value + 1n, 'EBUSY')
        expectValue(`${registerName(id)} after the refusal`, first.registers.get(id), value)
      }
      return 'accepted, then EBUSY'
    },
  },
  {
    name: 'KVM_CAP_ARM_WRITABLE_IMP_ID_REGS comes before the first vCPU: EINVAL after it',
    promise: 'must be enabled before any vCPU is created',
    source: IMPLEMENTATION,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (_vcpu, vm) => {
        needImplementationIds(vm)
        const answer = answerOf(() => vm.enableCapability('KVM_CAP_ARM_WRITABLE_IMP_ID_REGS'))
        expect('KVM_ENABLE_CAP', answer, 'EINVAL')
        return answer
      }),
  },
  {
    name: 'KVM_CAP_ARM_WRITABLE_IMP_ID_REGS and the writable masks agree',
    promise: 'MIDR_EL1, REVIDR_EL1 and AIDR_EL1 have masks where they can be written at all',
    source: `${IMPLEMENTATION}; ${MASKS}`,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (_vcpu, vm) => {
        needImplementationIds(vm)
        const found = vm.writableMasks()
        expectNone(
          implementationIds.filter((id) => !found.has(id)).map((id) => `${registerName(id)} has none`),
        )
        return implementationIds.map((id) => `${registerName(id)} ${hex(found.get(id)!)}`).join(', ')
      }),
  },
]

export const idRegisters: CheckGroup = {
  title: 'Feature ID registers',
  checks: [...masks, ...values, ...afterRun, ...ofEachVcpu, ...implementation],
}
