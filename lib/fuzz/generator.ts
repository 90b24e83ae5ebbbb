import type { Call, Outcome } from '../trace/index.js'
import {
  attribute,
  coalescedZone,
  createDevice,
  gsiRouting,
  ioEvent,
  irqEvent,
  irqLine,
  signalMsi,
} from './choices/devices.js'
import { gicRegister } from './choices/gic.js'
import { guestCall, run, setDebug, setEvents, setMpState } from './choices/guests.js'
import { get, getAtNull, list, set, setAtNull } from './choices/registers.js'
import {
  checkExtension,
  close,
  copyTags,
  counterOffset,
  createVcpu,
  createVm,
  createVmOfAnySize,
  dirtyLog,
  enableCapability,
  filter,
  finalize,
  init,
  memory,
  resetDirtyRings,
  stats,
  writableMasks,
} from './choices/vms.js'
import { follow } from './consequences.js'
import { type Context, type KnownVcpu, Model } from './model.js'
import type { Random } from './random.js'

/** The main subject of a fuzzer's calls. */
export const profiles = ['everything', 'registers', 'lifecycle', 'hypercalls', 'machine', 'gic'] as const

export type Profile = (typeof profiles)[number]

type Choice = (context: Context, vcpu: KnownVcpu) => Call

/** Choices with their relative frequency. */
function weighted(profile: Profile): [weight: number, choice: Choice][] {
  const registers = profile === 'everything' || profile === 'registers' || profile === 'hypercalls' ? 1 : 0.25
  const others = profile === 'registers' ? 0.1 : 1
  const machine = profile === 'machine' ? 20 : others
  const choices: [number, Choice][] = [
    [300 * registers, get],
    [400 * registers, set],
    [25 * registers, getAtNull],
    [40 * registers, setAtNull],
    [12, run],
    [4, list],
    [profile === 'hypercalls' ? 800 : 50 * others, guestCall],
    [3 * others, createVm],
    [15 * others, (context, { vm }) => createVcpu(context, vm)],
    [25 * others, init],
    [8 * others, finalize],
    [10 * others, checkExtension],
    [8 * others, enableCapability],
    [2 * others, writableMasks],
    [2 * others, (_, { vm: { vm } }) => ({ op: 'preferred_target', vm })],
    [35 * others, attribute],
    [15 * others, filter],
    [5 * others, createDevice],
    [profile === 'gic' ? 1000 : 5 * others, gicRegister],
    [3 * machine, irqLine],
    [0.5 * machine, signalMsi],
    [1 * machine, gsiRouting],
    [1.5 * machine, ioEvent],
    [1.5 * machine, irqEvent],
    [1 * machine, coalescedZone],
    [3 * machine, dirtyLog],
    [0.5 * machine, counterOffset],
    [0.5 * machine, resetDirtyRings],
    [0.25 * machine, stats],
    [0.1 * machine, copyTags],
    [6 * others, (_, { vcpu }) => ({ op: 'get_mp_state', vcpu })],
    [8 * others, setMpState],
    [5 * others, (_, { vcpu }) => ({ op: 'get_vcpu_events', vcpu })],
    [8 * others, setEvents],
    [0.5 * machine, setDebug],
    [3 * others, memory],
    [1 * others, close],
  ]
  return choices.map(([weight, choice]) => [Math.ceil(weight), choice])
}

/**
 * Generates calls that reach deep: it learns from every answer which registers exist and what they hold, and so mostly names
 * existing ones, with values near the current ones. The same numbers and the same answers produce the same calls.
 */
export class CallGenerator {
  readonly #context: Context
  readonly #choices: readonly [weight: number, choice: Choice][]
  readonly #total: number

  constructor(random: Random, profile: Profile) {
    this.#context = { random, model: new Model() }
    this.#choices = weighted(profile)
    this.#total = this.#choices.reduce((sum, [weight]) => sum + weight, 0)
  }

  /** Returns the next call. */
  call(): Call {
    const { model } = this.#context
    for (;;) {
      const call = model.planned() ?? this.#choose()
      if (!this.#isAvoided(call)) return call
    }
  }

  #isAvoided(call: Call): boolean {
    const { model } = this.#context
    if (call.op === 'create_vcpu') return model.isClosedToVcpus(model.vm(call.vm))
    const isRun = call.op === 'run' || call.op === 'hvc' || call.op === 'smc'
    return isRun && model.vcpu(call.vcpu).vm.isOnlyConfigured
  }

  #choose(): Call {
    const { random, model } = this.#context
    if (model.vcpus.length === 0) {
      const open = model.vms.filter((vm) => !model.isClosedToVcpus(vm))
      return open.length === 0 ? createVm(this.#context) : createVcpu(this.#context, random.pick(open))
    }
    const vcpu = random.pick(model.vcpus)
    let left = random.below(this.#total)
    for (const [weight, choice] of this.#choices) {
      left -= weight
      if (left < 0) return choice(this.#context, vcpu)
    }
    throw new RangeError('the weights do not add up')
  }

  /** Forgets every VM: the following calls are those after a `reset`. */
  restart(): void {
    const { model } = this.#context
    model.restart()
    if (model.isProtectedKvm === null) model.plan(createVmOfAnySize(this.#context))
    model.plan(createVm(this.#context))
  }

  /** Learns from a call's outcome. */
  learn(call: Call, outcome: Outcome): void {
    this.#context.model.learn(call, outcome)
    follow(this.#context, call, outcome)
  }
}
