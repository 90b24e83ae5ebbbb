/**
 * Runs inside the lab: starts QEMU on the machine's own KVM with a guest that never runs, and saves it to a file or restores it from one.
 * `node qemu-drive.js TASKS`, in JSON; performs one after the other and prints what came of each as a line of JSON. Starting Node.js
 * for each would take as long as the work.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'

export interface DriveTask {
  /** Of the QEMU. */
  directory: string
  /** `show` asks what the CPU has. */
  what: 'save' | 'restore' | 'show'
  file: string
  cpu: string
}

export interface DriveResult {
  /** `completed`, or what else QEMU said of the migration; absent where it ended. */
  status?: string
  /** Exit status, where it ended by itself. */
  exit?: number | null
  complaints: string
  /** Properties of the CPU, by name. */
  properties?: Record<string, boolean>
}

type Answer = {
  return?: { status?: string; model?: { props: Record<string, boolean> } }
  error?: { desc: string }
  QMP?: unknown
  event?: string
}

const machine = '-accel kvm -M virt -m 64 -smp 1 -S -nodefaults -no-user-config -display none -qmp stdio'

class Qemu {
  complaints = ''
  exit: { status: number | null } | undefined
  readonly #answers: Answer[] = []
  readonly #process: ChildProcessWithoutNullStreams
  #wake = (): void => {}

  constructor({ directory, what, cpu }: DriveTask) {
    const incoming = what === 'restore' ? ['-incoming', 'defer'] : []
    const program = `${directory}/ld-linux-aarch64.so.1`
    const libraries = ['--library-path', directory, `${directory}/qemu-system-aarch64`]
    this.#process = spawn(program, [...libraries, ...machine.split(' '), '-cpu', cpu, ...incoming])
    const { stdin, stdout, stderr } = this.#process
    let rest = ''
    stdin.on('error', () => {})
    stderr.setEncoding('utf8').on('data', (text: string) => (this.complaints += text))
    stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()!
      const said = lines.filter((line) => line.trim() !== '').map((line) => JSON.parse(line) as Answer)
      this.#answers.push(...said.filter(({ event }) => event === undefined))
      this.#wake()
    })
    this.#process.on('close', (status) => {
      this.exit = { status }
      this.#wake()
    })
  }

  /** Returns the next answer; undefined if QEMU has ended. */
  async answer(): Promise<Answer | undefined> {
    while (this.#answers.length === 0 && this.exit === undefined) {
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
    return this.#answers.shift()
  }

  ask(execute: string, args: object = {}): Promise<Answer | undefined> {
    this.#process.stdin.write(`${JSON.stringify({ execute, arguments: args })}\n`)
    return this.answer()
  }

  /** Ends it, and waits until it has ended: it holds memory, and the kernel closes its VM. */
  async end(): Promise<void> {
    this.#process.kill('SIGKILL')
    while (this.exit === undefined) await new Promise<void>((resolve) => (this.#wake = resolve))
  }
}

/** Saves or restores; returns how the migration ended, undefined if QEMU did. */
async function migrate(qemu: Qemu, { what, file }: DriveTask): Promise<string | undefined> {
  const begun = await qemu.ask(what === 'save' ? 'migrate' : 'migrate-incoming', { uri: `file:${file}` })
  if (begun?.error) return begun.error.desc
  for (;;) {
    const reply = await qemu.ask('query-migrate')
    if (reply === undefined) return undefined
    const status = reply.return?.status
    // After a failed restore QEMU ends by itself, and only then has it named every reason.
    if (status === 'completed' || (status === 'failed' && what === 'save')) return status
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

async function drive(task: DriveTask): Promise<DriveResult> {
  const qemu = new Qemu(task)
  await qemu.answer()
  await qemu.ask('qmp_capabilities')
  if (task.what === 'show') {
    const reply = await qemu.ask('query-cpu-model-expansion', { type: 'full', model: { name: 'host' } })
    await qemu.end()
    return { complaints: qemu.complaints, properties: reply?.return?.model?.props ?? {} }
  }
  const status = await migrate(qemu, task)
  const exit = qemu.exit?.status ?? null
  await qemu.end()
  const { complaints } = qemu
  return status === undefined ? { exit, complaints } : { status, complaints }
}

for (const task of JSON.parse(process.argv[2]!) as DriveTask[]) {
  process.stdout.write(`${JSON.stringify(await drive(task))}\n`)
}
