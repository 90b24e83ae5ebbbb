/** The Power State Coordination Interface (`arch/arm64/kvm/psci.c:kvm_psci_call` and below). */
import {
  affinityLevels,
  encodePsciVersion,
  functionIdOf,
  functionIds,
  MPIDR_HWID_BITMASK,
  psciFunctions,
  psciReturns,
  resultWord,
} from '../../hypercalls/index.js'
import { mpStates, systemEvents } from '../../uapi.js'
import { affinityOf, vcpuWithAffinity } from '../affinity.js'
import { type Continuation, type RawExit, systemEvent } from '../exits.js'
import { generalRegister, setGeneralRegister } from '../guest-registers.js'
import type { VcpuState } from '../state.js'
import { waitForInterrupt } from '../vcpu-events.js'
import { PSCI_0_1, psciVersionOf } from './gate.js'
import { setResults } from './results.js'

const { SUCCESS, NOT_SUPPORTED, INVALID_PARAMS, ALREADY_ON, INTERNAL_FAILURE } = psciReturns

const AFFINITY_LEVELS = 4
/** `PSCI_0_2_TOS_MP`: no trusted OS, so nothing to migrate. */
const NO_MIGRATION = 2
/** Types of SYSTEM_RESET2: 0, and the vendor's from here on. */
const FIRST_VENDOR_RESET = 0x8000_0000
/** Types of SYSTEM_OFF2, also the result of PSCI_FEATURES for it. 0 means the same. */
const HIBERNATE_OFF = 1
/** `KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2`, `KVM_SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2`. */
const SECOND_KIND = 1n

interface Call {
  vcpu: VcpuState
  /** x1 to x3, truncated to 32 bits for an SMC32 function. */
  args: readonly [bigint, bigint, bigint]
  version: bigint
}

type Handler = (call: Call) => Continuation

interface PsciCall {
  handler: Handler
  /** The result of PSCI_FEATURES for it; absent if that is SUCCESS. */
  features?: (call: Call) => number
}

interface Entry extends PsciCall {
  since: bigint
}

const handlers: Readonly<Record<string, PsciCall>> = {
  PSCI_VERSION: { handler: ({ vcpu, version }) => result(vcpu, Number(version)) },
  PSCI_CPU_SUSPEND: {
    // Waits for an interrupt, after which the call returns.
    handler: ({ vcpu }) => {
      result(vcpu, SUCCESS)
      return waitForInterrupt(vcpu)
    },
  },
  PSCI_CPU_OFF: { handler: cpuOff },
  PSCI_CPU_ON: { handler: cpuOn },
  PSCI_AFFINITY_INFO: { handler: (call) => result(call.vcpu, affinityInfo(call)) },
  PSCI_MIGRATE_INFO_TYPE: { handler: ({ vcpu }) => result(vcpu, NO_MIGRATION) },
  PSCI_SYSTEM_OFF: { handler: ({ vcpu }) => stopMachine(vcpu, systemEvents.shutdown, 0n) },
  PSCI_SYSTEM_RESET: { handler: ({ vcpu }) => stopMachine(vcpu, systemEvents.reset, 0n) },
  PSCI_FEATURES: { handler: (call) => result(call.vcpu, featuresOf(call)) },
  PSCI_SYSTEM_SUSPEND: {
    handler: ({ vcpu }) =>
      vcpu.vm.systemSuspend ? systemEvent(vcpu, systemEvents.suspend, []) : result(vcpu, NOT_SUPPORTED),
    features: ({ vcpu }) => (vcpu.vm.systemSuspend ? SUCCESS : NOT_SUPPORTED),
  },
  PSCI_SYSTEM_RESET2: { handler: systemReset2 },
  PSCI_SYSTEM_OFF2: { handler: systemOff2, features: () => HIBERNATE_OFF },
}

/** The functions KVM has of PSCI 0.2 and later, by id. */
const entries = new Map<number, Entry>(
  psciFunctions
    .filter(({ kvm }) => kvm)
    .flatMap(({ id, id64, name, since }) => {
      const entry: Entry = { ...handlers[name]!, since: encodePsciVersion(since) }
      return [id, ...(id64 === undefined ? [] : [id64])].map((each) => [each, entry] as const)
    }),
)

const psci01Entries = new Map<number, Handler>([
  [functionIdOf('KVM_PSCI_CPU_OFF'), cpuOff],
  [functionIdOf('KVM_PSCI_CPU_ON'), cpuOn],
])

/** Handles the calls that no other handler took. */
export function callPsci(vcpu: VcpuState, functionId: number): Continuation {
  const version = psciVersionOf(vcpu)
  if (version === PSCI_0_1) {
    const handler = psci01Entries.get(functionId)
    return handler?.({ vcpu, args: argumentsOf(vcpu), version }) ?? result(vcpu, NOT_SUPPORTED)
  }
  const entry = entries.get(functionId)
  if (entry === undefined || version < entry.since) return result(vcpu, NOT_SUPPORTED)
  const isWide = ((functionId >>> 30) & 1) === 1
  if (!isWide) narrow(vcpu)
  return entry.handler({ vcpu, args: argumentsOf(vcpu), version })
}

function argumentsOf(vcpu: VcpuState): Call['args'] {
  return [generalRegister(vcpu, 1), generalRegister(vcpu, 2), generalRegister(vcpu, 3)]
}

/** Truncates an SMC32 function's arguments in the registers: a guest sees this if the call does not write its registers. */
function narrow(vcpu: VcpuState): void {
  for (const n of [1, 2, 3]) setGeneralRegister(vcpu, n, BigInt.asUintN(32, generalRegister(vcpu, n)))
}

function result(vcpu: VcpuState, code: number): 'on' {
  return setResults(vcpu, [resultWord(code), 0n, 0n, 0n])
}

function featuresOf(call: Call): number {
  const feature = Number(BigInt.asUintN(32, call.args[0]))
  if (feature === functionIds.SMCCC_VERSION) return SUCCESS
  const entry = entries.get(feature)
  if (entry === undefined || call.version < entry.since) return NOT_SUPPORTED
  return entry.features?.(call) ?? SUCCESS
}

function cpuOff({ vcpu }: Call): Continuation {
  result(vcpu, SUCCESS)
  vcpu.mpState = mpStates.stopped
  return 'wait'
}

/** The target performs the reset: at the next access to its registers, or when it runs. */
function cpuOn({ vcpu, args: [affinity, entry, context], version }: Call): Continuation {
  const target = isAffinity(vcpu, affinity) ? vcpuWithAffinity(vcpu.vm, affinity) : undefined
  if (target === undefined) return result(vcpu, INVALID_PARAMS)
  if (target.mpState !== mpStates.stopped) {
    return result(vcpu, version === PSCI_0_1 ? INVALID_PARAMS : ALREADY_ON)
  }
  target.pendingReset = { pc: entry, x0: context }
  target.mpState = mpStates.runnable
  result(vcpu, SUCCESS)
  target.wake?.()
  return 'on'
}

function affinityInfo({ vcpu, args: [affinity, level] }: Call): number {
  if (!isAffinity(vcpu, affinity) || level >= AFFINITY_LEVELS) return INVALID_PARAMS
  const mask = MPIDR_HWID_BITMASK & ~((1n << (8n * level)) - 1n)
  const matching = [...vcpu.vm.vcpus.values()].filter(
    (candidate) => (affinityOf(candidate) & mask) === (affinity & mask),
  )
  if (matching.length === 0) return INVALID_PARAMS
  return matching.some(({ mpState }) => mpState !== mpStates.stopped) ? affinityLevels.ON : affinityLevels.OFF
}

function isAffinity({ vm }: VcpuState, affinity: bigint): boolean {
  return (affinity & ~MPIDR_HWID_BITMASK) === 0n || vm.host.traits.hypercalls.affinityMasked
}

function systemReset2({ vcpu, args: [type] }: Call): Continuation {
  const kind = Number(BigInt.asUintN(32, type))
  if (kind !== 0 && kind < FIRST_VENDOR_RESET) return result(vcpu, INVALID_PARAMS)
  const exit = stop(vcpu, systemEvents.reset, SECOND_KIND)
  // Unlike these other calls it leaves x1 to x3.
  setResults(vcpu, [resultWord(INTERNAL_FAILURE)])
  return exit
}

function systemOff2({ vcpu, args: [type, cookie] }: Call): Continuation {
  const kind = Number(BigInt.asUintN(32, type))
  if ((kind !== 0 && kind !== HIBERNATE_OFF) || cookie !== 0n) return result(vcpu, INVALID_PARAMS)
  return stopMachine(vcpu, systemEvents.shutdown, SECOND_KIND)
}

/** If userspace continues the guest, the call has failed for it. */
function stopMachine(vcpu: VcpuState, event: number, flags: bigint): RawExit {
  result(vcpu, INTERNAL_FAILURE)
  return stop(vcpu, event, flags)
}

/** Stops every vCPU until userspace lets it run. */
function stop(vcpu: VcpuState, event: number, flags: bigint): RawExit {
  for (const each of vcpu.vm.vcpus.values()) each.mpState = mpStates.stopped
  return systemEvent(vcpu, event, [flags])
}
