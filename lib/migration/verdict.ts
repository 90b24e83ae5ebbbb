/** Finds out whether a VM can move to a host, by restoring its state there. */
import { isRefusal } from '../kvm/errors.js'
import { type Kvm, KvmError, type Vm } from '../kvm/index.js'
import type { VcpuFeature } from '../uapi.js'
import { attemptRestore, type RestoreAttempt, type RestoreManner } from './attempt.js'
import { type Finding, severities } from './finding.js'
import { type Counters, Judge } from './judge.js'
import { compareMachines, counterFrequencyOf, type MachineFacts, machineOf } from './machine-facts.js'
import { RestorePlan } from './planned-writes.js'
import type { State } from './state.js'
import { factsOfKvm } from './vmm/facts.js'
import { type Gic, strict, type VmmRules, type VmmVm, vmOn } from './vmm/rules.js'

/** What a verdict depends on and nobody recorded. */
export const unknownFacts = [
  'source-features',
  'destination-features',
  'source-interrupt-controller',
  'destination-interrupt-controller',
  'source-counter-frequency',
  'destination-counter-frequency',
  /** What a guest reads from registers of the CPU itself. */
  'source-guest-reads',
  'destination-guest-reads',
  'source-page-size',
  'destination-page-size',
  /** The most bits of guest physical address space. */
  'source-address-space',
  'destination-address-space',
  /** The VM has memory tagging. */
  'destination-memory-tagging',
  /** The state is of an early version, which held no interrupt controller and no settings of devices. */
  'source-devices',
  /** What becomes of a part of the VM that its state does not hold, `vm.notCarried`, with this VMM. */
  'moved-parts',
  /** How many priorities the GIC of a simulated destination has; reports do not record it. */
  'destination-gic-priorities',
  /** Whether the destination accepts the state's values in some fields of ID registers. */
  'destination-id-fields',
  /** Whether a machine has CPUs of several kinds. */
  'source-cpu-kinds',
  'destination-cpu-kinds',
  /** A machine has CPUs of several kinds, and its report describes those of one. */
  'source-other-cpus',
  'destination-other-cpus',
] as const

export type UnknownFact = (typeof unknownFacts)[number]

/** Whether a VM can go to a host. */
export interface MoveVerdict {
  vmm: string
  /** vCPU features of the VM, and of the VM the VMM restores it into. */
  features: { source: VcpuFeature[]; destination: VcpuFeature[] }
  /** Interrupt controllers of these VMs; null if the VMM makes none, or it is not known which. */
  interruptControllers: { source: Gic | null; destination: Gic | null }
  /** Whether the restore would succeed, as far as is known. */
  restores: boolean
  /** Whether it would, and the guest would go on unbroken. `findings` list what its guest would see. */
  possible: boolean
  /** What the answer depends on and was not recorded. */
  unknown: UnknownFact[]
  /** Registers over all vCPUs: the number in the state, and the number that would be unchanged. */
  registers: { total: number; same: number }
  /** Gravest first. */
  findings: Finding[]
}

export interface VerdictOptions {
  /** The VM on the source, as its VMM made it. By default only its state is known. */
  source?: VmmVm
  /** The source's KVM, to try whether it accepts the values of remedies. */
  sourceKvm?: Kvm
  /** The VM that the VMM makes on the destination. Default: what `rules` say of a host with this KVM. */
  destination?: VmmVm
  /** The writes of this state under these rules, as `planRestore` returns them: for a state that is judged on many hosts. */
  plan?: RestorePlan
}

/** Returns an empty plan, which keeps what verdicts about one state under these rules have in common. */
export function planRestore(rules: VmmRules): RestorePlan {
  return new RestorePlan({
    carries: (id) => rules.carries(id),
    convertsVectors: rules.vectors === 'converted',
  })
}

/**
 * Judges whether a state can be restored on a host: what stops it, what changes for its guest, and what would have prevented that.
 * It tries the restore on a VM made for this purpose, and closes that VM.
 *
 * @param kvm of the destination: with a simulated one the result is a prediction, with a real one a test
 * @param rules of the VMM that would move it
 */
export function verdict(
  state: State,
  kvm: Kvm,
  rules: VmmRules = strict,
  {
    source,
    sourceKvm,
    destination = vmOn(rules, factsOfKvm(kvm)),
    plan = planRestore(rules),
  }: VerdictOptions = {},
): MoveVerdict {
  const saved = state.vcpus[0]!.features
  const features = rules.restoresInto === 'own' ? destination.features : saved
  const manner: RestoreManner = {
    carries: (id) => rules.carries(id),
    ...(rules.restoresInto === 'own' && { features }),
    convertsVectors: rules.vectors === 'converted',
    writesBack: rules.writesBack,
    prepare: (vm) => mapStolenTime(kvm, vm, state),
  }
  using attempt = attemptRestore(kvm, state, manner, plan)
  const judge = new Judge(state, kvm, rules, attempt, { features, sourceKvm })
  using reduced = withoutRefused(judge, attempt, features, (fewer) =>
    attemptRestore(kvm, state, { ...manner, features: fewer }, plan),
  )
  const { outcomes, unset, notWrittenBack } = reduced
  const judgeRegisters =
    reduced === attempt ? judge : new Judge(state, kvm, rules, reduced, { features, sourceKvm })
  const [here, there] = [state.machine ?? {}, machineOf(kvm)]
  const counters: Counters = {
    source: source?.counterFrequency ?? counterFrequencyOf(here),
    destination: destination.counterFrequency ?? counterFrequencyOf(there),
  }
  const failures = outcomes.filter(({ outcome }) => outcome !== 'same')
  const findings = mergeVcpus([
    ...judge.vm(source, destination, counters),
    ...compareMachines(here, there, state.vcpus[0]!.registers),
    ...attempt.refusals.map((refusal) => judge.refusal(refusal)),
    ...attempt.deviceDifferences.map((difference) => judge.deviceDifference(difference)),
    ...judge.notCarried(),
    ...failures.flatMap((outcome) => judgeRegisters.outcome(outcome)),
    ...notWrittenBack.map((register) => judgeRegisters.notWrittenBack(register)),
    ...unset.flatMap((register) => judgeRegisters.unset(register)),
  ])
  const restores = attempt.vm !== undefined && findings.every(({ stops }) => !stops)
  return {
    vmm: rules.name,
    features: { source: [...saved], destination: [...features] },
    interruptControllers: { source: gicOf(source), destination: gicOf(destination) },
    restores,
    possible: restores && findings.every(({ severity }) => severity !== 'guest-broken'),
    unknown: unknownOf(state, rules, {
      source,
      destination,
      counters,
      here,
      there,
      isSimulated: kvm.backend.name === 'simulator',
      hasUnknownParts: judge.hasUnknownParts,
    }),
    registers: {
      total: outcomes.length,
      same: outcomes.length - failures.length,
    },
    findings: findings.toSorted((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity)),
  }
}

/** KVM takes the address of a stolen-time structure only where there is memory. */
function mapStolenTime(kvm: Kvm, vm: Vm, state: State): void {
  const pages = new Set(
    state.vcpus.flatMap(({ stolenTime }) => (stolenTime ? [BigInt(stolenTime) / SCRATCH] : [])),
  )
  for (const [slot, page] of [...pages].entries()) {
    // The VM keeps the memory until it is closed.
    using memory = kvm.createMemory(Number(SCRATCH))
    const mapping = { address: page * SCRATCH, memory }
    ifTaken(() => vm.mapMemory(slot, mapping))
  }
}

/** Bytes that are whole pages of every kernel. */
const SCRATCH = 0x1_0000n

/** Without memory the destination refuses the address, which is a finding of its own. */
function ifTaken(action: () => void): void {
  try {
    action()
  } catch (error) {
    // EFAULT is the answer for an address beyond those of the guest.
    if (!isRefusal(error) && !(error instanceof KvmError && error.code === 'EFAULT')) throw error
  }
}

/** Where the destination refuses features, a VM without them shows which registers it would refuse or lack besides. */
function withoutRefused(
  judge: Judge,
  attempt: RestoreAttempt,
  features: readonly VcpuFeature[],
  again: (fewer: VcpuFeature[]) => RestoreAttempt,
): RestoreAttempt {
  if (!attempt.refusals.some(({ step }) => step === 'init')) return attempt
  const missing = judge.unsupported(features)
  return missing.length === 0 ? attempt : again(features.filter((feature) => !missing.includes(feature)))
}

function gicOf(vm: VmmVm | undefined): Gic | null {
  return vm?.gic === undefined || vm.gic === 'none' ? null : vm.gic
}

interface Sides {
  source: VmmVm | undefined
  destination: VmmVm
  counters: Counters
  here: MachineFacts
  there: MachineFacts
  /** The destination is. */
  isSimulated: boolean
  hasUnknownParts: boolean
}

function unknownOf(state: State, rules: VmmRules, sides: Sides): UnknownFact[] {
  const { source, destination, counters, here, there, isSimulated, hasUnknownParts } = sides
  const { isUntried } = destination
  const hasGic = rules.gics.length > 0
  const hasMte = state.vm.capabilities.includes('KVM_CAP_ARM_MTE')
  const isUnknown: Readonly<Record<UnknownFact, boolean>> = {
    'source-features': source !== undefined && source.unknown.length > 0,
    'destination-features': rules.restoresInto === 'own' && destination.unknown.length > 0,
    'source-interrupt-controller': hasGic && source?.gic === undefined,
    'destination-interrupt-controller': hasGic && destination.gic === undefined,
    'source-counter-frequency': counters.source === undefined,
    'destination-counter-frequency': counters.destination === undefined,
    'source-guest-reads': here.guestReads === undefined,
    'destination-guest-reads': there.guestReads === undefined,
    'source-page-size': here.pageSize === undefined,
    'destination-page-size': there.pageSize === undefined,
    'source-address-space': here.ipaLimit === undefined,
    'destination-address-space': there.ipaLimit === undefined,
    'destination-memory-tagging': hasMte && destination.hasMte === undefined,
    'source-devices': state.vm.gic === undefined,
    'moved-parts': hasUnknownParts,
    'destination-gic-priorities': isSimulated && Boolean(state.vm.gic),
    'destination-id-fields':
      isUntried !== undefined &&
      state.vcpus.some((vcpu) => vcpu.registers.some(({ id, value }) => isUntried(id, BigInt(value)))),
    'source-cpu-kinds': here.cpuKinds === undefined,
    'destination-cpu-kinds': there.cpuKinds === undefined,
    'source-other-cpus': source?.hasOtherCpus ?? false,
    'destination-other-cpus': destination.hasOtherCpus ?? false,
  }
  return unknownFacts.filter((fact) => isUnknown[fact])
}

/** A finding that is the same on several vCPUs is listed once. */
function mergeVcpus(findings: readonly Finding[]): Finding[] {
  /** Those that may be the same, by what differs most. */
  const alike = new Map<string, Finding[]>()
  return findings.filter((finding) => {
    const key = `${finding.code} ${finding.register?.id} ${finding.field}`
    const others = alike.get(key)
    if (others === undefined) {
      alike.set(key, [finding])
      return true
    }
    const text = withoutVcpus(finding)
    const same = others.find((other) => withoutVcpus(other) === text)
    if (same === undefined) others.push(finding)
    else same.vcpus.push(...finding.vcpus)
    return same === undefined
  })
}

function withoutVcpus(finding: Finding): string {
  return JSON.stringify({ ...finding, vcpus: [] })
}
