/** `KVM_ARM_VM_SMCCC_FILTER`: the guest's calls that userspace takes over. */
import type { Conduit } from '../../backend.js'
import {
  functionIdOf,
  functionIds,
  NOT_SUPPORTED,
  resultText,
  serviceBitmaps,
} from '../../hypercalls/index.js'
import type { Kvm, Vcpu, Vm } from '../../kvm/index.js'
import { hex } from '../../registers/index.js'
import {
  KVM_ARM_VM_SMCCC_CTRL,
  KVM_ARM_VM_SMCCC_FILTER,
  packSmcccFilter,
  SMCCC_FILTER_PAD,
  SMCCC_FILTER_SIZE,
  smcccFilterActions,
} from '../../uapi.js'
import { type Check, type CheckGroup, deviates, notApplicable, violated } from '../check.js'
import {
  type Answer,
  answerAtNull,
  answerOf,
  call,
  callEnding,
  describeExit,
  expect,
  expectRead,
  expectValue,
  expectWrite,
  isListed,
  onTwoVcpus,
  onVcpu,
  start,
  SUCCESS,
  takesLateVcpus,
} from '../experiments.js'

const DOCUMENT = 'devices/vm.rst, KVM_ARM_VM_SMCCC_FILTER'
const SELFTEST = 'selftest smccc_filter'

const { handle: HANDLE, deny: DENY, forward: FORWARD } = smcccFilterActions

const PSCI_VERSION = functionIdOf('PSCI_VERSION')
const { SMCCC_ARCH_WORKAROUND_1, SMCCC_VERSION, TRNG_VERSION, KVM_DISCOVER_IMPL_VER } = functionIds
/** An SMCCC call for which KVM has no handler: an OEM service. */
const FOREIGN = 0xc300_0042
const conduits: readonly Conduit[] = ['hvc', 'smc']

function setFilter(vm: Vm, base: number, count: number, action: number): Answer {
  return putFilter(vm, packSmcccFilter({ base, nr: count, action }))
}

function putFilter(vm: Vm, filter: Uint8Array): Answer {
  return answerOf(() => vm.attributes.set(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, filter))
}

function expectFilter(vm: Vm, base: number, count: number, action: number, expected: Answer = SUCCESS): void {
  const what = `${count} functions from ${hex(base)} with action ${action}`
  expect(what, setFilter(vm, base, count, action), expected)
}

function hasFilter({ attributes }: Vm): boolean {
  return attributes.has(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER)
}

/** An experiment that does not apply to kernels without the filter. */
function filtering(experiment: (vcpu: Vcpu, vm: Vm, kvm: Kvm) => string): Check['experiment'] {
  return (kvm) =>
    onVcpu(kvm, (vcpu, vm) => {
      if (!hasFilter(vm)) notApplicable('this kernel has no SMCCC filter')
      return experiment(vcpu, vm, kvm)
    })
}

/** Makes a call that KVM must forward to userspace unchanged. */
function expectForwarded(vcpu: Vcpu, functionId: number, conduit: Conduit): void {
  const { exit, x } = callEnding(vcpu, functionId, [0x1111n, 0x2222n, 0x3333n], conduit)
  if (exit.reason !== 'hypercall') violated(`${hex(functionId)} by ${conduit}: ${describeExit(exit)}`)
  if (exit.functionId !== functionId) violated(`nr is ${hex(exit.functionId)}, not ${hex(functionId)}`)
  if (exit.conduit !== conduit) violated(`flags say ${exit.conduit} of a call by ${conduit}`)
  for (const [index, value] of [BigInt(functionId), 0x1111n, 0x2222n, 0x3333n].entries()) {
    expectValue(`x${index} at the exit`, x[index]!, value)
  }
}

const ranges: Check[] = [
  {
    name: 'A VM has the attribute by which the filter is set, and no other beside it',
    promise: 'KVM_HAS_DEVICE_ATTR on the VM is 0; ENXIO for unknown ones',
    source: `${DOCUMENT}; ${SELFTEST}`,
    mark: 'promised',
    experiment: filtering((_vcpu, { attributes }) => {
      for (const [group, attribute] of [
        [KVM_ARM_VM_SMCCC_CTRL, 1n],
        [KVM_ARM_VM_SMCCC_CTRL + 1, 0n],
      ] as const) {
        if (attributes.has(group, attribute)) violated(`has attribute ${attribute} of group ${group} too`)
        const answer = answerOf(() =>
          attributes.set(group, attribute, packSmcccFilter({ base: 1, nr: 1, action: DENY })),
        )
        expect(`setting attribute ${attribute} of group ${group}`, answer, 'ENXIO')
      }
      return 'has it; ENXIO for others'
    }),
  },
  {
    name: 'KVM_CAP_VM_ATTRIBUTES announces the attributes of VMs',
    promise: 'the capability tells whether VMs have attributes',
    source: 'api.rst, KVM_SET_DEVICE_ATTR and KVM_HAS_DEVICE_ATTR',
    mark: 'promised',
    experiment: filtering((_vcpu, vm, kvm) => {
      const values = [kvm, vm].map((handle) => handle.checkExtension('KVM_CAP_VM_ATTRIBUTES'))
      return values.every((value) => value > 0) ? 'announced' : deviates('0, and VMs have them')
    }),
  },
  {
    name: 'A padding that is not zero is EINVAL',
    promise: 'pad must be zero',
    source: `${DOCUMENT}; ${SELFTEST}`,
    mark: 'promised',
    experiment: filtering((_vcpu, vm) => {
      for (let index = SMCCC_FILTER_PAD; index < SMCCC_FILTER_SIZE; index++) {
        const filter = packSmcccFilter({ base: FOREIGN, nr: 1, action: DENY })
        filter[index] = 1
        expect(`byte ${index}`, putFilter(vm, filter), 'EINVAL')
      }
      return `EINVAL for each of ${SMCCC_FILTER_SIZE - SMCCC_FILTER_PAD} bytes`
    }),
  },
  {
    name: 'A range without functions is EINVAL',
    promise: 'nr_functions must not be zero',
    source: SELFTEST,
    mark: 'promised',
    experiment: filtering((_vcpu, vm) => {
      for (const base of [1, PSCI_VERSION, FOREIGN, 0xffff_ffff]) expectFilter(vm, base, 0, DENY, 'EINVAL')
      return 'EINVAL'
    }),
  },
  {
    name: 'A range without functions at 0 is EINVAL too',
    promise: 'nr_functions must not be zero',
    source: `${SELFTEST} of 7.3`,
    mark: 'promised',
    experiment: filtering((_vcpu, vm) => {
      const answer = setFilter(vm, 0, 0, DENY)
      if (answer === 'EINVAL') return answer
      return answer === 'EEXIST' ? deviates('EEXIST: taken for all 2³² functions') : violated(answer)
    }),
  },
  {
    name: 'A range that goes beyond 32 bits is EINVAL, one that ends with them is not',
    promise: 'base and nr_functions must not wrap',
    source: `${DOCUMENT}; ${SELFTEST}`,
    mark: 'promised',
    experiment: filtering((_vcpu, vm) => {
      expectFilter(vm, 0xffff_ffff, 2, DENY, 'EINVAL')
      expectFilter(vm, 0xffff_ffff, 0xffff_ffff, DENY, 'EINVAL')
      expectFilter(vm, 0xffff_ffff, 1, DENY)
      return 'EINVAL, and success'
    }),
  },
  {
    name: 'An action that does not exist is EINVAL',
    promise: 'KVM_SMCCC_FILTER_HANDLE, _DENY or _FWD_TO_USER',
    source: `${DOCUMENT}; ${SELFTEST}`,
    mark: 'promised',
    experiment: filtering((_vcpu, vm) => {
      for (const action of [3, 4, 0x80, 0xff]) expectFilter(vm, FOREIGN, 1, action, 'EINVAL')
      return 'EINVAL'
    }),
  },
  {
    name: 'The ranges of Arm’s architecture calls are reserved: EEXIST',
    promise: '0x80000000 to 0x8000ffff and 0xc0000000 to 0xc000ffff cannot be filtered, with any action',
    source: `${DOCUMENT}; ${SELFTEST}`,
    mark: 'promised',
    experiment: filtering((_vcpu, vm) => {
      for (const action of [HANDLE, DENY, FORWARD]) {
        for (const base of [0x8000_0000, SMCCC_ARCH_WORKAROUND_1, 0x8000_ffff, 0xc000_0000, 0xc000_ffff]) {
          expectFilter(vm, base, 1, action, 'EEXIST')
        }
        expectFilter(vm, 0x7fff_fff0, 0x20, action, 'EEXIST')
      }
      expectFilter(vm, 0x7fff_fffe, 2, DENY)
      expectFilter(vm, 0x8001_0000, 1, DENY)
      return 'EEXIST for any action; success beside them'
    }),
  },
  {
    name: 'A range that overlaps an earlier one is EEXIST, also if it is the same',
    promise: 'ranges do not overlap',
    source: `${DOCUMENT}; ${SELFTEST}`,
    mark: 'promised',
    experiment: filtering((_vcpu, vm) => {
      expectFilter(vm, FOREIGN, 4, DENY)
      for (const [base, count] of [
        [FOREIGN, 4],
        [FOREIGN, 1],
        [FOREIGN + 3, 4],
        [FOREIGN - 1, 2],
        [FOREIGN - 8, 32],
      ] as const) {
        for (const action of [HANDLE, DENY, FORWARD]) expectFilter(vm, base, count, action, 'EEXIST')
      }
      expectFilter(vm, FOREIGN - 1, 1, DENY)
      expectFilter(vm, FOREIGN + 4, 1, DENY)
      return 'EEXIST; success beside it'
    }),
  },
  {
    name: 'A filter that cannot be read is EFAULT',
    promise: 'a faulting address',
    source: 'every release that has it',
    mark: 'observed',
    experiment: filtering((_vcpu, { attributes }) => {
      const answer = answerAtNull(() => attributes.set(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER))
      expect('a null address', answer, 'EFAULT')
      return answer
    }),
  },
  {
    name: 'The filter cannot be changed once a vCPU has run: EBUSY',
    promise: 'EBUSY after the VM has started',
    source: DOCUMENT,
    mark: 'promised',
    experiment: filtering((vcpu, vm) => {
      expectFilter(vm, FOREIGN, 1, DENY)
      start(vcpu)
      expectFilter(vm, FOREIGN + 1, 1, DENY, 'EBUSY')
      expectFilter(vm, FOREIGN, 1, DENY, 'EBUSY')
      return 'EBUSY'
    }),
  },
  {
    name: 'What is wrong with a filter is EINVAL also after the run',
    promise: 'the filter is looked at before the state of the VM',
    source: 'every release that has it',
    mark: 'observed',
    experiment: filtering((vcpu, vm) => {
      start(vcpu)
      expectFilter(vm, FOREIGN, 0, DENY, 'EINVAL')
      expectFilter(vm, FOREIGN, 1, 3, 'EINVAL')
      return 'EINVAL'
    }),
  },
]

const calls: Check[] = [
  {
    name: 'A denied call is NOT_SUPPORTED, by hvc and by smc',
    promise: 'KVM_SMCCC_FILTER_DENY: the guest finds no such function',
    source: `${DOCUMENT}; ${SELFTEST}`,
    mark: 'promised',
    experiment: filtering((vcpu, vm) => {
      expectFilter(vm, PSCI_VERSION, 1, DENY)
      for (const conduit of conduits) {
        const x = call(vcpu, PSCI_VERSION, [], conduit)
        if (x[0] !== NOT_SUPPORTED) violated(`PSCI_VERSION by ${conduit} is ${resultText(x[0])}`)
      }
      return '-1 by both'
    }),
  },
  {
    name: 'A forwarded call ends the run with its number and the instruction it was made by',
    promise: 'KVM_EXIT_HYPERCALL; KVM_HYPERCALL_EXIT_SMC for smc; arguments in the vCPU’s registers',
    source: `${DOCUMENT}; api.rst, KVM_EXIT_HYPERCALL; ${SELFTEST}`,
    mark: 'promised',
    experiment: filtering((vcpu, vm) => {
      expectFilter(vm, PSCI_VERSION, 1, FORWARD)
      expectFilter(vm, FOREIGN, 1, FORWARD)
      for (const functionId of [PSCI_VERSION, FOREIGN]) {
        for (const conduit of conduits) expectForwarded(vcpu, functionId, conduit)
      }
      return 'hvc and smc told apart, x0 to x3 as the guest set them'
    }),
  },
  {
    name: 'A call outside every range is KVM’s as before',
    promise: 'functions that are not filtered are handled in the kernel',
    source: DOCUMENT,
    mark: 'promised',
    experiment: filtering((vcpu, vm, kvm) => {
      const before = onVcpu(kvm, (other) => call(other, PSCI_VERSION)[0])
      expectFilter(vm, PSCI_VERSION + 1, 0x1e, DENY)
      expectFilter(vm, FOREIGN, 1, FORWARD)
      const after = call(vcpu, PSCI_VERSION)[0]
      expectValue('PSCI_VERSION', after, before)
      return `PSCI_VERSION is ${resultText(after)}`
    }),
  },
  {
    name: 'A range that was refused has no effect',
    promise: 'EEXIST inserts nothing',
    source: 'every release that has it',
    mark: 'observed',
    experiment: filtering((vcpu, vm) => {
      expectFilter(vm, PSCI_VERSION + 1, 1, DENY)
      expectFilter(vm, PSCI_VERSION, 4, DENY, 'EEXIST')
      const x0 = call(vcpu, PSCI_VERSION)[0]
      return x0 === NOT_SUPPORTED ? violated('PSCI_VERSION is -1') : `PSCI_VERSION is ${resultText(x0)}`
    }),
  },
  {
    name: 'The filter is the whole VM’s',
    promise: 'an attribute of the VM',
    source: DOCUMENT,
    mark: 'promised',
    experiment: (kvm) =>
      onTwoVcpus(kvm, (first, second, vm) => {
        if (!hasFilter(vm)) notApplicable('this kernel has no SMCCC filter')
        expectFilter(vm, FOREIGN, 1, FORWARD)
        expectForwarded(first, FOREIGN, 'hvc')
        expectForwarded(second, FOREIGN, 'hvc')
        if (!takesLateVcpus(kvm)) return 'forwards the calls of two vCPUs; pKVM takes none later'
        expectForwarded(vm.createVcpu(2), FOREIGN, 'hvc')
        return 'forwards the calls of three vCPUs'
      }),
  },
  {
    name: 'The filter comes before the bitmaps: a hidden call can be forwarded',
    promise: 'the filter decides what reaches the kernel’s handler at all',
    source: `${DOCUMENT}; arm/fw-pseudo-registers.rst`,
    mark: 'promised',
    experiment: filtering((vcpu, vm) => {
      expectWrite(vcpu, serviceBitmaps.std.register, 0n)
      expectFilter(vm, TRNG_VERSION, 1, FORWARD)
      expectForwarded(vcpu, TRNG_VERSION, 'hvc')
      return 'TRNG_VERSION, hidden, is forwarded'
    }),
  },
  {
    name: 'Handling a hidden call in the filter does not show it again',
    promise: 'KVM_SMCCC_FILTER_HANDLE: as without a filter',
    source: 'every release that has it',
    mark: 'observed',
    experiment: filtering((vcpu, vm) => {
      expectWrite(vcpu, serviceBitmaps.std.register, 0n)
      expectFilter(vm, TRNG_VERSION, 1, HANDLE)
      const x0 = call(vcpu, TRNG_VERSION)[0]
      return x0 === NOT_SUPPORTED ? '-1' : violated(`TRNG_VERSION is ${resultText(x0)}`)
    }),
  },
  {
    name: 'The filter does not change what the bitmaps read',
    promise: 'two settings of their own',
    source: 'every release that has it',
    mark: 'observed',
    experiment: filtering((vcpu, vm) => {
      const { register } = serviceBitmaps.std
      const before = vcpu.registers.get(register)
      expectFilter(vm, TRNG_VERSION, 4, DENY)
      expectRead(vcpu, register, before)
      return `reads ${hex(before)}`
    }),
  },
  {
    name: 'Userspace can answer the functions that DISCOVER_IMPL bits advertise',
    promise: 'they are forwarded like any other',
    source: 'arm/fw-pseudo-registers.rst, KVM_REG_ARM_VENDOR_HYP_BMAP_2',
    mark: 'promised',
    experiment: filtering((vcpu, vm) => {
      const { register, name } = serviceBitmaps.vendorHyp2
      if (!isListed(vcpu, register)) notApplicable(`this kernel has no ${name}`)
      expectWrite(vcpu, register, 3n)
      expectFilter(vm, KVM_DISCOVER_IMPL_VER, 2, FORWARD)
      expectForwarded(vcpu, KVM_DISCOVER_IMPL_VER, 'hvc')
      expectForwarded(vcpu, KVM_DISCOVER_IMPL_VER + 1, 'hvc')
      return 'both are forwarded'
    }),
  },
  {
    name: 'SMCCC_VERSION answers whatever else is denied',
    promise: 'the architecture’s calls are never filtered',
    source: DOCUMENT,
    mark: 'promised',
    experiment: filtering((vcpu, vm) => {
      expectFilter(vm, 0, 0x8000_0000, DENY)
      expectFilter(vm, 0x8001_0000, 0x3fff_0000, DENY)
      expectFilter(vm, 0xc001_0000, 0x3fff_0000, DENY)
      const [version, denied] = [call(vcpu, SMCCC_VERSION)[0], call(vcpu, PSCI_VERSION)[0]]
      if (version === NOT_SUPPORTED) violated('SMCCC_VERSION is -1')
      if (denied !== NOT_SUPPORTED) violated(`PSCI_VERSION is ${resultText(denied)}`)
      return `SMCCC_VERSION is ${resultText(version)}, PSCI_VERSION -1`
    }),
  },
]

export const smcccFilter: CheckGroup = { title: 'SMCCC filter', checks: [...ranges, ...calls] }
