/**
 * Runs inside the lab: starts QEMU on the machine's own KVM with a guest that never runs, and saves it to a file or restores it from one.
 * `node qemu-drive.js DIRECTORY save|restore|show FILE CPU`; prints what came of it as JSON. `show` asks what the CPU has.
 */
import { spawn } from 'node:child_process'

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

const [directory, what, file, cpu] = process.argv.slice(2) as [
  string,
  'save' | 'restore' | 'show',
  string,
  string,
]

const machine = '-accel kvm -M virt -m 64 -smp 1 -S -nodefaults -no-user-config -display none -qmp stdio'
const qemu = spawn(`${directory}/ld-linux-aarch64.so.1`, [
  '--library-path',
  directory,
  `${directory}/qemu-system-aarch64`,
  ...machine.split(' '),
  '-cpu',
  cpu,
  ...(what === 'restore' ? ['-incoming', 'defer'] : []),
])
let complaints = ''
let exit: { status: number | null } | undefined
let wake = (): void => {}
const answers: Answer[] = []
let rest = ''
qemu.stdin.on('error', () => {})
qemu.stderr.setEncoding('utf8').on('data', (text: string) => (complaints += text))
qemu.stdout.setEncoding('utf8').on('data', (text: string) => {
  const lines = (rest + text).split('\n')
  rest = lines.pop()!
  answers.push(...lines.filter((line) => line.trim() !== '').map((line) => JSON.parse(line) as Answer))
  wake()
})
qemu.on('close', (status) => {
  exit = { status }
  wake()
})

async function answer(): Promise<Answer | undefined> {
  for (;;) {
    const index = answers.findIndex(({ event }) => event === undefined)
    if (index !== -1) return answers.splice(index, 1)[0]
    if (exit !== undefined) return undefined
    await new Promise<void>((resolve) => (wake = resolve))
  }
}

function ask(execute: string, args: object = {}): Promise<Answer | undefined> {
  qemu.stdin.write(`${JSON.stringify({ execute, arguments: args })}\n`)
  return answer()
}

async function drive(): Promise<string | undefined> {
  await answer()
  await ask('qmp_capabilities')
  if (what === 'show') {
    const told = await ask('query-cpu-model-expansion', { type: 'full', model: { name: 'host' } })
    properties = told?.return?.model?.props
    return told === undefined ? undefined : 'completed'
  }
  const begun = await ask(what === 'save' ? 'migrate' : 'migrate-incoming', { uri: `file:${file}` })
  if (begun?.error) return begun.error.desc
  for (;;) {
    const told = await ask('query-migrate')
    if (told === undefined) return undefined
    const status = told.return?.status
    if (status === 'completed' || status === 'failed') return status
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

let properties: Record<string, boolean> | undefined
const status = await drive()
qemu.kill('SIGKILL')
const result: DriveResult = {
  ...(status !== undefined && { status }),
  ...(status === undefined && exit !== undefined && { exit: exit.status }),
  complaints,
  ...(properties !== undefined && { properties }),
}
process.stdout.write(JSON.stringify(result))
