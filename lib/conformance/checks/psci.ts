/** PSCI as a guest sees it, and the states it puts vCPUs in. */
import {
  affinityLevels,
  encodePsciVersion,
  functionIdOf,
  functionIds,
  MPIDR_HWID_BITMASK,
  NOT_SUPPORTED,
  psci01Functions,
  psciFunctions,
  psciReturns,
  type PsciVersion,
  resultText,
  resultWord,
} from '../../hypercalls/index.js'
import type { Exit, Kvm, SystemEvent, Vcpu, Vm } from '../../kvm/index.js'
import { hex } from '../../registers/index.js'
import { capabilities, type MpState } from '../../uapi.js'
import { type Check, type CheckGroup, deviates, notApplicable, violated } from '../check.js'
import {
  answerOf,
  answerOfOutcome,
  ask,
  callEnding,
  describeExit,
  expect,
  expectRead,
  expectResult,
  expectValue,
  expectWait,
  onBareVcpu,
  onVcpu,
  SUCCESS,
  write,
} from '../experiments.js'

const PSCI = 'Arm DEN0022'
const SELFTEST = 'selftest psci_test'
const VERSION_REGISTER = 'KVM_REG_ARM_PSCI_VERSION'

const { ALREADY_ON, INVALID_PARAMS, INTERNAL_FAILURE } = psciReturns
const OK = psciReturns.SUCCESS
const UNSUPPORTED = psciReturns.NOT_SUPPORTED

const VERSION = functionIdOf('PSCI_VERSION')
const CPU_SUSPEND = functionIdOf('PSCI_CPU_SUSPEND')
const CPU_OFF = functionIdOf('PSCI_CPU_OFF')
const CPU_ON = functionIdOf('PSCI_CPU_ON')
const CPU_ON_64 = functionIdOf('PSCI_CPU_ON_64')
const AFFINITY_INFO = functionIdOf('PSCI_AFFINITY_INFO')
const AFFINITY_INFO_64 = functionIdOf('PSCI_AFFINITY_INFO_64')
const MIGRATE_INFO_TYPE = functionIdOf('PSCI_MIGRATE_INFO_TYPE')
const SYSTEM_OFF = functionIdOf('PSCI_SYSTEM_OFF')
const SYSTEM_RESET = functionIdOf('PSCI_SYSTEM_RESET')
const FEATURES = functionIdOf('PSCI_FEATURES')
const SYSTEM_SUSPEND = functionIdOf('PSCI_SYSTEM_SUSPEND')
const SYSTEM_SUSPEND_64 = functionIdOf('PSCI_SYSTEM_SUSPEND_64')
const SYSTEM_RESET2 = functionIdOf('PSCI_SYSTEM_RESET2')
const SYSTEM_RESET2_64 = functionIdOf('PSCI_SYSTEM_RESET2_64')
const SYSTEM_OFF2 = functionIdOf('PSCI_SYSTEM_OFF2')
const SYSTEM_OFF2_64 = functionIdOf('PSCI_SYSTEM_OFF2_64')

/** No trusted OS that would need migration. */
const NOTHING_TO_MIGRATE = 2
const ENTRY = 0x4008_0000n
const CONTEXT = 0xdead_c0de_cafe_f00dn
/** An affinity that no vCPU of these VMs has. */
const NOBODY = 0x7fn
/** Bit 31 of MPIDR_EL1 is not part of an affinity. */
const NO_AFFINITY = 1n << 31n

/** A VM whose second vCPU is off. */
function onPair<T>(kvm: Kvm, experiment: (caller: Vcpu, target: Vcpu, affinity: bigint) => T): T {
  using vm = kvm.createVm()
  const caller = vm.createVcpu(0)
  const target = powerOff(vm, 1)
  return experiment(caller, target, affinityOf(target))
}

function powerOff(vm: Vm, id: number): Vcpu {
  // The feature belongs to each vCPU, on every kernel.
  return vm.createVcpu(id, { features: ['power-off', 'psci-0.2'] })
}

function affinityOf({ registers }: Vcpu): bigint {
  return registers.get('MPIDR_EL1') & MPIDR_HWID_BITMASK
}

function choose(vcpu: Vcpu, version: PsciVersion): void {
  const answer = write(vcpu, VERSION_REGISTER, encodePsciVersion(version))
  if (answer !== SUCCESS) notApplicable(`this kernel has no PSCI ${version} (${answer})`)
}

/** The check does not apply to a kernel without the function; its newest PSCI version decides that. */
function needFunction(vcpu: Vcpu, functionId: number): void {
  const name = psciFunctions.find(({ id, id64 }) => id === functionId || id64 === functionId)!
  const version = vcpu.registers.get(VERSION_REGISTER)
  if (version < encodePsciVersion(name.since)) {
    notApplicable(`${name.name} came with PSCI ${name.since}, this kernel has ${hex(version)}`)
  }
}

interface EventExpectation {
  event: SystemEvent
  flags: bigint
}

/** Makes a call that must end in this event. Compares `flags` if this kernel reports data of events. */
function expectEvent(
  vcpu: Vcpu,
  functionId: number,
  args: readonly bigint[],
  expected: EventExpectation,
): { exit: Exit & { reason: 'system-event' }; x: readonly bigint[] } {
  const { exit, x } = callEnding(vcpu, functionId, args)
  if (exit.reason !== 'system-event' || exit.event !== expected.event) violated(describeExit(exit))
  expectValue('flags of the event', exit.flags, expected.flags)
  return { exit, x }
}

function eventCheck(
  name: string,
  source: string,
  calls: readonly { functionId: number; args?: readonly bigint[] }[],
  expected: EventExpectation,
): Check {
  return {
    name,
    promise: `KVM_EXIT_SYSTEM_EVENT, ${expected.event}, flags ${hex(expected.flags)}`,
    source,
    mark: 'promised',
    experiment: (kvm) => {
      for (const { functionId, args = [] } of calls) {
        onVcpu(kvm, (vcpu) => {
          needFunction(vcpu, functionId)
          expectEvent(vcpu, functionId, args, expected)
        })
      }
      return `system event ${expected.event}, flags ${hex(expected.flags)}`
    },
  }
}

const discovery: Check[] = [
  {
    name: 'PSCI_FEATURES tells of the functions that PSCI makes mandatory',
    promise:
      'not NOT_SUPPORTED for VERSION, CPU_SUSPEND, CPU_OFF, CPU_ON, AFFINITY_INFO, SYSTEM_OFF, SYSTEM_RESET and itself',
    source: `${PSCI}, PSCI_FEATURES`,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        needFunction(vcpu, FEATURES)
        const mandatory = [
          VERSION,
          CPU_SUSPEND,
          CPU_OFF,
          CPU_ON,
          CPU_ON_64,
          AFFINITY_INFO,
          AFFINITY_INFO_64,
          SYSTEM_OFF,
          SYSTEM_RESET,
          FEATURES,
        ]
        for (const functionId of mandatory) expectResult(vcpu, FEATURES, [BigInt(functionId)], OK)
        return `0 for ${mandatory.length} functions`
      }),
  },
  {
    name: 'PSCI_FEATURES tells that SMCCC_VERSION may be called',
    promise: 'SMCCC 1.1 is discovered so',
    source: 'Arm DEN0028, "Discovery"',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        needFunction(vcpu, FEATURES)
        expectResult(vcpu, FEATURES, [BigInt(functionIds.SMCCC_VERSION)], OK)
        return '0'
      }),
  },
  {
    name: 'PSCI_FEATURES agrees with what the functions are answered',
    promise: 'NOT_SUPPORTED for every function that is NOT_SUPPORTED when called',
    source: `${PSCI}, PSCI_FEATURES`,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        needFunction(vcpu, FEATURES)
        const never = psciFunctions.filter(({ kvm: implemented }) => !implemented)
        const ids = never.flatMap(({ id, id64 }) => (id64 === undefined ? [id] : [id, id64]))
        for (const id of ids) {
          const [told, called] = [ask(vcpu, FEATURES, BigInt(id)), ask(vcpu, id)]
          if ((told === NOT_SUPPORTED) !== (called === NOT_SUPPORTED)) {
            violated(`${hex(id)}: PSCI_FEATURES is ${resultText(told)}, the call ${resultText(called)}`)
          }
        }
        return `-1 of ${ids.length} functions, and -1 from them`
      }),
  },
  {
    name: 'A function of a later PSCI than was chosen does not exist',
    promise: 'NOT_SUPPORTED',
    source: `${PSCI}; arm/fw-pseudo-registers.rst, KVM_REG_ARM_PSCI_VERSION`,
    mark: 'promised',
    experiment: (kvm) => {
      const asked = (['0.2', '1.0', '1.1', '1.2'] as const).filter((version) =>
        onVcpu(kvm, (vcpu) => write(vcpu, VERSION_REGISTER, encodePsciVersion(version)) === SUCCESS),
      )
      for (const version of asked) {
        onVcpu(kvm, (vcpu) => {
          choose(vcpu, version)
          const later = psciFunctions.filter(
            (entry) => encodePsciVersion(entry.since) > encodePsciVersion(version),
          )
          for (const { id, id64 } of later) {
            for (const functionId of id64 === undefined ? [id] : [id, id64]) {
              expectResult(vcpu, functionId, [], UNSUPPORTED)
              if (version !== '0.2') expectResult(vcpu, FEATURES, [BigInt(functionId)], UNSUPPORTED)
            }
          }
        })
      }
      return `-1 under ${asked.join(', ')}`
    },
  },
  {
    name: 'MIGRATE_INFO_TYPE tells that there is nothing to migrate',
    promise: '2: no trusted OS, or one that does not care',
    source: `${PSCI}, MIGRATE_INFO_TYPE`,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        expectResult(vcpu, MIGRATE_INFO_TYPE, [], NOTHING_TO_MIGRATE)
        return '0x2'
      }),
  },
  {
    name: 'A function number PSCI has not is NOT_SUPPORTED',
    promise: 'unknown function: -1',
    source: `${PSCI}; Arm DEN0028`,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const unknown = [0x8400_0017, 0x8400_001f, 0xc400_0000, 0xc400_0002, 0xc400_0008, 0xc400_001f]
        for (const functionId of unknown) expectResult(vcpu, functionId, [], UNSUPPORTED)
        return `-1 for ${unknown.map(hex).join(', ')}`
      }),
  },
  {
    name: 'A guest of PSCI 0.1 has its functions, and none of later versions',
    promise: 'a vCPU without KVM_ARM_VCPU_PSCI_0_2 is given PSCI 0.1',
    source: 'api.rst, KVM_ARM_VCPU_INIT',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(
        kvm,
        (vcpu) => {
          for (const { id, id64 } of psciFunctions) {
            for (const functionId of id64 === undefined ? [id] : [id, id64]) {
              expectResult(vcpu, functionId, [], UNSUPPORTED)
            }
          }
          const [suspend, off, on, migrate] = psci01Functions.map(({ id }) => id)
          expectResult(vcpu, suspend!, [], UNSUPPORTED)
          expectResult(vcpu, migrate!, [], UNSUPPORTED)
          expectResult(vcpu, on!, [NOBODY, ENTRY, 0n], INVALID_PARAMS)
          expectWait(vcpu, off!)
          return 'CPU_ON and CPU_OFF of 0.1 answer, all others are -1'
        },
        [],
      ),
  },
  {
    name: 'The functions of PSCI 0.1 are not those of later versions',
    promise: 'NOT_SUPPORTED',
    source: 'every release',
    mark: 'observed',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        for (const { id } of psci01Functions) expectResult(vcpu, id, [], UNSUPPORTED)
        return '-1'
      }),
  },
]

const cpus: Check[] = [
  {
    name: 'CPU_ON starts a vCPU that is off, at the entry point and with the context given',
    promise:
      'SUCCESS; pc is the entry point and x0 the context, which userspace can read before the vCPU runs',
    source: `${PSCI}, CPU_ON; ${SELFTEST}`,
    mark: 'promised',
    experiment: (kvm) =>
      onPair(kvm, (caller, target, affinity) => {
        expectResult(caller, CPU_ON_64, [affinity, ENTRY, CONTEXT], OK)
        expectRead(target, 'pc', ENTRY, 'of the target')
        expectRead(target, 'x0', CONTEXT, 'of the target')
        if (target.mpState !== 'runnable') violated(`the target is ${target.mpState}`)
        return `0; pc ${hex(ENTRY)}, x0 ${hex(CONTEXT)}, runnable`
      }),
  },
  {
    name: 'CPU_ON by the 32-bit call cuts its arguments to 32 bits',
    promise: 'arguments of SMC32 calls are in w1 to w3',
    source: 'Arm DEN0028, "SMC32 argument passing"',
    mark: 'promised',
    experiment: (kvm) =>
      onPair(kvm, (caller, target, affinity) => {
        expectResult(caller, CPU_ON, [affinity, ENTRY | (1n << 40n), CONTEXT], OK)
        expectRead(target, 'pc', ENTRY, 'of the target')
        expectRead(target, 'x0', BigInt.asUintN(32, CONTEXT), 'of the target')
        return `pc ${hex(ENTRY)}, x0 ${hex(BigInt.asUintN(32, CONTEXT))}`
      }),
  },
  {
    name: 'CPU_ON of a vCPU that is on is ALREADY_ON',
    promise: 'ALREADY_ON, also of the caller itself',
    source: `${PSCI}, CPU_ON`,
    mark: 'promised',
    experiment: (kvm) =>
      onPair(kvm, (caller, _target, affinity) => {
        expectResult(caller, CPU_ON_64, [affinityOf(caller), ENTRY, 0n], ALREADY_ON)
        expectResult(caller, CPU_ON_64, [affinity, ENTRY, 0n], OK)
        expectResult(caller, CPU_ON_64, [affinity, ENTRY, 0n], ALREADY_ON)
        return '-4'
      }),
  },
  {
    name: 'CPU_ON of a CPU that does not exist is INVALID_PARAMETERS',
    promise: 'INVALID_PARAMETERS',
    source: `${PSCI}, CPU_ON`,
    mark: 'promised',
    experiment: (kvm) =>
      onPair(kvm, (caller) => {
        expectResult(caller, CPU_ON_64, [NOBODY, ENTRY, 0n], INVALID_PARAMS)
        return '-2'
      }),
  },
  {
    name: 'CPU_ON of an affinity with other bits of MPIDR_EL1 is INVALID_PARAMETERS',
    promise: 'bits that are no affinity must be zero',
    source: `${PSCI}, CPU_ON`,
    mark: 'promised',
    experiment: (kvm) =>
      onPair(kvm, (caller) => {
        const x0 = ask(caller, CPU_ON_64, NO_AFFINITY | affinityOf(caller), ENTRY)
        if (x0 === resultWord(INVALID_PARAMS)) return '-2'
        return x0 === resultWord(ALREADY_ON)
          ? deviates('drops the bits, and is -4')
          : violated(resultText(x0))
      }),
  },
  {
    name: 'AFFINITY_INFO tells which vCPUs are on and which are off',
    promise: '1 (off) until CPU_ON, then 0 (on)',
    source: `${PSCI}, AFFINITY_INFO; ${SELFTEST}`,
    mark: 'promised',
    experiment: (kvm) =>
      onPair(kvm, (caller, _target, affinity) => {
        for (const functionId of [AFFINITY_INFO, AFFINITY_INFO_64]) {
          expectResult(caller, functionId, [affinityOf(caller), 0n], affinityLevels.ON)
          expectResult(caller, functionId, [affinity, 0n], affinityLevels.OFF)
        }
        expectResult(caller, CPU_ON_64, [affinity, ENTRY, 0n], OK)
        expectResult(caller, AFFINITY_INFO_64, [affinity, 0n], affinityLevels.ON)
        return '1, and 0 after CPU_ON'
      }),
  },
  {
    name: 'AFFINITY_INFO refuses a level above 3, and an affinity nobody has',
    promise: 'INVALID_PARAMETERS',
    source: `${PSCI}, AFFINITY_INFO`,
    mark: 'promised',
    experiment: (kvm) =>
      onPair(kvm, (caller, _target, affinity) => {
        expectResult(caller, AFFINITY_INFO_64, [affinity, 4n], INVALID_PARAMS)
        expectResult(caller, AFFINITY_INFO_64, [NOBODY, 0n], INVALID_PARAMS)
        return '-2'
      }),
  },
  {
    name: 'AFFINITY_INFO of a higher level is about all vCPUs below it',
    promise: 'on while any of them is on',
    source: `${PSCI}, AFFINITY_INFO`,
    mark: 'promised',
    experiment: (kvm) =>
      onPair(kvm, (caller, _target, affinity) => {
        for (const level of [1n, 2n, 3n]) {
          expectResult(caller, AFFINITY_INFO_64, [affinity, level], affinityLevels.ON)
        }
        return '0 at levels 1 to 3'
      }),
  },
  {
    name: 'CPU_OFF stops the vCPU that calls it, and another sees it off',
    promise: 'does not return; AFFINITY_INFO is 1',
    source: `${PSCI}, CPU_OFF`,
    mark: 'promised',
    experiment: (kvm) => {
      using vm = kvm.createVm()
      const [first, second] = [vm.createVcpu(0), vm.createVcpu(1)]
      expectWait(second, CPU_OFF)
      if (second.mpState !== 'stopped') violated(`the vCPU is ${second.mpState}`)
      expectResult(first, AFFINITY_INFO_64, [affinityOf(second), 0n], affinityLevels.OFF)
      return 'does not come back; stopped'
    },
  },
  {
    name: 'CPU_SUSPEND waits for an interrupt',
    promise: 'a power down state may be taken for a standby state, which ends with a wake-up event',
    source: `${PSCI}, CPU_SUSPEND`,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        expectWait(vcpu, CPU_SUSPEND)
        if (vcpu.mpState !== 'runnable') violated(`the vCPU is ${vcpu.mpState}`)
        return 'waits, runnable'
      }),
  },
]

const system: Check[] = [
  eventCheck(
    'SYSTEM_OFF ends the run with a shutdown',
    `${PSCI}, SYSTEM_OFF; api.rst, KVM_EXIT_SYSTEM_EVENT`,
    [{ functionId: SYSTEM_OFF }],
    { event: 'shutdown', flags: 0n },
  ),
  eventCheck(
    'SYSTEM_RESET ends the run with a reset',
    `${PSCI}, SYSTEM_RESET; api.rst, KVM_EXIT_SYSTEM_EVENT`,
    [{ functionId: SYSTEM_RESET }],
    { event: 'reset', flags: 0n },
  ),
  eventCheck(
    'SYSTEM_RESET2 ends the run with a reset that says so',
    `${PSCI}, SYSTEM_RESET2; api.rst, KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2`,
    [
      { functionId: SYSTEM_RESET2 },
      { functionId: SYSTEM_RESET2_64 },
      { functionId: SYSTEM_RESET2, args: [0x8000_0000n, 1n] },
    ],
    { event: 'reset', flags: 1n },
  ),
  {
    name: 'SYSTEM_RESET2 refuses an architectural type other than 0',
    promise: 'INVALID_PARAMETERS for a reserved type',
    source: `${PSCI}, SYSTEM_RESET2`,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        needFunction(vcpu, SYSTEM_RESET2)
        for (const type of [1n, 2n, 0x7fff_ffffn]) {
          expectResult(vcpu, SYSTEM_RESET2, [type, 0n], INVALID_PARAMS)
        }
        return '-2 for types 1, 2 and 0x7fffffff'
      }),
  },
  eventCheck(
    'SYSTEM_OFF2 ends the run with a shutdown that says so',
    `${SELFTEST}; api.rst, KVM_SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2`,
    [
      { functionId: SYSTEM_OFF2, args: [1n] },
      { functionId: SYSTEM_OFF2_64, args: [1n] },
      { functionId: SYSTEM_OFF2_64, args: [0n] },
    ],
    { event: 'shutdown', flags: 1n },
  ),
  {
    name: 'SYSTEM_OFF2 refuses a cookie and any type but hibernation',
    promise: 'INVALID_PARAMETERS',
    source: SELFTEST,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        needFunction(vcpu, SYSTEM_OFF2)
        for (const args of [
          [1n, 1n],
          [0n, 1n],
          [2n, 0n],
        ]) {
          expectResult(vcpu, SYSTEM_OFF2_64, args, INVALID_PARAMS)
        }
        return '-2'
      }),
  },
  {
    name: 'PSCI_FEATURES tells that SYSTEM_OFF2 can hibernate',
    promise: 'bit 0 set',
    source: SELFTEST,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        needFunction(vcpu, SYSTEM_OFF2)
        for (const functionId of [SYSTEM_OFF2, SYSTEM_OFF2_64]) {
          expectResult(vcpu, FEATURES, [BigInt(functionId)], 1)
        }
        return '0x1'
      }),
  },
  {
    name: 'A machine that is resumed after SYSTEM_OFF2 finds INTERNAL_FAILURE',
    promise: 'the call that cannot return returns so',
    source: SELFTEST,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        needFunction(vcpu, SYSTEM_OFF2)
        const { x } = expectEvent(vcpu, SYSTEM_OFF2, [], { event: 'shutdown', flags: 1n })
        expectValue('x0 at the exit', x[0]!, resultWord(INTERNAL_FAILURE))
        return '-6'
      }),
  },
  {
    name: 'A machine that is resumed after SYSTEM_OFF or SYSTEM_RESET finds INTERNAL_FAILURE',
    promise: 'the call that cannot return returns so',
    source: 'every release',
    mark: 'observed',
    experiment: (kvm) => {
      for (const functionId of [SYSTEM_OFF, SYSTEM_RESET]) {
        const { x } = onVcpu(kvm, (vcpu) => callEnding(vcpu, functionId))
        expectValue(`x0 after ${hex(functionId)}`, x[0]!, resultWord(INTERNAL_FAILURE))
      }
      return '-6'
    },
  },
  {
    name: 'An event that ends a machine stops every vCPU',
    promise: 'none runs on until userspace makes it runnable again',
    source: 'every release',
    mark: 'observed',
    experiment: (kvm) => {
      using vm = kvm.createVm()
      const vcpus = [vm.createVcpu(0), vm.createVcpu(1)]
      callEnding(vcpus[0]!, SYSTEM_RESET)
      const states = vcpus.map(({ mpState }) => mpState)
      if (states.some((state) => state !== 'stopped')) violated(states.join(' and '))
      for (const vcpu of vcpus) vcpu.mpState = 'runnable'
      expectResult(vcpus[0]!, MIGRATE_INFO_TYPE, [], NOTHING_TO_MIGRATE)
      return 'stopped; made runnable, the first goes on'
    },
  },
  {
    name: 'SYSTEM_SUSPEND is NOT_SUPPORTED until userspace enables it',
    promise: 'opt-in by KVM_CAP_ARM_SYSTEM_SUSPEND',
    source: 'api.rst, KVM_CAP_ARM_SYSTEM_SUSPEND',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        for (const functionId of [SYSTEM_SUSPEND, SYSTEM_SUSPEND_64]) {
          expectResult(vcpu, functionId, [ENTRY, 0n], UNSUPPORTED)
          expectResult(vcpu, FEATURES, [BigInt(functionId)], UNSUPPORTED)
        }
        return '-1'
      }),
  },
  {
    name: 'SYSTEM_SUSPEND ends the run with a suspend event once it is enabled',
    promise:
      'PSCI_FEATURES is SUCCESS for both calls; KVM_EXIT_SYSTEM_EVENT, suspend, with the guest’s registers as they were',
    source: `${SELFTEST}; api.rst, KVM_SYSTEM_EVENT_SUSPEND`,
    mark: 'promised',
    experiment: (kvm) => {
      for (const functionId of [SYSTEM_SUSPEND, SYSTEM_SUSPEND_64]) {
        onVcpu(kvm, (vcpu, vm) => {
          needSystemSuspend(vm)
          vm.enableCapability('KVM_CAP_ARM_SYSTEM_SUSPEND')
          expectResult(vcpu, FEATURES, [BigInt(functionId)], OK)
          const { x } = expectEvent(vcpu, functionId, [ENTRY, CONTEXT], { event: 'suspend', flags: 0n })
          expectValue('x0 at the exit', x[0]!, BigInt(functionId))
          expectValue('x1 at the exit', x[1]!, ENTRY)
          if (vcpu.mpState !== 'runnable') violated(`the vCPU is ${vcpu.mpState}`)
        })
      }
      return 'system event suspend, registers as the guest left them, runnable'
    },
  },
]

function needSystemSuspend(vm: Vm): void {
  if (vm.checkExtension('KVM_CAP_ARM_SYSTEM_SUSPEND') <= 0) {
    notApplicable('this kernel has no KVM_CAP_ARM_SYSTEM_SUSPEND')
  }
}

function expectState(vcpu: Vcpu, state: MpState): void {
  if (vcpu.mpState !== state) violated(`reads ${vcpu.mpState}`)
}

const states: Check[] = [
  {
    name: 'A vCPU starts runnable, or stopped where its init said so',
    promise: 'KVM_ARM_VCPU_POWER_OFF starts the vCPU in a power-off state',
    source: 'api.rst, KVM_ARM_VCPU_INIT and KVM_GET_MP_STATE',
    mark: 'promised',
    experiment: (kvm) =>
      onPair(kvm, (caller, target) => {
        if (caller.mpState !== 'runnable' || target.mpState !== 'stopped') {
          violated(`${caller.mpState} and ${target.mpState}`)
        }
        return 'runnable, and stopped'
      }),
  },
  {
    name: 'Userspace stops a vCPU and makes it runnable again',
    promise: 'KVM_SET_MP_STATE; AFFINITY_INFO tells the guest',
    source: 'api.rst, KVM_SET_MP_STATE',
    mark: 'promised',
    experiment: (kvm) => {
      using vm = kvm.createVm()
      const [caller, target] = [vm.createVcpu(0), vm.createVcpu(1)]
      target.mpState = 'stopped'
      expectState(target, 'stopped')
      expectResult(caller, AFFINITY_INFO_64, [affinityOf(target), 0n], affinityLevels.OFF)
      target.mpState = 'runnable'
      expectResult(caller, AFFINITY_INFO_64, [affinityOf(target), 0n], affinityLevels.ON)
      return 'stopped, AFFINITY_INFO 1; runnable, 0'
    },
  },
  {
    name: 'The state suspended exists where SYSTEM_SUSPEND does',
    promise: 'KVM_MP_STATE_SUSPENDED, with KVM_CAP_ARM_SYSTEM_SUSPEND',
    source: 'api.rst, KVM_GET_MP_STATE',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu, vm) => {
        const answer = answerOf(() => (vcpu.mpState = 'suspended'))
        if (vm.checkExtension('KVM_CAP_ARM_SYSTEM_SUSPEND') <= 0) {
          expect('suspended, without the capability', answer, 'EINVAL')
          return 'EINVAL: the kernel has neither'
        }
        expect('suspended', answer, SUCCESS)
        expectState(vcpu, 'suspended')
        return 'accepts it and reads it'
      }),
  },
  {
    name: 'A state arm64 has not is EINVAL',
    promise: 'EINVAL',
    source: 'api.rst, KVM_SET_MP_STATE',
    mark: 'observed',
    experiment: (kvm) =>
      onBareVcpu(kvm, ['psci-0.2'], (vcpu) => {
        for (const state of [1, 2, 3, 4, 6, 7, 9, 11, 0xffff_ffff]) {
          expect(`state ${state}`, answerOfOutcome(vcpu.setMpState(state)), 'EINVAL')
        }
        return 'EINVAL'
      }),
  },
  {
    name: 'PSCI is announced, and so is the state of vCPUs',
    promise: 'KVM_CAP_ARM_PSCI, KVM_CAP_ARM_PSCI_0_2 and KVM_CAP_MP_STATE are 1',
    source: 'api.rst',
    mark: 'promised',
    experiment: (kvm) => {
      for (const name of ['KVM_CAP_ARM_PSCI', 'KVM_CAP_ARM_PSCI_0_2', 'KVM_CAP_MP_STATE'] as const) {
        if (kvm.checkExtension(capabilities[name]) <= 0) violated(`${name} is 0`)
      }
      return 'announced'
    },
  },
]

export const psci: CheckGroup = {
  title: 'PSCI',
  checks: [...discovery, ...cpus, ...system, ...states],
}
