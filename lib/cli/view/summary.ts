import { decodePsciVersion, workarounds } from '../../hypercalls/index.js'
import { decodeRegister, encodeRegister, hex } from '../../registers/index.js'
import { originText } from '../../report/origin.js'
import {
  CNTFRQ_EL0,
  cpuKindNames,
  guestRead,
  interruptControllersOf,
  isProtectedKvm,
  pageSizeOf,
} from '../../report/machine.js'
import { mitigationsOf, registerValue, untriedFields } from '../../report/registers.js'
import type { Report } from '../../report/report.js'
import { type ReportedFact, unrecordedFacts } from '../../report/unrecorded.js'
import type { Capability } from '../../uapi.js'
import { cpuName } from '../../report/cpu.js'
import { paint } from '../output.js'
import { servicesText } from './services.js'
import { properties, table } from './table.js'
import { psciVersions } from './traits.js'

/** Formats a host on one screen: the facts that decide whether guests can run on it, and which other hosts they can move to. */
export function summary(report: Report, title: string): string {
  return [
    paint('bold', title),
    properties([
      ['kernel', `${report.host.release} (${report.host.build})`],
      ['answered by', originText(report)],
      ['CPU', cpuName(report)],
      ...machineRows(report),
      ['PSCI', `${psciVersion(report)}; accepts ${psciVersions(report)}`],
      ['vCPU features', report.traits.init.supported.join(' ')],
      ['has', capabilityNames(report, (answer) => answer !== undefined && answer > 0)],
      ['lacks', capabilityNames(report, (answer) => answer !== undefined && answer <= 0)],
      ...notKnown(report),
      ['limits', limits(report)],
      ['registers', registerCounts(report)],
    ]),
    '',
    paint('bold', 'Hypercall services'),
    servicesText(report),
    '',
    paint('bold', 'Mitigations shown to the guest'),
    workaroundTable(report),
  ].join('\n')
}

/** What is recorded of the machine, beyond registers. */
function machineRows(report: Report): [string, string][] {
  const kinds = cpuKindNames(report)
  const frequency = guestRead(report, CNTFRQ_EL0)
  const reads = (report.guestReads ?? [])
    .filter(({ id }) => BigInt(id) !== CNTFRQ_EL0)
    .map(({ name, value }) => `${name} ${value}`)
  const rows: [string, string | undefined][] = [
    ['kinds of CPU', kinds && kinds.length > 1 ? kinds.join(', ') : undefined],
    ['probed on', kinds && kinds.length > 1 ? kinds[report.cpus!.probed] : undefined],
    ['counter', frequency === undefined ? undefined : `${frequency} Hz`],
    ['guest reads', reads.join(', ') || undefined],
    ['interrupt controllers', interruptControllersOf(report)?.join(' ')],
    ['page size', pageSizeOf(report)?.toString()],
    ['pKVM', isProtectedKvm(report) ? 'yes' : undefined],
  ]
  return rows.filter((row): row is [string, string] => row[1] !== undefined)
}

/** The version a guest gets if userspace chooses none. */
export function psciVersion(report: Report): string {
  const value = registerValue(report, encodeRegister('KVM_REG_ARM_PSCI_VERSION'))
  return value === undefined ? 'unknown' : decodePsciVersion(value)
}

const notable: readonly (readonly [Capability, string])[] = [
  ['KVM_CAP_ARM_SVE', 'SVE'],
  ['KVM_CAP_ARM_PMU_V3', 'PMUv3'],
  ['KVM_CAP_ARM_PTRAUTH_ADDRESS', 'pointer authentication'],
  ['KVM_CAP_ARM_EL1_32BIT', '32-bit EL1'],
  ['KVM_CAP_ARM_EL2', 'nested virtualisation'],
  ['KVM_CAP_ARM_MTE', 'MTE'],
  ['KVM_CAP_STEAL_TIME', 'steal time'],
  ['KVM_CAP_ARM_SYSTEM_SUSPEND', 'system suspend'],
  ['KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES', 'writable ID registers'],
  ['KVM_CAP_ARM_WRITABLE_IMP_ID_REGS', 'writable MIDR'],
]

/** What the report does not say; no line if it says everything. */
function notKnown(report: Report): [string, string][] {
  const things = [
    capabilityNames(report, (answer) => answer === undefined),
    // Memory tagging is one of these capabilities.
    unrecordedText(report, ['memory-tagging']),
  ].filter(Boolean)
  return things.length === 0 ? [] : [['not known', things.join('; ')]]
}

/** Names what the report does not say, but for some facts. */
export function unrecordedText(report: Report, except: readonly ReportedFact[] = []): string {
  return unrecordedFacts(report)
    .filter((fact) => !except.includes(fact))
    .map((fact) => factWords[fact](report))
    .join('; ')
}

const factWords: Readonly<Record<ReportedFact, (report: Report) => string>> = {
  'vcpu-features': ({ traits }) => `vCPU features ${traits.init.unknown!.join(', ')}`,
  'interrupt-controllers': () => 'devices',
  'guest-reads': () => 'counter frequency and what else a guest reads from the CPU',
  'page-size': () => 'page size',
  'address-space': () => 'size of the guest physical address space',
  'memory-tagging': () => 'memory tagging',
  'vm-types': () => 'VM types',
  'other-capabilities': () => 'capabilities without a name',
  'cpu-kinds': () => 'kinds of CPU',
  'id-fields': (report) => `the values accepted in ${listed(untriedFields(report))}`,
}

/** Lists names, but no more than a person reads. */
export function listed(names: readonly string[], most = 8): string {
  if (names.length <= most) return names.join(', ')
  return `${names.slice(0, most).join(', ')} and ${names.length - most} more`
}

function capabilityNames(report: Report, isWanted: (answer: number | undefined) => boolean): string {
  return notable
    .filter(([capability]) => isWanted(report.capabilities[capability]?.[1]))
    .map(([, name]) => name)
    .join(', ')
}

function limits({ capabilities }: Report): string {
  const limit = (capability: Capability) => capabilities[capability]?.[1]
  return [
    [limit('KVM_CAP_ARM_VM_IPA_SIZE'), 'bits of guest physical address'],
    [limit('KVM_CAP_MAX_VCPUS'), 'vCPUs'],
    [limit('KVM_CAP_NR_MEMSLOTS'), 'memory slots'],
  ]
    .filter(([number]) => number !== undefined)
    .map(([number, what]) => `${number} ${what}`)
    .join(', ')
}

function registerCounts({ registers, configurations }: Report): string {
  const counts = new Map<string, number>()
  for (const { id } of registers) {
    const { space } = decodeRegister(BigInt(id))
    counts.set(space, (counts.get(space) ?? 0) + 1)
  }
  const spaces = [...counts].map(([space, count]) => `${count} ${space}`).join(', ')
  const others = configurations.filter((configuration) => !('refused' in configuration)).length
  return `${registers.length} with psci-0.2 alone (${spaces}); other sets of features: ${others}`
}

const mitigates: Readonly<Record<string, string>> = {
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1: 'Spectre variant 2',
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2: 'Spectre variant 4',
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3: 'Spectre-BHB',
}

function workaroundTable(report: Report): string {
  const rows = mitigationsOf(report).map(({ id, name, value, accepts }) => {
    const levels = workarounds.find(({ register }) => register === BigInt(id))?.levels
    const level = levels?.find((candidate) => candidate.value === value)?.name ?? ''
    return [name, mitigates[name] ?? '', `${hex(value)} ${level}`.trim(), accepts.map(hex).join(' ')]
  })
  return table(['register', 'against', 'level', 'accepts'], rows)
}
