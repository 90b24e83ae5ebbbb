import {
  checkDocument,
  type DocumentFormat,
  FormatError,
  parseDocument,
  readDocument,
} from '../documents/document.js'
import { checkRegisterRows, requireListed, requireRegisters } from '../documents/registers.js'
import { registerWidth, timerCounters } from '../registers/index.js'
import { reportSchema, type Report, type ReportedRegister } from './report.js'
import { readVersion1 } from './version-1.js'
import { ruleProblem } from './write-rule.js'

/** The format `kvm-arm64/report`. */
export const reportFormat: DocumentFormat<Report> = {
  noun: 'report',
  schema: reportSchema,
  checkMore: checkRegisters,
  earlier: new Map([[1, readVersion1]]),
}

/**
 * Reads a report from a file.
 * @throws FormatError for a file that is missing, empty, truncated, of another format or version, or hostile
 */
export function readReport(file: string): Report {
  return readDocument(file, reportFormat)
}

/**
 * Reads a report from JSON text; errors call the text `source`.
 * @throws FormatError as `readReport`
 */
export function parseReport(json: string, source: string): Report {
  return parseDocument(json, source, reportFormat)
}

/**
 * Checks that data is a report.
 * @throws FormatError as `readReport`
 */
export function checkReport(data: unknown, source: string): Report {
  return checkDocument(data, source, reportFormat)
}

/** Registers that every useful report has, besides the core registers. */
const NEEDED = ['ID_AA64PFR0_EL1', 'MIDR_EL1', 'KVM_REG_ARM_PSCI_VERSION']

function checkRegisters(report: Report, source: string): void {
  const { registers, configurations, traits } = report
  checkRows(registers, '$.registers', source)
  requireRegisters(registers, '$.registers', source, NEEDED)
  const listed = new Set(registers.map(({ id }) => id))
  for (const [index, configuration] of configurations.entries()) {
    if ('refused' in configuration) continue
    const path = `$.configurations[${index}]`
    const { removed, added, changed } = configuration
    checkRows(added, `${path}.added`, source)
    checkRows(changed, `${path}.changed`, source)
    requireListed(changed, listed, `${path}.changed`, source)
    const gone = new Set(removed)
    const left = registers.filter(({ id }) => !gone.has(id))
    requireRegisters(left, `${path}.removed`, source)
    const there = new Set(left.map(({ id }) => id))
    for (const [place, { id, index: at }] of added.entries()) {
      if (there.has(id)) {
        throw new FormatError(source, `${path}.added[${place}].id`, `${id} is already in $.registers`)
      }
      if (at < 0 || at >= left.length + added.length) {
        throw new FormatError(source, `${path}.added[${place}].index`, `${at} is beyond the end of the list`)
      }
    }
  }
  const { cpus, guestReads } = report
  if (cpus !== undefined && cpus.probed >= cpus.kinds.length) {
    throw new FormatError(
      source,
      '$.cpus.probed',
      `is ${cpus.probed}, but there are ${cpus.kinds.length} kinds`,
    )
  }
  checkRegisterRows(guestReads ?? [], '$.guestReads', source)
  for (const [index, { hides }] of (traits.hiddenRegisters ?? []).entries()) {
    checkRegisterRows(hides, `$.traits.hiddenRegisters[${index}].hides`, source)
  }
  for (const list of ['lossyRegisters', 'changedByFirstRun', 'changedByVgic'] as const) {
    checkRegisterRows(traits[list] ?? [], `$.traits.${list}`, source)
  }
}

/** Checks widths of values and rules, and that only counters have no value. */
function checkRows(rows: readonly ReportedRegister[], path: string, source: string): void {
  checkRegisterRows(rows, path, source)
  for (const [index, { id, name, value, write }] of rows.entries()) {
    if (value === null && !timerCounters.has(BigInt(id))) {
      throw new FormatError(source, `${path}[${index}].value`, `is null, but ${name} does not count time`)
    }
    if (write === undefined) continue
    const problem = ruleProblem(write, registerWidth(BigInt(id)))
    if (problem !== undefined) throw new FormatError(source, `${path}[${index}].write`, problem)
  }
}
