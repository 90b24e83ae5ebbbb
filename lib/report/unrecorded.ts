/** What a report does not say of its host: never the same as what the host lacks. */
import { hasMte, interruptControllersOf, ipaLimitOf, pageSizeOf } from './machine.js'
import { untriedFields } from './registers.js'
import type { Report } from './report.js'

export const reportedFacts = [
  'vcpu-features',
  'interrupt-controllers',
  /** What a guest reads from the CPU itself, the counter's frequency among it. */
  'guest-reads',
  'page-size',
  /** The most bits of guest physical address space. */
  'address-space',
  'memory-tagging',
  /** Which VM types KVM accepts, and with that whether it runs apart from its kernel (pKVM). */
  'vm-types',
  /** Capabilities that have no name here. */
  'other-capabilities',
  /** Whether the machine has CPUs of several kinds. */
  'cpu-kinds',
  /** Which values some fields of ID registers accept. */
  'id-fields',
] as const

export type ReportedFact = (typeof reportedFacts)[number]

/** Returns the facts that a report does not record, or only in part. */
export function unrecordedFacts(report: Report): ReportedFact[] {
  const isUnknown: Readonly<Record<ReportedFact, boolean>> = {
    'vcpu-features': (report.traits.init.unknown ?? []).length > 0,
    'interrupt-controllers': interruptControllersOf(report) === undefined,
    'guest-reads': report.guestReads === undefined,
    'page-size': pageSizeOf(report) === undefined,
    'address-space': ipaLimitOf(report) === undefined,
    'memory-tagging': hasMte(report) === undefined,
    'vm-types': report.vmTypes === undefined,
    'other-capabilities': report.otherCapabilities === undefined,
    'cpu-kinds': report.cpus === undefined,
    'id-fields': untriedFields(report).length > 0,
  }
  return reportedFacts.filter((fact) => isUnknown[fact])
}
