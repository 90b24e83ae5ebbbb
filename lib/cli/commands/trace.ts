import { mkdirSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { Command, Option } from 'commander'
import type { Backend } from '../../backend.js'
import { probe } from '../../probe/probe.js'
import { type Kvm, openKvm } from '../../kvm/index.js'
import { FormatError } from '../../documents/document.js'
import { simulator } from '../../hosts/index.js'
import {
  describeAnswers,
  describeCall,
  type Divergence,
  formatTrace,
  Player,
  readTrace,
  recordingBackend,
  replay,
  type TraceEntry,
} from '../../trace/index.js'
import { type FuzzFinding, fuzz, type Profile, profiles } from '../../fuzz/index.js'
import { CommandError, exitStatus, statusOf } from '../exit.js'
import { hostOf, reportOf, simulateOption } from '../host.js'
import { cannotWrite, note, print, withProgress, writeOutput } from '../output.js'
import { Recording } from '../recording.js'
import { wholeNumber } from '../view/text.js'

/** `kvm-arm64 trace`: what was asked of KVM, and whether another one answers the same. */
export function traceCommand(): Command {
  const trace = new Command('trace')
    .description('record, replay and invent sequences of KVM calls')
    .addHelpText(
      'after',
      `
Examples:
  kvm-arm64 trace record migrate.mjs -o migrate.ndjson
  kvm-arm64 trace replay migrate.ndjson --simulate linux-6.1-max
  kvm-arm64 trace fuzz --ops 100000`,
    )
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
their new outcomes written. Without -o, what the script prints itself comes between the lines of the trace.

Exit status: 1 if the script throws or its promise can never be settled; the script's own if it calls process.exit; 3 without
arm64 KVM or --simulate. What was recorded until then is kept, also on Ctrl-C and SIGTERM; a script that never awaits hears
of these only when it is done.

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
  const isTrace = script.endsWith('.ndjson')
  if (file !== undefined && isSameFile(script, file)) {
    throw new CommandError(`${file}: is what is to be recorded, and is not written over`, exitStatus.usage)
  }
  // Nothing is written before it is known that there is something to record, and a KVM to record.
  const work = isTrace ? traceWork(script) : await scriptWork(script)
  openKvm(backend).close()
  const recording = new Recording(backend.host.release, file)
  const release = keepWhateverHappens(recording, script)
  try {
    await work(backend, (entry) => recording.add(entry))
  } catch (error) {
    // What a broken trace answered until it broke is nothing to keep in place of a whole one.
    if (error instanceof FormatError && file !== undefined) recording.discard()
    else recording.publish()
    throw error
  } finally {
    release()
  }
  recording.publish()
}

function isSameFile(one: string, other: string): boolean {
  const [a, b] = [one, other].map((file) => statSync(file, { throwIfNoEntry: false }))
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino
}

type Work = (backend: Backend, tell: (entry: TraceEntry) => void) => void | Promise<void>

/** The calls of a trace, made again. */
function traceWork(file: string): Work {
  const { entries } = readTrace(file)
  return async (backend, tell) => {
    using kvm = openKvm(backend)
    const player = new Player(kvm.fd)
    let count = 0
    for (const { call } of entries) {
      tell({ call, outcome: player.perform(call) })
      // Signals are heard of between turns only.
      if (++count % 1000 === 0) await setImmediate()
    }
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
      throw scriptError(file, error)
    }
  }
}

function scriptError(file: string, error: unknown): CommandError {
  if (error instanceof CommandError) return error
  const { message, stack } = error instanceof Error ? error : new Error(String(error))
  const told = process.env.KVM_ARM64_DEBUG ? (stack ?? message) : message
  return new CommandError(`${file}: ${told}`, exitStatus.negative)
}

/**
 * Publishes a recording also where the process ends before the script's promise is settled. What is returned ends the watch.
 */
function keepWhateverHappens(recording: Recording, script: string): () => void {
  const onError = (error: unknown) => fail(scriptError(script, error))
  // Emitted only where nothing is left that could settle the promise.
  const onIdle = () => {
    const problem = 'nothing is left to wait for, but the promise it returned is not settled'
    fail(new CommandError(`${script}: ${problem}`, exitStatus.negative))
  }
  const onExit = () => {
    try {
      recording.publish()
    } catch (error) {
      note((error as Error).message)
      process.exitCode = statusOf(error)
    }
  }
  const onSignal = (signal: NodeJS.Signals) => {
    // A script that listens too ends as it likes.
    if (process.listenerCount(signal) > 1) return
    onExit()
    release()
    process.kill(process.pid, signal)
  }
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  process.on('uncaughtException', onError).on('beforeExit', onIdle).on('exit', onExit)
  for (const signal of signals) process.on(signal, onSignal)
  const release = () => {
    process.off('uncaughtException', onError).off('beforeExit', onIdle).off('exit', onExit)
    for (const signal of signals) process.off(signal, onSignal)
  }
  return release
}

function fail({ message, status }: CommandError): never {
  note(message)
  process.exit(status)
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
  if (count === 0) return
  if (save === undefined) note('--save DIR keeps each difference as a trace, for kvm-arm64 trace replay')
  process.exitCode = exitStatus.negative
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
