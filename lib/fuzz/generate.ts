import { functionIdOf, functionIds, hypercallFunctions } from '../hypercalls/index.js'
import {
  arm64Id,
  coprocessors,
  encodeRegister,
  featureIdAt,
  fieldMask,
  hex,
  idFromParts,
  idParts,
  registerField,
  registerWidth,
  sizes,
  timerCounters,
  U64,
  withoutIstatus,
  withSize,
} from '../registers/index.js'
import {
  capabilities,
  deviceTypes,
  KVM_ARM_VCPU_PMU_V3_CTRL,
  KVM_ARM_VCPU_PMU_V3_FILTER,
  KVM_ARM_VCPU_PVTIME_CTRL,
  KVM_ARM_VCPU_SVE,
  KVM_ARM_VCPU_TIMER_CTRL,
  KVM_CREATE_DEVICE_TEST,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
  mpStates,
  SMCCC_FILTER_SIZE,
  vcpuFeatures,
} from '../uapi.js'
import type { Call, Outcome } from '../trace/index.js'
import type { Random } from './random.js'

/** What a fuzzer's calls are mostly about. */
export const profiles = ['everything', 'registers', 'lifecycle', 'hypercalls'] as const

export type Profile = (typeof profiles)[number]

interface GeneratedVcpu {
  vcpu: number
  vm: GeneratedVm
  /** Ids it listed. */
  ids: readonly bigint[]
  /** Values last seen. */
  values: Map<bigint, bigint>
  /** Something was written by which a guest may no longer get as far as its call. */
  isOdd: boolean
}

interface GeneratedVm {
  vm: number
  vcpus: GeneratedVcpu[]
  /** Ids of every vCPU asked for. */
  ids: Set<number>
  device: number | null
  features: number
  /** None of its vCPUs is let run, so that everything can be written to the end. */
  isOnlyConfigured: boolean
  /** One of its vCPUs has run, or tried to. */
  hasRun: boolean
  /** A run was refused. */
  hasFailed: boolean
}

const bit = (feature: keyof typeof vcpuFeatures): number => 1 << vcpuFeatures[feature]

const ID_AA64PFR0_EL1 = encodeRegister('ID_AA64PFR0_EL1')
/** Op0 3, op1 0, CRn 0. */
const ID_REGISTERS: ReadonlySet<bigint> = new Set(
  Array.from({ length: 64 }, (_, index) => featureIdAt(index)),
)
const GIC_FIELD = fieldMask(registerField(ID_AA64PFR0_EL1, 'GIC'))

/** Registers asked about before a list is known. */
const FIRMWARE: readonly bigint[] = [0, 1, 2, 3].flatMap((index) => [
  arm64Id(sizes.U64, coprocessors.FW, index),
  arm64Id(sizes.U64, coprocessors.FW_FEAT_BMAP, index),
])
const FIRMWARE_VALUES: readonly bigint[] = [
  0n,
  1n,
  2n,
  3n,
  4n,
  0x10n,
  0x11n,
  0x12n,
  0x10000n,
  0x10001n,
  0x10002n,
  0x10003n,
  0x10004n,
  1n << 32n,
]
/** Spaces whose registers must be asked for at 64 bits at most: old kernels overran their stack. */
const FIRMWARE_SPACES: ReadonlySet<number> = new Set([coprocessors.FW, coprocessors.FW_FEAT_BMAP])
const SPACES: readonly number[] = [0x0, 0xf, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0xfff]

/** Function ids near which the filter's rules change. */
const FUNCTION_IDS: readonly number[] = [
  0, 1, 0x7fff_fffe, 0x8000_0000, 0x8000_ffff, 0x8001_0000, 0x8400_0000, 0x8600_0000, 0x95c1_ba5e,
  0xc000_0000, 0xc400_0003, 0xc600_0000, 0xffff_ffff,
]

/** What a guest calls, and what it asks about: every function, its neighbours, and what is beside PSCI's range and other owners'. */
const CALLED: readonly number[] = [
  ...new Set([
    ...hypercallFunctions.flatMap(({ id }) =>
      [id, id - 1, id + 1, id ^ 0x4000_0000].map((each) => each >>> 0),
    ),
    0,
    1,
    0x0400_0003,
    0x7fff_ffff,
    0x8001_0000,
    0x8100_0000,
    0x8200_0000,
    0x8300_0000,
    0x8400_001f,
    0x8400_0020,
    0x8401_0000,
    0x8402_0003,
    0xc400_001f,
    0xb200_0000,
    0xbf00_ff01,
    0xffff_ffff,
  ]),
]
const PSCI: readonly number[] = CALLED.filter((id) => [0x84, 0xc4, 0x95].includes(id >>> 24))
const QUESTIONS: readonly number[] = [
  functionIds.SMCCC_ARCH_FEATURES,
  functionIds.TRNG_FEATURES,
  functionIds.PV_TIME_FEATURES,
  functionIdOf('PSCI_FEATURES'),
]
const CPU_ON: readonly number[] = ['PSCI_CPU_ON', 'PSCI_CPU_ON_64', 'KVM_PSCI_CPU_ON'].map(functionIdOf)
const AFFINITY_INFO: readonly number[] = ['PSCI_AFFINITY_INFO', 'PSCI_AFFINITY_INFO_64'].map(functionIdOf)
const AFFINITIES: readonly bigint[] = [0n, 1n, 1n, 2n, 3n, 0x100n, 1n << 24n, 1n << 31n, 1n << 32n, 1n << 40n]
const LEVELS: readonly bigint[] = [0n, 0n, 1n, 2n, 3n, 4n, 1n << 32n]
const COUNTS: readonly bigint[] = [
  0n,
  1n,
  31n,
  32n,
  33n,
  64n,
  96n,
  97n,
  192n,
  193n,
  0xffff_ffffn,
  0x1_0000_0020n,
]
const WORDS: readonly bigint[] = [0n, 0n, 1n, 2n, 0x8000_0000n, 1n << 32n, U64]

/** Capabilities that can be enabled with no effect on anything but KVM's answers. */
const ENABLED: readonly number[] = [
  capabilities.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
  capabilities.KVM_CAP_HALT_POLL,
  capabilities.KVM_CAP_ARM_NISV_TO_USER,
  capabilities.KVM_CAP_ARM_SYSTEM_SUSPEND,
  capabilities.KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE,
  capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS,
  capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS,
  capabilities.KVM_CAP_ARM_SEA_TO_USER,
  capabilities.KVM_CAP_ARM_PSCI,
  9999,
]

type Choice = [weight: number, call: (vcpu: GeneratedVcpu) => Call]

const PSTATE = encodeRegister('pstate')
const MPIDR_EL1 = encodeRegister('MPIDR_EL1')
const MPIDR_RES1 = 1n << 31n
/** System registers that do nothing to a guest that does not look at them. */
const UNUSED_BY_GUEST: ReadonlySet<bigint> = new Set(
  ['AFSR0_EL1', 'AFSR1_EL1', 'AMAIR_EL1', 'MAIR_EL1', 'PAR_EL1', 'TPIDR_EL1'].map(encodeRegister),
)
const DBGVCR32_EL2 = encodeRegister('DBGVCR32_EL2')
/** Addresses of a GIC's frames. */
const DISTRIBUTOR = 0x800_0000n
const REDISTRIBUTORS = 0x80a_0000n
const MOST_VMS = 3
const MOST_VCPUS = 4
const PAGE = 0x1_0000

/**
 * Invents calls that reach deep: it learns from every answer which registers there are and what they hold, and so mostly asks for what
 * exists, with values next to those that are there. The same numbers and the same answers make the same calls.
 */
export class CallGenerator {
  readonly #random: Random
  readonly #choices: readonly Choice[]
  readonly #total: number
  /** Features that an init was refused for. */
  readonly #refused = new Set<number>()
  /** Values last seen on any VM. */
  readonly #seen = new Map<bigint, bigint>()
  #vms: GeneratedVm[] = []
  #vcpus: GeneratedVcpu[] = []
  /** Calls already decided on. */
  #next: Call[] = []
  #counts = { vm: 0, vcpu: 0, device: 0, memory: 0 }

  constructor(random: Random, profile: Profile) {
    this.#random = random
    this.#choices = this.#weighted(profile)
    this.#total = this.#choices.reduce((sum, [weight]) => sum + weight, 0)
  }

  /** The next call. */
  call(): Call {
    for (;;) {
      const call = this.#choose()
      const isRun = call.op === 'run' || call.op === 'hvc' || call.op === 'smc'
      if (!isRun || !this.#vcpu(call.vcpu).vm.isOnlyConfigured) return call
    }
  }

  #choose(): Call {
    const decided = this.#next.shift()
    if (decided !== undefined) return decided
    if (this.#vms.length === 0) return this.#createVm()
    const vcpu = this.#vcpus.length === 0 ? undefined : this.#random.pick(this.#vcpus)
    if (vcpu === undefined) return this.#createVcpu(this.#random.pick(this.#vms))
    let left = this.#random.below(this.#total)
    for (const [weight, choice] of this.#choices) {
      left -= weight
      if (left < 0) return choice(vcpu)
    }
    throw new RangeError('the weights do not add up')
  }

  /** Forgets every VM: the calls to come are those after a `reset`. */
  restart(): void {
    this.#vms = []
    this.#vcpus = []
    this.#counts = { vm: 0, vcpu: 0, device: 0, memory: 0 }
    this.#next = []
    const call = this.#createVm()
    this.#next.push(call)
  }

  /** Takes note of what a call was answered. */
  learn(call: Call, outcome: Outcome): void {
    switch (call.op) {
      case 'create_vm':
        if (outcome.ret === 0) this.#addVm(call.vm)
        break
      case 'create_vcpu':
        if (outcome.ret === 0) this.#addVcpu(call.vm, call.vcpu)
        break
      case 'vcpu_init':
        if (outcome.ret === 0) {
          this.#vcpu(call.vcpu).isOdd = false
        } else {
          this.#refused.add(Number(call.features[0] ?? 0))
          this.#next = this.#next.filter(({ op }) => op !== 'hvc' && op !== 'smc')
        }
        break
      case 'get_reg_list':
        if (outcome.regs) this.#vcpu(call.vcpu).ids = outcome.regs.map(BigInt)
        break
      case 'get_one_reg':
        if (typeof outcome.value === 'string') {
          this.#learnValue(this.#vcpu(call.vcpu), BigInt(call.id), BigInt(outcome.value))
        }
        break
      case 'set_one_reg':
        if (isOddToWrite(BigInt(call.id))) this.#vcpu(call.vcpu).isOdd = true
        break
      case 'set_vcpu_events':
        this.#vcpu(call.vcpu).isOdd = true
        break
      case 'run':
        this.#learnRun(this.#vcpu(call.vcpu).vm, outcome)
        break
      case 'hvc':
      case 'smc':
        this.#learnCall(this.#vcpu(call.vcpu), outcome)
        break
      case 'set_device_attr':
        if (outcome.ret === 0 && call.group === KVM_ARM_VCPU_TIMER_CTRL && call.vcpu !== undefined) {
          this.#learnTimer(this.#vcpu(call.vcpu).vm, call.attr)
        }
        break
      case 'create_device':
        if (outcome.ret === 0 && call.flags === 0) this.#learnDevice(this.#vm(call.vm), call.device)
        break
    }
  }

  /** Not what tells the time, which would make other calls of the same seed. */
  #learnValue({ values }: GeneratedVcpu, id: bigint, value: bigint): void {
    if (timerCounters.has(id)) return
    const timeless = withoutIstatus(id, value)
    values.set(id, timeless)
    this.#seen.set(id, timeless)
  }

  #learnRun(vm: GeneratedVm, { errno }: Outcome): void {
    vm.hasRun = true
    if (errno !== undefined && errno !== 'EINTR') vm.hasFailed = true
  }

  /** Most machines that a call stopped are set going again. */
  #learnCall({ vcpu, vm }: GeneratedVcpu, outcome: Outcome): void {
    this.#learnRun(vm, outcome)
    if (outcome.x || this.#random.oneIn(4)) return
    const stopped = outcome.exit === undefined ? [{ vcpu }] : vm.vcpus
    this.#next.push(
      ...stopped.map((each): Call => ({ op: 'set_mp_state', vcpu: each.vcpu, state: mpStates.runnable })),
    )
  }

  /** Whose interrupt a timer was given shows in a vCPU made later. */
  #learnTimer(vm: GeneratedVm, attr: string): void {
    const created = this.#createVcpu(vm)
    this.#next.push(created)
    if (created.op === 'create_vcpu') {
      const { vcpu } = created
      this.#next.push({ op: 'get_device_attr', vcpu, group: KVM_ARM_VCPU_TIMER_CTRL, attr, size: 4 })
    }
  }

  /** Half of the GICs are configured as a VMM does it, or nearly. */
  #learnDevice(vm: GeneratedVm, device: number): void {
    vm.device = device
    if (vm.vcpus.length > 0 && this.#random.oneIn(3)) {
      const { vcpu } = this.#random.pick(vm.vcpus)
      const timer = { group: KVM_ARM_VCPU_TIMER_CTRL, attr: hex(this.#random.below(2)) }
      this.#next.push({ op: 'set_device_attr', vcpu, ...timer, data: littleEndian(20n, 4) })
    }
    if (this.#random.oneIn(2)) return
    const set = { op: 'set_device_attr', device } as const
    const address = { ...set, group: KVM_DEV_ARM_VGIC_GRP_ADDR }
    this.#next.push(
      { ...address, attr: hex(KVM_VGIC_V3_ADDR_TYPE_DIST), data: littleEndian(DISTRIBUTOR, 8) },
      { ...address, attr: hex(KVM_VGIC_V3_ADDR_TYPE_REDIST), data: littleEndian(REDISTRIBUTORS, 8) },
    )
    if (this.#random.oneIn(4)) return
    this.#next.push({ ...set, group: KVM_DEV_ARM_VGIC_GRP_CTRL, attr: '0x0', data: null })
  }

  #weighted(profile: Profile): Choice[] {
    const registers = profile === 'lifecycle' ? 0.25 : 1
    const others = profile === 'registers' ? 0.1 : 1
    const choices: Choice[] = [
      [300 * registers, (vcpu) => this.#get(vcpu)],
      [400 * registers, (vcpu) => this.#set(vcpu)],
      [
        25 * registers,
        ({ vcpu, ...how }) => ({ op: 'get_one_reg', vcpu, id: hex(this.#id(how)), addr: 'bad' }),
      ],
      [40 * registers, (vcpu) => this.#setAtNull(vcpu)],
      [12, ({ vcpu }) => ({ op: 'run', vcpu, immediate_exit: true })],
      [4, ({ vcpu }) => this.#list(vcpu)],
      [profile === 'hypercalls' ? 800 : 50 * others, (vcpu) => this.#guestCall(vcpu)],
      [3 * others, () => this.#createVm()],
      [15 * others, ({ vm }) => this.#createVcpu(vm)],
      [25 * others, (vcpu) => this.#init(vcpu)],
      [8 * others, (vcpu) => this.#finalize(vcpu)],
      [10 * others, ({ vm }) => this.#checkExtension(vm)],
      [8 * others, ({ vm }) => this.#enableCapability(vm)],
      [2 * others, ({ vm: { vm } }) => ({ op: 'writable_masks', vm, range: this.#random.oneIn(4) ? 1 : 0 })],
      [2 * others, ({ vm: { vm } }) => ({ op: 'preferred_target', vm })],
      [35 * others, (vcpu) => this.#attribute(vcpu)],
      [15 * others, ({ vm }) => this.#filter(vm)],
      [5 * others, ({ vm }) => this.#createDevice(vm)],
      [6 * others, ({ vcpu }) => ({ op: 'get_mp_state', vcpu })],
      [8 * others, ({ vcpu }) => this.#setMpState(vcpu)],
      [5 * others, ({ vcpu }) => ({ op: 'get_vcpu_events', vcpu })],
      [8 * others, (vcpu) => this.#setEvents(vcpu)],
      [3 * others, ({ vm }) => this.#memory(vm)],
      [1 * others, (vcpu) => this.#close(vcpu)],
    ]
    return choices.map(([weight, call]) => [Math.ceil(weight), call])
  }

  #vm(number: number): GeneratedVm {
    return this.#vms.find(({ vm }) => vm === number)!
  }

  #vcpu(number: number): GeneratedVcpu {
    return this.#vcpus.find(({ vcpu }) => vcpu === number)!
  }

  #addVm(vm: number): void {
    this.#vms.push({
      vm,
      vcpus: [],
      ids: new Set(),
      device: null,
      features: this.#features(),
      isOnlyConfigured: this.#random.oneIn(4),
      hasRun: false,
      hasFailed: false,
    })
    // Most VMs begin as a VMM begins them.
    if (!this.#random.oneIn(8)) this.#next.push(this.#createVcpu(this.#vm(vm), 0))
  }

  #addVcpu(number: number, vcpu: number): void {
    const vm = this.#vm(number)
    const values = new Map<bigint, bigint>()
    const added = { vcpu, vm, ids: vm.vcpus[0]?.ids ?? FIRMWARE, values, isOdd: false }
    vm.vcpus.push(added)
    this.#vcpus.push(added)
    if (this.#random.oneIn(8)) return
    // What a refused init leaves behind shows in the next.
    const isRefusedFirst = this.#random.oneIn(6)
    if (isRefusedFirst) this.#next.push(this.#refusedInit(vcpu, vm))
    this.#next.push({ op: 'vcpu_init', vcpu, target: 'preferred', features: [hex(vm.features)] })
    const hasSve = (vm.features & bit('sve')) !== 0
    if (hasSve ? !this.#random.oneIn(4) : isRefusedFirst) this.#next.push(this.#finalizeSve(vcpu))
    if (vm.vcpus.length === 1) this.#next.push(this.#list(vcpu))
    if (this.#random.oneIn(6)) this.#shareAffinity(added)
  }

  /** Which vCPU is meant shows where several have one affinity, of which not all are on. */
  #shareAffinity({ vcpu, vm }: GeneratedVcpu): void {
    const affinity = this.#random.pick([0n, 1n])
    this.#next.push({ op: 'set_one_reg', vcpu, id: hex(MPIDR_EL1), value: hex(MPIDR_RES1 | affinity) })
    const first = vm.vcpus[0]!
    if (first.vcpu === vcpu || first.isOdd || this.#random.oneIn(3)) return
    const [off, caller] = this.#random.oneIn(2) ? [vcpu, first.vcpu] : [first.vcpu, vcpu]
    this.#next.push({ op: 'set_mp_state', vcpu: off, state: mpStates.stopped })
    if (this.#random.oneIn(3)) return
    const args = [BigInt(this.#random.pick(CPU_ON)), affinity]
    this.#next.push({ op: 'hvc', vcpu: caller, args: args.map(hex) })
  }

  #createVm(): Call {
    if (this.#vms.length >= MOST_VMS) {
      const vm = this.#vms.shift()!
      this.#vcpus = this.#vcpus.filter((vcpu) => vcpu.vm !== vm)
      return { op: 'close', vm: vm.vm }
    }
    const type = this.#random.oneIn(12) ? this.#random.pick([0x20n, 0x24n, 0x28n, 0x30n, 0x7fn, 0x100n]) : 0n
    return { op: 'create_vm', vm: this.#counts.vm++, type: hex(type) }
  }

  #createVcpu(vm: GeneratedVm, id = this.#vcpuId(vm)): Call {
    vm.ids.add(id)
    return { op: 'create_vcpu', vm: vm.vm, vcpu: this.#counts.vcpu++, id }
  }

  #vcpuId(vm: GeneratedVm): number {
    const isFull = vm.vcpus.length >= MOST_VCPUS
    // An id taken is refused only after the vCPU was given a redistributor, which Linux before 6.12 then leaves dangling.
    if (vm.device !== null) return isFull ? 0xffff_ffff : freeId(vm.ids)
    if (isFull) return 0
    return this.#random.oneIn(5)
      ? this.#random.pick([0, 1, 15, 16, 17, 255, 511, 512, 0xffff_ffff])
      : vm.vcpus.length
  }

  /** Features for the vCPUs of a VM, mostly such as were not refused before. */
  #features(): number {
    for (let attempt = 0; ; attempt++) {
      let features = this.#random.oneIn(8) ? 0 : bit('psci-0.2')
      if (this.#random.oneIn(4)) features |= bit('pmu-v3')
      if (this.#random.oneIn(4)) features |= bit('sve')
      if (this.#random.oneIn(5)) features |= bit('ptrauth-address') | bit('ptrauth-generic')
      if (this.#random.oneIn(6)) features |= bit('el1-32bit')
      if (this.#random.oneIn(10)) features |= bit('power-off')
      if (attempt === 4 || !this.#refused.has(features)) return features
    }
  }

  #init({ vcpu, vm }: GeneratedVcpu): Call {
    const target = this.#random.oneIn(8) ? this.#random.below(8) : 'preferred'
    const features = this.#random.oneIn(3) ? this.#oddFeatures(vm) : [vm.features]
    if ((vm.features & bit('sve')) !== 0 && this.#random.oneIn(2)) this.#next.push(this.#finalizeSve(vcpu))
    return { op: 'vcpu_init', vcpu, target, features: features.map(hex) }
  }

  /** An init with half of pointer authentication, or with a feature more and one that no kernel knows. */
  #refusedInit(vcpu: number, { features }: GeneratedVm): Call {
    if (this.#random.oneIn(3)) {
      const half = features | bit('sve') | bit(this.#random.oneIn(2) ? 'ptrauth-address' : 'el1-32bit')
      return { op: 'vcpu_init', vcpu, target: 'preferred', features: [hex(half)] }
    }
    const more = this.#random.pick(['psci-0.2', 'pmu-v3', 'sve', 'power-off'] as const)
    const word =
      (features | bit(more) | (1 << (7 + this.#random.below(this.#random.oneIn(2) ? 4 : 25)))) >>> 0
    return { op: 'vcpu_init', vcpu, target: 'preferred', features: [hex(word)] }
  }

  #oddFeatures({ features }: GeneratedVm): number[] {
    switch (this.#random.below(4)) {
      case 0:
        return [(features ^ (1 << this.#random.below(32))) >>> 0]
      case 1:
        return [(features ^ bit('power-off')) >>> 0]
      case 2:
        return [features, ...Array.from({ length: this.#random.below(7) }, () => this.#random.below(2))]
      default:
        return [this.#features()]
    }
  }

  #finalize({ vcpu }: GeneratedVcpu): Call {
    const feature = this.#random.oneIn(3) ? this.#random.below(12) : KVM_ARM_VCPU_SVE
    return { op: 'vcpu_finalize', vcpu, feature }
  }

  #finalizeSve(vcpu: number): Call {
    return { op: 'vcpu_finalize', vcpu, feature: KVM_ARM_VCPU_SVE }
  }

  #list(vcpu: number): Call {
    const room = this.#random.oneIn(4) ? this.#random.pick([0n, 1n, 200n, 1n << 32n]) : 0x1000n
    return { op: 'get_reg_list', vcpu, n_in: hex(room) }
  }

  #get(vcpu: GeneratedVcpu): Call {
    return { op: 'get_one_reg', vcpu: vcpu.vcpu, id: hex(this.#id(vcpu)) }
  }

  #set(vcpu: GeneratedVcpu): Call {
    const number = vcpu.vcpu
    const id = this.#id(vcpu)
    const before = vcpu.values.get(id) ?? this.#seen.get(id)
    // A value near the one that is there goes further than any other.
    if (before === undefined && !this.#random.oneIn(3))
      return { op: 'get_one_reg', vcpu: number, id: hex(id) }
    const call: Call = {
      op: 'set_one_reg',
      vcpu: number,
      id: hex(id),
      value: hex(this.#value(id, before ?? 0n)),
    }
    // Look at what became of it, and at what a sibling sees.
    if (this.#random.oneIn(2)) this.#next.push({ op: 'get_one_reg', vcpu: number, id: hex(id) })
    if (this.#random.oneIn(3)) {
      const { vcpu: sibling } = this.#random.pick(vcpu.vm.vcpus)
      this.#next.push({ op: 'get_one_reg', vcpu: sibling, id: hex(id) })
    }
    if (ID_REGISTERS.has(id) && this.#random.oneIn(3)) {
      this.#next.push({ op: 'get_one_reg', vcpu: number, id: hex(this.#random.pick(FIRMWARE)) })
    }
    // The CPU may not hold all of it. Not on a VM that has yet to start, which would then refuse much.
    if (isHeldByCpu(id) && id !== DBGVCR32_EL2 && vcpu.vm.hasRun && this.#random.oneIn(3)) {
      const isLoaded = UNUSED_BY_GUEST.has(id) && !vcpu.isOdd
      this.#next.push(
        isLoaded
          ? { op: 'hvc', vcpu: number, args: [hex(BigInt(functionIds.SMCCC_VERSION))] }
          : { op: 'run', vcpu: number, immediate_exit: true },
        { op: 'get_one_reg', vcpu: number, id: hex(id) },
      )
    }
    return call
  }

  #setAtNull(vcpu: GeneratedVcpu): Call {
    const to = { vcpu: vcpu.vcpu, id: hex(this.#id(vcpu)) }
    // Some kernels write the register although they fail to read its value.
    if (this.#random.oneIn(2)) this.#next.push({ op: 'get_one_reg', ...to })
    return { op: 'set_one_reg', ...to, addr: 'bad' }
  }

  #id({ ids, vm }: Pick<GeneratedVcpu, 'ids' | 'vm'>): bigint {
    const choice = this.#random.below(20)
    if (choice < 5) return this.#random.pick(FIRMWARE)
    if (choice < 7) {
      return this.#oddId(this.#random.oneIn(3) ? this.#random.pick(FIRMWARE) : this.#random.pick(ids))
    }
    if (choice < 13) {
      const identity = ids.filter((id) => ID_REGISTERS.has(id) && this.#seen.get(id) !== 0n)
      if (identity.length > 0) return this.#random.pick(identity)
    }
    const id = this.#random.pick(ids)
    // QEMU's CPUs do not write the register that DBGVCR32_EL2 is read into: once it was loaded it has any value.
    return vm.hasRun && id === DBGVCR32_EL2 ? this.#random.pick(FIRMWARE) : id
  }

  /** An id next to one that exists. */
  #oddId(id: bigint): bigint {
    switch (this.#random.below(6)) {
      case 0:
        return fit(withSize(id, this.#random.below(9)))
      case 1:
        return fit(idFromParts({ ...idParts(id), coproc: this.#random.pick(SPACES) }))
      case 2:
        return id ^ (1n << BigInt(28 + this.#random.below(4)))
      case 3:
        return id ^ (1n << BigInt(this.#random.pick([32, 40, 51, 56, 60, 61])))
      case 4:
        return (id & ~0xffffn) | this.#random.bits(16)
      default:
        return id ^ (1n << BigInt(this.#random.below(16)))
    }
  }

  #value(id: bigint, before: bigint): bigint {
    const width = registerWidth(id)
    if (FIRMWARE_SPACES.has(idParts(id).coproc) && this.#random.below(4) > 0) {
      if (this.#random.oneIn(2)) return BigInt(this.#random.below(4))
      return BigInt.asUintN(width, this.#random.pick(FIRMWARE_VALUES))
    }
    const nibble = this.#nibble(width, before)
    const one = BigInt.asUintN(width, 1n << BigInt(this.#random.below(width)))
    // Of an ID register every nibble has values of its own that are accepted.
    switch (
      ID_REGISTERS.has(id) && this.#random.below(4) > 0 ? 2 + this.#random.below(4) : this.#random.below(9)
    ) {
      case 0:
        return before
      case 1:
        return before ^ one
      case 2:
        return BigInt.asUintN(width, before + (1n << nibble))
      case 3:
        return BigInt.asUintN(width, before - (1n << nibble))
      case 4:
        return before & ~(0xfn << nibble)
      case 5:
        return (before & ~(0xfn << nibble)) | (this.#random.bits(4) << nibble)
      case 6:
        return BigInt(this.#random.below(5))
      case 7:
        return this.#random.oneIn(2) ? one : BigInt.asUintN(width, -1n)
      default:
        return this.#random.bits(width)
    }
  }

  /** The place of a nibble, mostly of one that is not 0. */
  #nibble(width: number, value: bigint): bigint {
    for (let attempt = 0; ; attempt++) {
      const nibble = BigInt(4 * this.#random.below(width / 4))
      if (attempt === 4 || ((value >> nibble) & 0xfn) !== 0n) return nibble
    }
  }

  #checkExtension({ vm }: GeneratedVm): Call {
    const cap = this.#random.pick(Object.values(capabilities))
    return this.#random.oneIn(2) ? { op: 'check_extension', cap } : { op: 'check_extension', vm, cap }
  }

  #enableCapability({ vm }: GeneratedVm): Call {
    const args = this.#random.oneIn(3)
      ? [hex(this.#random.pick([0n, 1n, 2n, 3n, 0x1000n, 0x20_0000n, 1n << 32n]))]
      : []
    const flags = this.#random.oneIn(10) ? 1 : 0
    return { op: 'enable_cap', vm, cap: this.#random.pick(ENABLED), flags, args }
  }

  #filter({ vm }: GeneratedVm): Call {
    const base = (this.#random.pick(FUNCTION_IDS) + this.#random.below(3)) >>> 0
    const nr = this.#random.pick([0, 1, 1, 2, 3, 0x1_0000, 0xffff_ffff])
    return { op: 'smccc_filter', vm, base, nr, action: this.#random.below(this.#random.oneIn(6) ? 256 : 3) }
  }

  #guestCall({ vcpu, vm, isOdd }: GeneratedVcpu): Call {
    const args = this.#callArguments()
    const op = this.#random.oneIn(4) ? 'smc' : 'hvc'
    const call: Call = { op, vcpu, args: args.map(hex) }
    if (this.#random.oneIn(3)) {
      this.#next.push({ op: 'get_mp_state', vcpu: this.#random.pick(vm.vcpus).vcpu })
    }
    if (!isOdd) return call
    this.#next.unshift(call)
    return { op: 'vcpu_init', vcpu, target: 'preferred', features: [hex(vm.features)] }
  }

  /** x0 to x3 or fewer. */
  #callArguments(): bigint[] {
    const random = this.#random
    const high = random.oneIn(20) ? 1n << 32n : 0n
    const called = (ids: readonly number[]): bigint => BigInt(random.pick(ids)) | high
    switch (random.below(8)) {
      case 0:
      case 1:
        return [called(QUESTIONS), BigInt(random.pick(CALLED)) | (random.oneIn(10) ? 1n << 32n : 0n)]
      case 2:
        return [called(CPU_ON), random.pick(AFFINITIES), random.pick(WORDS), random.pick(WORDS)]
      case 3:
        return [called(AFFINITY_INFO), random.pick(AFFINITIES), random.pick(LEVELS)]
      case 4:
        return [called([functionIds.TRNG_RND32, functionIds.TRNG_RND64]), random.pick(COUNTS)]
      case 5:
        return [called(PSCI), random.pick(WORDS), random.pick(WORDS), random.pick(WORDS)]
      default:
        return [called(CALLED), ...Array.from({ length: random.below(4) }, () => random.pick(WORDS))]
    }
  }

  #setMpState(vcpu: number): Call {
    if (this.#random.oneIn(2)) this.#next.push({ op: 'get_mp_state', vcpu })
    return { op: 'set_mp_state', vcpu, state: this.#random.pick([...Object.values(mpStates), 0, 1, 7]) }
  }

  #setEvents({ vcpu, isOdd }: GeneratedVcpu): Call {
    const data = new Uint8Array(64)
    data[0] = this.#random.below(2)
    data[1] = this.#random.below(2)
    if (this.#random.oneIn(3)) data[8 + this.#random.below(4)] = this.#random.below(256)
    if (this.#random.oneIn(6)) data[this.#random.below(64)] = 1
    // An external abort makes of the guest what reports do not tell.
    data[2] = 0
    // Whether a pending SError ends a wait shows in one.
    if (!isOdd && this.#random.oneIn(3)) {
      this.#next.push({ op: 'hvc', vcpu, args: [hex(BigInt(functionIdOf('PSCI_CPU_SUSPEND')))] })
    }
    return { op: 'set_vcpu_events', vcpu, data: Buffer.from(data).toString('hex') }
  }

  #attribute({ vcpu, vm }: GeneratedVcpu): Call {
    const random = this.#random
    if (vm.device !== null && random.oneIn(2)) return this.#deviceAttribute(vm.device)
    const owner = random.oneIn(5) ? { vm: vm.vm } : { vcpu }
    const group = random.pick([
      KVM_ARM_VCPU_PMU_V3_CTRL,
      KVM_ARM_VCPU_PMU_V3_CTRL,
      KVM_ARM_VCPU_TIMER_CTRL,
      KVM_ARM_VCPU_PVTIME_CTRL,
      random.below(8),
    ])
    const attr = hex(random.below(6))
    const choice = random.below(4)
    if (choice === 0) return { op: 'has_device_attr', ...owner, group, attr }
    if (choice === 1) {
      return {
        op: 'get_device_attr',
        ...owner,
        group,
        attr,
        size: group === KVM_ARM_VCPU_PVTIME_CTRL ? 8 : 4,
      }
    }
    return { op: 'set_device_attr', ...owner, group, attr, data: this.#attributeData(owner, group, attr) }
  }

  #attributeData(owner: object, group: number, attr: string): string | null {
    if (this.#random.oneIn(6)) return null
    const pick = (values: readonly number[]): bigint => BigInt(this.#random.pick(values))
    if (group === KVM_ARM_VCPU_PMU_V3_CTRL && BigInt(attr) === KVM_ARM_VCPU_PMU_V3_FILTER) {
      const [first, count] = [pick([0, 1, 0x3ff, 0x400, 0xffff]), pick([0, 1, 0x400, 0xffff])]
      return littleEndian(first | (count << 16n) | (pick([0, 1, 2]) << 32n), 8)
    }
    // Ids of PMUs are counted up from 6.
    if (group === KVM_ARM_VCPU_PMU_V3_CTRL && BigInt(attr) > KVM_ARM_VCPU_PMU_V3_FILTER) {
      return littleEndian(pick([0, 5, 6, 7, 8, 9, 10, 11, 31]), 4)
    }
    if ('vm' in owner) return littleEndian(this.#random.bits(8), SMCCC_FILTER_SIZE)
    if (group === KVM_ARM_VCPU_PVTIME_CTRL) {
      return littleEndian(BigInt(PAGE * this.#random.below(4) + this.#random.pick([0, 64, 8])), 8)
    }
    return littleEndian(BigInt(this.#random.pick([0, 15, 16, 23, 27, 31, 32, 40, 1019, 1020])), 4)
  }

  #deviceAttribute(device: number): Call {
    const random = this.#random
    const [group, attr, data] = random.pick([
      [KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, littleEndian(DISTRIBUTOR, 8)],
      [KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, littleEndian(REDISTRIBUTORS, 8)],
      [KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, littleEndian(0x800_1000n, 8)],
      [KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0n, littleEndian(random.pick([32n, 64n, 96n, 100n, 1024n, 1056n]), 4)],
      [KVM_DEV_ARM_VGIC_GRP_CTRL, 0n, null],
    ] as const)
    if (random.oneIn(4)) return { op: 'has_device_attr', device, group, attr: hex(attr) }
    if (random.oneIn(4) && group !== KVM_DEV_ARM_VGIC_GRP_CTRL) {
      const size = group === KVM_DEV_ARM_VGIC_GRP_ADDR ? 8 : 4
      return { op: 'get_device_attr', device, group, attr: hex(attr), size }
    }
    return { op: 'set_device_attr', device, group, attr: hex(attr), data }
  }

  #createDevice({ vm, vcpus, hasFailed }: GeneratedVm): Call {
    // A GIC made after a run that was refused lets Linux 6.12 oops in the next init: its timers are enabled, and nothing is there to reset.
    const type = hasFailed || this.#random.oneIn(4) ? 99 : deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3
    const device = this.#counts.device++
    if (this.#random.oneIn(4)) {
      const asked = this.#random.pick([99, ...Object.values(deviceTypes)])
      return { op: 'create_device', vm, device, type: asked, flags: KVM_CREATE_DEVICE_TEST }
    }
    const call: Call = { op: 'create_device', vm, device, type, flags: 0 }
    const features = this.#seen.get(ID_AA64PFR0_EL1)
    if (vcpus.length === 0 || features === undefined || this.#random.oneIn(2)) return call
    // What a GIC changes shows where userspace has said that there is none.
    const { vcpu } = this.#random.pick(vcpus)
    const register = { vcpu, id: hex(ID_AA64PFR0_EL1) }
    this.#next.push(call, { op: 'get_one_reg', ...register })
    return { op: 'set_one_reg', ...register, value: hex(features & ~GIC_FIELD) }
  }

  #memory({ vm }: GeneratedVm): Call {
    const memory = this.#counts.memory++
    const region = { slot: this.#random.below(2), flags: 0, address: hex(PAGE * this.#random.below(3)) }
    this.#next.push({ op: 'set_user_memory_region', vm, ...region, memory, offset: 0, size: PAGE })
    return { op: 'create_memory', memory, size: PAGE }
  }

  #close(vcpu: GeneratedVcpu): Call {
    this.#vcpus = this.#vcpus.filter((other) => other !== vcpu)
    vcpu.vm.vcpus = vcpu.vm.vcpus.filter((other) => other !== vcpu)
    return { op: 'close', vcpu: vcpu.vcpu }
  }
}

function freeId(taken: ReadonlySet<number>): number {
  for (let id = 0; ; id++) if (!taken.has(id)) return id
}

/** What a guest runs by, or may be interrupted by: its mode, most system registers that are no ID registers, timers. */
function isOddToWrite(id: bigint): boolean {
  return id === PSTATE || (isHeldByCpu(id) && !UNUSED_BY_GUEST.has(id))
}

/** A system register other than a feature ID register. */
function isHeldByCpu(id: bigint): boolean {
  return idParts(id).coproc === coprocessors.SYSREG && !ID_REGISTERS.has(id)
}

/** The id with a width that is safe in its space. */
function fit(id: bigint): bigint {
  const isWide = registerWidth(id) > 64
  return isWide && FIRMWARE_SPACES.has(idParts(id).coproc) ? withSize(id, sizes.U64) : id
}

function littleEndian(value: bigint, size: number): string {
  const bytes = Buffer.alloc(size)
  bytes.writeUIntLE(Number(value), 0, Math.min(size, 6))
  return bytes.toString('hex')
}
