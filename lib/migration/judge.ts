/** Turns the outcome of a restore into findings: which field of a register causes each, and which write would have prevented it. */
import {
  decodePsciVersion,
  encodePsciVersion,
  psciVersions,
  type ServiceBitmap,
  serviceBitmapOf,
  workarounds,
} from '../hypercalls/index.js'
import { errnoOf, isRefusal, refuseAccident } from '../kvm/errors.js'
import type { Kvm, Registers } from '../kvm/index.js'
import { probeHypercalls } from '../probe/guest-calls.js'
import { differingField as namedField, differingFields } from '../registers/differing-fields.js'
import {
  decodeRegister,
  encodeRegister,
  type Field,
  hasAArch32,
  hex,
  implementationIds,
  isAArch32IdRegister,
  isIdRegister,
  registerName,
  registerWidth,
  timerCounters,
  withField,
} from '../registers/index.js'
import { longestVector } from '../registers/sve.js'
import type { VcpuFeature } from '../uapi.js'
import type {
  RegisterOutcome,
  RestoreAttempt,
  StepRefusal,
  UnsetRegister,
  WriteBackRefusal,
} from './attempt.js'
import {
  codeRow,
  type Finding,
  type Pin,
  type RegisterFinding,
  type RegisterFindingCode,
  type Remedy,
  type Severity,
  type StepFinding,
} from './finding.js'
import type { DeviceDifference } from './device-restore.js'
import type { NotCarried } from './device-state.js'
import { reactionTo } from './restore.js'
import { featureBehind, missingAnnouncement } from './announced.js'
import type { State } from './state.js'
import {
  type Obstacle,
  type OptionalFeature,
  optionalFeatures,
  type Reaction,
  type Unsavable,
  type VmmRules,
  type VmmVm,
} from './vmm/rules.js'

type Failure = Exclude<RegisterOutcome, { outcome: 'same' }>

/** A finding about one register, before the VMM's rules judge it. */
type Cause = Pick<
  RegisterFinding,
  'field' | 'source' | 'destination' | 'announcedBy' | 'accepted' | 'pin' | 'remedy' | 'capability'
> & {
  code: RegisterFindingCode
}

/** Ticks per second of the counters on both sides; undefined if not recorded. */
export interface Counters {
  source: bigint | undefined
  destination: bigint | undefined
}

export interface JudgeContext {
  /** Features of the VM the VMM restores into. */
  features: readonly VcpuFeature[]
  sourceKvm: Kvm | undefined
}

const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
const SVE_VLS = encodeRegister('KVM_REG_ARM64_SVE_VLS')
const ID_AA64PFR0_EL1 = encodeRegister('ID_AA64PFR0_EL1')
const CLIDR_EL1 = encodeRegister('CLIDR_EL1')
const bits64: readonly number[] = Array.from({ length: 64 }, (_, bit) => bit)

const severityOfOutcome: Readonly<Record<Obstacle, Severity>> = {
  refused: 'refused',
  absent: 'missing-at-destination',
  differs: 'reads-differently',
  missing: 'silent-default',
}

/** Services that each KVM was found to provide, by the type of the VM. */
const answered = new WeakMap<Kvm, Map<bigint, readonly string[]>>()

export class Judge {
  readonly #state: State
  readonly #kvm: Kvm
  readonly #rules: VmmRules
  readonly #attempt: RestoreAttempt
  readonly #context: JudgeContext
  /** Whether the guest's ID_AA64PFR0_EL1 shows AArch32, or it has none. */
  #showsAArch32: boolean | undefined

  constructor(state: State, kvm: Kvm, rules: VmmRules, attempt: RestoreAttempt, context: JudgeContext) {
    this.#state = state
    this.#kvm = kvm
    this.#rules = rules
    this.#attempt = attempt
    this.#context = context
  }

  /** Findings about the VM as the VMM makes it on both sides, whatever its registers hold. */
  vm(source: VmmVm | undefined, destination: VmmVm, counters: Counters): Finding[] {
    const { cannotSave, gics, vectors } = this.#rules
    const about = { severity: 'refused' as const, stops: true, vcpus: [] }
    const saved = this.#saved
    const findings: Finding[] = []
    for (const property of cannotSave) {
      if (this.#has(property, source)) findings.push({ code: 'save-refused', ...about, property })
    }
    if (vectors === 'lost' && saved.includes('sve')) {
      findings.push({ code: 'vector-state-lost', ...about, severity: 'guest-broken', stops: false })
    }
    const { source: ticks, destination: other } = counters
    if (ticks !== undefined && other !== undefined && ticks !== other) {
      const values = { source: hex(ticks), destination: hex(other) }
      findings.push(
        this.#rules.comparesCounters
          ? { code: 'counter-refused', ...about, ...values }
          : {
              code: 'counter-frequency-changes',
              ...about,
              severity: 'guest-broken',
              stops: false,
              ...values,
            },
      )
    }
    if (gics.length === 0) return findings
    for (const [on, vm] of [['source', source] as const, ['destination', destination] as const]) {
      if (vm?.gic === 'none') {
        findings.push({ code: 'interrupt-controller-missing', ...about, on, controllers: [...gics] })
      }
    }
    const [from, to] = [source?.gic, destination.gic]
    if (from !== undefined && to !== undefined && from !== 'none' && to !== 'none' && from !== to) {
      findings.push({ code: 'interrupt-controller-differs', ...about, source: from, destination: to })
    }
    return findings
  }

  refusal(refusal: StepRefusal): StepFinding {
    const { errno } = refusal
    const about = {
      severity: 'refused' as const,
      stops: true,
      vcpus: 'vcpu' in refusal && refusal.vcpu !== undefined ? [refusal.vcpu] : [],
    }
    switch (refusal.step) {
      case 'create-vm':
        return { code: 'address-space-refused', ...about, ipaSize: refusal.ipaSize, errno }
      case 'enable-capability':
        return { code: 'capability-refused', ...about, capability: refusal.capability, errno }
      case 'smccc-filter':
        return { code: 'smccc-filter-refused', ...about, ...refusal.calls, errno }
      case 'create-vcpu':
        return { code: 'vcpu-refused', ...about, errno }
      case 'init': {
        const features = [...refusal.features]
        return { code: 'features-refused', ...about, features, missing: this.unsupported(features), errno }
      }
      case 'finalize':
        return { code: 'finalize-refused', ...about, errno }
      case 'mp-state':
        return { code: 'mp-state-refused', ...about, mpState: refusal.mpState, errno }
      case 'device':
        return { code: 'device-refused', ...about, what: refusal.what, errno }
      default:
        return { code: 'events-refused', ...about, events: refusal.events, errno }
    }
  }

  deviceDifference({ what, vcpu, source, destination }: DeviceDifference): StepFinding {
    const vcpus = vcpu === undefined ? [] : [vcpu]
    const about = { severity: 'reads-differently' as const, stops: true, vcpus }
    return { code: 'device-state-differs', ...about, what, source, destination }
  }

  /** Whether the VM has a property that the VMM cannot save. `source` is undefined if only its state is known. */
  #has(property: Unsavable, source: VmmVm | undefined): boolean {
    switch (property) {
      case 'gic-v2':
        return source?.gic === property || this.#parts.includes(property)
      case 'its':
        return this.#parts.includes(property)
      case 'mte-tags':
        return this.#parts.includes(property) || this.#state.vm.capabilities.includes('KVM_CAP_ARM_MTE')
      default:
        return this.#saved.includes(property)
    }
  }

  /** Parts of the VM whose moving with this VMM is not known. */
  get hasUnknownParts(): boolean {
    return this.#parts.some((part) => !this.#isRefused(part) && this.#rules.parts[part] === undefined)
  }

  /** Parts of the VM that the VMM leaves behind. */
  notCarried(): StepFinding[] {
    const left = this.#parts.filter((part) => !this.#isRefused(part) && this.#rules.parts[part] === 'left')
    return left.map((device) => ({
      code: 'device-not-carried',
      severity: 'guest-broken',
      stops: false,
      vcpus: [],
      device,
    }))
  }

  outcome(found: RegisterOutcome): RegisterFinding[] {
    if (found.outcome === 'same') return []
    const reaction = this.#reaction(found)
    return this.#causes(BigInt(found.id), found).map((cause) =>
      finding(found, found.outcome, reaction, { ...cause, ...this.#remedy(BigInt(found.id), cause) }),
    )
  }

  #reaction(found: Failure): Reaction | undefined {
    const reaction = reactionTo(found, this.#rules)
    if (reaction !== 'fails' || found.outcome !== 'absent' || !this.#rules.lastAbsentDecides) return reaction
    const absent = this.#attempt.outcomes.filter(
      ({ outcome, vcpu }) => outcome === 'absent' && vcpu === found.vcpu,
    )
    const last = absent.reduce((one, other) => (BigInt(other.id) > BigInt(one.id) ? other : one))
    return reactionTo(last, this.#rules) === 'tolerated' ? 'silent' : reaction
  }

  /** The VMM could not write the value of its new VM to a register that the state lacks. */
  notWrittenBack(found: WriteBackRefusal): RegisterFinding {
    const { value } = found
    return finding(found, 'refused', 'fails', {
      code: 'write-back-refused',
      source: null,
      destination: value,
    })
  }

  unset(found: UnsetRegister): RegisterFinding[] {
    const { vcpu, id: text, name, value } = found
    const id = BigInt(text)
    const held = this.#state.vcpus
      .find((candidate) => candidate.id === vcpu)
      ?.registers.find((register) => register.id === text)?.value
    // The VMM does not carry the register, and the guest sees no difference.
    if (held === value) return []
    const reaction = this.#rules.on('missing', id, BigInt(value))
    const values = { source: held ?? null, destination: value }
    if (id === SVE_VLS && held !== undefined) {
      const pin = lengthsPin(BigInt(held), BigInt(value))
      const cause: Cause = { code: 'vector-lengths-change', ...values, ...pin }
      return [finding(found, 'missing', reaction, { ...cause, ...this.#remedy(id, cause) })]
    }
    // A converted register, or one of those that `vm` reports as lost together.
    if (decodeRegister(id).space === 'sve') return []
    if (serviceBitmapOf(id) === undefined) {
      const announcedBy = missingAnnouncement(id, this.#state.vcpus[0]!.registers)
      const cause: Cause = { code: 'register-not-restored', ...values, ...(announcedBy && { announcedBy }) }
      return [finding(found, 'missing', reaction, cause)]
    }
    if (value === '0x0') {
      return [finding(found, 'missing', reaction, { code: 'bitmap-not-restored', ...values })]
    }
    const register = { id: text, name }
    const pin: Pin = { on: 'destination', before: 'first-run', register, value: '0x0' }
    return [finding(found, 'missing', reaction, { code: 'services-appear', ...values, pin })]
  }

  #causes(id: bigint, found: Failure): Cause[] {
    const source = BigInt(found.value)
    const { space } = decodeRegister(id)
    if (found.outcome === 'absent') {
      const bitmap = serviceBitmapOf(id)
      if (bitmap === undefined) return [{ ...this.#absent(id), source: hex(source), destination: null }]
      return absentBitmap(bitmap, source, (service) => this.#answers().includes(service))
    }
    const registers = this.#registersOf(found.vcpu)
    const destination = found.outcome === 'differs' ? BigInt(found.reads) : read(registers, id)
    const values = { source: hex(source), destination: hex(destination) }
    const isRefused = found.outcome === 'refused'
    const bitmap = serviceBitmapOf(id)
    if (bitmap !== undefined) {
      const lost = bits64.filter(
        (bit) => (source >> BigInt(bit)) & 1n && !accepts(registers, id, 1n << BigInt(bit)),
      )
      if (lost.length > 0) return lost.map((bit) => refusedService(bitmap, bit))
    } else if (id === PSCI_VERSION) {
      const accepted = psciVersions
        .map(encodePsciVersion)
        .filter((version) => accepts(registers, id, version))
      const newest = accepted.findLast((version) => version <= source)
      return [
        { code: 'psci-version-refused', ...values, accepted: accepted.map(hex), ...wholePin(id, newest) },
      ]
    } else if (id === SVE_VLS) {
      return [{ code: 'vector-lengths-refused', ...values, ...lengthsPin(source, destination) }]
    } else if (workarounds.some(({ register }) => register === id)) {
      return [{ code: isRefused ? 'mitigation-weaker' : 'mitigation-stronger', ...values }]
    } else if (implementationIds.includes(id)) {
      const isWritable = this.#kvm.checkExtension('KVM_CAP_ARM_WRITABLE_IMP_ID_REGS') > 0
      return [
        {
          code: 'cpu-identity',
          ...values,
          ...(isWritable && { capability: 'KVM_CAP_ARM_WRITABLE_IMP_ID_REGS' as const }),
        },
      ]
    } else if (this.#isUnknownToGuest(id)) {
      return [{ code: isRefused ? 'aarch32-id-refused' : 'aarch32-id-differs', ...values }]
    } else if (isAArch32IdRegister(id) && !hasAArch32(read(registers, ID_AA64PFR0_EL1))) {
      return [{ code: 'aarch32-id-lost', ...values }]
    } else if (space === 'demux' || id === CLIDR_EL1) {
      return [{ code: 'caches-differ', ...values }]
    }
    const differing = differingFields(id, source, destination)
    if (!isRefused) {
      if (!isIdRegister(id)) return [{ code: 'value-differs', ...values }]
      const fields = differing.map((field) => differingField(id, field, source, destination))
      return fields.length > 0 ? fields : [{ code: 'value-differs', ...values }]
    }
    const blocking = differing.flatMap((field) => {
      const taken = acceptedContents(registers, id, field, destination)
      return taken.includes(contentOf(field, source))
        ? []
        : [refusedField(id, field, source, destination, taken)]
    })
    return blocking.length > 0 ? blocking : [{ code: 'value-refused', ...values }]
  }

  /** Services that the destination's KVM provides in a fresh VM. */
  #answers(): readonly string[] {
    const { type } = this.#attempt.vm!
    const ofKvm = answered.get(this.#kvm) ?? new Map<bigint, readonly string[]>()
    answered.set(this.#kvm, ofKvm)
    const known = ofKvm.get(type) ?? probeHypercalls(this.#kvm.fd, type).services
    ofKvm.set(type, known)
    return known
  }

  /** Returns whether this is an AArch32 ID register of a guest whose ID_AA64PFR0_EL1 shows no AArch32. */
  #isUnknownToGuest(id: bigint): boolean {
    if (!isAArch32IdRegister(id)) return false
    this.#showsAArch32 ??= this.#state.vcpus[0]!.registers.every(
      ({ id: other, value }) => BigInt(other) !== ID_AA64PFR0_EL1 || hasAArch32(BigInt(value)),
    )
    return !this.#showsAArch32
  }

  #registersOf(vcpu: number): Registers {
    return this.#attempt.vcpus.find(({ id }) => id === vcpu)!.registers
  }

  /** What KVM holds of the VM and its state does not. */
  get #parts(): readonly NotCarried[] {
    return this.#state.vm.notCarried ?? []
  }

  /** Whether the VMM does not move a VM with this part at all, which is a finding of its own. */
  #isRefused(part: NotCarried): boolean {
    const { cannotSave } = this.#rules
    if (part === 'gic-el2') return cannotSave.includes('has-el2') && this.#saved.includes('has-el2')
    return cannotSave.some((property) => property === part)
  }

  get #saved(): readonly VcpuFeature[] {
    return this.#state.vcpus[0]!.features
  }

  #absent(id: bigint): Pick<Cause, 'code' | 'announcedBy'> {
    const { space, name } = decodeRegister(id)
    if (name.startsWith('PM') && !this.#saved.includes('pmu-v3')) return { code: 'pmu-register-absent' }
    if (space === 'demux') return { code: 'cache-register-absent' }
    if (space === 'timer') return { code: 'timer-register-absent' }
    const announcedBy = missingAnnouncement(id, this.#state.vcpus[0]!.registers)
    return announcedBy === undefined
      ? { code: 'register-absent' }
      : { code: 'unannounced-register-absent', announcedBy }
  }

  /** Returns who can prevent a finding, if a setting of the VM does. */
  #remedy(id: bigint, { code, field, pin }: Cause): { remedy?: Remedy } {
    if (code === 'unannounced-register-absent') {
      return this.#rules.dropsRegisters ? { remedy: { by: 'drop' } } : {}
    }
    const feature = featureBehind(id, field)
    if (feature !== undefined) {
      const [from, to] = [this.#saved, this.#context.features].map((features) =>
        optionalFeatures[feature].every((name) => features.includes(name)),
      )
      if (from !== to) return { remedy: this.#without(feature, from ? 'source' : 'destination') }
    }
    if (pin === undefined || pin.on !== 'source') return {}
    const setting =
      code === 'psci-version-refused'
        ? ({ what: 'psci', version: decodePsciVersion(BigInt(pin.value)) } as const)
        : pin.before === 'finalize'
          ? ({ what: 'vectors', longest: longestVector(BigInt(pin.value)) } as const)
          : undefined
    const option = setting && this.#rules.option(setting)
    if (option !== undefined) return { remedy: { by: 'option', on: 'source', option } }
    const { pins } = this.#rules
    // A template holds registers of up to 128 bits.
    if (pins === 'none' || (pins === 'template' && pin.before === 'finalize')) {
      return { remedy: { by: 'none', reason: 'vmm-cannot' } }
    }
    if (this.#context.sourceKvm === undefined)
      return pins === 'template' ? { remedy: { by: 'template' } } : {}
    return this.#accepts(this.#context.sourceKvm, pin)
      ? { remedy: { by: pins } }
      : { remedy: { by: 'none', reason: 'source-refuses' } }
  }

  #without(feature: OptionalFeature, on: 'source' | 'destination'): Remedy {
    const option = this.#rules.option({ what: 'without', feature })
    if (option !== undefined) return { by: 'option', on, option }
    return this.#rules.pins === 'none'
      ? { by: 'none', reason: 'vmm-cannot' }
      : { by: 'features', on, features: [...optionalFeatures[feature]] }
  }

  /** Returns whether a host accepts a write on a fresh VM with the features of the state. */
  #accepts(kvm: Kvm, { register, field, value, before }: Pin): boolean {
    const id = BigInt(register.id)
    using vm = kvm.createVm()
    const vcpu = vm.createVcpu(0, { init: false })
    if (errnoOf(() => vcpu.init({ features: this.#saved })) !== undefined) return false
    if (before === 'finalize') return accepts(vcpu.registers, id, BigInt(value))
    if (this.#saved.includes('sve')) vcpu.finalize()
    const bitmap = serviceBitmapOf(id)
    if (field === undefined) return accepts(vcpu.registers, id, BigInt(value))
    const held = read(vcpu.registers, id)
    if (bitmap !== undefined) {
      const bit = bits64.find((candidate) => bitName(bitmap, candidate) === field)
      return bit !== undefined && accepts(vcpu.registers, id, held & ~(1n << BigInt(bit)))
    }
    return accepts(vcpu.registers, id, withField(namedField(id, field), held, BigInt(value)))
  }

  /** Returns the features that no vCPU of the destination can have, each tried alone. */
  unsupported(features: readonly VcpuFeature[]): VcpuFeature[] {
    return features.filter((feature) => {
      const pair: VcpuFeature[] = feature.startsWith('ptrauth')
        ? ['ptrauth-address', 'ptrauth-generic']
        : [feature]
      using vm = this.#kvm.createVm()
      return errnoOf(() => vm.createVcpu(0, { features: pair })) !== undefined
    })
  }
}

function finding(
  { vcpu, id, name }: { vcpu: number; id: string; name: string },
  obstacle: Obstacle,
  reaction: Reaction | undefined,
  { code, field, source, destination, ...prevention }: Cause,
): RegisterFinding {
  const rule = codeRow(code).severity
  const byOutcome = reaction === 'tolerated' ? 'notice' : severityOfOutcome[obstacle]
  const value = timerCounters.has(BigInt(id)) ? withoutCount : same
  return {
    code,
    severity: rule === 'outcome' ? byOutcome : rule,
    stops: reaction === 'fails',
    vcpus: [vcpu],
    register: { id, name },
    ...(field !== undefined && { field }),
    source: value(source),
    destination: value(destination),
    ...prevention,
  }
}

function same(value: string | null): string | null {
  return value
}

/** Counters advance, so their values are left out: the finding is then the same at any time. */
function withoutCount(value: string | null): string | null {
  return value === null ? null : 'counts'
}

/** The destination lacks a bitmap of services; `answers` lists the services it still provides. */
function absentBitmap(bitmap: ServiceBitmap, source: bigint, answers: (service: string) => boolean): Cause[] {
  const causes = bitmap.services.flatMap(({ name, bit, gated }): Cause[] => {
    const field = bitName(bitmap, bit)
    const isAnswered = gated && answers(name)
    if (((source >> BigInt(bit)) & 1n) === 0n) {
      return isAnswered ? [{ code: 'service-exposed', field, source: '0x0', destination: null }] : []
    }
    const held = { field, source: '0x1', destination: null }
    return isAnswered
      ? [{ code: 'service-unregistered', ...held }]
      : [{ code: 'service-lost', ...held, pin: hiding(bitmap, bit) }]
  })
  return causes.length > 0 ? causes : [{ code: 'bitmap-absent', source: hex(source), destination: null }]
}

function refusedService(bitmap: ServiceBitmap, bit: number): Cause {
  return {
    code: 'service-refused',
    field: bitName(bitmap, bit),
    source: '0x1',
    destination: '0x0',
    accepted: ['0x0'],
    pin: hiding(bitmap, bit),
  }
}

/** The kernel's name of a bit without its prefix, `STD_BIT_TRNG_V1_0`; `bit 4` if it has no name. */
function bitName({ services }: ServiceBitmap, bit: number): string {
  const service = services.find((candidate) => candidate.bit === bit)
  return service?.kernelName.replace('KVM_REG_ARM_', '') ?? `bit ${bit}`
}

function hiding(bitmap: ServiceBitmap, bit: number): Pin {
  const { register: id, name } = bitmap
  const register = { id: hex(id), name }
  return { on: 'source', before: 'first-run', register, field: bitName(bitmap, bit), value: '0x0' }
}

function wholePin(id: bigint, value: bigint | undefined): { pin?: Pin } {
  if (value === undefined) return {}
  return { pin: { on: 'source', before: 'first-run', register: registerRef(id), value: hex(value) } }
}

/** Returns the longest vectors both have: lengths can be removed only above a maximum, not one by one. */
function lengthsPin(source: bigint, destination: bigint): { pin?: Pin } {
  const bits = bits512.findLast(
    (count) => BigInt.asUintN(count, source) === BigInt.asUintN(count, destination),
  )!
  const common = BigInt.asUintN(bits, source)
  if (common === 0n) return {}
  return { pin: { on: 'source', before: 'finalize', register: registerRef(SVE_VLS), value: hex(common) } }
}

const bits512: readonly number[] = Array.from({ length: 513 }, (_, bit) => bit)

/** `taken`: the field values the destination accepts. */
function refusedField(
  id: bigint,
  field: Field,
  source: bigint,
  destination: bigint,
  taken: readonly bigint[],
): Cause {
  const ordered = taken.toSorted((a, b) => Number(numberOf(field, a) - numberOf(field, b)))
  const wanted = numberOf(field, contentOf(field, source))
  // The nearest value below the guest's, or else the lowest.
  const value = ordered.findLast((content) => numberOf(field, content) < wanted) ?? ordered[0]
  return {
    code: 'field-refused',
    ...contents(field, source, destination),
    accepted: ordered.map(hex),
    ...(value !== undefined && fieldPin(id, field, value)),
  }
}

function differingField(id: bigint, field: Field, source: bigint, destination: bigint): Cause {
  return {
    code: 'field-differs',
    ...contents(field, source, destination),
    ...fieldPin(id, field, contentOf(field, destination)),
  }
}

function contents(
  field: Field,
  source: bigint,
  destination: bigint,
): Pick<Cause, 'field' | 'source' | 'destination'> {
  return {
    field: field.name,
    source: hex(contentOf(field, source)),
    destination: hex(contentOf(field, destination)),
  }
}

function fieldPin(id: bigint, { name }: Field, value: bigint): { pin: Pin } {
  return {
    pin: { on: 'source', before: 'first-run', register: registerRef(id), field: name, value: hex(value) },
  }
}

function registerRef(id: bigint): { id: string; name: string } {
  return { id: hex(id), name: registerName(id) }
}

/** Returns the bits of a field within a register's value. */
function contentOf({ lsb, width }: Field, value: bigint): bigint {
  return BigInt.asUintN(width, value >> BigInt(lsb))
}

/** Field values as numbers that can be compared. */
function numberOf({ width, signed }: Field, content: bigint): bigint {
  return signed ? BigInt.asIntN(width, content) : content
}

/** Returns the field values the destination accepts while all other fields keep its own value. Restores the register. */
function acceptedContents(registers: Registers, id: bigint, field: Field, value: bigint): bigint[] {
  // A wider field holds a number, not one of a few feature levels.
  if (field.width > 4) return []
  const candidates = Array.from({ length: 1 << field.width }, (_, bits) => BigInt(bits))
  const values = [...candidates.map((bits) => withField(field, value, bits)), value]
  const taken = writeAll(registers, id, values)
  return candidates.filter((_, index) => taken[index])
}

function accepts(registers: Registers, id: bigint, value: bigint): boolean {
  return registerWidth(id) > 64
    ? errnoOf(() => registers.set(id, value)) === undefined
    : writeAll(registers, id, [value])[0]!
}

/**
 * Writes values of at most 64 bits one after the other, and returns which the destination accepts. A batch returns refusals, which are
 * many here; an error for each would take most of the time.
 */
function writeAll(registers: Registers, id: bigint, values: readonly bigint[]): boolean[] {
  const outcomes = registers.write(
    BigUint64Array.from(values, () => id),
    BigUint64Array.from(values),
  )
  return Array.from(outcomes, (errno) => {
    refuseAccident(errno, { syscall: 'KVM_SET_ONE_REG', register: id })
    return errno === 0
  })
}

function read(registers: Registers, id: bigint): bigint {
  try {
    return registers.get(id)
  } catch (error) {
    if (isRefusal(error)) return 0n
    throw error
  }
}
