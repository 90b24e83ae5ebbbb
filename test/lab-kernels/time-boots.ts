/**
 * Runs inside the lab: boots one kernel in turns with our machine and with QEMU on the same KVM, and prints how long each took as
 * JSON. `time-boots.js IMAGE QEMU-DIRECTORY ROUNDS quiet|verbose…`. Init prints `init runs` and switches off.
 */
import { spawn } from 'node:child_process'
import { createServer, type Socket } from 'node:net'
import { bootMachine, initramfs } from '../../lib/machine/index.js'
import { initProgram } from '../machine/init-program.js'
import { writeFileSync } from 'node:fs'

/** Milliseconds from the first `KVM_RUN` until init ran. */
export interface BootTimes {
  vmm: 'machine' | 'qemu'
  console: 'quiet' | 'verbose'
  vcpus: number
  milliseconds: number
}

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

async function withMachine({ initrd, append, vcpus }: Boot): Promise<number> {
  const machine = bootMachine({ kernel: image, initrd, append, smp: vcpus, reboot: false })
  const started = performance.now()
  await machine.console.expect('init runs', { timeout: limit })
  const milliseconds = performance.now() - started
  await machine.ended
  return milliseconds
}

async function withQemu({ initrd, append, vcpus }: Boot): Promise<number> {
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
  await ended
  server.close()
  return milliseconds
}

const initrd = await initramfs({ init: initProgram('init runs') })
const times: BootTimes[] = []
for (let round = 0; round < Number(rounds); round++) {
  for (const vcpus of [1, 2]) {
    for (const console of consoles) {
      const boot = { initrd, append: console === 'quiet' ? 'quiet' : '', vcpus }
      times.push({ vmm: 'machine', console, vcpus, milliseconds: await withMachine(boot) })
      times.push({ vmm: 'qemu', console, vcpus, milliseconds: await withQemu(boot) })
    }
  }
}
process.stdout.write(`${JSON.stringify(times)}\n`)
