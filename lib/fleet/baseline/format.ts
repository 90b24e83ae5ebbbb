/**
 * The baseline: the greatest configuration that every host of a set can show its guests, as data. `baseline` computes it from
 * reports, `apply` writes it to a VM.
 */
import * as v from 'valibot'
import { checkDocument, type DocumentFormat, readDocument } from '../../documents/document.js'
import { hex, hex64, registerId, text } from '../../documents/entries.js'
import { checkRegisterRows, checkWidth } from '../../documents/registers.js'
import { encodeRegister, hex as toHex } from '../../registers/index.js'
import { interruptControllers } from '../../report/machine.js'
import { reportedFacts } from '../../report/unrecorded.js'
import { feature } from '../../report/report.js'
import { capabilities, type Capability } from '../../uapi.js'

const names = v.array(text)

/** A register and the value it must hold. */
const pinned = v.strictObject({
  id: registerId,
  /** For readers; programs use the id. */
  name: text,
  value: hex64,
  /** Bits the baseline fixes; the others keep the value of a fresh VM. */
  mask: hex64,
})

const bitmap = v.strictObject({
  id: registerId,
  name: text,
  /**
   * What to write: services that KVM implements and every host can offer, and no bit that only advertises calls which userspace
   * would have to answer.
   */
  value: hex64,
  /** Bits that every host which has the register accepts. */
  mask: hex64,
  /** Hosts without the register, on which nothing can be hidden. */
  absentOn: names,
})

const unreconciled = v.strictObject({
  kind: v.picklist([
    /** Some hosts list the register and others do not. */
    'absent',
    /** No value is accepted by every host. */
    'value',
    /** Hosts without the bitmap register always provide the service, or never do, and other hosts differ from that. */
    'service',
    /** No PSCI version is accepted by all. */
    'psci',
    /** No set of vector lengths is accepted by all. */
    'vector-lengths',
    /** Guests read different values from the CPU itself, and KVM cannot change what they read. */
    'guest-read',
    /** KVM can make no interrupt controller for a VM on all hosts. */
    'interrupt-controller',
  ]),
  id: registerId,
  name: text,
  /** The fields that differ, or the service. */
  fields: v.array(text),
  /** The hosts by what they have: their fresh VM's value, `absent`, or `always` and `never` for a service. */
  found: v.array(v.strictObject({ value: text, hosts: names })),
})

/** The entries of a baseline; see the file's head. */
export const baselineSchema = v.strictObject({
  format: v.literal('kvm-arm64/baseline'),
  version: v.literal(1),
  /** The names of the reports. */
  hosts: v.pipe(names, v.minLength(1)),
  /** Features with which to initialise every vCPU. */
  features: v.array(feature),
  /** Features that some hosts have and the baseline does not elect. */
  withoutFeatures: v.array(
    v.strictObject({
      feature,
      reason: v.picklist([
        /** `hosts` lack it. */
        'lacking',
        /** No host is known to lack it, and it is not known whether `hosts` have it. */
        'unknown',
        /** All hosts have it; with it more would stay unreconciled. */
        'unreconciled',
      ]),
      /** Empty if the reason is `unreconciled`. */
      hosts: names,
    }),
  ),
  /** Capabilities to enable on the VM before its first vCPU. */
  capabilities: v.array(v.picklist(Object.keys(capabilities) as Capability[])),
  /** Bits of guest physical address space to create the VM with. */
  ipaSize: v.pipe(v.number(), v.integer(), v.minValue(32), v.maxValue(64)),
  /** For `KVM_REG_ARM_PSCI_VERSION`: the newest version that all accept; null if there is none. */
  psciVersion: v.nullable(hex64),
  /** For `KVM_REG_ARM64_SVE_VLS`, before `KVM_ARM_VCPU_FINALIZE`; null for vCPUs without SVE. */
  vectorLengths: v.nullable(hex),
  /** Bitmap firmware registers, of all hosts that have one. */
  bitmaps: v.array(bitmap),
  /** Registers that tell the guest what it runs on, in the order to write them. */
  idRegisters: v.array(pinned),
  /** Other registers that differ between fresh VMs and do not accept every value. */
  registers: v.array(pinned),
  /** Remaining differences between the hosts. If this is empty, a VM with this configuration can move between any two of them. */
  unreconciled: v.array(unreconciled),
  /** The interrupt controllers KVM can make for a VM on every host whose report says which. */
  interruptControllers: v.optional(v.array(v.picklist(interruptControllers))),
  /** Facts that some reports do not record, so that the baseline does not depend on them, each with these hosts; absent if none. */
  unknown: v.optional(v.array(v.strictObject({ fact: v.picklist(reportedFacts), hosts: names }))),
  /** The hosts in groups that can each be reconciled, the largest first. */
  classes: v.array(names),
})

export type Baseline = v.InferOutput<typeof baselineSchema>
export type Unreconciled = v.InferOutput<typeof unreconciled>
export type PinnedRegister = v.InferOutput<typeof pinned>
export type BaselineBitmap = v.InferOutput<typeof bitmap>

const SVE_VLS = toHex(encodeRegister('KVM_REG_ARM64_SVE_VLS'))

/** The format `kvm-arm64/baseline`. */
export const baselineFormat: DocumentFormat<Baseline> = {
  noun: 'baseline',
  schema: baselineSchema,
  checkMore(document, source) {
    for (const list of ['bitmaps', 'idRegisters', 'registers'] as const) {
      checkRegisterRows(document[list], `$.${list}`, source)
    }
    checkWidth(SVE_VLS, document.vectorLengths, '$.vectorLengths', source)
  },
}

/**
 * Reads a baseline from a file.
 * @throws FormatError for a file that is missing, empty, truncated, of another format or version, or hostile
 */
export function readBaseline(file: string): Baseline {
  return readDocument(file, baselineFormat)
}

/**
 * Checks that data is a baseline.
 * @throws FormatError as `readBaseline`
 */
export function checkBaseline(data: unknown, source: string): Baseline {
  return checkDocument(data, source, baselineFormat)
}
