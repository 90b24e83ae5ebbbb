import { type Stats, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { Command } from 'commander'
import type { Backend } from '../../../backend.js'
import { FormatError } from '../../../documents/document.js'
import { type Kvm, openKvm } from '../../../kvm/index.js'
import { Player, readTrace, recordingBackend, type TraceEntry } from '../../../trace/index.js'
import { CommandError, exitStatus, statusOf } from '../../exit.js'
import { hostOf, simulateOption } from '../../host.js'
import { isStandardOutput, note } from '../../output.js'
import { Recording } from '../../recording.js'

/** `kvm-arm64 trace record`: record every KVM call of a script, or of a trace, with its outcome. */
export function recordCommand(): Command {
  return new Command('record')
    .description('run a script, or the calls of a trace, and record every KVM call with its outcome')
    .argument('<script>', 'a module whose default export is a function of a Kvm; or a trace, *.ndjson')
    .option('-o, --output <file>', 'write the trace to a file, not to standard output (-)')
    .addOption(simulateOption())
    .addHelpText(
      'after',
      `
kvm-arm64 calls the function with what openKvm() returns, and records until the
function returns or its promise settles:

  export default async (kvm) => {
    using vm = kvm.createVm()
    vm.createVcpu(0).registers.get('KVM_REG_ARM_STD_BMAP')
  }

A trace is NDJSON: a head, then one line for each call. If a trace is given in
place of a script, its calls are made again and recorded with their new
outcomes. Without -o, the script's own output appears between the lines of the
trace.

The calls made so far are kept if the script throws, exits, or is stopped by
Ctrl-C or SIGTERM; a script that never awaits stops only at its end.

Exit status: 1 if the script throws or its promise can never settle; the
script's own if it calls process.exit; 3 without arm64 KVM or --simulate.

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
  if (file !== undefined && !isStandardOutput(file) && isSameFile(script, file)) {
    throw new CommandError(`${file}: the input and the output are the same file`, exitStatus.usage)
  }
  // The script must load and KVM must open before anything is written.
  const work = isTrace ? traceWork(script) : await scriptWork(script)
  openKvm(backend).close()
  const recording = new Recording(backend.host.release, file)
  const release = keepWhateverHappens(recording, script)
  try {
    await work(backend, (entry) => recording.add(entry))
  } catch (error) {
    // The first calls of a broken trace must not replace a complete one.
    if (error instanceof FormatError && file !== undefined) recording.discard()
    else recording.publish()
    throw error
  } finally {
    release()
  }
  recording.publish()
}

function isSameFile(one: string, other: string): boolean {
  const [a, b] = [one, other].map(statOf)
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino
}

/** Says nothing about a file that cannot be examined: opening it reports the error. */
function statOf(file: string): Stats | undefined {
  try {
    return statSync(file, { throwIfNoEntry: false })
  } catch {
    return undefined
  }
}

type Work = (backend: Backend, add: (entry: TraceEntry) => void) => void | Promise<void>

/** Makes the calls of a trace again. */
function traceWork(file: string): Work {
  const { entries } = readTrace(file)
  return async (backend, add) => {
    using kvm = openKvm(backend)
    const player = new Player(kvm.fd)
    let count = 0
    for (const { call } of entries) {
      add({ call, outcome: player.perform(call) })
      // Node delivers signals only between turns.
      if (++count % 1000 === 0) await setImmediate()
    }
    player.reset()
  }
}

async function scriptWork(file: string): Promise<Work> {
  const script = await importScript(file)
  return async (backend, add) => {
    using kvm = openKvm(recordingBackend(backend, add))
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
  const text = process.env.KVM_ARM64_DEBUG ? (stack ?? message) : message
  return new CommandError(`${file}: ${text}`, exitStatus.negative)
}

/** Publishes a recording even if the process ends before the script's promise settles; the returned function ends this watch. */
function keepWhateverHappens(recording: Recording, script: string): () => void {
  const onError = (error: unknown) => fail(scriptError(script, error))
  // Node emits it when nothing is left that could settle the promise.
  const onIdle = () => {
    const problem = 'the promise that it returned can never settle: nothing is left to wait for'
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
    // A script with a listener of its own decides how it ends.
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
    // Node would wait for a writer, and receive no signal.
    const found = statSync(file)
    if (found.isFIFO()) throw new Error('is a pipe, not a module')
    if (found.isDirectory()) throw new Error('is a directory, not a module')
    exports = (await import(pathToFileURL(resolve(file)).href)) as { default?: unknown }
  } catch (error) {
    throw new CommandError(`${file}: cannot be loaded: ${(error as Error).message}`, exitStatus.usage)
  }
  if (typeof exports.default !== 'function') {
    throw new CommandError(
      `${file}: its default export is not a function; kvm-arm64 trace record --help shows a script`,
      exitStatus.usage,
    )
  }
  return exports.default as (kvm: Kvm) => unknown
}
