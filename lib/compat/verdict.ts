import {
  decodePsciVersion,
  psciFunctions,
  psciVersions,
  encodePsciVersion,
  serviceBitmapOf,
  workarounds,
} from '../hypercalls/index.js'
import { errnoOf } from '../kvm/errors.js'
import { type Kvm, KvmError, type Registers } from '../kvm/index.js'
import {
  decodeRegister,
  encodeRegister,
  type Field,
  fieldMask,
  fieldValue,
  hasAArch32,
  hex,
  implementationIds,
  isAArch32IdRegister,
  registerFields,
  registerName,
  withField,
} from '../registers/index.js'
import type { VcpuFeature } from '../uapi.js'
import { probeHypercalls } from './guest-calls.js'
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

/** Gravest first. */
export const severities = [
  /** The destination does not take the value, or the VM. */
  'refused',
  /** The destination has no such register. */
  'missing-at-destination',
  /** A hypercall service the guest may have discovered is gone. */
  'service-lost',
  /** The destination takes the value, and then shows the guest another. */
  'reads-differently',
  /** The guest sees the destination's own value, and no error says so. */
  'silent-default',
  /** Different, and of no consequence to the guest. */
  'notice',
] as const

export type Severity = (typeof severities)[number]

/** One thing in the way of a VM, or changed by the way. */
export interface Finding {
  severity: Severity
  /** Whether the move fails by it. */
  stops: boolean
  /** KVM's ids of the vCPUs it is about; none where it is about the VM. */
  vcpus: number[]
  /** Absent where it is not about a register. */
  register?: { id: string; name: string }
  /** The field, or the bits, of the register; absent where it is about the whole of it. */
  field?: string
  /** What the VM has. */
  source: string
  /** What the destination has, or would take. */
  destination: string
  /** What it means to the guest. */
  meaning: string
  /** What would have prevented it. */
  remedy: string
}

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

/** What is the same on several vCPUs is told once. */
function mergeVcpus(findings: readonly Finding[]): Finding[] {
  const merged = new Map<string, Finding>()
  for (const finding of findings) {
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

/** What a finding says of one register, before it is known whether it stops the move. */
type Told = Pick<Finding, 'source' | 'destination' | 'meaning' | 'remedy'> & {
  severity?: Severity
  field?: string
}

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

  #explain(id: bigint, found: RegisterOutcome): Told[] {
    const source = BigInt(found.value)
    const { space } = decodeRegister(id)
    if (found.outcome === 'absent') return [this.#absent(id, source)].flat()
    const registers = this.#registersOf(found.vcpu)
    const destination = found.outcome === 'differs' ? BigInt(found.reads) : read(registers, id)
    if (space === 'bitmap') return bitmapRefused(id, source, registers)
    if (id === PSCI_VERSION) return [psciRefused(source, registers)]
    if (id === SVE_VLS) return [lengthsRefused(source, destination)]
    const workaround = workarounds.find(({ register }) => register === id)
    if (workaround !== undefined) {
      const level = (value: bigint) =>
        `${hex(value)} ${workaround.levels.find((entry) => entry.value === value)?.name ?? ''}`.trim()
      return [
        {
          source: level(source),
          destination: level(destination),
          meaning:
            found.outcome === 'refused'
              ? 'the guest may rely on a mitigation that the destination does not give it'
              : 'the guest was told of less protection than the destination gives it, and need not know',
          remedy:
            found.outcome === 'refused'
              ? 'a destination with the mitigation; it cannot be elected'
              : 'none is needed',
        },
      ]
    }
    if (implementationIds.includes(id)) return [identityRefused(source, destination, this.#kvm)]
    if (found.outcome === 'differs' && this.#isUnknownToGuest(id)) {
      return [
        {
          severity: 'notice',
          source: found.value,
          destination: hex(destination),
          meaning: 'the guest has no AArch32 at EL0, and what AArch32 ID registers then read is UNKNOWN',
          remedy: 'none is needed',
        },
      ]
    }
    if (space === 'demux' || id === CLIDR_EL1) {
      return [
        {
          source: found.value,
          destination: hex(destination),
          meaning:
            'the guest was told of other caches than the destination will describe, and may clean them by that',
          remedy: 'a destination whose kernel lets caches be described, or one of the same CPU',
        },
      ]
    }
    const differing = differingFields(id, source, destination)
    if (found.outcome === 'differs') {
      return differing.map((field) => differs(id, field, source, destination))
    }
    const blocking = differing.flatMap((field) => {
      const taken = acceptedValues(registers, id, field, destination)
      return taken.includes(fieldBits(field, source))
        ? []
        : [fieldRefused(id, field, source, destination, taken)]
    })
    if (blocking.length > 0) return blocking
    return [
      {
        source: found.value,
        destination: hex(destination),
        meaning: 'the destination does not take this value',
        remedy: 'a destination of the same CPU and kernel',
      },
    ]
  }

  #absent(id: bigint, source: bigint): Told | Told[] {
    const bitmap = serviceBitmapOf(id)
    if (bitmap === undefined) return absentText(id, source)
    const short = bitmap.name.replace('KVM_REG_ARM_', '')
    const shown = bitmap.services.filter(({ bit }) => (source >> BigInt(bit)) & 1n)
    const told: Told[] = shown.map(({ name, bit, gated, kernelName }) => {
      const isAnswered = gated && this.#answers().includes(name)
      return {
        severity: isAnswered ? ('missing-at-destination' as const) : ('service-lost' as const),
        field: kernelName.replace('KVM_REG_ARM_', ''),
        source: '1',
        destination: 'no such register',
        meaning: isAnswered
          ? `the guest may have discovered ${name}; the destination answers it, and has no register to say so`
          : `the guest may have discovered ${name}; the destination does not offer it`,
        remedy: isAnswered
          ? `a VMM that leaves out ${short} where the destination has none`
          : `elect without ${short} bit ${bit} before the first run, and a VMM that leaves out ${short} where the destination has none`,
      }
    })
    const hidden = bitmap.services.filter(
      ({ name, bit, gated }) => gated && !((source >> BigInt(bit)) & 1n) && this.#answers().includes(name),
    )
    for (const { name, kernelName } of hidden) {
      told.push({
        severity: 'silent-default',
        field: kernelName.replace('KVM_REG_ARM_', ''),
        source: '0',
        destination: 'no such register',
        meaning: `${name} was hidden from the guest; the destination answers it, and has no register to hide it`,
        remedy: 'a destination whose kernel has the register',
      })
    }
    if (told.length > 0) return told
    return {
      source: hex(source),
      destination: 'no such register',
      meaning: 'no service was shown to the guest, and the destination has none to show',
      remedy: `a VMM that leaves out ${short} while it is 0`,
    }
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

const stepMeanings: Readonly<Record<StepRefusal['step'], (missing: readonly string[]) => string>> = {
  'create-vm': () => 'the guest’s memory may lie where the destination cannot address it',
  'enable-capability': () => 'the VM was made with a capability the destination does not have',
  'smccc-filter': () => 'calls of the guest that userspace takes over would reach KVM',
  'create-vcpu': () => 'the destination does not have as many vCPUs',
  init: (missing) =>
    missing.length === 0
      ? 'the destination does not have these vCPU features together'
      : `the guest may use ${missing.join(', ')}; the destination has no vCPU with it`,
  finalize: () => 'the vector lengths cannot be settled',
  'mp-state': () => 'the destination does not know the state the vCPU sleeps in',
  events: () => 'an error that is pending for the guest would be lost',
}

const stepRemedies: Readonly<Record<StepRefusal['step'], (missing: readonly string[]) => string>> = {
  'create-vm': () => 'make the VM with an address space every host has (KVM_CAP_ARM_VM_IPA_SIZE)',
  'enable-capability': () => 'make the VM without the capability',
  'smccc-filter': () => 'make the VM without a filter, or a destination with KVM_ARM_VM_SMCCC_FILTER',
  'create-vcpu': () => 'make the VM with fewer vCPUs',
  init: (missing) =>
    missing.length === 0 ? 'make the VM with one of them' : `make the VM without ${missing.join(', ')}`,
  finalize: () => 'make the VM without sve',
  'mp-state': () => 'wake the guest before it is moved',
  events: () => 'move the guest when nothing is pending',
}

/** Whether a register the state lacks shows the guest nothing anyway. */
function hidesAll(id: bigint, value: string): boolean {
  return serviceBitmapOf(id) !== undefined && value === '0x0'
}

function unsetText(
  id: bigint,
  held: string | undefined,
  value: bigint,
  vmm: string,
): Pick<Finding, 'meaning' | 'remedy'> {
  const bitmap = serviceBitmapOf(id)
  const why = held === undefined ? 'the state lacks it' : `${vmm} does not carry it`
  if (bitmap !== undefined) {
    const offered = bitmap.services.filter(({ bit }) => (value >> BigInt(bit)) & 1n).map(({ name }) => name)
    return offered.length === 0
      ? { meaning: `${why}; at the destination’s 0 nothing changes for the guest`, remedy: 'none is needed' }
      : {
          meaning: `${why}; the guest may from now on discover ${offered.join(', ')}, and loses it again on the way back`,
          remedy: `write ${bitmap.name} = 0x0 on the destination before the first run`,
        }
  }
  return {
    meaning: `${why}; the guest sees what the destination begins with`,
    remedy:
      held === undefined
        ? 'a source whose kernel lists the register, or write it on the destination before the first run'
        : 'a VMM that carries it',
  }
}

function absentText(id: bigint, source: bigint): Told {
  const name = registerName(id)
  const told = { source: hex(source), destination: 'no such register' }
  if (name.startsWith('PM')) {
    return {
      ...told,
      meaning: 'the source lists the PMU’s registers; the destination lists them only of a VM with a PMU',
      remedy: 'a VMM that leaves the PMU’s registers out of the state of a VM without a PMU',
    }
  }
  if (decodeRegister(id).space === 'demux') {
    return {
      ...told,
      meaning:
        'the destination does not describe this cache, of which the guest learns only if CLIDR_EL1 has it',
      remedy: 'a VMM that leaves the register out where CLIDR_EL1 does not have the cache',
    }
  }
  if (decodeRegister(id).space === 'timer') {
    return {
      ...told,
      meaning: 'the destination has the timer and no register for it: for the guest it begins anew',
      remedy: 'a VMM that leaves the register out, for a guest that uses its virtual timer',
    }
  }
  return {
    ...told,
    meaning: 'the guest may use the register; the destination has none',
    remedy:
      'a VMM that leaves the register out where the destination has none, if the guest was not told of its feature',
  }
}

function bitmapRefused(id: bigint, source: bigint, registers: Registers): Told[] {
  const bitmap = serviceBitmapOf(id)!
  const lost: Told[] = []
  for (let bit = 0; bit < 64; bit++) {
    if (!((source >> BigInt(bit)) & 1n) || accepts(registers, id, 1n << BigInt(bit))) continue
    const service = bitmap.services[bit]
    const name = service?.name ?? `service ${bit}`
    lost.push({
      severity: 'service-lost',
      field: service?.kernelName.replace('KVM_REG_ARM_', '') ?? `bit ${bit}`,
      source: '1',
      destination: 'only 0',
      meaning: `the guest may have discovered ${name}; the destination does not offer it`,
      remedy: `elect without ${bitmap.name.replace('KVM_REG_ARM_', '')} bit ${bit} before the first run`,
    })
  }
  return lost
}

function psciRefused(source: bigint, registers: Registers): Told {
  const accepted = psciVersions.filter((version) =>
    accepts(registers, PSCI_VERSION, encodePsciVersion(version)),
  )
  const newest = accepted.findLast((version) => encodePsciVersion(version) <= source)
  const told = psciText(source)
  const lost = psciFunctions.filter(
    ({ since, kvm }) =>
      kvm &&
      newest !== undefined &&
      encodePsciVersion(since) > encodePsciVersion(newest) &&
      encodePsciVersion(since) <= source,
  )
  const uses = lost.length === 0 ? '' : ` and may use ${lost.map(({ name }) => name).join(', ')}`
  return {
    source: `${hex(source)} (PSCI ${told})`,
    destination: `accepts ${accepted.map((version) => `${hex(encodePsciVersion(version))} (${version})`).join(', ')}`,
    meaning: `the guest was told PSCI ${told}${uses}; the destination speaks ${accepted.at(-1)} at most`,
    remedy:
      newest === undefined
        ? 'make the VM with other vCPU features'
        : `write KVM_REG_ARM_PSCI_VERSION = ${hex(encodePsciVersion(newest))} (${newest}) before the first run`,
  }
}

function psciText(value: bigint): string {
  return value <= 0xffff_ffffn ? decodePsciVersion(value) : hex(value)
}

/** Bits. */
function longestVector(lengths: bigint): number {
  return lengths.toString(2).length * 128
}

function lengthsRefused(source: bigint, destination: bigint): Told {
  let common = source & destination
  // Lengths can be cut above a maximum, not taken out one by one.
  for (let bit = 511n; bit >= 0n; bit--) {
    const below = (1n << (bit + 1n)) - 1n
    if ((source & below) === (destination & below)) {
      common = source & below
      break
    }
  }
  return {
    source: `${hex(source)} (up to ${longestVector(source)} bits)`,
    destination: `${hex(destination)} (up to ${longestVector(destination)} bits)`,
    meaning: 'the guest may use vectors of a length the destination does not have',
    remedy:
      common === 0n
        ? 'make the VM without sve'
        : `write KVM_REG_ARM64_SVE_VLS = ${hex(common)} before KVM_ARM_VCPU_FINALIZE`,
  }
}

function identityRefused(source: bigint, destination: bigint, kvm: Kvm): Told {
  const isWritable = kvm.checkExtension('KVM_CAP_ARM_WRITABLE_IMP_ID_REGS') > 0
  return {
    source: hex(source),
    destination: hex(destination),
    meaning:
      'the guest chose its workarounds for errata, and some software its code, by the CPU it was told of',
    remedy: isWritable
      ? 'enable KVM_CAP_ARM_WRITABLE_IMP_ID_REGS before the first vCPU'
      : 'a destination of the same CPU, or one with KVM_CAP_ARM_WRITABLE_IMP_ID_REGS',
  }
}

function fieldRefused(
  id: bigint,
  field: Field,
  source: bigint,
  destination: bigint,
  taken: readonly bigint[],
): Told {
  const asField = (bits: bigint) => fieldValue(field, bits << BigInt(field.lsb))
  const name = registerName(id)
  const offers = taken.map(asField).toSorted((a, b) => Number(a - b))
  const value = fieldValue(field, source)
  // Nearest below what the guest has, or whatever there is.
  const pin = offers.findLast((offer) => offer < value) ?? offers[0]
  return {
    field: field.name,
    source: meaningOf(field, source),
    destination: `${meaningOf(field, destination)}${offers.length > 1 ? `, accepts ${offers.join(', ')}` : ''}`,
    meaning: `the guest may rely on ${field.name} = ${meaningOf(field, source)}; the destination cannot show it that`,
    remedy:
      pin === undefined
        ? 'a destination of the same CPU and kernel'
        : `write ${name}.${field.name} = ${pin} before the first run, if the source lets it`,
  }
}

function differs(id: bigint, field: Field, source: bigint, destination: bigint): Told {
  return {
    field: field.name,
    source: meaningOf(field, source),
    destination: meaningOf(field, destination),
    meaning: 'the destination takes the value and shows the guest its own',
    remedy: `write ${registerName(id)}.${field.name} = ${fieldValue(field, destination)} before the first run, if the source lets it`,
  }
}

/** Fields in which two values differ; bits no field is known for come as nibbles. */
export function differingFields(id: bigint, a: bigint, b: bigint): Field[] {
  const fields = registerFields(id)
  const known = fields.reduce((mask, field) => mask | fieldMask(field), 0n)
  const nibbles = Array.from({ length: 16 }, (_, index): Field => {
    const lsb = 4 * index
    return { name: `bits ${lsb + 3}:${lsb}`, lsb, width: 4, signed: false, meanings: new Map() }
  }).filter((field) => (fieldMask(field) & known) === 0n)
  return [...fields, ...nibbles]
    .filter((field) => ((a ^ b) & fieldMask(field)) !== 0n)
    .toSorted((left, right) => right.lsb - left.lsb)
}

function fieldBits({ lsb, width }: Field, value: bigint): bigint {
  return BigInt.asUintN(width, value >> BigInt(lsb))
}

/** A field's value with what it means, `1 (AArch64)`. */
export function meaningOf(field: Field, value: bigint): string {
  const content = fieldValue(field, value)
  const meaning = field.meanings.get(content)
  return meaning === undefined ? `${content}` : `${content} (${meaning})`
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
