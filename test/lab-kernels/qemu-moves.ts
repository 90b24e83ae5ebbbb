/**
 * Real QEMU as judge: saves a VM on one real host and restores it on another, with QEMU's default options, and compares the outcome
 * with the prediction made from the reports of both hosts. `qemu.test.ts` does it for six hosts, `npm run tool qemu-moves` for all.
 */
import assert from 'node:assert/strict'
import { basename } from 'node:path'
import { bootLab, type Lab } from '../../lib/lab/index.js'
import { idFromParts, registerName, systemRegisterId } from '../../lib/registers/index.js'
import { makeNodeSafe } from './lab-hosts.js'
import type { DriveResult } from './qemu-drive.js'

/** A real host: a kernel on a CPU of the emulator. */
export interface JudgedHost {
  name: string
  kernel: string
  cpu: string
  /** Added to the kernel's command line. */
  append?: string
}

function host(name: string, kernel: string, cpu: string, append?: string): JudgedHost {
  return { name, kernel, cpu, ...(append !== undefined && { append }) }
}

/** Hosts that differ in the kernel, the CPU, one of its features, or the mode of KVM. */
export const judgedHosts: readonly JudgedHost[] = [
  host('5.10-n1', '5.10', 'neoverse-n1'),
  host('6.1-n1', '6.1', 'neoverse-n1'),
  host('6.12-n1', '6.12', 'neoverse-n1'),
  host('6.18-n1', '6.18', 'neoverse-n1'),
  host('7.2-n1', '7.2', 'neoverse-n1'),
  host('7.3-n1', '7.3', 'neoverse-n1'),
  host('6.12-n1-nopmu', '6.12', 'neoverse-n1,pmu=off'),
  host('6.12-n1-nvhe', '6.12', 'neoverse-n1', 'kvm-arm.mode=nvhe'),
  host('7.2-n1-pkvm', '7.2', 'neoverse-n1', 'kvm-arm.mode=protected'),
  host('6.12-a57', '6.12', 'cortex-a57'),
  host('6.1-max', '6.1', 'max'),
  host('6.12-max', '6.12', 'max'),
  host('6.18-max', '6.18', 'max'),
  host('7.2-max', '7.2', 'max'),
  host('6.12-max-nosve', '6.12', 'max', 'arm64.nosve'),
  host('6.18-max-nopauth', '6.18', 'max', 'arm64.nopauth'),
  host('6.12-max-sve128', '6.12', 'max,sve256=off'),
]

/** Boots a host with QEMUs in it. */
export async function bootWithQemu(
  { kernel, cpu, append }: JudgedHost,
  directories: readonly string[],
): Promise<Lab> {
  const lab = await bootLab({
    kernel,
    cpu,
    smp: 2,
    memory: 3072,
    copy: ['dist', 'prebuilds', 'package.json', 'lib/hosts/recorded', ...directories],
    timeout: 600,
    ...(append !== undefined && { append }),
  })
  await makeNodeSafe(lab, cpu)
  return lab
}

/** Runs one QEMU of a directory inside; see `qemu-drive.ts`. */
export async function driveQemu(lab: Lab, directory: string, ...args: string[]): Promise<DriveResult> {
  const command = ['node', 'dist/test/lab-kernels/qemu-drive.js', `./${basename(directory)}`, ...args]
  const { status, stdout, stderr } = await lab.run(command, { timeout: 300 })
  assert.equal(status, 0, String(stderr))
  return JSON.parse(String(stdout)) as DriveResult
}

/** Returns the names of the registers that QEMU 11.1 blames for a failure, in alphabetical order. */
export function blamed(complaints: string): string[] {
  const names = complaints.split('\n').flatMap((line) => {
    const name =
      /only_in_incoming_stream: (.*) in the incoming stream but unknown on the destination: fail migration/.exec(
        line,
      ) ?? /Could not set register (.*?)(?: to [0-9a-f]+(?: \(is [0-9a-f]+\))?|: .*)$/.exec(line)
    return name === null ? [] : [registerName(idOfQemuName(name[1]!))]
  })
  return [...new Set(names)].toSorted((a, b) => (a < b ? -1 : 1))
}

/** QEMU calls registers by their encoding. */
function idOfQemuName(name: string): bigint {
  const demux = /^demuxed reg ([0-9a-f]+)$/.exec(name)
  if (demux) return BigInt(`0x${demux[1]}`)
  const firmware = /^fw (feat )?reg (\d+)$/.exec(name)
  if (firmware) {
    return idFromParts({
      arch: 6,
      size: 3,
      coproc: firmware[1] ? 0x16 : 0x14,
      index: Number(firmware[2]),
      stray: 0n,
    })
  }
  const encoding = /^system register op0:(\d+) op1:(\d+) crn:(\d+) crm:(\d+) op2:(\d+)$/.exec(name)
  assert.ok(encoding, `QEMU names a register ${JSON.stringify(name)}`)
  const [op0, op1, crn, crm, op2] = encoding.slice(1).map(Number) as [number, number, number, number, number]
  return systemRegisterId({ op0, op1, crn, crm, op2 })
}
