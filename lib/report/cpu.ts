import { decodeFields, encodeRegister, hex } from '../registers/index.js'
import { registerValue } from './registers.js'
import type { Report } from './report.js'

/** MIDR_EL1.PartNum by MIDR_EL1.Implementer, of CPUs in servers, boards and QEMU (`arch/arm64/include/asm/cputype.h`). */
const parts: Readonly<Record<number, Readonly<Record<number, string>>>> = {
  0x00: { 0x51: 'QEMU max' },
  0x41: {
    0xd03: 'Cortex-A53',
    0xd04: 'Cortex-A35',
    0xd05: 'Cortex-A55',
    0xd07: 'Cortex-A57',
    0xd08: 'Cortex-A72',
    0xd09: 'Cortex-A73',
    0xd0a: 'Cortex-A75',
    0xd0b: 'Cortex-A76',
    0xd0c: 'Neoverse N1',
    0xd0d: 'Cortex-A77',
    0xd40: 'Neoverse V1',
    0xd41: 'Cortex-A78',
    0xd44: 'Cortex-X1',
    0xd46: 'Cortex-A510',
    0xd47: 'Cortex-A710',
    0xd48: 'Cortex-X2',
    0xd49: 'Neoverse N2',
    0xd4f: 'Neoverse V2',
    0xd84: 'Neoverse V3',
    0xd8e: 'Neoverse N3',
  },
  0x43: { 0x0af: 'ThunderX2' },
  0x46: { 0x001: 'A64FX' },
  0x48: { 0xd01: 'TSV110' },
  0xc0: { 0xac3: 'AmpereOne', 0xac4: 'AmpereOne A' },
}

const MIDR_EL1 = encodeRegister('MIDR_EL1')

/** Returns the CPU that a guest of this host sees, from MIDR_EL1: `Arm Neoverse N1 r4p1`. */
export function cpuName(report: Report): string {
  const value = registerValue(report, MIDR_EL1)
  return value === undefined ? 'unknown' : midrName(value)
}

/** Returns the CPU with this MIDR_EL1: `Arm Neoverse N1 r4p1`. */
export function midrName(value: bigint): string {
  const fields = new Map(decodeFields(MIDR_EL1, value).map((field) => [field.field.name, field]))
  const number = (name: string) => Number(fields.get(name)?.value ?? 0)
  const implementer = number('Implementer')
  const partNumber = number('PartNum')
  const part = parts[implementer]?.[partNumber] ?? `part ${hex(partNumber)}`
  const maker =
    fields.get('Implementer')?.meaning ?? (implementer === 0 ? '' : `implementer ${hex(implementer)}`)
  return `${maker} ${part} r${number('Variant')}p${number('Revision')}`.trim()
}
