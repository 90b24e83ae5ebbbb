/** The results of a guest's hypercalls, and the bit of each bitmap that makes them discoverable. */
import type { Conduit } from '../../backend.js'
import {
  functionIdOf,
  functionIds,
  functionName,
  knownMask,
  kvmUid,
  NOT_SUPPORTED,
  resultText,
  type Service,
  type ServiceBitmap,
  serviceBitmaps,
  type ServiceCall,
  smcccReturns,
  trngReturns,
} from '../../hypercalls/index.js'
import type { Kvm, Vcpu, Vm } from '../../kvm/index.js'
import { hex } from '../../registers/index.js'
import { KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA } from '../../uapi.js'
import { type Check, type CheckGroup, deviates, notApplicable, violated } from '../check.js'
import {
  ask,
  call,
  expectResult,
  expectValue,
  expectWrite,
  needRegister,
  onVcpu,
  presentBitmaps,
} from '../experiments.js'

const DOCUMENT = 'arm/fw-pseudo-registers.rst, "Bitmap Feature Firmware Registers"'
const SELFTEST = 'selftest hypercalls'
const UNSUPPORTED = smcccReturns.NOT_SUPPORTED

const {
  SMCCC_VERSION,
  SMCCC_ARCH_FEATURES,
  SMCCC_ARCH_SOC_ID,
  TRNG_VERSION,
  TRNG_FEATURES,
  TRNG_GET_UUID,
  TRNG_RND32,
  TRNG_RND64,
  PV_TIME_FEATURES,
  PV_TIME_ST,
  VENDOR_HYP_CALL_UID,
  KVM_FEATURES,
  KVM_PTP,
} = functionIds

/** Guest physical address of memory for a stolen-time structure. */
const STOLEN_TIME = 0x8000_0000n
const PAGE = 0x1_0000
const STOLEN_TIME_SLOT = 1

/** Gives a VM's first vCPU stolen time, as a VMM does; returns false if the host has none. */
function giveStolenTime(kvm: Kvm, vm: Vm, vcpu: Vcpu): boolean {
  if (!vcpu.attributes.has(KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA)) return false
  using memory = kvm.createMemory(PAGE)
  vm.mapMemory(STOLEN_TIME_SLOT, { address: STOLEN_TIME, memory })
  const address = new Uint8Array(BigUint64Array.of(STOLEN_TIME).buffer)
  vcpu.attributes.set(KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA, address)
  return true
}

function textOf({ functionId, args }: ServiceCall): string {
  const about = args.map((argument) => (argument > 0xffffn ? functionName(Number(argument)) : `${argument}`))
  return `${functionName(functionId)}(${about.join(', ')})`
}

const services = Object.values(serviceBitmaps).flatMap((bitmap) =>
  bitmap.services.map((service) => ({ bitmap, service })),
)
const gated = services.filter(({ service }) => service.gated)

/** Returns a VM's only vCPU; its guest may discover these bits and has stolen time. */
function onElected<T>(
  kvm: Kvm,
  elected: (bitmap: ServiceBitmap) => bigint,
  experiment: (vcpu: Vcpu) => T,
): T {
  return onVcpu(kvm, (vcpu, vm) => {
    for (const bitmap of presentBitmaps(kvm)) expectWrite(vcpu, bitmap.register, elected(bitmap))
    giveStolenTime(kvm, vm, vcpu)
    return experiment(vcpu)
  })
}

const knownBits = ({ group }: ServiceBitmap): bigint => knownMask(group)

/** All services except this one. */
function allBut(service: Service) {
  return (bitmap: ServiceBitmap): bigint =>
    bitmap.services.includes(service) ? knownBits(bitmap) & ~(1n << BigInt(service.bit)) : knownBits(bitmap)
}

function onlyThis(service: Service) {
  return (bitmap: ServiceBitmap): bigint =>
    bitmap.services.includes(service) ? 1n << BigInt(service.bit) : 0n
}

/**
 * Services that a guest of this host can have at all: a service may be missing although its bit is set, as PTP is without the right
 * clock.
 */
function isOffered(kvm: Kvm, { calls: [proof] }: Service): boolean {
  return onElected(kvm, knownBits, (vcpu) => ask(vcpu, proof!.functionId, ...proof!.args) !== NOT_SUPPORTED)
}

/** The checks of a service that KVM itself implements. */
function checksOfService(bitmap: ServiceBitmap, service: Service): Check[] {
  const { name, kernelName, calls: questions } = service
  return [
    {
      name: `A guest finds ${name} while ${kernelName} is set`,
      promise: 'the bit shows the functions of the service to the guest',
      source: `${DOCUMENT}; ${SELFTEST}`,
      mark: 'promised',
      experiment: (kvm) => {
        needRegister(kvm, bitmap.name)
        if (name === 'ptp' && !isOffered(kvm, service)) {
          // PTP needs the architecture's counter as the host's clock source; the capability does not show that.
          deviates(`the bit is set, and KVM_PTP is -1: this host’s clock does not allow it`)
        }
        return onElected(kvm, onlyThis(service), (vcpu) => {
          if (name === 'pv-time') needStolenTime(vcpu)
          for (const question of questions) {
            const x0 = ask(vcpu, question.functionId, ...question.args)
            if (x0 === NOT_SUPPORTED) violated(`${textOf(question)} is -1`)
          }
          return `answers ${questions.map(textOf).join(', ')}`
        })
      },
    },
    {
      name: `A guest finds nothing of ${name} once ${kernelName} is cleared`,
      promise: 'NOT_SUPPORTED, as where the service does not exist',
      source: `${DOCUMENT}; ${SELFTEST}`,
      mark: 'promised',
      experiment: (kvm) => {
        needRegister(kvm, bitmap.name)
        return onElected(kvm, allBut(service), (vcpu) => {
          expectUnsupported(vcpu, 'hvc', questions)
          return `-1 for ${questions.map(textOf).join(', ')}`
        })
      },
    },
    {
      name: `Clearing ${kernelName} hides no other service`,
      promise: 'each bit is about its own service',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) => {
        needRegister(kvm, bitmap.name)
        const others = gated.filter((entry) => entry.service !== service)
        const before = onElected(kvm, knownBits, (vcpu) => others.map((entry) => found(vcpu, entry.service)))
        const after = onElected(kvm, allBut(service), (vcpu) =>
          others.map((entry) => found(vcpu, entry.service)),
        )
        for (const [index, { service: other }] of others.entries()) {
          if (before[index] !== after[index])
            violated(`${other.name}: ${before[index]}, then ${after[index]}`)
        }
        return others.map((entry, index) => `${entry.service.name}: ${before[index]}`).join('; ')
      },
    },
    {
      name: `Clearing ${kernelName} hides ${name} from smc too`,
      promise: 'both instructions have one handler',
      source: 'every release since 6.4',
      mark: 'observed',
      experiment: (kvm) => {
        needRegister(kvm, bitmap.name)
        needSmc(kvm)
        return onElected(kvm, allBut(service), (vcpu) => {
          expectUnsupported(vcpu, 'smc', questions)
          return '-1'
        })
      },
    },
  ]
}

/** The check of a bit that only advertises functions, which userspace must implement. */
function checkOfAdvertised(bitmap: ServiceBitmap, { name, kernelName, functions }: Service): Check {
  return {
    name: `The functions of ${name} are answered while ${kernelName} is set`,
    promise: 'the bit shows the functions to the guest',
    source: `arm/fw-pseudo-registers.rst, ${bitmap.name}`,
    mark: 'promised',
    experiment: (kvm) => {
      needRegister(kvm, bitmap.name)
      return onElected(kvm, knownBits, (vcpu) => {
        const missing = functions.filter((id) => ask(vcpu, id) === NOT_SUPPORTED)
        if (missing.length === 0) return `answers ${functions.map(functionName).join(', ')}`
        return deviates(`-1 for ${missing.map(functionName).join(', ')}: userspace is to answer`)
      })
    },
  }
}

function found(vcpu: Vcpu, { calls }: Service): string {
  const answered = calls.filter(({ functionId, args }) => ask(vcpu, functionId, ...args) !== NOT_SUPPORTED)
  return `${answered.length} of ${calls.length} calls answered`
}

function expectUnsupported(vcpu: Vcpu, conduit: Conduit, questions: readonly ServiceCall[]): void {
  for (const question of questions) {
    const x = call(vcpu, question.functionId, question.args, conduit)
    if (x[0] !== NOT_SUPPORTED) violated(`${textOf(question)} by ${conduit} is ${resultText(x[0])}`)
  }
}

function needStolenTime(vcpu: Vcpu): void {
  if (!vcpu.attributes.has(KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA)) {
    notApplicable('this host keeps no account of stolen time')
  }
}

function needSmc(kvm: Kvm): void {
  const x = onVcpu(kvm, (vcpu) => call(vcpu, SMCCC_VERSION, [], 'smc'))
  if (x[0] === NOT_SUPPORTED) notApplicable('this kernel answers no smc')
}

/** Functions next to the known ones, and of owners for which KVM implements nothing. */
const unknownFunctions = [
  0x8000_0003, 0x8100_0000, 0x8200_0000, 0x8300_0000, 0x8400_004f, 0x8400_0054, 0x8500_0000, 0xc500_001f,
  0xc500_0022, 0x8600_0002, 0x8600_00ff, 0x8600_ff00, 0x8600_ff03, 0xb200_0000, 0xbf00_ff01, 0x0000_0000,
]

/** Calls about memory, for guests of protected VMs only. */
const protectedFunctions = [
  functionIds.KVM_HYP_MEMINFO,
  functionIds.KVM_MEM_SHARE,
  functionIds.KVM_MEM_UNSHARE,
  functionIds.KVM_MMIO_GUARD,
]

const others: Check[] = [
  {
    name: 'SMCCC_VERSION tells 1.1 or later',
    promise: 'the calling convention by which the other services are discovered',
    source: 'Arm DEN0028, SMCCC_VERSION; arm/hypercalls.rst',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const version = ask(vcpu, SMCCC_VERSION)
        return version >= 0x1_0001n && version <= 0x7fff_ffffn
          ? `is ${hex(version)}`
          : violated(`is ${resultText(version)}`)
      }),
  },
  {
    name: 'With every service hidden, SMCCC_VERSION, SMCCC_ARCH_FEATURES and PSCI still answer',
    promise: 'what a guest needs to start is not subject to the bitmaps',
    source: 'arch/arm64/kvm/hypercalls.c, kvm_smccc_default_allowed',
    mark: 'observed',
    experiment: (kvm) => {
      if (presentBitmaps(kvm).length === 0) notApplicable('this kernel has no bitmap registers')
      const WORKAROUND_1 = BigInt(functionIds.SMCCC_ARCH_WORKAROUND_1)
      const PSCI_VERSION = functionIdOf('PSCI_VERSION')
      const questions: ServiceCall[] = [
        { functionId: SMCCC_VERSION, args: [] },
        { functionId: SMCCC_ARCH_FEATURES, args: [WORKAROUND_1] },
        { functionId: PSCI_VERSION, args: [] },
        { functionId: functionIdOf('PSCI_MIGRATE_INFO_TYPE'), args: [] },
        { functionId: functionIdOf('PSCI_FEATURES'), args: [BigInt(PSCI_VERSION)] },
      ]
      const answers = (elected: (bitmap: ServiceBitmap) => bigint): bigint[] =>
        onElected(kvm, elected, (vcpu) =>
          questions.map(({ functionId, args }) => ask(vcpu, functionId, ...args)),
        )
      const [shown, hidden] = [answers(knownBits), answers(() => 0n)]
      for (const [index, question] of questions.entries()) {
        expectValue(textOf(question), hidden[index]!, shown[index]!)
      }
      return questions
        .map((question, index) => `${textOf(question)} is ${resultText(hidden[index]!)}`)
        .join(', ')
    },
  },
  {
    name: 'A service asked about another’s function knows nothing of it',
    promise: 'NOT_SUPPORTED',
    source: SELFTEST,
    mark: 'promised',
    experiment: (kvm) =>
      onElected(kvm, knownBits, (vcpu) => {
        for (const [functionId, about] of [
          [TRNG_FEATURES, KVM_PTP],
          [SMCCC_ARCH_FEATURES, TRNG_RND64],
          [PV_TIME_FEATURES, TRNG_RND64],
        ] as const) {
          expectResult(vcpu, functionId, [BigInt(about)], UNSUPPORTED)
        }
        return '-1'
      }),
  },
  {
    name: 'A function nobody knows is NOT_SUPPORTED, with x1 to x3 cleared',
    promise: 'unknown function: -1',
    source: 'Arm DEN0028, "Unknown Function Identifier"',
    mark: 'promised',
    experiment: (kvm) =>
      onElected(kvm, knownBits, (vcpu) => {
        for (const functionId of unknownFunctions) {
          const x = call(vcpu, functionId, [1n, 2n, 3n])
          if (x[0] !== NOT_SUPPORTED) violated(`${hex(functionId)} is ${resultText(x[0])}`)
          if (x.slice(1).some((register) => register !== 0n)) {
            violated(`${hex(functionId)} is -1, with x1 to x3 ${x.slice(1).map(hex).join(' ')}`)
          }
        }
        return `-1 0x0 0x0 0x0 for ${unknownFunctions.length} functions`
      }),
  },
  {
    name: 'The function id is w0: the upper half of x0 is ignored',
    promise: 'function identifiers are passed in w0',
    source: 'Arm DEN0028, "Register use"',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const plain = ask(vcpu, SMCCC_VERSION)
        const upper = ask(vcpu, BigInt(SMCCC_VERSION) | (0xdead_beefn << 32n))
        expectValue('SMCCC_VERSION with bits above 31 in x0', upper, plain)
        return `SMCCC_VERSION is ${resultText(upper)} either way`
      }),
  },
  {
    name: 'KVM answers hypercalls by hvc alone',
    promise: 'KVM handles the calls as an extension of HVC',
    source: 'arm/hypercalls.rst',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const x0 = call(vcpu, SMCCC_VERSION, [], 'smc')[0]
        if (x0 === NOT_SUPPORTED) return 'SMCCC_VERSION by smc is -1'
        expectValue('SMCCC_VERSION by smc', x0, ask(vcpu, SMCCC_VERSION))
        return deviates(`SMCCC_VERSION by smc is ${resultText(x0)}, as by hvc`)
      }),
  },
  {
    name: 'SMCCC_ARCH_FEATURES shows PV_TIME_FEATURES as long as KVM_REG_ARM_STD_HYP_BIT_PV_TIME is set',
    promise: 'the bit governs discovery and not only the call',
    source: `${SELFTEST}; arm/pvtime.rst`,
    mark: 'promised',
    experiment: (kvm) => {
      needRegister(kvm, serviceBitmaps.stdHyp.name)
      for (const bit of [1n, 0n]) {
        onVcpu(kvm, (vcpu) => {
          expectWrite(vcpu, serviceBitmaps.stdHyp.register, bit)
          expectResult(vcpu, SMCCC_ARCH_FEATURES, [BigInt(PV_TIME_FEATURES)], bit === 1n ? 0 : UNSUPPORTED)
        })
      }
      return '0 while it is set, then -1'
    },
  },
  {
    name: 'SMCCC_ARCH_FEATURES offers no identity of the system on chip',
    promise: 'NOT_SUPPORTED, and so is SMCCC_ARCH_SOC_ID',
    source: 'every release',
    mark: 'observed',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        expectResult(vcpu, SMCCC_ARCH_FEATURES, [BigInt(SMCCC_ARCH_SOC_ID)], UNSUPPORTED)
        expectResult(vcpu, SMCCC_ARCH_SOC_ID, [], UNSUPPORTED)
        return '-1'
      }),
  },
  {
    name: 'KVM_FEATURES tells exactly the vendor services that are elected',
    promise: 'a bitmap of the functions the guest may call',
    source: 'arm/hypercalls.rst, ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID',
    mark: 'promised',
    experiment: (kvm) => {
      needRegister(kvm, serviceBitmaps.vendorHyp.name)
      const second = presentBitmaps(kvm).find(({ group }) => group === 'vendorHyp2')
      const told: string[] = []
      for (const first of [1n, 3n]) {
        for (const upper of second === undefined ? [0n] : [0n, 1n, 2n, 3n]) {
          onVcpu(kvm, (vcpu) => {
            expectWrite(vcpu, serviceBitmaps.vendorHyp.register, first)
            if (second !== undefined) expectWrite(vcpu, second.register, upper)
            const x = call(vcpu, KVM_FEATURES)
            const text = x.map(hex).join(' ')
            if (x[0] !== first || x[1] !== 0n || x[2] !== upper || x[3] !== 0n) {
              violated(`${text} for the bitmaps ${hex(first)} and ${hex(upper)}`)
            }
            told.push(text)
          })
        }
      }
      return told.join(', ')
    },
  },
  {
    name: 'VENDOR_HYP_CALL_UID tells that the hypervisor is KVM',
    promise: 'the UID 28b46fb6-2ec5-11e9-a9ca-4b564d003a74',
    source: 'arm/hypercalls.rst; Arm DEN0028, "Call UID"',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const x = call(vcpu, VENDOR_HYP_CALL_UID)
        if (x[0] === NOT_SUPPORTED) notApplicable('this kernel has no vendor hypervisor services')
        return x.every((part, index) => part === kvmUid[index])
          ? x.map(hex).join(' ')
          : violated(x.map(hex).join(' '))
      }),
  },
  {
    name: 'The calls of protected VMs are hidden from the guest of an ordinary one',
    promise: 'NOT_SUPPORTED',
    source: 'arm/hypercalls.rst',
    mark: 'promised',
    experiment: (kvm) =>
      onElected(kvm, knownBits, (vcpu) => {
        for (const functionId of protectedFunctions) expectResult(vcpu, functionId, [], UNSUPPORTED)
        return '-1'
      }),
  },
  {
    name: 'A guest of PSCI 0.1 finds the other services as any other',
    promise: 'the version of PSCI does not touch what is not PSCI',
    source: 'every release',
    mark: 'observed',
    experiment: (kvm) => {
      const functions = [SMCCC_VERSION, TRNG_VERSION, VENDOR_HYP_CALL_UID, KVM_FEATURES]
      const answers = (features: readonly 'psci-0.2'[]): bigint[] =>
        onVcpu(kvm, (vcpu) => functions.map((functionId) => ask(vcpu, functionId)), features)
      const [newer, older] = [answers(['psci-0.2']), answers([])]
      for (const [index, functionId] of functions.entries()) {
        expectValue(functionName(functionId), older[index]!, newer[index]!)
      }
      return functions
        .map((functionId, index) => `${functionName(functionId)} is ${resultText(older[index]!)}`)
        .join(', ')
    },
  },
]

/** The largest request for entropy, and one more, in bits. */
const trngLimits = [
  { functionId: TRNG_RND32, limit: 96, wordBits: 32 },
  { functionId: TRNG_RND64, limit: 192, wordBits: 64 },
]

function needTrng(vcpu: Vcpu): void {
  if (ask(vcpu, TRNG_VERSION) === NOT_SUPPORTED) notApplicable('this kernel has no TRNG service')
}

const trng: Check[] = [
  {
    name: 'TRNG is version 1.0, with an identity and every mandatory function',
    promise: 'version 1.0; FEATURES is SUCCESS for what is there; GET_UUID is not -1',
    source: 'Arm DEN0098',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        needTrng(vcpu)
        expectValue('TRNG_VERSION', ask(vcpu, TRNG_VERSION), 0x1_0000n)
        for (const functionId of [TRNG_VERSION, TRNG_FEATURES, TRNG_GET_UUID, TRNG_RND32, TRNG_RND64]) {
          expectResult(vcpu, TRNG_FEATURES, [BigInt(functionId)], trngReturns.SUCCESS)
        }
        return `0x10000, UUID ${call(vcpu, TRNG_GET_UUID).map(hex).join(' ')}`
      }),
  },
  {
    name: 'TRNG gives as many random bits as were asked for, and clears the rest',
    promise: 'entropy in x3, then x2, then x1; bits beyond the request are 0',
    source: 'Arm DEN0098, TRNG_RND',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        needTrng(vcpu)
        for (const { functionId, limit, wordBits } of trngLimits) {
          for (const count of [1, wordBits - 1, wordBits, wordBits + 1, limit - 1, limit]) {
            const x = call(vcpu, functionId, [BigInt(count)])
            const width = BigInt(wordBits)
            const entropy = (x[1] << (2n * width)) | (x[2] << width) | x[3]
            if (x[0] !== 0n) violated(`${functionName(functionId)}(${count}) is ${resultText(x[0])}`)
            if (entropy >> BigInt(count) !== 0n)
              violated(`${functionName(functionId)}(${count}) gives more bits`)
          }
        }
        return 'gives 1 to 96 and 1 to 192 bits, the rest 0'
      }),
  },
  {
    name: 'TRNG refuses requests beyond 96 and 192 bits',
    promise: 'INVALID_PARAMETERS',
    source: 'Arm DEN0098, TRNG_RND',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        needTrng(vcpu)
        for (const { functionId, limit } of trngLimits) {
          for (const count of [BigInt(limit + 1), 0x1000n]) {
            expectResult(vcpu, functionId, [count], trngReturns.INVALID_PARAMETERS)
          }
        }
        return '-2'
      }),
  },
]

const time: Check[] = [
  {
    name: 'PV_TIME_ST tells the address that userspace gave, on every call',
    promise: 'the guest physical address of the stolen-time structure of the vCPU',
    source: 'arm/pvtime.rst; devices/vcpu.rst, KVM_ARM_VCPU_PVTIME_IPA',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu, vm) => {
        if (!giveStolenTime(kvm, vm, vcpu)) needStolenTime(vcpu)
        expectResult(vcpu, PV_TIME_FEATURES, [BigInt(PV_TIME_ST)], 0)
        expectResult(vcpu, PV_TIME_FEATURES, [BigInt(PV_TIME_FEATURES)], 0)
        expectValue('PV_TIME_ST', ask(vcpu, PV_TIME_ST), STOLEN_TIME)
        expectValue('PV_TIME_ST, again', ask(vcpu, PV_TIME_ST), STOLEN_TIME)
        return `is ${hex(STOLEN_TIME)}`
      }),
  },
  {
    name: 'PV_TIME_ST is NOT_SUPPORTED for a vCPU without a stolen-time structure',
    promise: 'NOT_SUPPORTED where the guest has none',
    source: 'arm/pvtime.rst',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        expectResult(vcpu, PV_TIME_FEATURES, [BigInt(PV_TIME_ST)], UNSUPPORTED)
        expectResult(vcpu, PV_TIME_ST, [], UNSUPPORTED)
        return '-1'
      }),
  },
  {
    name: 'KVM_CAP_PTP_KVM tells whether a guest finds KVM_PTP',
    promise: 'the capability announces the service',
    source: 'api.rst, KVM_CAP_PTP_KVM',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const announced = kvm.checkExtension('KVM_CAP_PTP_KVM') > 0
        const answered = ask(vcpu, KVM_PTP) !== NOT_SUPPORTED
        const did = `the capability says ${announced ? 'yes' : 'no'}, the call is ${answered ? 'answered' : '-1'}`
        if (announced === answered) return did
        return announced ? deviates(did) : violated(did)
      }),
  },
  {
    name: 'KVM_PTP knows the virtual and the physical counter, and no other',
    promise: 'argument 0 or 1; anything else is NOT_SUPPORTED',
    source: 'arm/ptp_kvm.rst',
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        if (ask(vcpu, KVM_PTP) === NOT_SUPPORTED) notApplicable('a guest of this host finds no KVM_PTP')
        if (ask(vcpu, KVM_PTP, 1n) === NOT_SUPPORTED) violated('KVM_PTP(1) is -1')
        for (const counter of [2n, 3n, 0xffff_ffffn]) expectResult(vcpu, KVM_PTP, [counter], UNSUPPORTED)
        return 'answers 0 and 1, and is -1 for 2, 3 and 0xffffffff'
      }),
  },
]

export const hypercalls: CheckGroup = {
  title: 'Hypercalls',
  checks: [
    ...others,
    ...services.flatMap(({ bitmap, service }) =>
      service.gated ? checksOfService(bitmap, service) : [checkOfAdvertised(bitmap, service)],
    ),
    ...trng,
    ...time,
  ],
}
