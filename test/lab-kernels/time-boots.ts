/**
 * Runs inside the lab: boots one kernel in turns with our machine and with QEMU on the same KVM, and prints how long each took as
 * JSON. `time-boots.js IMAGE QEMU-DIRECTORY ROUNDS quiet|verbose…`. Init prints `init runs`, waits and switches off.
 */
import { spawn } from 'node:child_process'
import { createServer, type Socket } from 'node:net'
import { bootMachine, initramfs } from '../../lib/machine/index.js'
import { initProgram } from '../machine/init-program.js'
import { readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

export interface BootTimes {
  vmm: 'machine' | 'qemu'
  console: 'quiet' | 'verbose'
  vcpus: number
  /** From the first `KVM_RUN` until init ran. */
  milliseconds: number
  /** Processor time that the VMM's process took for each second in which its guest did nothing, in milliseconds. */
  idle: number
}

type Times = Pick<BootTimes, 'milliseconds' | 'idle'>

const [image, qemuDirectory, rounds, ...consoles] = process.argv.slice(2) as [
  string,
  string,
  string,
  ...BootTimes['console'][],
]
/** Milliseconds. A verbose boot makes some 28,000 exits. */
const limit = 600_000

interface Boot {
  readonly initrd: Uint8Array
  readonly append: string
  readonly vcpus: number
}

/** Seconds that init waits; the guest settles in the first, and the last is not measured either. */
const wait = 5

/** Call it once init has started to wait. */
async function idleOf(pid: number): Promise<number> {
  await sleep(1000)
  const [from, since] = [processorTime(pid), performance.now()]
  await sleep((wait - 2) * 1000)
  return ((processorTime(pid) - from) / (performance.now() - since)) * 1000
}

/** Milliseconds of all threads of a process. Linux counts them in ticks of 10 ms. */
function processorTime(pid: number): number {
  const [user, system] = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ')
    .slice(11)
  return (Number(user) + Number(system)) * 10
}

async function withMachine({ initrd, append, vcpus }: Boot): Promise<Times> {
  let started = 0
  const configure = () => (started = performance.now())
  const machine = bootMachine({ kernel: image, initrd, append, smp: vcpus, reboot: false, configure })
  await machine.console.expect('init runs', { timeout: limit })
  const milliseconds = performance.now() - started
  const idle = await idleOf(process.pid)
  await machine.ended
  return { milliseconds, idle }
}

async function withQemu({ initrd, append, vcpus }: Boot): Promise<Times> {
  writeFileSync('/tmp/initrd', initrd)
  const server = createServer().listen('/tmp/serial')
  const connection = new Promise<Socket>((resolve) => server.once('connection', resolve))
  const options =
    `--library-path ${qemuDirectory} ${qemuDirectory}/qemu-system-aarch64 -accel kvm -M virt,gic-version=3 -cpu host` +
    ` -m 256 -smp ${vcpus} -S -nodefaults -no-user-config -display none -no-reboot -qmp stdio -serial unix:/tmp/serial` +
    ` -kernel ${image} -initrd /tmp/initrd -append`
  const qemu = spawn(
    `${qemuDirectory}/ld-linux-aarch64.so.1`,
    [...options.split(' '), `console=ttyAMA0 ${append}`],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  )
  const ended = new Promise((resolve) => qemu.on('close', resolve))
  let started = 0
  qemu.stdin.write('{"execute":"qmp_capabilities"}\n')
  let answers = ''
  qemu.stdout.setEncoding('utf8').on('data', (text: string) => {
    answers += text
    if (started !== 0 || !answers.includes('"return"')) return
    started = performance.now()
    qemu.stdin.write('{"execute":"cont"}\n')
  })
  const serial = await connection
  let printed = ''
  const milliseconds = await new Promise<number>((resolve, reject) => {
    setTimeout(() => reject(new Error(`QEMU: ${answers}\n${printed}`)), limit).unref()
    serial.setEncoding('utf8').on('data', (text: string) => {
      printed += text
      if (printed.includes('init runs')) resolve(performance.now() - started)
    })
  })
  const idle = await idleOf(qemu.pid!)
  await ended
  server.close()
  return { milliseconds, idle }
}

const initrd = await initramfs({ init: initProgram('init runs', wait) })
const times: BootTimes[] = []
for (let round = 0; round < Number(rounds); round++) {
  for (const vcpus of [1, 2]) {
    for (const console of consoles) {
      const boot = { initrd, append: console === 'quiet' ? 'quiet' : '', vcpus }
      times.push({ vmm: 'machine', console, vcpus, ...(await withMachine(boot)) })
      times.push({ vmm: 'qemu', console, vcpus, ...(await withQemu(boot)) })
    }
  }
}
process.stdout.write(`${JSON.stringify(times)}\n`)
