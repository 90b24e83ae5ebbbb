/**
 * Writes a synthetic fleet to standard output, one report on each line: `node dist/test/bench/generate-fleet.js HOSTS [CLASSES [--all]]`.
 * The reports are those of real hosts, whole, in CLASSES kinds made by changing registers and services of the recorded ones; of each
 * kind every host has a time, a build of the kernel and a name of its own. With `--all`, there are up to 64 kinds of each recorded host,
 * and otherwise fewer, of those with one CPU model.
 */
import { writeSync } from 'node:fs'
import { hex } from '../../lib/registers/index.js'
import { psciVersionsOf } from '../../lib/report/registers.js'
import type { Report } from '../../lib/report/report.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { recordedHosts } from '../lab-kernels/lab-hosts.js'

const ofAll = process.argv.includes('--all')
const models = recordedHosts
  .filter(({ cpu }) => ofAll || cpu === 'neoverse-n1')
  .map(({ name }) => builtInReport(name))

/** The n-th kind: a recorded host with another revision of the CPU, another cache and another choice of services. */
function variant(index: number): Report {
  const report = structuredClone(models[index % models.length]!)
  const step = Math.floor(index / models.length)
  if (step === 0) return report
  const change = (name: string, to: (value: bigint) => bigint): void => {
    const register = report.registers.find((candidate) => candidate.name === name)
    if (register !== undefined) register.value = `0x${to(BigInt(register.value!)).toString(16)}`
  }
  if (ofAll) {
    change('MIDR_EL1', (value) => value ^ BigInt(step & 7))
    changeServices(report, step >> 3)
    // Decides no move.
    if (step & 32) report.capabilities.KVM_CAP_GUEST_DEBUG_HW_BPS = [16, 16]
    return report
  }
  change('MIDR_EL1', (value) => (value & ~0xfn) | BigInt(step & 0xf))
  if (step & 1) change('CCSIDR_EL1[0]', (value) => value ^ 0x10n)
  changeServices(report, step >> 1)
  return report
}

/** Takes the newest PSCI version away (bit 0), and services (bit 1). */
function changeServices(report: Report, which: number): void {
  const versions = psciVersionsOf(report).slice(0, -1)
  const newest = versions.at(-1)
  if (which & 1 && newest !== undefined) {
    const row = report.registers.find(({ name }) => name === 'KVM_REG_ARM_PSCI_VERSION')!
    row.write = { rule: 'values', accepts: versions.map(hex) }
    row.value = hex(newest)
  }
  if (which & 2) {
    const bitmap = report.registers.find(({ write }) => write?.rule === 'subset')
    if (bitmap !== undefined) bitmap.write = { rule: 'subset', of: '0x0' }
  }
}

/** The part of a line that all hosts of a kind have in common. */
function common(report: Report): Buffer {
  const json = JSON.stringify(report)
  return Buffer.from(`${json.slice(json.indexOf('"capabilities":'))}}\n`)
}

const [hosts = 1000, classes = 20] = process.argv.slice(2).map(Number)
const kinds = Array.from({ length: classes }, (_, index) => common(variant(index)))
const out = Buffer.allocUnsafe(4 * 1024 * 1024)
let end = 0

function flush(): void {
  for (let done = 0; done < end;) done += writeSync(1, out, done, end - done)
  end = 0
}

for (let host = 0; host < hosts; host++) {
  // Prime to the number of kinds, so that neighbours differ and every kind comes.
  const kind = kinds[(host * 7919) % classes]!
  if (out.length - end < kind.length + 512) flush()
  const time = new Date(1_790_000_000_000 + host * 1000).toISOString()
  const build = `"host":{"release":"6.${host % 20}.${host % 100}-arm64","build":"#${host} SMP"}`
  end += out.write(
    `{"name":"host-${host}","report":{"format":"kvm-arm64/report","version":2,"probedAt":"${time}",${build},"origin":{"kind":"kernel"},`,
    end,
  )
  end += kind.copy(out, end)
}
flush()
