import assert from 'node:assert/strict'
import { test } from 'vitest'
import { diffReports } from '../../lib/report/diff.js'
import { checkDiff, type DiffDocument } from '../../lib/report/diff-document.js'
import { builtInHosts, builtInReport } from '../../lib/hosts/index.js'

test('a host does not differ from itself', () => {
  for (const host of builtInHosts())
    assert.deepEqual(diffReports(builtInReport(host), builtInReport(host)), [])
})

test('two kernels on one CPU differ in what the newer brought', () => {
  const found = diffReports(builtInReport('linux-6.1-neoverse-n1'), builtInReport('linux-7.2-neoverse-n1'))
  const has = (expected: object) =>
    assert.ok(
      found.some((entry) => JSON.stringify(entry) === JSON.stringify(expected)),
      JSON.stringify(expected),
    )
  has({ kind: 'capability', name: 'KVM_CAP_ARM_WRITABLE_IMP_ID_REGS', a: '0', b: '1' })
  has({ kind: 'psci', name: '1.3', a: 'no', b: 'yes' })
  has({ kind: 'register', name: 'KVM_REG_ARM_VENDOR_HYP_BMAP_2', a: null, b: '0x0' })
  has({ kind: 'register', name: 'ID_AA64DFR0_EL1', field: 'DebugVer', a: '6 (Armv8)', b: '8 (Debugv8p2)' })
  assert.ok(!found.some(({ name }) => name === 'KVM_REG_ARM_TIMER_CTL'))
})

test('AArch32 ID registers count only between hosts with AArch32', () => {
  const report = builtInReport('linux-7.2-neoverse-n1')
  const withoutAArch32 = structuredClone(report)
  const pfr0 = withoutAArch32.registers.find(({ name }) => name === 'ID_AA64PFR0_EL1')!
  pfr0.value = `0x${((BigInt(pfr0.value!) & ~0xfn) | 1n).toString(16)}`
  withoutAArch32.registers.find(({ name }) => name === 'ID_ISAR5_EL1')!.value = '0x0'
  const found = diffReports(report, withoutAArch32)
  assert.deepEqual(
    found.map(({ name, field }) => `${name}.${field}`),
    ['ID_AA64PFR0_EL1.EL0'],
  )
  const both = diffReports(builtInReport('linux-7.2-cortex-a57'), builtInReport('linux-7.2-max'))
  assert.ok(both.some(({ name }) => name === 'ID_ISAR5_EL1'))
})

test('every diff of the recorded hosts is a document that its reader accepts, and a broken one is refused at its entry', () => {
  const reports = builtInHosts().map((name) => ({ name, report: builtInReport(name) }))
  for (const [index, a] of reports.entries()) {
    const b = reports[(index + 1) % reports.length]!
    const document: DiffDocument = {
      format: 'kvm-arm64/diff',
      version: 1,
      a: { name: a.name, origin: a.report.origin },
      b: { name: b.name, origin: b.report.origin },
      differences: diffReports(a.report, b.report),
    }
    assert.deepEqual(checkDiff(JSON.parse(JSON.stringify(document)), 'diff.json'), document)
    const broken = structuredClone(document) as { differences: { kind: string }[] }
    broken.differences[0]!.kind = 'wish'
    assert.throws(() => checkDiff(broken, 'diff.json'), {
      path: '$.differences[0].kind',
      message: /received "wish"/,
    })
  }
})
