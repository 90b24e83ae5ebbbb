import { totalmem } from 'node:os'
import { Duplex, finished, Readable } from 'node:stream'
import { checkMilliseconds, checkObject, checkOptions, invalidType } from '../arguments.js'
import { asText } from '../documents/entries.js'
import { withBaseline } from '../fleet/baseline/apply.js'
import { type Baseline, checkBaseline } from '../fleet/baseline/format.js'
import type { GuestMemory, Kvm } from '../kvm/index.js'
import { isObstacle } from '../migration/obstacle.js'
import { restore, RestoreError } from '../migration/restore.js'
import type { State } from '../migration/state.js'
import { type MoveVerdict, verdict } from '../migration/verdict.js'
import { strict, type VmmRules } from '../migration/vmm/rules.js'
import { findingSubject, findingWords } from '../migration/words.js'
import { applyBaseline, Board, type BoardDevices, RAM_SLOT } from './board.js'
import { MachineError, MoveRefusedError } from './errors.js'
import { FrameReader, FrameWriter, PIECE, within } from './frames.js'
import { VCPUS_MAX } from './gic.js'
import { checkDisks, type DiskOptions, Machine, type MachineMeans, openMeans } from './machine.js'
import { RAM_BASE } from './memory-map.js'
import { type Header, readHeader, readSaved, refusalOf, type Saved } from './moving-machine.js'

export interface ReceiveOptions {
  /** The machine's disks, as `bootMachine` takes them: as many, as large and as writable as it had. Default: none. */
  disks?: readonly (string | DiskOptions)[]
  /** Decides which registers are restored, and which outcome is an obstacle. Default: `strict`: all, and each that differs. */
  rules?: VmmRules
  /**
   * The baseline that the machine was started with: registers that it declares to be absent on some host are not restored, and keep
   * what the baseline elects. Default: none.
   */
  baseline?: Baseline
  /**
   * Returns whether to take the machine, given this host's verdict. One that cannot be restored is refused in any case. Default: takes
   * it if the move is `possible`.
   */
  accept?: (verdict: MoveVerdict) => boolean
  /** The longest time without data, in milliseconds; 0 means no limit. Default: 60000. */
  timeout?: number
  /** KVM to use; it is not closed. Default: that of this machine. */
  kvm?: Kvm
}

/**
 * Receives a machine that `Machine.send` sends, or a snapshot, and lets its guest go on. Memory comes only after the verdict allows the
 * move. The guest runs only when all of it is in place and, unless it is a snapshot, the source has given it away. A guest that
 * restarts ends the machine with `reset`.
 *
 * The stream is ended, or destroyed after an error; then nothing of the machine is left. Do not start a snapshot and its disks twice:
 * nothing prevents that.
 *
 * @param stream a stream of bytes, a duplex one if the source waits for answers. Nobody else may read or write it meanwhile
 * @throws MachineError `ERR_MACHINE_REFUSED` (`MoveRefusedError`) if this host cannot take the machine, `ERR_MACHINE_STREAM`,
 * `ERR_MACHINE_DISK`; the promise rejects
 * @throws KvmError as `openKvm` and `Kvm.createMemory`
 * @throws TypeError for another type or an unknown option; RangeError for an option beyond its limits
 *
 * @example
 * const machine = await receiveMachine(createReadStream('guest.snapshot'), { disks: ['copy.img'] })
 */
export async function receiveMachine(stream: Readable, options: ReceiveOptions = {}): Promise<Machine> {
  if (!(stream instanceof Readable)) {
    throw invalidType('stream', 'a Readable or Duplex of node:stream', stream)
  }
  checkReceiveOptions(options)
  const { disks = [], baseline, accept = ({ possible }) => possible, timeout = 60_000 } = options
  const given = options.rules ?? strict
  const rules = baseline === undefined ? given : withBaseline(given, baseline)
  // Its errors are those of the calls that use it; one that comes later means nothing any more.
  stream.on('error', () => undefined)
  let answers: FrameWriter | undefined
  try {
    const reader = new FrameReader(stream, timeout)
    await reader.begin()
    const { bytes } = await reader.next(['header'])
    const header = readHeader(bytes)
    if (header.asks) {
      if (!(stream instanceof Duplex)) {
        throw new MachineError('ERR_MACHINE_STREAM', 'the source waits for answers: expected a duplex stream')
      }
      answers = new FrameWriter(stream, timeout)
    }
    const means = openMeans(disks, options.kvm)
    let arrived: Arrived | undefined
    try {
      judge(header, means, rules, accept)
      arrived = { means, header, rules, baseline, memory: means.kvm.createMemory(header.memory) }
      await answers?.write('accepted')
      const saved = await readMachine(reader, arrived.memory)
      checkSameVm(header.state, saved.state)
      return await start(arrived, saved, { reader, answers, stream })
    } catch (error) {
      arrived?.memory.close()
      means.close()
      throw error
    }
  } catch (error) {
    if (answers !== undefined) await explain(error, answers, stream as Duplex)
    stream.destroy()
    throw error
  }
}

interface Arrived {
  readonly means: MachineMeans
  readonly header: Header
  readonly rules: VmmRules
  readonly baseline: Baseline | undefined
  readonly memory: GuestMemory
}

/** @throws MoveRefusedError if this host does not take the machine; it has findings if the verdict was the reason */
function judge(
  header: Header,
  { kvm, disks }: MachineMeans,
  rules: VmmRules,
  accept: (verdict: MoveVerdict) => boolean,
): void {
  const reasons: string[] = []
  const { state, memory } = header
  const slots = state.vm.memory ?? []
  const isWhole =
    slots.length === 1 &&
    slots[0]!.slot === RAM_SLOT &&
    BigInt(slots[0]!.address) === BigInt(RAM_BASE) &&
    slots[0]!.size === memory
  const { notCarried = [] } = state.vm
  if (notCarried.length > 0)
    reasons.push(`its VM has ${notCarried.join(', ')}, which a stream does not carry`)
  if (!isWhole) reasons.push(`its VM's memory is not the ${memory} bytes of the machine`)
  if (memory > totalmem()) reasons.push(`it has ${memory} bytes of memory, and this host ${totalmem()}`)
  if (state.vcpus.length > VCPUS_MAX)
    reasons.push(`it has ${state.vcpus.length} vCPUs: at most ${VCPUS_MAX} are possible`)
  if (described(header.disks) !== described(disks)) {
    reasons.push(`its disks are ${described(header.disks)}; those given here are ${described(disks)}`)
  }
  if (reasons.length > 0) throw new MoveRefusedError(reasons.map(asText), [])
  const found = verdict(state, kvm, rules)
  if (found.restores && accept(found)) return
  const obstacles = found.findings.filter(isObstacle)
  const listed = obstacles.length > 0 ? obstacles : found.findings
  const words = listed.map((finding) => {
    const { source, destination, meaning, remedy } = findingWords(finding, found.vmm)
    return `${findingSubject(finding)}: ${source} → ${destination}; ${meaning}; remedy: ${remedy}`
  })
  throw new MoveRefusedError(words.length > 0 ? words.map(asText) : ['accept() declined'], listed)
}

/** Disks in words. */
function described(disks: readonly Header['disks'][number][]): string {
  return (
    disks.map(({ size, readonly }) => `${size} bytes${readonly ? ', readonly' : ''}`).join('; ') || 'none'
  )
}

/** Reads memory, and then what else the machine holds. @throws MachineError `ERR_MACHINE_STREAM` */
async function readMachine(reader: FrameReader, memory: GuestMemory): Promise<Saved> {
  const content = new Uint8Array(memory.buffer)
  for (;;) {
    const { type, bytes } = await reader.next(['pages', 'zeros', 'state'])
    if (type === 'state') {
      const saved = readSaved(bytes)
      await reader.next(['end'])
      return saved
    }
    if (bytes.length < (type === 'zeros' ? 16 : 8)) {
      throw new MachineError('ERR_MACHINE_STREAM', `a frame ${type} of ${bytes.length} bytes`)
    }
    const offset = Number(bytes.readBigUInt64LE(0))
    const length = type === 'zeros' ? Number(bytes.readBigUInt64LE(8)) : bytes.length - 8
    // A few bytes must not make this host fill gigabytes, nor must endless ones say nothing.
    if (length === 0 || length > PIECE) {
      throw new MachineError(
        'ERR_MACHINE_STREAM',
        `a frame ${type} about ${length} bytes: 1 to ${PIECE} are possible`,
      )
    }
    if (offset > content.length - length) {
      throw new MachineError(
        'ERR_MACHINE_STREAM',
        `${length} bytes at ${offset} are outside the machine's memory of ${content.length} bytes`,
      )
    }
    if (type === 'zeros') content.fill(0, offset, offset + length)
    else content.set(bytes.subarray(8), offset)
  }
}

/**
 * The verdict was about the state of the header: the one that is restored must be of the same VM.
 * @throws MachineError `ERR_MACHINE_STREAM`
 */
function checkSameVm(judged: State, saved: State): void {
  const [before, after] = [judged, saved].map(identityOf)
  const differing = Object.keys(before!).find((name) => before![name] !== after![name])
  if (differing === undefined) return
  throw new MachineError(
    'ERR_MACHINE_STREAM',
    `the state at the end is of another VM than the header: its ${differing} differ`,
  )
}

/** What does not change in the life of a VM. */
function identityOf({ vm, vcpus }: State): Record<string, string> {
  const { type, capabilities, smcccFilter, gic, memory, notCarried } = vm
  return {
    'type and capabilities': JSON.stringify([type, capabilities.toSorted()]),
    'filtered calls': JSON.stringify(smcccFilter),
    'interrupt controllers': JSON.stringify([gic?.version, gic?.distributor, gic?.redistributors, gic?.irqs]),
    'slots of memory': JSON.stringify(memory),
    'devices that are not carried': JSON.stringify(notCarried ?? []),
    'vCPUs and their features': JSON.stringify(vcpus.map(({ id, features }) => [id, features.toSorted()])),
  }
}

interface Conversation {
  readonly reader: FrameReader
  readonly answers: FrameWriter | undefined
  readonly stream: Readable
}

async function start(
  { means, header, rules, baseline, memory }: Arrived,
  saved: Saved,
  { reader, answers, stream }: Conversation,
): Promise<Machine> {
  const first = (devices: BoardDevices): Board => {
    const { vm } = restore(means.kvm, saved.state, {
      rules,
      prepare: (made) => made.mapMemory(RAM_SLOT, { address: BigInt(RAM_BASE), memory }),
    })
    try {
      if (baseline !== undefined) applyBaseline(vm, baseline)
      const board = new Board(vm, memory, devices)
      board.restore(saved.devices)
      return board
    } catch (error) {
      vm.close()
      throw error
    }
  }
  const input = Buffer.from(saved.input, 'base64')
  const parts = { ...means, first, console: header.console, isPaused: true, input }
  const machine = inTermsOfStream(() => new Machine(parts))
  if (answers === undefined) {
    stream.destroy()
    machine.resume()
    return machine
  }
  try {
    await answers.write('ready')
    await reader.next(['go'])
  } catch (error) {
    await machine.close()
    throw error
  }
  // From here on the guest is here, whatever becomes of the stream.
  machine.resume()
  await answers.write('started').catch(() => undefined)
  await endStream(stream as Duplex)
  stream.destroy()
  return machine
}

/** @throws MachineError for what the stream holds and no machine here can be restored from */
function inTermsOfStream<T>(make: () => T): T {
  try {
    return make()
  } catch (error) {
    if (error instanceof RestoreError) throw new MoveRefusedError([asText(error.message)], [])
    if (!(error instanceof RangeError)) throw error
    const problem = `no machine can be in the state of the stream: ${error.message}`
    throw new MachineError('ERR_MACHINE_STREAM', problem, { cause: error })
  }
}

/** Sends the source the reason for an error, if it still reads. */
async function explain(error: unknown, answers: FrameWriter, stream: Duplex): Promise<void> {
  const [reasons, findings] =
    error instanceof MoveRefusedError
      ? [error.reasons, error.findings]
      : [[asText(error instanceof Error ? error.message : String(error))], []]
  try {
    await answers.writeJson('refused', refusalOf(reasons, findings))
  } catch {
    // The end of the stream then shows the source that the move failed.
  }
  await endStream(stream)
}

/** Milliseconds for which a source may leave an answer untaken. */
const PATIENCE = 2000

/** Ends a stream, and resolves when it has taken everything, or will not. */
async function endStream(stream: Duplex): Promise<void> {
  const taken = new Promise<void>((resolve) => finished(stream, { readable: false }, () => resolve()))
  stream.end()
  await within(PATIENCE, 'the source took nothing', taken).catch(() => undefined)
}

function checkReceiveOptions(options: ReceiveOptions): void {
  checkOptions(options, 'options', ['disks', 'rules', 'baseline', 'accept', 'timeout', 'kvm'])
  const { disks, rules, baseline, accept, timeout } = options
  checkDisks(disks)
  if (rules !== undefined) checkObject(rules, 'rules')
  if (baseline !== undefined) checkBaseline(baseline, 'baseline')
  if (accept !== undefined && typeof accept !== 'function') throw invalidType('accept', 'a function', accept)
  if (timeout !== undefined) checkMilliseconds(timeout, 'timeout')
}
