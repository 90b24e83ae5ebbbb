import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type Fingerprint, parseFingerprint } from '../../lib/interchange/fingerprint.js'
import { packageRoot } from '../../lib/package-root.js'

export const gravitonCpus = ['N1', 'V1', 'V2'] as const
export const gravitonKernels = ['5.10', '6.1', '6.18'] as const

export type GravitonCpu = (typeof gravitonCpus)[number]
export type GravitonKernel = (typeof gravitonKernels)[number]

export function gravitonFile(cpu: GravitonCpu, kernel: GravitonKernel): string {
  const name = `fingerprint_ARM_NEOVERSE_${cpu}_${kernel}host.json`
  return fileURLToPath(new URL(`test/interchange/graviton/${name}`, packageRoot))
}

export function graviton(cpu: GravitonCpu, kernel: GravitonKernel): Fingerprint {
  const file = gravitonFile(cpu, kernel)
  return parseFingerprint(readFileSync(file, 'utf8'), file)
}
