import {
  functionIdOf,
  functionIds,
  functionName,
  hypercallFunctions,
  NOT_SUPPORTED,
  type PsciVersion,
} from '../hypercalls/index.js'
import type { Conduit } from '../backend.js'
import type { Election, Exit, Kvm, Vcpu } from '../kvm/index.js'
import { checkKvm } from '../kvm/kvm.js'
import { electPsciVersion } from './psci-version.js'

export interface CensusOptions {
  /** Services the guest may discover; registers not named keep the value of a fresh VM. */
  elect?: Election
  /** `0.1` means a vCPU without `psci-0.2`. Default: the newest version of the host. */
  psci?: PsciVersion
  /** Called after each call of the guest. */
  progress?: (done: number, of: number) => void
}

/** One call of a guest and its results. */
export interface CensusCall {
  functionId: number
  /** The name, as `functionName` returns it. */
  name: string
  conduit: Conduit
  /** x1 of the call. The other arguments are 0. */
  argument: bigint
  /** x0 to x3; null if they hold a time. */
  x: readonly bigint[] | null
  /** Why the run ended, if the call did not return. */
  exit?: Exit
  /** False if x0 = NOT_SUPPORTED, which tells a guest that the function does not exist. */
  found: boolean
}

/** Calls after which the guest waits for an interrupt, or for another vCPU to start it. */
const waiting: ReadonlySet<number> = new Set(
  ['PSCI_CPU_SUSPEND', 'PSCI_CPU_SUSPEND_64', 'PSCI_CPU_OFF', 'KVM_PSCI_CPU_OFF'].map(functionIdOf),
)
/** Timeouts in milliseconds: for those calls, and for all others, which take microseconds unless something is emulated. */
const WAIT = 100
const PATIENCE = 10_000

/** Functions with which a guest queries other functions. */
const questions: readonly number[] = [
  functionIds.SMCCC_ARCH_FEATURES,
  functionIds.TRNG_FEATURES,
  functionIds.PV_TIME_FEATURES,
  functionIdOf('PSCI_FEATURES'),
]

/** Every named function, and the ids next to it. */
const censusIds: readonly number[] = [
  ...new Set(hypercallFunctions.flatMap(({ id }) => [id - 1, id, id + 1])),
].toSorted((a, b) => a - b)

/**
 * Finds out what a guest can really discover under an election. On a VM made for this, with one vCPU, a guest calls every known
 * function and its neighbours by `hvc` and by `smc`, and queries every function that one function can query about another.
 *
 * @throws RangeError for a service this host does not offer
 * @throws KvmError `EINVAL` for a PSCI version that this host does not have; the message lists those it has
 */
export function census(kvm: Kvm, { elect = {}, psci, progress }: CensusOptions = {}): CensusCall[] {
  checkKvm(kvm)
  using vm = kvm.createVm()
  const vcpu = vm.createVcpu(0, { features: psci === '0.1' ? [] : ['psci-0.2'] })
  vm.services.elect(elect)
  if (psci !== undefined && psci !== '0.1') electPsciVersion(vcpu, psci)
  const calls = [
    ...censusIds.map((id) => ({ id, argument: 0n })),
    ...questions.flatMap((id) => hypercallFunctions.map((about) => ({ id, argument: BigInt(about.id) }))),
  ]
  const conduits: readonly Conduit[] = ['hvc', 'smc']
  return conduits.flatMap((conduit, round) =>
    calls.map(({ id, argument }, index) => {
      const call = callOnce(vcpu, conduit, id, argument)
      progress?.(round * calls.length + index + 1, conduits.length * calls.length)
      return call
    }),
  )
}

function callOnce(vcpu: Vcpu, conduit: Conduit, functionId: number, argument: bigint): CensusCall {
  const timeout = waiting.has(functionId) ? WAIT : PATIENCE
  const { x, exit } = vcpu.hypercall(functionId, [argument], { conduit, timeout })
  // The call may have stopped the machine.
  if (exit !== undefined) vcpu.mpState = 'runnable'
  const tellsTime = functionId === functionIds.KVM_PTP && x[0] !== NOT_SUPPORTED
  return {
    functionId,
    name: functionName(functionId),
    conduit,
    argument,
    x: tellsTime ? null : x,
    ...(exit === undefined ? {} : { exit }),
    found: exit !== undefined || x[0] !== NOT_SUPPORTED,
  }
}
