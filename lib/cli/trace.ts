import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Command, Option } from 'commander'
import type { Backend } from '../backend.js'
import { probe } from '../compat/probe.js'
import { type Kvm, openKvm } from '../kvm/index.js'
import { simulator } from '../simulator/index.js'
import {
  describeAnswers,
  describeCall,
  type Divergence,
  type FuzzFinding,
  formatTrace,
  fuzz,
  Player,
  type Profile,
  profiles,
  readTrace,
  recordingBackend,
  replay,
  type TraceEntry,
  TraceWriter,
} from '../trace/index.js'
import { CommandError, exitStatus } from './exit.js'
import { hostOf, reportOf, simulateOption } from './host.js'
import { cannotWrite, print, withProgress, writeOutput } from './output.js'
import { wholeNumber } from './text.js'

/** `kvm-arm64 trace`: what was asked of KVM, and whether another one answers the same. */
export function traceCommand(): Command {
  const trace = new Command('trace').description('record, replay and invent sequences of KVM calls')
  trace.addCommand(recordCommand())
  trace.addCommand(replayCommand())
  trace.addCommand(fuzzCommand())
  return trace
}

function recordCommand(): Command {
  return new Command('record')
    .description('run a script, or the calls of a trace, and write down every KVM call with its outcome')
    .argument('<script>', 'a module whose default export is a function of a Kvm; or a trace, *.ndjson')
    .option('-o, --output <file>', 'where the trace goes, instead of standard output')
    .addOption(simulateOption())
    .addHelpText(
      'after',
      `
The script is handed what openKvm() returns, and recorded until the promise it returns, if any, is settled:

  export default async (kvm) => {
    using vm = kvm.createVm()
    vm.createVcpu(0).registers.get('KVM_REG_ARM_STD_BMAP')
  }

A trace is NDJSON: a head, then a line for each call. Of a trace given in place of a script the calls are made again and
their new outcomes written.

Exit status: 1 if the script throws, what was recorded until then is kept; 3 without arm64 KVM or --simulate.

Examples:
  kvm-arm64 trace record migrate.mjs -o migrate.ndjson
  kvm-arm64 trace record migrate.mjs --simulate linux-6.12-neoverse-n1`,
    )
    .action(record)
}

interface RecordFlags {
  simulate?: string
  output?: string
}

async function record(script: string, { simulate, output: file }: RecordFlags): Promise<void> {
  const { backend } = hostOf(simulate)
  // Nothing is written over before it is known that there is something to record.
  const work = script.endsWith('.ndjson') ? traceWork(script) : await scriptWork(script)
  const { write, close } = output(file)
  try {
    const writer = new TraceWriter({ host: backend.host.release }, write)
    try {
      await work(backend, (entry) => writer.add(entry))
    } finally {
      writer.flush()
    }
  } finally {
    close()
  }
}

function output(file: string | undefined): { write: (text: string) => void; close: () => void } {
  if (file === undefined) return { write: (text) => process.stdout.write(text), close: () => undefined }
  try {
    const descriptor = openSync(file, 'w')
    return { write: (text) => void writeSync(descriptor, text), close: () => closeSync(descriptor) }
  } catch (error) {
    throw cannotWrite(file, error)
  }
}

type Work = (backend: Backend, tell: (entry: TraceEntry) => void) => void | Promise<void>

/** The calls of a trace, made again. */
function traceWork(file: string): Work {
  const { entries } = readTrace(file)
  return (backend, tell) => {
    using kvm = openKvm(backend)
    const player = new Player(kvm.fd)
    for (const { call } of entries) tell({ call, outcome: player.perform(call) })
    player.reset()
  }
}

async function scriptWork(file: string): Promise<Work> {
  const script = await importScript(file)
  return async (backend, tell) => {
    using kvm = openKvm(recordingBackend(backend, tell))
    try {
      await script(kvm)
    } catch (error) {
      const { message, stack } = error instanceof Error ? error : new Error(String(error))
      const told = process.env.KVM_ARM64_DEBUG ? (stack ?? message) : message
      throw new CommandError(`${file}: ${told}`, exitStatus.negative)
    }
  }
}

async function importScript(file: string): Promise<(kvm: Kvm) => unknown> {
  let exports: { default?: unknown }
  try {
    exports = (await import(pathToFileURL(resolve(file)).href)) as { default?: unknown }
  } catch (error) {
    throw new CommandError(`${file}: cannot be loaded: ${(error as Error).message}`, exitStatus.usage)
  }
  if (typeof exports.default !== 'function') {
    throw new CommandError(
      `${file}: has no function as its default export; kvm-arm64 trace record --help shows a script`,
      exitStatus.usage,
    )
  }
  return exports.default as (kvm: Kvm) => unknown
}

function replayCommand(): Command {
  return new Command('replay')
    .description('make the calls of a trace again and tell each that is answered otherwise')
    .argument('<trace>', 'a file written by `kvm-arm64 trace record -o`')
    .addOption(simulateOption())
    .addHelpText(
      'after',
      `
A trace of any length is read as it is needed. What counts time or hangs on chance may differ. Hypercalls that were asked one
by one (vcpu.hypercall) are in a trace as hvc and smc, and a stub guest makes them again. What else is in a guest's memory is
not: a vCPU that was left running when the trace was recorded is interrupted after a millisecond.

Exit status: 1 if any call is answered otherwise.

Examples:
  kvm-arm64 trace replay migrate.ndjson                  on this machine's KVM
  kvm-arm64 trace replay migrate.ndjson --simulate linux-6.1-max`,
    )
    .action(replayTrace)
}

function replayTrace(file: string, { simulate }: { simulate?: string }): void {
  const { backend } = hostOf(simulate)
  const { head, entries } = readTrace(file)
  using kvm = openKvm(backend)
  let divergences = 0
  const calls = withProgress(`Replaying ${file}`, () =>
    replay(entries, kvm.fd, (divergence) => {
      divergences++
      print(divergenceText(file, divergence))
    }),
  )
  print(`${calls} calls recorded on ${head.host}, ${divergences} answered otherwise`)
  if (divergences > 0) process.exitCode = exitStatus.negative
}

function divergenceText(file: string, { line, call, recorded, replayed }: Divergence): string {
  const [before, now] = describeAnswers(recorded, replayed)
  return `${file}:${line}: ${describeCall(call)}\n  recorded: ${before}\n  replayed: ${now}`
}

interface FuzzFlags {
  simulate?: string
  against?: string
  seed: number
  ops: number
  profile: Profile
  save?: string
}

function fuzzCommand(): Command {
  return new Command('fuzz')
    .description('invent calls and look for one that KVM and its simulation answer differently')
    .addOption(simulateOption())
    .option('--against <host>', "compare with this simulated host instead of the host's own simulation")
    .option(
      '--seed <number>',
      'the same seed makes the same calls on the same host',
      wholeNumber(0, 0xffff_ffff),
      1,
    )
    .option('--ops <number>', 'how many calls to make', wholeNumber(1, 0xffff_ffff), 20_000)
    .addOption(
      new Option('--profile <profile>', 'what the calls are mostly about')
        .choices(profiles)
        .default('everything'),
    )
    .option('--save <directory>', 'write the calls that show a difference there, a trace for each')
    .addHelpText(
      'after',
      `
The host is probed first and its simulation built from that, unless --against names another. Calls are made on VMs of
their own, hypercalls (hvc, smc) by a stub guest. A difference is shrunk to the fewest calls that show it.

Exit status: 1 if there is a difference.

Examples:
  kvm-arm64 trace fuzz --seed 7 --ops 100000             this machine's KVM against its simulation
  kvm-arm64 trace fuzz --simulate linux-6.1-max --against linux-6.12-max
  kvm-arm64 lab run --kernel 6.12 -- kvm-arm64 trace fuzz`,
    )
    .action(fuzzHost)
}

function fuzzHost({ simulate, against, seed, ops, profile, save }: FuzzFlags): void {
  const { backend } = hostOf(simulate)
  using kvm = openKvm(backend)
  const report = against === undefined ? withProgress('Probing', () => probe(kvm)) : reportOf(against)
  using other = openKvm(simulator(report))
  if (save !== undefined) makeDirectory(save)
  let count = 0
  for (const finding of fuzz(kvm.fd, other.fd, { seed, operations: ops, profile })) {
    count++
    print(findingText(finding))
    if (save !== undefined) {
      const file = join(save, `seed-${seed}-${count}.ndjson`)
      writeOutput(file, formatTrace({ host: backend.host.release }, finding.trace))
    }
  }
  print(`${ops} calls on ${backend.host.release} with seed ${seed}: ${count} kinds of difference`)
  if (count > 0) process.exitCode = exitStatus.negative
}

function findingText({ trace, other }: FuzzFinding): string {
  const { call, outcome } = trace.at(-1)!
  const [first, second] = describeAnswers(outcome, other)
  const steps = trace.map((entry) => `  ${describeCall(entry.call)}`)
  return `${describeCall(call)}\n  ${first} here, ${second} simulated, after:\n${steps.slice(0, -1).join('\n')}\n`
}

function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true })
  } catch (error) {
    throw cannotWrite(directory, error)
  }
}
