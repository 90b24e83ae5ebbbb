/**
 * Real QEMU as judge: saves a VM on one real host and restores it on another, with QEMU's default options, and compares the outcome
 * with the prediction made from the reports of both hosts. `qemu.test.ts` does it for six hosts, `npm run tool qemu-moves` for all.
 */
import assert from 'node:assert/strict'
import { basename } from 'node:path'
import { simulator } from '../../lib/hosts/index.js'
import { openKvm } from '../../lib/kvm/index.js'
import { bootLab, type Lab } from '../../lib/lab/index.js'
import { captureHost } from '../../lib/migration/capture.js'
import { verdict } from '../../lib/migration/verdict.js'
import { factsOfReport } from '../../lib/migration/vmm/facts.js'
import { vmmRules } from '../../lib/migration/vmm/names.js'
import { vmOn } from '../../lib/migration/vmm/rules.js'
import {
  decodeRegister,
  idFromParts,
  isIdRegister,
  registerName,
  systemRegisterId,
} from '../../lib/registers/index.js'
import { interpretOnly, runInside } from './lab-hosts.js'
import { parseReport } from '../../lib/report/read.js'
import type { Report } from '../../lib/report/report.js'
import type { DriveResult, DriveTask } from './qemu-drive.js'
import { type JudgedQemu, qemuDirectory } from './qemu-packages.js'

/** A real host: a kernel on a CPU of the emulator. */
export interface JudgedHost {
  name: string
  kernel: string
  cpu: string
  /** Added to the kernel's command line. */
  append?: string
  /** The machine's interrupt controller. Default: the lab's. */
  gic?: '2' | '3'
  /** The emulator's version. Default: the machine's own. */
  qemu?: string
}

function host(
  name: string,
  kernel: string,
  cpu: string,
  more: Omit<JudgedHost, 'name' | 'kernel' | 'cpu'> = {},
): JudgedHost {
  return { name, kernel, cpu, ...more }
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
  host('6.12-n1-nvhe', '6.12', 'neoverse-n1', { append: 'kvm-arm.mode=nvhe' }),
  host('6.18-n1-pkvm', '6.18', 'neoverse-n1', { append: 'kvm-arm.mode=protected' }),
  host('6.12-a57', '6.12', 'cortex-a57'),
  host('6.12-a64fx', '6.12', 'a64fx'),
  host('6.12-v1', '6.12', 'neoverse-v1', { qemu: '11.1' }),
  host('7.2-max-qemu-11', '7.2', 'max', { qemu: '11.1' }),
  host('6.12-max', '6.12', 'max'),
  host('6.18-max', '6.18', 'max'),
  host('7.2-max', '7.2', 'max'),
  host('6.12-max-nosve', '6.12', 'max', { append: 'arm64.nosve' }),
  host('6.18-max-nopauth', '6.18', 'max', { append: 'arm64.nopauth' }),
  host('6.12-max-sve128', '6.12', 'max,sve256=off'),
  host('6.12-n1-gicv2', '6.12', 'neoverse-n1', { gic: '2' }),
]

/** Boots a host with QEMUs in it. */
export async function bootWithQemu(
  { name: _name, append, ...place }: JudgedHost,
  directories: readonly string[],
): Promise<Lab> {
  const lab = await bootLab({
    ...place,
    append: ['rcupdate.rcu_expedited=1', append].join(' ').trimEnd(),
    smp: 2,
    memory: 2048,
    copy: ['dist', 'prebuilds', 'package.json', 'lib/hosts/recorded', ...directories],
    timeout: 600,
  })
  await interpretOnly(lab)
  return lab
}

/** Returns the host's own report. */
export async function probeInside(lab: Lab, name: string): Promise<Report> {
  const command = ['node', 'dist/bundle/main.js', 'probe', '--backend', 'kernel', '--json']
  const { stdout } = await runInside(lab, ...command)
  return parseReport(stdout.toString(), name)
}

/** A save, a restore or a question, of a QEMU that was copied into the machine. */
export type QemuTask = Omit<DriveTask, 'directory'> & { qemu: JudgedQemu }

/** Runs QEMUs inside, one after the other; see `qemu-drive.ts`. */
export async function driveQemu(lab: Lab, tasks: readonly QemuTask[]): Promise<DriveResult[]> {
  const inside = await Promise.all(
    tasks.map(async ({ qemu, ...task }): Promise<DriveTask> => {
      const directory = `./${basename(await qemuDirectory(qemu))}`
      return { directory, ...task }
    }),
  )
  const program = ['node', 'dist/test/lab-kernels/qemu-drive.js']
  const timeout = 60 + 60 * tasks.length
  const { status, stdout, stderr } = await lab.run([...program, JSON.stringify(inside)], { timeout })
  assert.equal(status, 0, String(stderr))
  const results = String(stdout).trimEnd().split('\n')
  assert.equal(results.length, tasks.length)
  return results.map((line) => JSON.parse(line) as DriveResult)
}

/** The prediction of a move: whether QEMU completes it, and the registers it blames if not, in alphabetical order. */
export interface PredictedMove {
  completes: boolean
  blames: string[]
  /** Whether something other than a register ends the move: QEMU may then stop before it comes to the registers. */
  mayStopEarly: boolean
}

/** Predicts a move of a VM with default options from the reports of both hosts. */
export function predictMove(from: Report, to: Report, qemu: JudgedQemu): PredictedMove {
  const rules = vmmRules(qemu)
  using sourceKvm = openKvm(simulator(from))
  using kvm = openKvm(simulator(to))
  const source = vmOn(rules, factsOfReport(from))
  const destination = vmOn(rules, factsOfReport(to))
  const state = captureHost(sourceKvm, { features: source.features })
  const { restores, findings } = verdict(state, kvm, rules, { source, sourceKvm, destination })
  const obstacles = findings.filter(({ stops }) => stops)
  const mayStopEarly = obstacles.some(({ register }) => register === undefined)
  const names = findings.flatMap((found) => {
    const { register } = found
    if (register === undefined) return []
    // QEMU names an absent register as a failure also where a later one lets it go on.
    const held = 'source' in found && found.destination === null ? found.source : null
    const value = held === null || held === 'counts' ? 0n : BigInt(held)
    const isNamed = held !== null && rules.on('absent', BigInt(register.id), value) === 'fails'
    return found.stops || isNamed ? [register.name] : []
  })
  return { completes: restores, blames: sorted(names), mayStopEarly }
}

function sorted(names: readonly string[]): string[] {
  return [...new Set(names)].toSorted((a, b) => (a < b ? -1 : 1))
}

/** Returns in which way a real move differs from its prediction; undefined if it does not. QEMU before 11.1 names no register. */
export function disagreement(
  { completes, blames, mayStopEarly }: PredictedMove,
  { status, complaints }: DriveResult,
  qemu: JudgedQemu,
): string | undefined {
  const isCompleted = status === 'completed'
  if (isCompleted !== completes) return `it ${isCompleted ? 'completes' : 'fails'}: ${complaints}`
  // A QEMU that never came to the stream proves nothing.
  const isAboutState = /load of migration failed|Failed to put registers after init/.test(complaints)
  if (!isCompleted && !isAboutState) return `it fails before it loads the state: ${complaints}`
  if (qemu !== 'qemu@11.1') return undefined
  const real = blamed(complaints)
  const missed = real.filter((name) => !blames.includes(name))
  const invented = mayStopEarly && real.length === 0 ? [] : blames.filter((name) => !real.includes(name))
  if (missed.length + invented.length === 0) return undefined
  return `QEMU blames also ${missed.join(', ') || 'nothing'}, and not ${invented.join(', ') || 'anything less'}`
}

/**
 * Returns the names of the registers in which a stream differs from the state predicted of its VM: those that one of them lacks, and
 * those of the CPU's identity, its caches and the firmware that have another value. The others' depend on time.
 */
export function unexpectedInStream(stream: Buffer, report: Report, qemu: JudgedQemu): string[] {
  const rules = vmmRules(qemu)
  using kvm = openKvm(simulator(report))
  const state = captureHost(kvm, { features: vmOn(rules, factsOfReport(report)).features })
  const predicted = new Map(
    state.vcpus[0]!.registers.map(({ id, value }): [bigint, bigint] => [BigInt(id), BigInt(value)])
      // QEMU has sections of its own for these.
      .filter(([id]) => rules.carries(id) && !['core', 'sve'].includes(decodeRegister(id).space)),
  )
  const saved = registersOfStream(stream)
  const differing = [...new Set([...saved.keys(), ...predicted.keys()])].filter((id) => {
    const isFixed = isIdRegister(id) || ['demux', 'firmware', 'bitmap'].includes(decodeRegister(id).space)
    return saved.has(id) && predicted.has(id) ? isFixed && saved.get(id) !== predicted.get(id) : true
  })
  return sorted(differing.map(registerName))
}

/** The arrays of `cpreg_vmstate_indexes` and `cpreg_vmstate_values` after their length; the ids ascend, and begin with that of arm64. */
function registersOfStream(stream: Buffer): Map<bigint, bigint> {
  for (let begin = stream.indexOf(0x60, 4); begin !== -1; begin = stream.indexOf(0x60, begin + 1)) {
    const length = stream.readInt32BE(begin - 4)
    const values = begin + 8 * length
    if (length < 100 || values + 8 * length > stream.length) continue
    const ids = Array.from({ length }, (_, index) => stream.readBigUInt64BE(begin + 8 * index))
    if (!ids.every((id, index) => id >> 56n === 0x60n && id > (ids[index - 1] ?? 0n))) continue
    return new Map(ids.map((id, index) => [id, stream.readBigUInt64BE(values + 8 * index)]))
  }
  throw new Error('the stream holds no registers')
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
  return sorted(names)
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
