import { spawn, type ChildProcess } from 'node:child_process'
import type { Socket } from 'node:net'
import { unfitKernel } from './agent.js'
import { LabError } from './errors.js'
import type { QemuProgram } from './qemus.js'

/** Interrupt controllers of the machine, by version. */
export const labGics = ['2', '3'] as const
export type LabGic = (typeof labGics)[number]

interface MachineOptions {
  qemu: QemuProgram
  image: string
  root: string
  cpu: string
  smp: number
  /** MiB */
  memory: number
  gic: LabGic
  mte: boolean
  append: string
}

const consoleKept = 64 * 1024

/**
 * A running QEMU with arm64's virtualization extensions, and the sockets its four virtio-serial ports are connected to. QEMU
 * inherits the sockets, so there is no socket file to find or clean up; QEMU dies with this process.
 */
export class Machine {
  readonly control: Socket
  readonly stdin: Socket
  readonly stdout: Socket
  readonly stderr: Socket
  /** Rejects with the reason when the machine ends or its kernel panics. Never resolves. */
  readonly ended: Promise<never>
  readonly #process: ChildProcess
  readonly #exited: Promise<void>
  #console = ''
  #complaints = ''

  constructor(options: MachineOptions) {
    const { command, args } = options.qemu
    const program = [command, ...args, ...machineArguments(options)]
    this.#process = spawn('setpriv', ['--pdeathsig', 'KILL', ...program], {
      stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe', 'pipe', 'pipe'],
      // Ctrl-C reaches only this process, which ends QEMU in order.
      detached: true,
    })
    const [, output, complaints, ...ports] = this.#process.stdio
    ;[this.control, this.stdin, this.stdout, this.stderr] = ports as unknown as Socket[] as [
      Socket,
      Socket,
      Socket,
      Socket,
    ]
    // A port breaks when the machine ends, and `ended` gives the reason.
    for (const port of [this.control, this.stdin, this.stdout, this.stderr]) port.on('error', () => {})
    this.stdin.resume()
    ;(complaints as Socket).setEncoding('utf8').on('data', (text: string) => (this.#complaints += text))

    this.#exited = new Promise((resolve) => {
      this.#process.on('close', () => resolve())
      this.#process.on('error', () => resolve())
    })
    this.ended = new Promise<never>((_, reject) => {
      this.#process.on('error', (error) => {
        reject(new LabError('ERR_LAB_TOOL', `cannot start QEMU: ${error.message}`, { cause: error }))
      })
      this.#process.on('close', (status) => reject(this.#whyEnded(status)))
      ;(output as Socket).setEncoding('utf8').on('data', (text: string) => {
        const panicked = this.#console.includes(panicText)
        this.#console = (this.#console + text).slice(-consoleKept)
        // The machine resets on a panic, which ends QEMU; a kernel configured to stay gets only the time to print the reason.
        if (!panicked && this.#console.includes(panicText))
          setTimeout(() => this.#process.kill('SIGKILL'), 1000).unref()
      })
    })
    this.ended.catch(() => {})
  }

  /** The last 64 KiB that the kernel wrote to its console. */
  get console(): string {
    return this.#console.replaceAll('\r', '')
  }

  /** The last 20 lines of the console, for errors. */
  get consoleTail(): string {
    return this.console.trimEnd().split('\n').slice(-20).join('\n')
  }

  /** Ends the machine at once; it has no state to save. Resolves when QEMU is gone. */
  async stop(): Promise<void> {
    this.#process.kill('SIGKILL')
    // The end of a port that nobody reads would go unnoticed.
    for (const port of [this.control, this.stdin, this.stdout, this.stderr]) port.destroy()
    await this.#exited
  }

  #whyEnded(status: number | null): LabError {
    const log = this.console
    const tail = this.consoleTail
    const panic = /Kernel panic - .*/.exec(log)?.[0]
    if (panic)
      return new LabError('ERR_LAB_PANIC', `the machine's kernel panicked: ${panic}`, { console: tail })
    if (log.includes(unfitKernel)) {
      return new LabError(
        'ERR_LAB_UNFIT_KERNEL',
        'the lab cannot communicate with this kernel: it needs CONFIG_VIRTIO_PCI=y and CONFIG_VIRTIO_CONSOLE=y',
        { console: tail },
      )
    }
    if (status !== 0 && status !== null) {
      const reason = this.#complaints.trim() || `status ${status}`
      return new LabError('ERR_LAB_QEMU', `QEMU cannot run this machine: ${reason}`, { console: tail })
    }
    const how = status === 0 ? 'powered off or restarted' : 'was killed'
    return new LabError('ERR_LAB_STOPPED', `the machine ${how} before the command ended`, { console: tail })
  }
}

const panicText = 'Kernel panic - not syncing'

function machineArguments({ image, root, cpu, smp, memory, gic, mte, append }: MachineOptions): string[] {
  return [
    ['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ['-machine', `virt,virtualization=on,gic-version=${gic}${mte ? ',mte=on' : ''}`],
    // With a thread for each CPU, QEMU 7.2 sometimes runs instructions that another CPU has just replaced: those V8 generates, and
    // those the kernel patches in its scheduler with every first and last VM. The process that runs a vCPU then continues with its
    // guest's TPIDR_EL0, or the machine locks up. One thread boots as quickly; work for both CPUs takes longer.
    ['-accel', 'tcg,thread=single'],
    ['-cpu', cpu, '-smp', String(smp), '-m', String(memory)],
    ['-kernel', image, '-initrd', root, '-append', `console=ttyAMA0 quiet panic=-1 ${append}`.trimEnd()],
    ['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ['-device', 'virtio-serial-pci,max_ports=5'],
    ...['control', 'stdin', 'stdout', 'stderr'].map((name, index) => [
      '-chardev',
      `socket,id=${name},fd=${index + 3}`,
      '-device',
      `virtserialport,chardev=${name},name=${name},nr=${index + 1}`,
    ]),
  ].flat()
}
