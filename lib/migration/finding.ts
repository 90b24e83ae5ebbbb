/**
 * The obstacles to a VM's move, and the changes it causes, as data. `words.ts` turns them into sentences; no code that decides or
 * compares reads those sentences.
 */
import * as v from 'valibot'
import { hex, hex64, int32, text, uint32 } from '../documents/entries.js'
import type { FilterAction } from '../kvm/index.js'
import { notCarried } from './device-state.js'
import { feature } from '../report/report.js'
import type { Gic } from './vmm/rules.js'
import { capabilities, type Capability, type MpState, mpStates, smcccFilterActions } from '../uapi.js'

/** Gravest first. */
export const severities = [
  /** The destination refuses the value, or refuses the VM. */
  'refused',
  /** The destination lacks the register. */
  'missing-at-destination',
  /** A hypercall service the guest may have discovered is gone. */
  'service-lost',
  /** The restore succeeds, and the guest cannot go on as it was: no error reports it. */
  'guest-broken',
  /** The destination accepts the value and then shows the guest a different one. */
  'reads-differently',
  /** The guest sees the destination's own value, and no error reports it. */
  'silent-default',
  /** Different, but without consequence for the guest. */
  'notice',
] as const

export type Severity = (typeof severities)[number]

/** One code: the kind of a finding. */
interface CodeRow {
  /** Stable: programs match it. */
  readonly code: string
  /**
   * `outcome`: `refused`, `missing-at-destination`, `reads-differently` or `silent-default`, depending on the destination's answer,
   * and `notice` if the VMM tolerates that.
   */
  readonly severity: Severity | 'outcome'
  /** The words are the same for every register, so a text lists the registers together. */
  readonly isListed?: true
}

/** Codes of findings about the VM or a vCPU as a whole: the destination refuses a step, or the VMM cannot move such a VM. */
const stepCodes = [
  { code: 'address-space-refused', severity: 'refused' },
  { code: 'capability-refused', severity: 'refused' },
  { code: 'smccc-filter-refused', severity: 'refused' },
  { code: 'vcpu-refused', severity: 'refused' },
  { code: 'features-refused', severity: 'refused' },
  { code: 'finalize-refused', severity: 'refused' },
  { code: 'mp-state-refused', severity: 'refused' },
  { code: 'events-refused', severity: 'refused' },
  { code: 'device-refused', severity: 'refused' },
  { code: 'device-state-differs', severity: 'reads-differently' },
  { code: 'device-not-carried', severity: 'guest-broken' },
  { code: 'save-refused', severity: 'refused' },
  { code: 'interrupt-controller-missing', severity: 'refused' },
  { code: 'interrupt-controller-differs', severity: 'refused' },
  { code: 'vector-state-lost', severity: 'guest-broken' },
  { code: 'counter-refused', severity: 'refused' },
  { code: 'counter-frequency-changes', severity: 'guest-broken' },
  { code: 'page-size-larger', severity: 'notice' },
  { code: 'address-space-smaller', severity: 'notice' },
  { code: 'several-cpu-kinds', severity: 'notice' },
] as const satisfies readonly CodeRow[]

/** Codes of findings about one register. */
const registerCodes = [
  { code: 'psci-version-refused', severity: 'outcome' },
  { code: 'vector-lengths-refused', severity: 'outcome' },
  { code: 'vector-lengths-change', severity: 'guest-broken' },
  { code: 'guest-read-differs', severity: 'guest-broken' },
  { code: 'cpu-identity', severity: 'outcome', isListed: true },
  { code: 'field-refused', severity: 'outcome' },
  { code: 'value-refused', severity: 'outcome', isListed: true },
  { code: 'mitigation-weaker', severity: 'outcome' },
  { code: 'caches-differ', severity: 'outcome', isListed: true },
  { code: 'write-back-refused', severity: 'refused', isListed: true },
  { code: 'register-absent', severity: 'outcome', isListed: true },
  { code: 'unannounced-register-absent', severity: 'outcome', isListed: true },
  { code: 'pmu-register-absent', severity: 'outcome', isListed: true },
  { code: 'cache-register-absent', severity: 'outcome', isListed: true },
  { code: 'timer-register-absent', severity: 'outcome', isListed: true },
  { code: 'bitmap-absent', severity: 'outcome' },
  { code: 'service-unregistered', severity: 'missing-at-destination' },
  { code: 'service-lost', severity: 'service-lost' },
  { code: 'service-refused', severity: 'service-lost' },
  { code: 'field-differs', severity: 'outcome' },
  { code: 'value-differs', severity: 'outcome', isListed: true },
  { code: 'service-exposed', severity: 'silent-default' },
  { code: 'services-appear', severity: 'outcome' },
  { code: 'register-not-restored', severity: 'outcome', isListed: true },
  { code: 'bitmap-not-restored', severity: 'notice' },
  { code: 'mitigation-stronger', severity: 'outcome', isListed: true },
  { code: 'aarch32-id-differs', severity: 'notice', isListed: true },
  { code: 'aarch32-id-refused', severity: 'outcome', isListed: true },
  { code: 'aarch32-id-lost', severity: 'outcome', isListed: true },
] as const satisfies readonly CodeRow[]

export type StepFindingCode = (typeof stepCodes)[number]['code']
export type RegisterFindingCode = (typeof registerCodes)[number]['code']
/** Stable names of all kinds of findings. `docs/findings.md` explains each. */
export type FindingCode = StepFindingCode | RegisterFindingCode

/** Every code with its severity. */
export const findingCodes: readonly (CodeRow & { readonly code: FindingCode })[] = [
  ...stepCodes,
  ...registerCodes,
]

const rowsByCode = new Map<FindingCode, CodeRow>(findingCodes.map((row) => [row.code, row]))

/** Returns the row of a code. */
export function codeRow(code: FindingCode): CodeRow {
  return rowsByCode.get(code)!
}

/** The VM, or its host, that something is about. */
const side = v.picklist(['source', 'destination'])

/** The names of interrupt controllers. */
export const gic: v.GenericSchema<unknown, Gic> = v.picklist(['gic-v2', 'gic-v3'])

const about = {
  severity: v.picklist(severities),
  /** Whether the move fails because of it. */
  stops: v.boolean(),
  /** KVM's ids of the vCPUs concerned; empty if the finding is about the VM. */
  vcpus: v.array(v.pipe(int32, v.minValue(0))),
}

/** A step that the destination refuses: the errno of the ioctl. The arguments are entries of each code. */
const step = { ...about, errno: text }

/** CNTFRQ_EL0, ticks per second. */
const hertz = hex64

const stepFindings = [
  v.strictObject({
    code: v.literal('address-space-refused'),
    ...step,
    /** Bits of guest physical address. */
    ipaSize: uint32,
  }),
  v.strictObject({
    code: v.literal('capability-refused'),
    ...step,
    capability: v.picklist(Object.keys(capabilities) as Capability[]),
  }),
  v.strictObject({
    code: v.literal('smccc-filter-refused'),
    ...step,
    /** The range of `count` functions from `base`. */
    base: uint32,
    count: uint32,
    action: v.picklist(Object.keys(smcccFilterActions) as FilterAction[]),
  }),
  v.strictObject({ code: v.literal('vcpu-refused'), ...step }),
  v.strictObject({
    code: v.literal('features-refused'),
    ...step,
    features: v.array(feature),
    /** The features that no vCPU of the destination has; empty if the destination refuses only the combination. */
    missing: v.array(feature),
  }),
  v.strictObject({ code: v.literal('finalize-refused'), ...step }),
  v.strictObject({
    code: v.literal('mp-state-refused'),
    ...step,
    mpState: v.picklist(Object.keys(mpStates) as MpState[]),
  }),
  v.strictObject({
    code: v.literal('events-refused'),
    ...step,
    /** The 64 bytes of `struct kvm_vcpu_events`, two digits each. */
    events: text,
  }),
  v.strictObject({
    code: v.literal('device-refused'),
    ...step,
    /** A device, a setting, or a register with its value: `GICD_IIDR = 0x4b00343b`. */
    what: text,
  }),
  v.strictObject({
    code: v.literal('device-state-differs'),
    ...about,
    what: text,
    source: text,
    destination: text,
  }),
  v.strictObject({
    code: v.literal('device-not-carried'),
    ...about,
    /** What the VM has and its state does not hold. */
    device: v.picklist(notCarried),
  }),
  v.strictObject({
    code: v.literal('save-refused'),
    ...about,
    /** What the VMM cannot save. */
    property: v.picklist(['sve', 'gic-v2', 'has-el2', 'its', 'mte-tags']),
  }),
  v.strictObject({
    code: v.literal('interrupt-controller-missing'),
    ...about,
    on: side,
    /** Those the VMM can use; KVM emulates none of them there. */
    controllers: v.array(gic),
  }),
  v.strictObject({
    code: v.literal('interrupt-controller-differs'),
    ...about,
    source: gic,
    destination: gic,
  }),
  v.strictObject({ code: v.literal('vector-state-lost'), ...about }),
  v.strictObject({ code: v.literal('counter-refused'), ...about, source: hertz, destination: hertz }),
  v.strictObject({
    code: v.literal('counter-frequency-changes'),
    ...about,
    source: hertz,
    destination: hertz,
  }),
  v.strictObject({
    code: v.literal('page-size-larger'),
    ...about,
    /** Bytes of a page of the kernel. */
    source: uint32,
    destination: uint32,
  }),
  v.strictObject({
    code: v.literal('address-space-smaller'),
    ...about,
    /** The most bits of guest physical address space that a VM may have. */
    source: uint32,
    destination: uint32,
  }),
  v.strictObject({
    code: v.literal('several-cpu-kinds'),
    ...about,
    on: side,
    /** Each kind with the numbers of its CPUs: `Arm Cortex-A55 r2p0 (CPU 0-3)`. */
    kinds: v.array(text),
  }),
] as const

const registerRef = v.strictObject({ id: hex64, name: text })

/** The value of a register or a field; `counts` if it counts time; null if there is no such register. */
const content = v.nullable(v.union([hex, v.literal('counts')]))

const pin = v.strictObject({
  /** The VM on which to make the write. */
  on: side,
  before: v.picklist(['first-run', 'finalize']),
  register: registerRef,
  /** Absent if the whole register is written. */
  field: v.exactOptional(text),
  value: hex,
})

/** Who can prevent a finding, and how. */
const remedy = v.variant('by', [
  /** The VM on that side is started with an option of the VMM. */
  v.strictObject({ by: v.literal('option'), on: side, option: text }),
  /** The VM on that side is created without these features. */
  v.strictObject({ by: v.literal('features'), on: side, features: v.array(feature) }),
  /** The register is removed from the saved state: the guest does not know of it. */
  v.strictObject({ by: v.literal('drop') }),
  /** The write of `pin`, which the source’s KVM accepts. */
  v.strictObject({ by: v.literal('write') }),
  /** As `write`, by an entry of the VM’s CPU template. */
  v.strictObject({ by: v.literal('template') }),
  /** Nothing prevents it: the source’s KVM refuses the write of `pin`, or the VMM has no option for it. */
  v.strictObject({ by: v.literal('none'), reason: v.picklist(['source-refuses', 'vmm-cannot']) }),
])

const registerFinding = v.strictObject({
  code: v.picklist(registerCodes.map(({ code }) => code)),
  ...about,
  register: registerRef,
  /** The field, the service's bit, or `bits 7:4`; absent if the finding is about the whole register. */
  field: v.exactOptional(text),
  /** The VM's value of the register, or of the field if there is one; null if the state lacks the register. */
  source: content,
  /** The destination's value, likewise. */
  destination: content,
  /** The field of an ID register that would announce the register to the guest, and is 0. */
  announcedBy: v.exactOptional(text),
  /** The values the destination accepts there, lowest first, if each was tried. */
  accepted: v.exactOptional(v.array(hex)),
  /** The write that would have prevented the finding. */
  pin: v.exactOptional(pin),
  /** Absent if no setting prevents the finding, or if it is not known whether the source accepts the write of `pin`. */
  remedy: v.exactOptional(remedy),
  /** The capability that would have prevented the finding, enabled on the destination's VM before the first vCPU. */
  capability: v.exactOptional(v.picklist(Object.keys(capabilities) as Capability[])),
})

/** The entries of a finding. */
export const findingSchema: v.GenericSchema<unknown, Finding> = v.variant('code', [
  ...stepFindings,
  registerFinding,
])

/** A finding about one register. */
export type RegisterFinding = v.InferOutput<typeof registerFinding>
/** A finding about the VM or whole vCPUs. */
export type StepFinding = v.InferOutput<(typeof stepFindings)[number]> & { register?: never; field?: never }
/** One thing that stops a VM, or that changes when it moves. */
export type Finding = StepFinding | RegisterFinding
/** Who can prevent a finding, and how. */
export type Remedy = v.InferOutput<typeof remedy>
/** A write that prevents a finding. */
export type Pin = v.InferOutput<typeof pin>
