/** `KVM_REG_ARM_PSCI_VERSION`. */
import {
  decodePsciVersion,
  encodePsciVersion,
  functionIdOf,
  psciReturns,
  psciVersions,
} from '../../hypercalls/index.js'
import { type CheckGroup, deviates, violated } from '../check.js'
import {
  answerOf,
  ask,
  expect,
  expectRead,
  expectResult,
  expectWrite,
  onTwoVcpus,
  onVcpu,
  start,
  SUCCESS,
  write,
} from '../experiments.js'
import { encodeRegister, hex, sizes, withSize } from '../../registers/index.js'
import type { Kvm } from '../../kvm/index.js'

const DOCUMENT = 'arm/fw-pseudo-registers.rst, KVM_REG_ARM_PSCI_VERSION'
const NAME = 'KVM_REG_ARM_PSCI_VERSION'
const id = encodeRegister(NAME)
const PSCI_VERSION = functionIdOf('PSCI_VERSION')
const OLDEST = encodePsciVersion('0.2')

/** Versions from 0.2 to the newest of this host. */
function versionsOf(kvm: Kvm): bigint[] {
  const newest = onVcpu(kvm, ({ registers }) => registers.get(NAME))
  return psciVersions.map(encodePsciVersion).filter((version) => version >= OLDEST && version <= newest)
}

export const psciVersion: CheckGroup = {
  title: 'PSCI version register',
  checks: [
    {
      name: 'A fresh VM has the newest version of PSCI that KVM implements',
      promise: 'defaults to the highest version implemented by KVM that is compatible with 0.2',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const value = vcpu.registers.get(NAME)
          const newer = Array.from({ length: 0x20 }, (_, step) => value + 1n + BigInt(step))
          const accepted = newer.find((version) => write(vcpu, NAME, version) === SUCCESS)
          if (accepted !== undefined) violated(`reads ${hex(value)}, and accepts ${hex(accepted)}`)
          if (value < OLDEST) violated(`reads ${hex(value)}`)
          return `reads ${hex(value)}, version ${decodePsciVersion(value)}`
        }),
    },
    {
      name: 'Every version from 0.2 to the newest may be chosen, and reads as chosen',
      promise: 'any version that KVM implements and that is compatible with 0.2 can be set',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const versions = versionsOf(kvm)
          for (const version of [...versions, ...versions.toReversed()]) {
            expectWrite(vcpu, NAME, version)
            expectRead(vcpu, NAME, version)
          }
          return `accepts ${versions.map(decodePsciVersion).join(', ')}`
        }),
    },
    {
      name: 'What is no version of PSCI, or 0.1, is refused with EINVAL and changes nothing',
      promise: 'only versions that are implemented and compatible with 0.2',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const kept = vcpu.registers.get(NAME)
          const values = [
            0n,
            1n,
            3n,
            0xffffn,
            0x2_0000n,
            0xffff_ffffn,
            kept | (1n << 32n),
            kept | (1n << 63n),
          ]
          for (const value of values) expectWrite(vcpu, NAME, value, 'EINVAL')
          expectRead(vcpu, NAME, kept, 'after the refusals')
          return `EINVAL for ${values.map(hex).join(', ')}`
        }),
    },
    {
      name: 'The version is the whole VM’s',
      promise: 'setting it through one vCPU affects all, and those created later',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onTwoVcpus(kvm, (first, second, vm) => {
          expectWrite(first, NAME, OLDEST)
          expectRead(second, NAME, OLDEST, 'of the second vCPU')
          expectRead(vm.createVcpu(2), NAME, OLDEST, 'of a later vCPU')
          return 'reads 0x2 on three vCPUs'
        }),
    },
    {
      name: 'A guest reads the version that was chosen',
      promise: 'PSCI_VERSION returns it',
      source: `${DOCUMENT}; Arm DEN0022, PSCI_VERSION`,
      mark: 'promised',
      experiment: (kvm) => {
        const versions = versionsOf(kvm)
        for (const version of versions) {
          onVcpu(kvm, (vcpu) => {
            expectWrite(vcpu, NAME, version)
            expectResult(vcpu, PSCI_VERSION, [], Number(version))
          })
        }
        return `is told ${versions.map(decodePsciVersion).join(', ')}`
      },
    },
    {
      name: 'The version may be changed after the run, and the guest sees it at once',
      promise: 'no EBUSY: this register is not one of the bitmaps',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const before = ask(vcpu, PSCI_VERSION)
          expectWrite(vcpu, NAME, OLDEST)
          expectResult(vcpu, PSCI_VERSION, [], Number(OLDEST))
          return `is told ${hex(before)}, then 0x2`
        }),
    },
    {
      name: 'The version survives another init of the vCPU',
      promise: 'KVM_ARM_VCPU_INIT resets the vCPU and not the VM',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          expectWrite(vcpu, NAME, OLDEST)
          vcpu.init()
          expectRead(vcpu, NAME, OLDEST, 'after another init')
          start(vcpu)
          vcpu.init()
          expectRead(vcpu, NAME, OLDEST, 'after run and init')
          return 'reads 0x2'
        }),
    },
    {
      name: 'The register is there only for a vCPU with the feature PSCI_0_2',
      promise: 'valid if the vCPU has the feature',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(
          kvm,
          (vcpu) => {
            const answer = answerOf(() => vcpu.registers.get(NAME))
            if (answer === 'ENOENT') return 'ENOENT without it'
            expect(`${NAME} without the feature`, answer, SUCCESS)
            return deviates(`reads ${hex(vcpu.registers.get(NAME))} without it`)
          },
          [],
        ),
    },
    {
      name: 'Without the feature the guest has PSCI 0.1, and no other can be chosen',
      promise: 'reads 1, accepts 1 and refuses every other version with EINVAL',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onVcpu(
          kvm,
          (vcpu) => {
            expectRead(vcpu, NAME, 1n)
            for (const value of [0n, OLDEST, ...versionsOf(kvm)]) expectWrite(vcpu, NAME, value, 'EINVAL')
            expectWrite(vcpu, NAME, 1n)
            expectResult(vcpu, PSCI_VERSION, [], psciReturns.NOT_SUPPORTED)
            return 'reads 0x1, accepts nothing else, and PSCI_VERSION is -1'
          },
          [],
        ),
    },
    {
      name: 'The register has 64 bits, and ENOENT answers for any narrower width',
      promise: 'no such register',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          for (const size of [sizes.U8, sizes.U16, sizes.U32]) {
            const narrow = withSize(id, size)
            expect(
              `reading ${hex(narrow)}`,
              answerOf(() => vcpu.registers.get(narrow)),
              'ENOENT',
            )
            expectWrite(vcpu, narrow, OLDEST, 'ENOENT')
          }
          return 'ENOENT for 8, 16 and 32 bits, read and written'
        }),
    },
  ],
}
