import { encodePsciVersion, psciVersions, serviceBitmapOf, workarounds } from '../hypercalls/index.js'
import { errnoOf } from '../kvm/errors.js'
import { type Kvm, KvmError, type Registers } from '../kvm/index.js'
import {
  decodeRegister,
  encodeRegister,
  type Field,
  hasAArch32,
  implementationIds,
  isAArch32IdRegister,
  timerCounters,
  withField,
} from '../registers/index.js'
import type { VcpuFeature } from '../uapi.js'
import { differingFields } from '../registers/differing-fields.js'
import {
  bitmapAbsent,
  bitmapRefused,
  cachesDiffer,
  fieldDiffers,
  fieldRefused,
  type Finding,
  identityRefused,
  lengthsRefused,
  mitigationDiffers,
  psciRefused,
  registerAbsent,
  severities,
  stepMeanings,
  stepRemedies,
  type Told,
  unknownDiffers,
  unsetText,
  valueRefused,
} from './finding.js'
import { probeHypercalls } from '../probe/guest-calls.js'
import {
  attemptRestore,
  reactionTo,
  type RegisterOutcome,
  type RestoreAttempt,
  type StepRefusal,
  type UnsetRegister,
} from './restore.js'
import type { State } from './state.js'
import { strict, type VmmRules } from './vmm/rules.js'

/** Whether a VM can go to a host. */
export interface MoveVerdict {
  vmm: string
  /** Whether the move would succeed. What its guest would see is in `findings`. */
  possible: boolean
  /** Registers, over all vCPUs: how many the state has, and how many would be as they were. */
  registers: { total: number; same: number }
  /** Gravest first. */
  findings: Finding[]
}

/**
 * Whether a state can be restored on a host, what stops it, what changes for its guest, and what would have prevented that. It is tried: on
 * a VM made for it, which is closed again.
 *
 * @param kvm of the destination: a simulated one predicts, a real one tells
 * @param rules of the VMM that would move it
 */
export function verdict(state: State, kvm: Kvm, rules: VmmRules = strict): MoveVerdict {
  using attempt = attemptRestore(kvm, state, { carries: (id) => rules.carries(id) })
  const { refusals, outcomes, unset } = attempt
  const judge = new Judge(state, kvm, rules, attempt)
  const findings = mergeVcpus([
    ...refusals.flatMap((refusal) => judge.refusal(refusal)),
    ...outcomes.flatMap((outcome) => judge.outcome(outcome)),
    ...unset.flatMap((register) => judge.unset(register)),
  ])
  return {
    vmm: rules.name,
    possible: attempt.vm !== undefined && findings.every(({ stops }) => !stops),
    registers: {
      total: outcomes.length,
      same: outcomes.filter(({ outcome }) => outcome === 'same').length,
    },
    findings: findings.toSorted((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity)),
  }
}

/** Of what counts time, the same finding whenever one looks. */
function withoutTime(finding: Finding): Finding {
  const { register, source, destination } = finding
  if (register === undefined || !timerCounters.has(BigInt(register.id))) return finding
  return { ...finding, source: withoutCount(source), destination: withoutCount(destination) }
}

function withoutCount(value: string): string {
  return value.startsWith('0x') ? 'counts' : value
}

/** What is the same on several vCPUs is told once. */
function mergeVcpus(findings: readonly Finding[]): Finding[] {
  const merged = new Map<string, Finding>()
  for (const finding of findings.map(withoutTime)) {
    const key = JSON.stringify({ ...finding, vcpus: [] })
    const known = merged.get(key)
    if (known === undefined) merged.set(key, finding)
    else known.vcpus.push(...finding.vcpus)
  }
  return [...merged.values()]
}

const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
const SVE_VLS = encodeRegister('KVM_REG_ARM64_SVE_VLS')
const ID_AA64PFR0_EL1 = encodeRegister('ID_AA64PFR0_EL1')
const CLIDR_EL1 = encodeRegister('CLIDR_EL1')
const bits64: readonly number[] = Array.from({ length: 64 }, (_, bit) => bit)

class Judge {
  readonly #state: State
  readonly #kvm: Kvm
  readonly #rules: VmmRules
  readonly #attempt: RestoreAttempt
  #answered: readonly string[] | undefined

  constructor(state: State, kvm: Kvm, rules: VmmRules, attempt: RestoreAttempt) {
    this.#state = state
    this.#kvm = kvm
    this.#rules = rules
    this.#attempt = attempt
  }

  refusal({ step, vcpu, what, errno }: StepRefusal): Finding[] {
    const missing = step === 'init' ? this.#unsupported(what.split(', ') as VcpuFeature[]) : []
    return [
      {
        severity: 'refused',
        stops: true,
        vcpus: vcpu === undefined ? [] : [vcpu],
        source: what,
        destination: errno,
        meaning: stepMeanings[step](missing),
        remedy: stepRemedies[step](missing),
      },
    ]
  }

  outcome(found: RegisterOutcome): Finding[] {
    if (found.outcome === 'same') return []
    const id = BigInt(found.id)
    const reaction = reactionTo(found, this.#rules)
    const told = this.#explain(id, found)
    const severity = (
      { refused: 'refused', absent: 'missing-at-destination', differs: 'reads-differently' } as const
    )[found.outcome]
    // oxlint-disable-next-line oxc/no-map-spread -- `one` is not ours to change
    return told.map((one) => ({
      severity: reaction === 'tolerated' ? 'notice' : severity,
      stops: reaction === 'fails',
      vcpus: [found.vcpu],
      register: { id: found.id, name: found.name },
      ...one,
    }))
  }

  unset({ vcpu, id: text, name, value }: UnsetRegister): Finding[] {
    const id = BigInt(text)
    const held = this.#state.vcpus
      .find((candidate) => candidate.id === vcpu)
      ?.registers.find((register) => register.id === text)?.value
    // Not carried by the VMM, and no different for it.
    if (held === value) return []
    const reaction = this.#rules.on('missing', id, BigInt(value))
    const severity = reaction === 'tolerated' || hidesAll(id, value) ? 'notice' : 'silent-default'
    return [
      {
        severity,
        stops: reaction === 'fails',
        vcpus: [vcpu],
        register: { id: text, name },
        source: held ?? 'not in the state',
        destination: value,
        ...unsetText(id, held, BigInt(value), this.#rules.name),
      },
    ]
  }

  #explain(id: bigint, found: Exclude<RegisterOutcome, { outcome: 'same' }>): Told[] {
    const source = BigInt(found.value)
    const { space } = decodeRegister(id)
    if (found.outcome === 'absent') {
      const bitmap = serviceBitmapOf(id)
      if (bitmap === undefined) return [registerAbsent(id, source)]
      return bitmapAbsent(bitmap, source, (service) => this.#answers().includes(service))
    }
    const registers = this.#registersOf(found.vcpu)
    const destination = found.outcome === 'differs' ? BigInt(found.reads) : read(registers, id)
    if (space === 'bitmap') {
      const lost = bits64.filter(
        (bit) => (source >> BigInt(bit)) & 1n && !accepts(registers, id, 1n << BigInt(bit)),
      )
      return bitmapRefused(serviceBitmapOf(id)!, lost)
    }
    if (id === PSCI_VERSION) {
      const accepted = psciVersions.filter((version) => accepts(registers, id, encodePsciVersion(version)))
      return [psciRefused(source, accepted)]
    }
    if (id === SVE_VLS) return [lengthsRefused(source, destination)]
    const workaround = workarounds.find(({ register }) => register === id)
    if (workaround !== undefined) return [mitigationDiffers(workaround, found.outcome, source, destination)]
    if (implementationIds.includes(id)) {
      const isWritable = this.#kvm.checkExtension('KVM_CAP_ARM_WRITABLE_IMP_ID_REGS') > 0
      return [identityRefused(source, destination, isWritable)]
    }
    if (found.outcome === 'differs' && this.#isUnknownToGuest(id))
      return [unknownDiffers(source, destination)]
    if (space === 'demux' || id === CLIDR_EL1) return [cachesDiffer(source, destination)]
    const differing = differingFields(id, source, destination)
    if (found.outcome === 'differs') {
      return differing.map((field) => fieldDiffers(id, field, source, destination))
    }
    const blocking = differing.flatMap((field) => {
      const taken = acceptedValues(registers, id, field, destination)
      return taken.includes(fieldBits(field, source))
        ? []
        : [fieldRefused(id, field, source, destination, taken)]
    })
    return blocking.length > 0 ? blocking : [valueRefused(source, destination)]
  }

  /** Services the destination's KVM answers in a fresh VM. */
  #answers(): readonly string[] {
    this.#answered ??= probeHypercalls(this.#kvm.fd, this.#attempt.vm!.type).services
    return this.#answered
  }

  /** An AArch32 ID register of a guest that was told there is no AArch32. */
  #isUnknownToGuest(id: bigint): boolean {
    if (!isAArch32IdRegister(id)) return false
    const pfr0 = this.#state.vcpus[0]?.registers.find((register) => BigInt(register.id) === ID_AA64PFR0_EL1)
    return pfr0 !== undefined && !hasAArch32(BigInt(pfr0.value))
  }

  #registersOf(vcpu: number): Registers {
    return this.#attempt.vcpus.find(({ id }) => id === vcpu)!.registers
  }

  /** Those of the features that the destination has no vCPU with, each tried by itself. */
  #unsupported(features: readonly VcpuFeature[]): VcpuFeature[] {
    return features.filter((feature) => {
      const pair: VcpuFeature[] = feature.startsWith('ptrauth')
        ? ['ptrauth-address', 'ptrauth-generic']
        : [feature]
      using vm = this.#kvm.createVm()
      return errnoOf(() => vm.createVcpu(0, { features: pair })) !== undefined
    })
  }
}

/** Whether a register the state lacks shows the guest nothing anyway. */
function hidesAll(id: bigint, value: string): boolean {
  return serviceBitmapOf(id) !== undefined && value === '0x0'
}

function fieldBits({ lsb, width }: Field, value: bigint): bigint {
  return BigInt.asUintN(width, value >> BigInt(lsb))
}

/** The values of a field that the destination takes, all else as it has it. Leaves the register as it was. */
function acceptedValues(registers: Registers, id: bigint, field: Field, value: bigint): bigint[] {
  // What is wider holds a number, not one of some features.
  const candidates =
    field.width > 4 ? [] : Array.from({ length: 1 << field.width }, (_, bits) => BigInt(bits))
  const taken = candidates.filter((bits) => accepts(registers, id, withField(field, value, bits)))
  accepts(registers, id, value)
  return taken
}

function accepts(registers: Registers, id: bigint, value: bigint): boolean {
  return errnoOf(() => registers.set(id, value)) === undefined
}

function read(registers: Registers, id: bigint): bigint {
  try {
    return registers.get(id)
  } catch (error) {
    if (error instanceof KvmError) return 0n
    throw error
  }
}
