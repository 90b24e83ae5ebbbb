import { readFileSync } from 'node:fs'
import {
  checkBoolean,
  checkChoice,
  checkOptions,
  checkText,
  checkUint32,
  invalidType,
  outOfRange,
} from '../arguments.js'
import { type Kvm, openKvm, type Vm } from '../kvm/index.js'
import { type VcpuFeature, vcpuFeatures } from '../uapi.js'
import { Board, type BoardPlan } from './board.js'
import { type Disk, fileDisk, memoryDisk } from './disk.js'
import { MachineError } from './errors.js'
import { VCPUS_MAX } from './gic.js'
import { GuestConsole } from './guest-console.js'
import { readKernelImage } from './image.js'
import { virtioPorts } from './memory-map.js'
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
  /** Whether the machine starts again when the guest restarts it; otherwise it ends. Default: true. */
  reboot?: boolean
  /** Called with the VM before each start, when all else is set up: elect services, pin registers, filter calls. Default: nothing. */
  configure?: (vm: Vm) => void
  /** KVM to use; it is not closed. Default: that of this machine. */
  kvm?: Kvm
}

/** How a machine ended: the guest switched it off, restarted it with `reboot: false` or reported a crash; or `close` was called. */
export type MachineEnd = 'off' | 'reset' | 'crash' | 'closed'

const MIB = 0x10_0000
const MEMORY_MAX = 0x10_0000

/**
 * Makes a machine and starts Linux in it.
 *
 * @throws MachineError `ERR_MACHINE_FILE`, `ERR_MACHINE_KERNEL`, `ERR_MACHINE_MEMORY`, `ERR_MACHINE_DISK`, `ERR_MACHINE_GIC`
 * @throws KvmError as `openKvm` and the calls of the handles
 * @throws TypeError for another type or an unknown option; RangeError for an option beyond its limits
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
  const { features = ['psci-0.2'], reboot = true, configure = () => undefined } = options
  const device = kind === 'serial' ? 'ttyS0' : 'hvc0'
  const plan: BoardPlan = {
    kernel: readKernelImage(contentOf(options.kernel, 'kernel')),
    initrd: options.initrd === undefined ? undefined : contentOf(options.initrd, 'initrd'),
    commandLine: `console=${device} ${append}`.trimEnd(),
    vcpus: smp,
    features,
    memory: memory * MIB,
    configure,
  }
  const opened: Disk[] = []
  let kvm: Kvm | undefined
  try {
    for (const [index, disk] of disks.entries()) opened.push(openDisk(disk, index))
    kvm = options.kvm ?? openKvm()
    const close = () => {
      for (const disk of opened) disk.close()
      if (options.kvm === undefined) kvm?.close()
    }
    return new Machine({ kvm, plan, disks: opened, console: kind, reboot, close })
  } catch (error) {
    for (const disk of opened) disk.close()
    if (options.kvm === undefined) kvm?.close()
    throw error
  }
}

interface MachineParts {
  readonly kvm: Kvm
  readonly plan: BoardPlan
  readonly disks: readonly Disk[]
  readonly console: 'serial' | 'virtio'
  readonly reboot: boolean
  /** Closes what the machine alone uses. */
  readonly close: () => void
}

/** A machine that runs, made by `bootMachine`. */
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
    this.#board = this.#powerOn()
    this.ended = this.#run()
    // Whoever does not wait for the end is not ended by it.
    this.ended.catch(() => undefined)
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

  #powerOn(): Board {
    const { kvm, plan, disks } = this.#parts
    const console = this.#virtioConsole
    this.#hvc = console && new VirtioConsole((bytes) => console.print(bytes))
    const virtio = [
      ...disks.map((disk) => new VirtioBlock(disk)),
      new VirtioRng(),
      ...(this.#hvc ? [this.#hvc] : []),
    ]
    const serialOutput = (bytes: Uint8Array) => this.serial.print(bytes)
    const board = new Board(kvm, plan, { serialOutput, virtio })
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
        if (end === 'reset' && this.#parts.reboot && !this.#isClosed) {
          this.#board = this.#powerOn()
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

function contentOf(file: string | Uint8Array, what: string): Uint8Array {
  if (typeof file !== 'string') return file
  try {
    return readFileSync(file)
  } catch (error) {
    const message = `the ${what} ${file} cannot be read: ${(error as Error).message}`
    throw new MachineError('ERR_MACHINE_FILE', message, { cause: error })
  }
}

function openDisk(disk: string | DiskOptions, index: number): Disk {
  const { content, readonly = false } = typeof disk === 'string' ? { content: disk } : disk
  return typeof content === 'string'
    ? fileDisk(content, readonly)
    : memoryDisk(`disk${index}`, content, readonly)
}

function checkMachineOptions(options: MachineOptions): void {
  const keys = ['kernel', 'initrd', 'append', 'smp', 'memory', 'disks', 'console', 'features', 'reboot']
  checkOptions(options, 'options', [...keys, 'configure', 'kvm'])
  const { kernel, initrd, append, smp, memory, disks, features, reboot, configure } = options
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
  if (features === undefined) return
  if (!Array.isArray(features)) throw invalidType('features', 'an array of names of features', features)
  for (const [index, feature] of features.entries()) {
    checkChoice(feature, `features[${index}]`, Object.keys(vcpuFeatures))
  }
}

/** Beside its disks a machine has a source of random numbers and may have a console. */
const DISKS_MAX = virtioPorts - 2

function checkDisks(disks: unknown): void {
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
