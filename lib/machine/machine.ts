import { Duplex, Transform, Writable } from 'node:stream'
import { isDeepStrictEqual } from 'node:util'
import {
  checkBoolean,
  checkChoice,
  checkMilliseconds,
  checkOptions,
  checkText,
  checkUint32,
  invalidType,
  outOfRange,
} from '../arguments.js'
import { readAtMost } from '../documents/text.js'
import { type Baseline, checkBaseline } from '../fleet/baseline/format.js'
import { type Kvm, openKvm, type Vm } from '../kvm/index.js'
import { type VcpuFeature, vcpuFeatures } from '../uapi.js'
import { type Board, bootBoard, type BoardDevices } from './board.js'
import { type Disk, fileDisk, memoryDisk } from './disk.js'
import { MachineError } from './errors.js'
import { VCPUS_MAX } from './gic.js'
import { GuestConsole } from './guest-console.js'
import { readKernelImage } from './image.js'
import { type BoardPlan, layOut } from './load-linux.js'
import { virtioPorts } from './memory-map.js'
import { sendMachine, type Sent } from './send.js'
import { VirtioBlock } from './virtio/block.js'
import { VirtioConsole } from './virtio/console.js'
import { VirtioRng } from './virtio/rng.js'

/** A disk of the guest: the path of a file, or these. */
export interface DiskOptions {
  /** The path of a file, or the disk's content, which the guest's writes change. */
  content: string | Uint8Array
  /** Default: false. */
  readonly?: boolean
}

export interface MachineOptions {
  /** An arm64 kernel, or the path of one: an Image, alone or packed with gzip or as EFI zboot image. */
  kernel: string | Uint8Array
  /** The initial root, or the path of one. Default: none. */
  initrd?: string | Uint8Array
  /** Added to the kernel's command line, which otherwise only names the console. */
  append?: string
  /** Number of vCPUs, at most 126. Default: 1. */
  smp?: number
  /** MiB, even. Default: 256. */
  memory?: number
  /** `vda`, `vdb` and so on of the guest. The size of each is a multiple of 512 bytes. */
  disks?: readonly (string | DiskOptions)[]
  /**
   * The device that is the guest's console. `serial`: a 16550, which every kernel has a driver for, and where each character takes
   * an exit. `virtio`: faster, for kernels with its driver. The serial port is there in any case. Default: `serial`.
   */
  console?: 'serial' | 'virtio'
  /** Features of every vCPU. Default: `['psci-0.2']`. */
  features?: readonly VcpuFeature[]
  /**
   * A baseline of the hosts that the guest may move to: every vCPU is configured by it before each start, and the VM gets its address
   * space and capabilities. It must be for vCPUs with `features`. Default: none.
   */
  baseline?: Baseline
  /** Whether the machine starts again when the guest restarts it; otherwise it ends. Default: true. */
  reboot?: boolean
  /** Called with the VM before each start, when all else is set up: elect services, pin registers, filter calls. Default: nothing. */
  configure?: (vm: Vm) => void
  /** KVM to use; it is not closed. Default: that of this machine. */
  kvm?: Kvm
}

/**
 * How a machine ended: the guest switched it off, restarted it with `reboot: false` or reported a crash; `close` was called; or `send`
 * moved the guest elsewhere.
 */
export type MachineEnd = 'off' | 'reset' | 'crash' | 'closed' | 'moved'

export interface SendOptions {
  /**
   * Whether the destination answers on the stream, as `receiveMachine` does on a socket; without answers the stream is a snapshot.
   * Default: true for a duplex stream, except for a Transform.
   */
  answers?: boolean
  /** Whether the guest goes on here too, once a snapshot is complete. Default: false. */
  continues?: boolean
  /** The most times that pages are sent while the guest runs, at least 1. Default: 10. */
  rounds?: number
  /**
   * Milliseconds in which the last pages should be sent, with the guest standing still. After the last round they are sent even if they
   * take longer. Default: 300.
   */
  downtime?: number
  /** The longest time in which the other side takes nothing and answers nothing, in milliseconds; 0 means no limit. Default: 60000. */
  timeout?: number
  /** Called while the guest stands still and its disks are flushed: copy them here. Default: nothing. */
  whileStopped?: () => void | Promise<void>
}

const MIB = 0x10_0000
const MEMORY_MAX = 0x10_0000

/**
 * Makes a machine and starts Linux in it.
 *
 * @throws MachineError `ERR_MACHINE_FILE`, `ERR_MACHINE_KERNEL`, `ERR_MACHINE_MEMORY`, `ERR_MACHINE_DISK`, `ERR_MACHINE_GIC`,
 * `ERR_MACHINE_BASELINE`
 * @throws KvmError as `openKvm` and the calls of the handles
 * @throws TypeError for another type, an unknown option, or a `configure` that returns a promise; RangeError for an option beyond its limits
 *
 * @example
 * await using machine = bootMachine({ kernel: 'Image', initrd: 'initrd.cpio' })
 * await machine.console.expect(/# $/)
 * machine.console.write('poweroff -f\n')
 * console.log(await machine.ended) // off
 */
export function bootMachine(options: MachineOptions): Machine {
  checkMachineOptions(options)
  const { append = '', smp = 1, memory = 256, disks = [], console: kind = 'serial' } = options
  const { features = ['psci-0.2'], baseline, reboot = true, configure = () => undefined } = options
  if (baseline !== undefined) checkFeatures(baseline, features)
  const plan: BoardPlan = {
    kernel: readKernelImage(contentOf(options.kernel, 'kernel', memory)),
    initrd: options.initrd === undefined ? undefined : contentOf(options.initrd, 'initrd', memory),
    commandLine: `console=${kind === 'serial' ? 'ttyS0' : 'hvc0'} ${append}`.trimEnd(),
    vcpus: smp,
    features,
    memory: memory * MIB,
    baseline,
    configure,
  }
  // Before KVM is opened: what is wrong with the files is wrong on any host.
  layOut(plan)
  const means = openMeans(disks, options.kvm)
  try {
    const first = (devices: BoardDevices) => bootBoard(means.kvm, plan, devices)
    return new Machine({ ...means, first, ...(reboot && { plan }), console: kind })
  } catch (error) {
    means.close()
    throw error
  }
}

/** What a machine uses of its host. */
export interface MachineMeans {
  readonly kvm: Kvm
  readonly disks: readonly Disk[]
  /** Closes what the machine alone uses. */
  readonly close: () => void
}

/** @throws MachineError `ERR_MACHINE_DISK`; KvmError as `openKvm` */
export function openMeans(disks: readonly (string | DiskOptions)[], given: Kvm | undefined): MachineMeans {
  const opened: Disk[] = []
  let kvm: Kvm | undefined
  const close = (): void => {
    for (const disk of opened.splice(0)) disk.close()
    if (given === undefined) kvm?.close()
  }
  try {
    for (const [index, disk] of disks.entries()) opened.push(openDisk(disk, index))
    kvm = given ?? openKvm()
    return { kvm, disks: [...opened], close }
  } catch (error) {
    close()
    throw error
  }
}

interface MachineParts extends MachineMeans {
  readonly first: (devices: BoardDevices) => Board
  /** How it starts again when the guest restarts; without it the machine ends then. */
  readonly plan?: BoardPlan
  readonly console: 'serial' | 'virtio'
  /** Whether the guest waits for `resume` before its first instruction. Default: false. */
  readonly isPaused?: boolean
  /** What its virtio console has yet to receive. */
  readonly input?: Uint8Array
}

/** A machine that runs, made by `bootMachine` or `receiveMachine`. */
export class Machine implements AsyncDisposable {
  /** The guest's console: its serial port, or with `console: 'virtio'` its virtio console. */
  readonly console: GuestConsole
  /** The guest's serial port, `ttyS0`. */
  readonly serial: GuestConsole
  /** Resolves when the machine has ended; rejects with `MachineError` `ERR_MACHINE_GUEST` or a `KvmError` if the guest cannot go on. */
  readonly ended: Promise<MachineEnd>
  readonly #parts: MachineParts
  readonly #virtioConsole: GuestConsole | undefined
  #board: Board
  #hvc: VirtioConsole | undefined
  #isClosed = false
  #isBeingSent = false
  /** Settles when the guest stands still for `pause`. */
  #paused: Promise<void> | undefined

  /** @internal */
  constructor(parts: MachineParts) {
    this.#parts = parts
    this.serial = new GuestConsole(
      (bytes) => this.#isClosed || this.#board.serial.receive(bytes),
      (isPaused) => this.#isClosed || this.#board.serial.hold(isPaused),
    )
    if (parts.console === 'virtio') {
      this.#virtioConsole = new GuestConsole(
        (bytes) => this.#isClosed || this.#hvc!.receive(bytes),
        (isPaused) => this.#isClosed || this.#hvc!.hold(isPaused),
      )
    }
    this.console = this.#virtioConsole ?? this.serial
    this.#board = this.#powerOn(parts.first)
    if (parts.input !== undefined) this.#hvc?.receive(parts.input)
    if (parts.isPaused === true) void this.pause().catch(() => undefined)
    this.ended = this.#run()
    // Whoever does not wait for the end is not ended by it.
    this.ended.catch(() => undefined)
  }

  /**
   * Makes the guest stand still, and resolves when it does: `vm` can then be captured. Its clock goes on. May be repeated.
   * @throws MachineError `ERR_MACHINE_ENDED`; the promise rejects
   *
   * @example
   * await machine.pause()
   * const state = capture(kvm, machine.vm)
   * machine.resume()
   */
  async pause(): Promise<void> {
    this.#paused ??= this.#board.pause()
    try {
      await this.#paused
    } catch (error) {
      this.#paused = undefined
      throw error
    }
  }

  /** Lets the guest go on after `pause`. Does nothing if it was not called. */
  resume(): void {
    if (this.#paused === undefined) return
    this.#paused = undefined
    this.#board.resume()
  }

  /**
   * Moves the guest, while it runs, to a machine that `receiveMachine` makes at the other end of the stream. That host makes its
   * verdict first; then memory is sent, and at last, with the guest standing still, what was written meanwhile. When the promise
   * resolves, the guest runs there, and this machine has ended with `moved`. When it rejects, the guest goes on here, except with
   * `ERR_MACHINE_UNCERTAIN`. A file, or another stream without answers, gets a snapshot.
   *
   * Not sent: the content of disks, which both hosts share or `whileStopped` copies; the transcript of the consoles; and what is
   * typed while the guest stands still. The guest's clock stands still with it. The stream is ended, or destroyed after an error.
   *
   * @param stream a stream of bytes; nobody else may read or write it meanwhile
   * @throws MachineError `ERR_MACHINE_REFUSED` (`MoveRefusedError`) with the destination's reasons, `ERR_MACHINE_STREAM`,
   * `ERR_MACHINE_SEND` for a machine that cannot be sent, `ERR_MACHINE_ENDED`, `ERR_MACHINE_UNCERTAIN`; the promise rejects
   * @throws KvmError as `capture` and `Vm.getDirtyLog`
   * @throws TypeError for another type or an unknown option; RangeError for an option beyond its limits
   *
   * @example
   * const { downtime } = await machine.send(connect(7000, 'other-host'))
   */
  async send(stream: Writable, options: SendOptions = {}): Promise<Sent> {
    // A duplex stream counts as one.
    if (!(stream instanceof Writable)) throw invalidType('stream', 'a Writable of node:stream', stream)
    const isConversation = stream instanceof Duplex && !(stream instanceof Transform)
    checkSendOptions(options)
    const { answers: asks = isConversation, continues = false, rounds = 10, downtime = 300 } = options
    const { timeout = 60_000, whileStopped = () => undefined } = options
    if (asks && !(stream instanceof Duplex)) throw invalidType('stream', 'a Duplex, to bring answers', stream)
    if (asks && continues) throw outOfRange('continues', 'false for a move', continues)
    if (this.#isBeingSent) throw new MachineError('ERR_MACHINE_SEND', 'the machine is being sent already')
    const board = this.#board
    const input = () => this.#hvc?.waiting ?? new Uint8Array(0)
    const { kvm, disks, console } = this.#parts
    this.#isBeingSent = true
    try {
      const sent = await sendMachine({ kvm, board, console, disks, input }, stream, {
        asks,
        rounds,
        downtime,
        timeout,
        whileStopped,
      })
      if (continues) {
        board.resume()
        return sent
      }
      board.stop('moved')
      await this.ended
      return sent
    } catch (error) {
      // It still stands still, until somebody has found out where it may go on.
      if (error instanceof MachineError && error.code === 'ERR_MACHINE_UNCERTAIN') this.#keepPaused(board)
      throw error
    } finally {
      this.#isBeingSent = false
    }
  }

  /** Keeps the guest paused until `resume` is called. */
  #keepPaused(board: Board): void {
    if (this.#paused === undefined) this.#paused = Promise.resolve()
    else board.resume()
  }

  /** The VM of the current start; a guest that restarts gets a new one. */
  get vm(): Vm {
    return this.#board.vm
  }

  /** Ends the machine at once, as by pulling its plug, and resolves when it has ended. May be repeated. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#board.stop()
    await this.ended.catch(() => undefined)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #powerOn(make: MachineParts['first']): Board {
    const { disks } = this.#parts
    const console = this.#virtioConsole
    this.#hvc = console && new VirtioConsole((bytes) => console.print(bytes))
    const virtio = [
      ...disks.map((disk) => new VirtioBlock(disk)),
      new VirtioRng(),
      ...(this.#hvc ? [this.#hvc] : []),
    ]
    const serialOutput = (bytes: Uint8Array) => this.serial.print(bytes)
    const board = make({ serialOutput, virtio })
    // Somebody may have paused them before the guest restarted.
    if (this.serial.isPaused) board.serial.hold(true)
    if (console?.isPaused) this.#hvc!.hold(true)
    return board
  }

  async #run(): Promise<MachineEnd> {
    let reason = 'after an error'
    try {
      for (;;) {
        const end = await this.#board.run()
        const { kvm, plan } = this.#parts
        if (end === 'reset' && plan !== undefined && !this.#isClosed) {
          this.#board = this.#powerOn((devices) => bootBoard(kvm, plan, devices))
          continue
        }
        reason = end === 'stopped' ? 'closed' : end
        return end === 'stopped' ? 'closed' : end
      }
    } finally {
      this.#isClosed = true
      this.#parts.close()
      this.serial.end(reason)
      this.#virtioConsole?.end(reason)
    }
  }
}

/** The longest Buffer of every Node.js. */
const LONGEST = 0x7fff_ffff

/**
 * Reads pipes too, but no more of a file than fits into the machine: a device may have no end.
 * @throws MachineError `ERR_MACHINE_FILE`, `ERR_MACHINE_MEMORY`
 */
function contentOf(file: string | Uint8Array, what: string, memory: number): Uint8Array {
  if (typeof file !== 'string') return file
  const limit = Math.min(memory * MIB, LONGEST)
  let bytes: Uint8Array
  try {
    bytes = readAtMost(file, limit + 1)
  } catch (error) {
    const message = `the ${what} ${file} cannot be read: ${(error as Error).message}`
    throw new MachineError('ERR_MACHINE_FILE', message, { cause: error })
  }
  if (bytes.length <= limit) return bytes
  throw new MachineError(
    'ERR_MACHINE_MEMORY',
    `the ${what} ${file} does not fit into ${Math.floor(limit / MIB)} MiB`,
  )
}

function openDisk(disk: string | DiskOptions, index: number): Disk {
  const { content, readonly = false } = typeof disk === 'string' ? { content: disk } : disk
  return typeof content === 'string'
    ? fileDisk(content, readonly)
    : memoryDisk(`disk${index}`, content, readonly)
}

function checkMachineOptions(options: MachineOptions): void {
  const keys = ['kernel', 'initrd', 'append', 'smp', 'memory', 'disks', 'console', 'features', 'reboot']
  checkOptions(options, 'options', [...keys, 'baseline', 'configure', 'kvm'])
  const { kernel, initrd, append, smp, memory, disks, features, baseline, reboot, configure } = options
  checkContent(kernel, 'kernel')
  if (initrd !== undefined) checkContent(initrd, 'initrd')
  if (append !== undefined) checkText(append, 'append')
  if (smp !== undefined) checkCount(smp, 'smp', VCPUS_MAX)
  if (memory !== undefined) {
    checkCount(memory, 'memory', MEMORY_MAX)
    if (memory % 2 !== 0) throw outOfRange('memory', 'an even number of MiB', memory)
  }
  if (options.console !== undefined) checkChoice(options.console, 'console', ['serial', 'virtio'])
  if (reboot !== undefined) checkBoolean(reboot, 'reboot')
  if (configure !== undefined && typeof configure !== 'function') {
    throw invalidType('configure', 'a function', configure)
  }
  checkDisks(disks)
  if (baseline !== undefined) checkBaseline(baseline, 'baseline')
  if (features === undefined) return
  if (!Array.isArray(features)) throw invalidType('features', 'an array of names of features', features)
  for (const [index, feature] of features.entries()) {
    checkChoice(feature, `features[${index}]`, Object.keys(vcpuFeatures))
  }
}

/** @throws MachineError `ERR_MACHINE_BASELINE` for a baseline of vCPUs with other features: other registers follow from them */
function checkFeatures(baseline: Baseline, features: readonly VcpuFeature[]): void {
  if (isDeepStrictEqual(new Set(baseline.features), new Set(features))) return
  throw new MachineError(
    'ERR_MACHINE_BASELINE',
    `expected a baseline for vCPUs with ${features.join(', ')}, the features of the machine's, ` +
      `found one with ${baseline.features.join(', ')}: make it for these features`,
  )
}

function checkSendOptions(options: SendOptions): void {
  checkOptions(options, 'options', ['answers', 'continues', 'rounds', 'downtime', 'timeout', 'whileStopped'])
  const { answers, continues, rounds, downtime, timeout, whileStopped } = options
  if (answers !== undefined) checkBoolean(answers, 'answers')
  if (continues !== undefined) checkBoolean(continues, 'continues')
  if (rounds !== undefined) checkCount(rounds, 'rounds', 0xffff_ffff)
  if (downtime !== undefined) checkMilliseconds(downtime, 'downtime')
  if (timeout !== undefined) checkMilliseconds(timeout, 'timeout')
  if (whileStopped !== undefined && typeof whileStopped !== 'function') {
    throw invalidType('whileStopped', 'a function', whileStopped)
  }
}

/** Beside its disks a machine has a source of random numbers and may have a console. */
const DISKS_MAX = virtioPorts - 2

/** @throws TypeError, RangeError */
export function checkDisks(disks: unknown): void {
  if (disks === undefined) return
  if (!Array.isArray(disks)) throw invalidType('disks', 'an array of paths', disks)
  if (disks.length > DISKS_MAX) throw outOfRange('disks', `at most ${DISKS_MAX} of them`, disks.length)
  for (const [index, disk] of disks.entries()) {
    if (typeof disk === 'string') continue
    checkOptions(disk, `disks[${index}]`, ['content', 'readonly'])
    const { content, readonly } = disk as DiskOptions
    checkContent(content, `disks[${index}].content`)
    if (readonly !== undefined) checkBoolean(readonly, `disks[${index}].readonly`)
  }
}

function checkContent(value: unknown, name: string): void {
  if (typeof value !== 'string' && !(value instanceof Uint8Array)) {
    throw invalidType(name, 'a path or a Uint8Array', value)
  }
}

function checkCount(value: unknown, name: string, maximum: number): void {
  checkUint32(value, name)
  if (value < 1 || value > maximum) throw outOfRange(name, `from 1 to ${maximum}`, value)
}
