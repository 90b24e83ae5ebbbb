import { timerCounters, withoutIstatus } from '../registers/index.js'
import type { Call, CallOf, Outcome } from '../trace/index.js'
import type { Random } from './random.js'
import { NO_IPA_SIZE } from '../report/machine.js'
import { FIRMWARE, isOddToWrite } from './vocabulary.js'

/** A vCPU as the generator knows it. */
export interface KnownVcpu {
  readonly vcpu: number
  readonly vm: KnownVm
  /** Ids it listed. */
  ids: readonly bigint[]
  /** Values last seen. */
  readonly values: Map<bigint, bigint>
  /** A register was written that may keep a guest from reaching its call. */
  isOdd: boolean
}

/** A VM as the generator knows it. */
export interface KnownVm {
  readonly vm: number
  vcpus: KnownVcpu[]
  /** Ids of every vCPU whose creation was attempted. */
  readonly ids: Set<number>
  device: number | null
  /** Numbers of its events. */
  readonly events: number[]
  /** Memory in its slots, with the arguments that mapped it. */
  readonly slots: Map<number, CallOf<'set_user_memory_region'>>
  /** The first word of features that its vCPUs are mostly initialised with. */
  readonly features: number
  /** None of its vCPUs may run, so that everything stays writable. */
  readonly isOnlyConfigured: boolean
  /** One of its vCPUs has run, or tried to. */
  hasRun: boolean
  /** A run was refused. */
  hasFailed: boolean
}

/** The input of a choice. */
export interface Context {
  readonly random: Random
  readonly model: Model
}

/** What the generator remembers of calls and answers, and the calls it has planned. */
export class Model {
  vms: KnownVm[] = []
  vcpus: KnownVcpu[] = []
  /** Whether KVM accepts VMs of any size, as pKVM does; null if not yet asked. */
  isProtectedKvm: boolean | null = null
  /** Features for which an init was refused. */
  readonly refusedFeatures = new Set<number>()
  /** Values last seen on any VM. */
  readonly seen = new Map<bigint, bigint>()
  #planned: Call[] = []
  #counts = { vm: 0, vcpu: 0, device: 0, memory: 0, event: 0 }

  /** Returns the number for the next handle of a kind. */
  next(kind: 'vm' | 'vcpu' | 'device' | 'memory' | 'event'): number {
    return this.#counts[kind]++
  }

  vm(number: number): KnownVm {
    return this.vms.find(({ vm }) => vm === number)!
  }

  vcpu(number: number): KnownVcpu {
    return this.vcpus.find(({ vcpu }) => vcpu === number)!
  }

  /**
   * With pKVM, the end of a vCPU that came after its VM's first run makes the kernel warn (seen on Linux 6.18), and leaves memory that
   * no later vCPU can use.
   */
  isClosedToVcpus({ hasRun }: KnownVm): boolean {
    return this.isProtectedKvm === true && hasRun
  }

  addVm(vm: number, how: Pick<KnownVm, 'features' | 'isOnlyConfigured'>): KnownVm {
    const added = {
      vm,
      vcpus: [],
      ids: new Set<number>(),
      device: null,
      events: [],
      slots: new Map<number, CallOf<'set_user_memory_region'>>(),
      hasRun: false,
      hasFailed: false,
      ...how,
    }
    this.vms.push(added)
    return added
  }

  addVcpu(vcpu: number, vm: KnownVm): KnownVcpu {
    const values = new Map<bigint, bigint>()
    const added = { vcpu, vm, ids: vm.vcpus[0]?.ids ?? FIRMWARE, values, isOdd: false }
    vm.vcpus.push(added)
    this.vcpus.push(added)
    return added
  }

  /** Forgets the VM it has known longest. */
  dropOldestVm(): KnownVm {
    const vm = this.vms.shift()!
    this.vcpus = this.vcpus.filter((vcpu) => vcpu.vm !== vm)
    return vm
  }

  dropVcpu(vcpu: KnownVcpu): void {
    this.vcpus = this.vcpus.filter((other) => other !== vcpu)
    vcpu.vm.vcpus = vcpu.vm.vcpus.filter((other) => other !== vcpu)
  }

  /** Adds calls to the planned ones. */
  plan(...calls: readonly Call[]): void {
    this.#planned.push(...calls)
  }

  /** Puts a call before the planned ones. */
  planFirst(call: Call): void {
    this.#planned.unshift(call)
  }

  /** Returns the next planned call. */
  planned(): Call | undefined {
    return this.#planned.shift()
  }

  /** Forgets every VM and plan, but not what it learnt about registers and features. */
  restart(): void {
    this.vms = []
    this.vcpus = []
    this.#counts = { vm: 0, vcpu: 0, device: 0, memory: 0, event: 0 }
    this.#planned = []
  }

  /** Learns from a call's outcome, except for the VMs and vCPUs it makes. */
  learn(call: Call, outcome: Outcome): void {
    switch (call.op) {
      case 'create_vm':
        if (BigInt(call.type) === BigInt(NO_IPA_SIZE)) this.isProtectedKvm = outcome.ret === 0
        break
      case 'vcpu_init':
        if (outcome.ret === 0) this.vcpu(call.vcpu).isOdd = false
        else this.#learnRefusal(Number(call.features[0] ?? 0))
        break
      case 'get_reg_list':
        if (outcome.regs) this.vcpu(call.vcpu).ids = outcome.regs.map(BigInt)
        break
      case 'get_one_reg':
        if (typeof outcome.value === 'string') {
          this.#learnValue(this.vcpu(call.vcpu), BigInt(call.id), BigInt(outcome.value))
        }
        break
      case 'set_one_reg':
        if (isOddToWrite(BigInt(call.id))) this.vcpu(call.vcpu).isOdd = true
        break
      case 'set_vcpu_events':
        this.vcpu(call.vcpu).isOdd = true
        break
      case 'run':
      case 'hvc':
      case 'smc':
        this.#learnRun(this.vcpu(call.vcpu).vm, outcome)
        break
      case 'set_user_memory_region':
        if (outcome.ret === 0) this.vm(call.vm).slots.set(call.slot, call)
        break
      case 'create_device':
        if (outcome.ret === 0 && call.flags === 0) this.vm(call.vm).device = call.device
        break
    }
  }

  /** A guest cannot make its call on a vCPU whose init failed. */
  #learnRefusal(features: number): void {
    this.refusedFeatures.add(features)
    this.#planned = this.#planned.filter(({ op }) => op !== 'hvc' && op !== 'smc')
  }

  /** Ignores what depends on time, which would make the same seed produce other calls. */
  #learnValue({ values }: KnownVcpu, id: bigint, value: bigint): void {
    if (timerCounters.has(id)) return
    const timeless = withoutIstatus(id, value)
    values.set(id, timeless)
    this.seen.set(id, timeless)
  }

  #learnRun(vm: KnownVm, { errno }: Outcome): void {
    vm.hasRun = true
    if (errno !== undefined && errno !== 'EINTR') vm.hasFailed = true
  }
}
