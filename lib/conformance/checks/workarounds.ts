/** `KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1` to `_3`: how far the host mitigates a Spectre variant. */
import { functionIds, resultText, resultWord, type Workaround, workarounds } from '../../hypercalls/index.js'
import type { Vcpu } from '../../kvm/index.js'
import { encodeRegister, fieldMask, hex, registerField, registerName } from '../../registers/index.js'
import { type Check, type CheckGroup, deviates, notApplicable, violated } from '../check.js'
import {
  aboutRegister,
  answerOf,
  ask,
  expect,
  expectRead,
  expectResult,
  expectWrite,
  isListed,
  onVcpu,
  SUCCESS,
  write,
} from '../experiments.js'

const DOCUMENT = 'arm/fw-pseudo-registers.rst, KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_*'
const SMCCC = 'Arm DEN0028, SMCCC_ARCH_FEATURES'

const PFR1 = 'ID_AA64PFR1_EL1'
const SSBS = fieldMask(registerField(encodeRegister(PFR1), 'SSBS'))
const WORKAROUND_2 = 'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2'

function checksOf(workaround: Workaround): Check[] {
  const { register, functionId, levels } = workaround
  const name = registerName(register)
  return aboutRegister(name, [
    {
      name: `${name} reads as a level that is defined`,
      promise: `one of ${levels.map(({ value, name: level }) => `${value} (${level})`).join(', ')}`,
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, ({ registers }) => {
          const value = registers.get(register)
          const level = levels.find((candidate) => candidate.value === value)
          return level === undefined ? violated(`reads ${hex(value)}`) : `reads ${hex(value)}, ${level.name}`
        }),
    },
    {
      name: `${name} accepts the level it reads, and those below that promise less`,
      promise: 'what a host mitigates, it can show as less to a guest that comes from elsewhere',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const level = vcpu.registers.get(register)
          for (let value = 0n; value <= level; value++) expectWrite(vcpu, register, value)
          return `accepts 0x0 to ${hex(level)}`
        }),
    },
    {
      name: `${name} accepts every level that is defined`,
      promise: 'the accepted values are the levels',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const refused = levels.filter(({ value }) => write(vcpu, register, value) !== SUCCESS)
          if (refused.length === 0) return 'accepts all'
          for (const { value } of refused) expectWrite(vcpu, register, value, 'EINVAL')
          return deviates(
            `reads ${hex(vcpu.registers.get(register))}, and EINVAL for ${refused.map(({ value }) => hex(value)).join(', ')}`,
          )
        }),
    },
    {
      name: `${name} refuses what is no level with EINVAL`,
      promise: 'the accepted values are the levels',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const highest = levels.at(-1)!.value
          const values = [highest + 1n, 0x20n, 0x100n, 1n << 32n, 1n << 63n]
          for (const value of values) expectWrite(vcpu, register, value, 'EINVAL')
          return `EINVAL for ${values.map(hex).join(', ')}`
        }),
    },
    {
      name: `${name} reads as written`,
      promise: 'holds the state that it was given',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const host = vcpu.registers.get(register)
          const forgotten = levels.filter(({ value }) => {
            return write(vcpu, register, value) === SUCCESS && vcpu.registers.get(register) !== value
          })
          if (forgotten.length === 0) return `accepts and reads ${hex(host)} only`
          expectRead(vcpu, register, host, 'after the writes')
          return deviates(
            `accepts ${forgotten.map(({ value }) => hex(value)).join(', ')} and goes on to read ${hex(host)}`,
          )
        }),
    },
    {
      name: `SMCCC_ARCH_FEATURES tells a guest of ${name.replace('KVM_REG_ARM_', '')} what the register holds`,
      promise: 'not available, available or not required, as to userspace',
      source: `${DOCUMENT}; ${SMCCC}`,
      mark: 'promised',
      experiment: (kvm) => onVcpu(kvm, (vcpu) => expectTold(vcpu, workaround, vcpu.registers.get(register))),
    },
    {
      name: `${name} written lower does not change what the guest sees`,
      promise: 'a write is checked against the host and forgotten',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const host = vcpu.registers.get(register)
          expectWrite(vcpu, register, 0n)
          return expectTold(vcpu, workaround, host)
        }),
    },
    {
      name: `${name.replace('KVM_REG_ARM_', '')} may be called by hvc at any level`,
      promise: 'returns to the caller with 0, as where the mitigation is needed',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          expectResult(vcpu, functionId, [], 0)
          return 'x0 is 0'
        }),
    },
  ])
}

function expectTold(vcpu: Vcpu, { functionId, levels }: Workaround, value: bigint): string {
  const expected = levels.find((level) => level.value === value)
  if (expected === undefined) violated(`reads ${hex(value)}, which is no level`)
  const answer = ask(vcpu, functionIds.SMCCC_ARCH_FEATURES, BigInt(functionId))
  const did = `reads ${hex(value)}, ${expected.name}, and the guest sees ${resultText(answer)}`
  return answer === resultWord(expected.archFeatures) ? did : violated(did)
}

const others: Check[] = [
  {
    name: 'Every listed firmware register is documented',
    promise: 'PSCI_VERSION, SMCCC_ARCH_WORKAROUND_1 and SMCCC_ARCH_WORKAROUND_2',
    source: 'arm/fw-pseudo-registers.rst',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, ({ registers }) => {
        const first = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
        const listed = [...registers.list()].filter((id) => id >> 16n === first >> 16n)
        const names = listed.filter((id) => id > first + 2n).map(registerName)
        if (names.length === 0) return `lists ${listed.map(registerName).join(', ')}`
        return deviates(`lists ${names.join(', ')}`)
      }),
  },
  {
    name: 'A firmware register nobody knows is ENOENT, read and written',
    promise: 'ENOENT for an unknown register',
    source: 'api.rst, KVM_SET_ONE_REG and KVM_GET_ONE_REG',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const first = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
        const ids = [4n, 5n, 6n, 7n, 0x100n, 0xffffn].map((index) => first + index)
        for (const id of ids.filter((candidate) => !isListed(vcpu, candidate))) {
          expect(
            `reading ${hex(id)}`,
            answerOf(() => vcpu.registers.get(id)),
            'ENOENT',
          )
          expectWrite(vcpu, id, 0n, 'ENOENT')
        }
        return 'ENOENT'
      }),
  },
  {
    name: 'What was read in the order of KVM_GET_REG_LIST can be restored in that order',
    promise: 'the list can be used to save and restore a vCPU',
    source: 'arch/arm64/kvm, on the order of the list; arm/vcpu-features.rst, "The ID Registers"',
    mark: 'promised',
    experiment: (kvm) => {
      const hidden = onVcpu(kvm, (vcpu) => {
        const features = isListed(vcpu, PFR1) ? vcpu.registers.get(PFR1) : 0n
        if ((features & SSBS) === 0n) notApplicable('this host’s CPUs show no SSBS')
        const answer = write(vcpu, PFR1, features & ~SSBS)
        if (answer !== SUCCESS) notApplicable(`${PFR1}.SSBS cannot be hidden from a guest (${answer})`)
        return vcpu.registers.get(WORKAROUND_2)
      })
      return onVcpu(kvm, (vcpu) => {
        const fresh = vcpu.registers.get(WORKAROUND_2)
        const answer = write(vcpu, WORKAROUND_2, hidden)
        const did = `${WORKAROUND_2} reads ${hex(hidden)} in a VM without SSBS; written first to a fresh VM, where it reads ${hex(fresh)}: ${answer}`
        if (answer === SUCCESS) return did
        // The other direction.
        expectWrite(vcpu, PFR1, vcpu.registers.get(PFR1) & ~SSBS)
        expectWrite(vcpu, WORKAROUND_2, hidden)
        return deviates(`${did}; written after ${PFR1}, success`)
      })
    },
  },
]

export const workaroundRegisters: CheckGroup = {
  title: 'Workaround registers',
  checks: [...others, ...workarounds.flatMap(checksOf)],
}
