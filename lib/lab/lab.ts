import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { Readable, type Writable } from 'node:stream'
import { constants } from 'node:os'
import { runLine } from './agent.js'
import { writeCpio, type ArchiveEntry } from './cpio.js'
import { LabError } from './errors.js'
import { copiedEntries, packageEntries } from './host-files.js'
import { ensureKernel, type LabKernel, type LabPages } from './kernels.js'
import { Feed, lines, Stream } from './ports.js'
import { type LabGic, Machine } from './qemu.js'
import { cpusOf, ensureQemu, installedQemu, type QemuProgram } from './qemus.js'
import { ensureRootImage } from './root-image.js'

export interface BootOptions {
  /** A series (`6.12`), a package version (`5.10.223`) or a release (`6.12.107+deb13-arm64`). Default `6.12`. */
  kernel?: string
  /** A kernel image to boot instead of one from Debian. */
  image?: string
  /** The kernel's page size. Default `4k`. */
  pages?: LabPages
  /** A version of QEMU that Debian offers, or its beginning: `11.1`. Default: the one installed. */
  qemu?: string
  /** A CPU that this QEMU knows, with its options: `max,pauth-impdef=on`. Default `neoverse-n1`. */
  cpu?: string
  /** The version of the machine's interrupt controller. Default `3`. */
  gic?: LabGic
  /** Whether memory has tags (MTE); needs a CPU that has them. Default false. */
  mte?: boolean
  /** Number of CPUs. Default 2. */
  smp?: number
  /** MiB. Default 1024. */
  memory?: number
  /** Added to the kernel's command line. */
  append?: string
  /** Files and directories to put into the machine's working directory. */
  copy?: readonly string[]
  /** Seconds the machine may take to boot, not counting downloads. Default 120. */
  timeout?: number
  /** Aborting it ends the current operation and the machine. */
  signal?: AbortSignal
  /** Called with a message about work that takes long: downloads, building the root image. */
  progress?: (message: string) => void
}

export interface RunOptions {
  /** Nothing by default. */
  stdin?: string | Uint8Array | Readable
  /** Receives the command's output as it comes; if absent, the result collects the output. */
  stdout?: Writable
  stderr?: Writable
  /** Seconds the command may take; after that the machine is ended. No limit by default. */
  timeout?: number
}

export interface RunResult {
  /** As a shell reports it: 128 + n for a command killed by signal n, 127 if there is no such command. */
  status: number
  /** The signal that `status` stands for. */
  signal?: NodeJS.Signals
  /** Empty if a stream was given. */
  stdout: Buffer
  stderr: Buffer
  /** Wall time from the request to the end of the command. */
  milliseconds: number
}

/** Wall time needed to start a lab, in milliseconds. */
export interface LabTimings {
  /** Finding, or downloading and building, kernel and root image. */
  prepare: number
  /** From the start of QEMU until the machine takes commands. */
  boot: number
  /** Copying this package and the given files into the machine. */
  copy: number
}

/**
 * Boots a real arm64 kernel with KVM under QEMU's emulation, on any machine. Node, this package and the copied files are inside;
 * there is no network.
 *
 * @throws LabError
 * @example
 * await using lab = await bootLab({ kernel: '6.12' })
 * const { status, stdout } = await lab.run(['node', '-p', 'process.arch'])
 */
export async function bootLab(options: BootOptions = {}): Promise<Lab> {
  const { signal, progress, timeout = 120 } = options
  const shared = { ...(signal && { signal }), ...(progress && { progress }) }
  const cpu = options.cpu ?? 'neoverse-n1'
  const started = performance.now()
  const qemu = await (options.qemu === undefined ? installedQemu(shared) : ensureQemu(options.qemu, shared))
  await requireCpu(qemu, cpu, signal)
  const { kernel, image, modules } = options.image
    ? { kernel: undefined, image: requireImage(options.image), modules: [] }
    : await ensureKernel(options.kernel ?? '6.12', {
        ...shared,
        ...(options.pages && { pages: options.pages }),
      })
  const root = await ensureRootImage(modules, shared)
  const entries = [...(await packageEntries()), ...(await copiedEntries(options.copy ?? []))]
  if (signal?.aborted) throw new LabError('ERR_LAB_CLOSED', 'interrupted before the machine was started')

  const prepared = performance.now()
  const machine = new Machine({
    qemu,
    image,
    root,
    cpu,
    gic: options.gic ?? '3',
    mte: options.mte ?? false,
    smp: options.smp ?? 2,
    memory: options.memory ?? 1024,
    append: options.append ?? '',
  })
  const timings = { prepare: prepared - started, boot: 0, copy: 0 }
  const lab = new Lab(machine, kernel, timings)
  signal?.addEventListener('abort', () => void lab.close(), { once: true })
  try {
    await lab.within(timeout, 'did not come up', async () => {
      const greeting = await lab.answer()
      if (greeting !== 'ready') throw new Error(`the lab's agent said ${JSON.stringify(greeting)}`)
    })
    timings.boot = performance.now() - prepared
    await putFiles(lab, entries, timeout)
    timings.copy = performance.now() - prepared - timings.boot
    return lab
  } catch (error) {
    await lab.close()
    throw error
  }
}

/** @throws LabError `ERR_LAB_UNKNOWN_CPU`, with the CPUs that this QEMU offers and the QEMU that offers the one wanted */
async function requireCpu(qemu: QemuProgram, cpu: string, signal?: AbortSignal): Promise<void> {
  const model = cpu.split(',')[0]!
  const offered = await cpusOf(qemu, signal)
  if (offered.includes(model)) return
  const elsewhere = newerCpus.includes(model)
    ? `QEMU ${newerQemu} has (--qemu ${newerQemu})`
    : `it has ${offered.filter((name) => arm64Cpu.test(name)).join(', ')}; ` +
      `QEMU ${newerQemu} (--qemu ${newerQemu}) also has ${newerCpus.join(', ')}`
  throw new LabError('ERR_LAB_UNKNOWN_CPU', `QEMU ${qemu.version} has no CPU ${model}; ${elsewhere}`)
}

/**
 * CPUs with arm64 that the QEMU of Debian 12, 7.2, lacks and `newerQemu` has.
 * @internal
 */
export const newerCpus: readonly string[] = [
  'cortex-a55',
  'cortex-a710',
  'cortex-a78ae',
  'neoverse-n2',
  'neoverse-v1',
]
const newerQemu = '11.1'
const arm64Cpu = /^(a64fx|max|cortex-a(35|[57]\d|\d{3})\w*|neoverse-\w+)$/

async function putFiles(lab: Lab, entries: ArchiveEntry[], timeout: number): Promise<void> {
  const stdin = Readable.from(writeCpio(entries), { objectMode: false })
  let reason: string
  try {
    const { status, stderr } = await lab.run(['sh', '-c', 'cd / && exec cpio -idmu'], { stdin, timeout })
    if (status === 0) return
    reason = `${String(stderr).trim()} (more memory may help)`
  } catch (error) {
    if (error instanceof LabError) throw error
    reason = (error as Error).message
  }
  throw new LabError('ERR_LAB_COPY', `cannot copy the files into the machine: ${reason}`)
}

/** A machine that runs commands, one at a time; only files persist from one command to the next. */
export class Lab implements AsyncDisposable {
  /** The kernel it runs; absent if an image was given. */
  readonly kernel: LabKernel | undefined
  readonly timings: Readonly<LabTimings>
  readonly #machine: Machine
  readonly #answers: AsyncIterator<string>
  #queue: Promise<unknown> = Promise.resolve()
  #closed: Promise<void> | undefined
  #failure: LabError | undefined

  /** @internal */
  constructor(machine: Machine, kernel: LabKernel | undefined, timings: LabTimings) {
    this.#machine = machine
    this.kernel = kernel
    this.timings = timings
    this.#answers = lines(machine.control)
  }

  /** The console output of the machine's kernel. */
  get console(): string {
    return this.#machine.console
  }

  /**
   * Runs a command in the machine's working directory, after all commands requested before. It gets pipes for its standard streams,
   * and the lab kills everything it leaves running.
   *
   * @throws LabError if the machine ends first; every later call then fails with the same error
   */
  run(command: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const result = this.#queue.then(() =>
      options.timeout === undefined
        ? this.#run(command, options)
        : this.within(options.timeout, `did not end ${command.join(' ')}`, () => this.#run(command, options)),
    )
    this.#queue = result.catch(() => {})
    return result
  }

  /** Ends the machine. Anything still running in it is lost. */
  close(): Promise<void> {
    this.#failure ??= new LabError('ERR_LAB_CLOSED', 'the lab has been closed')
    this.#closed ??= this.#machine.stop()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /**
   * Waits for `work`, for the machine to end, or for the time limit, at which it ends the machine.
   * @internal
   */
  async within<T>(seconds: number, failing: string, work: () => Promise<T>): Promise<T> {
    const timer = setTimeout(() => {
      const message = `the machine ${failing} within ${seconds} s`
      this.#failure ??= new LabError('ERR_LAB_TIMEOUT', message, { console: this.#machine.consoleTail })
      void this.close()
    }, seconds * 1000)
    try {
      return await this.#orEnd(work())
    } finally {
      clearTimeout(timer)
    }
  }

  /** @internal */
  async answer(): Promise<string> {
    // The port closes when the machine is about to end, and the machine's error gives the reason.
    const next = await this.#answers.next().catch(() => undefined)
    return next?.done === false ? next.value : await this.#machine.ended
  }

  async #run(command: readonly string[], options: RunOptions): Promise<RunResult> {
    const started = performance.now()
    const mark = randomBytes(16).toString('hex')
    const { control, stdin, stdout, stderr } = this.#machine
    const work = async (): Promise<RunResult> => {
      const out = new Stream(stdout, mark, options.stdout)
      const err = new Stream(stderr, mark, options.stderr)
      control.write(runLine(mark, options.stdin !== undefined, command))
      const feeding = options.stdin === undefined ? undefined : new Feed(options.stdin, stdin)
      const [answer] = await Promise.all([this.answer(), out.ended, err.ended])
      feeding?.end()
      // Only now: until the command has ended, the machine takes no other.
      if (feeding?.failure) throw feeding.failure
      const status = Number(/^exit (\d+)$/.exec(answer)?.[1])
      const signal = signalNames.get(status - 128)
      const milliseconds = performance.now() - started
      return { status, ...(signal && { signal }), stdout: out.collected, stderr: err.collected, milliseconds }
    }
    if (this.#failure) throw this.#failure
    return await this.#orEnd(work())
  }

  async #orEnd<T>(work: Promise<T>): Promise<T> {
    try {
      return await Promise.race([work, this.#machine.ended])
    } catch (error) {
      work.catch(() => {})
      if (error instanceof LabError) throw (this.#failure ??= error)
      throw error
    }
  }
}

const signalNames = new Map(
  Object.entries(constants.signals).map(([name, number]) => [number, name as NodeJS.Signals]),
)

function requireImage(path: string): string {
  if (!existsSync(path)) throw new LabError('ERR_LAB_UNKNOWN_KERNEL', `there is no kernel image ${path}`)
  return path
}
