/** `KVM_ARM_VCPU_INIT` and `KVM_ARM_PREFERRED_TARGET`. */
import type { VcpuFd } from '../../backend.js'
import type { Kvm, VcpuInit } from '../../kvm/index.js'
import { hex } from '../../registers/index.js'
import { vcpuFeatures } from '../../uapi.js'
import { type CheckGroup, deviates, notApplicable, violated } from '../check.js'
import {
  type Answer,
  answerOf,
  answerOfOutcome,
  expect,
  onBareVcpu,
  onVcpu,
  SUCCESS,
} from '../experiments.js'

const DOCUMENT = 'api.rst, KVM_ARM_VCPU_INIT'

/** `KVM_ARM_VCPU_INIT` of the first vCPU of a new VM. */
function initOf(kvm: Kvm, init: VcpuInit): Answer {
  using vm = kvm.createVm()
  const vcpu = vm.createVcpu(0, { init: false })
  return answerOf(() => vcpu.init(init))
}

function preferredTarget(kvm: Kvm): number {
  using vm = kvm.createVm()
  return vm.preferredTarget()
}

function expectInit(vcpu: VcpuFd, target: number, words: readonly number[], expected: Answer): void {
  const what = `target ${target}, features ${words.map(hex).join(' ')}`
  expect(what, answerOfOutcome(vcpu.init(target, words)), expected)
}

const PSCI_0_2 = 1 << vcpuFeatures['psci-0.2']

export const vcpuInit: CheckGroup = {
  title: 'vCPU init',
  checks: [
    {
      name: 'The preferred target is accepted',
      promise: 'KVM_ARM_PREFERRED_TARGET tells a target that can be initialised on this host',
      source: 'api.rst, KVM_ARM_PREFERRED_TARGET',
      mark: 'promised',
      experiment: (kvm) => {
        const target = preferredTarget(kvm)
        expect(`target ${target}`, initOf(kvm, { target }), SUCCESS)
        return `target ${target}`
      },
    },
    {
      name: 'A target that does not exist is EINVAL',
      promise: 'EINVAL: the target is unknown',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) => {
        for (const target of [6, 7, 0xffff_ffff]) {
          expect(`target ${target}`, initOf(kvm, { target }), 'EINVAL')
        }
        return 'EINVAL'
      },
    },
    {
      name: 'A feature nobody knows is ENOENT, in any of the seven words',
      promise: 'ENOENT: a features bit is not known',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) => {
        const target = preferredTarget(kvm)
        for (const words of [[0x8000_0000], [PSCI_0_2, 1], [PSCI_0_2, 0, 0, 0, 0, 0, 1]]) {
          onBareVcpu(kvm, null, (vcpu) => expectInit(vcpu, target, words, 'ENOENT'))
        }
        return 'ENOENT'
      },
    },
    {
      name: 'A vCPU may be initialised again with the features it has',
      promise: 'calling it again with the same features resets the vCPU',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          vcpu.init()
          vcpu.freeze()
          vcpu.init()
          return 'accepted, also after the run'
        }),
    },
    {
      name: 'A vCPU cannot be initialised again with other features: EINVAL',
      promise: 'target and features must be those of the first time',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          expect(
            'init without psci-0.2 after one with it',
            answerOf(() => vcpu.init({ features: [] })),
            'EINVAL',
          )
          return 'EINVAL'
        }),
    },
    {
      name: 'HAS_EL2_E2H0 without HAS_EL2 is EINVAL',
      promise: 'KVM_ARM_VCPU_HAS_EL2_E2H0 needs KVM_ARM_VCPU_HAS_EL2',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) => {
        const answer = initOf(kvm, { features: ['psci-0.2', 'has-el2-e2h0'] })
        if (answer === 'ENOENT') notApplicable('this kernel does not know the feature')
        if (answer === 'EINVAL') return answer
        return answer === SUCCESS ? deviates('accepted') : violated(answer)
      },
    },
    {
      name: 'A vCPU without PSCI_0_2 has the same registers as one with it',
      promise: 'the feature chooses the version',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) => {
        const lists = [['psci-0.2'] as const, [] as const].map((features) =>
          onVcpu(kvm, ({ registers }) => String(registers.list()), features),
        )
        return lists[0] === lists[1] ? 'the lists are the same' : violated('the lists differ')
      },
    },
  ],
}
