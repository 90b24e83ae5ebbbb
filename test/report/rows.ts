import assert from 'node:assert/strict'
import type { Report, ReportedRegister } from '../../lib/report/report.js'
import type { WriteRule } from '../../lib/report/write-rule.js'

/** A register's row in a report, by the register's name. */
export function rowOf({ registers }: Report, name: string): ReportedRegister {
  const row = registers.find((register) => register.name === name)
  assert.ok(row, `no register ${name}`)
  return row
}

/** The rule of a register in a report, which is of this kind. */
export function ruleOf<K extends WriteRule['rule']>(
  report: Report,
  name: string,
  kind: K,
): Extract<WriteRule, { rule: K }> {
  const { write } = rowOf(report, name)
  assert.equal(write?.rule, kind, name)
  return write as Extract<WriteRule, { rule: K }>
}

/** The report with other rows for some registers: undefined leaves the register out. */
export function withRows(
  report: Report,
  change: (row: ReportedRegister) => ReportedRegister | undefined,
): Report {
  return { ...report, registers: report.registers.flatMap((row) => change(row) ?? []) }
}
