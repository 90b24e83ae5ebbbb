/**
 * Runs inside the lab: moves a Linux guest that counts, writes and keeps time from one machine to another over a socket, takes a snapshot,
 * and starts that. Prints what was found as JSON. `move-linux.js IMAGE MODULES VCPUS`
 */
import { copyFileSync, createReadStream, createWriteStream, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { CNTFRQ_EL0 } from '../../lib/report/machine.js'
import { type Kvm, openKvm } from '../../lib/kvm/index.js'
import { bootMachine, type Machine, receiveMachine, type Sent } from '../../lib/machine/index.js'
import { machineOf } from '../../lib/migration/machine-facts.js'
import { ask, limit, linuxRoot } from './talk-to-linux.js'

/** What became of the guest. */
export interface Moved {
  /** What it had counted to, before the move, after it, and in the snapshot. */
  counts: number[]
  /** Digests of a file in its memory, likewise. */
  digests: string[]
  /** What it reads from the file on its disk that it wrote before. */
  kept: string[]
  cpus: number[]
  /** Milliseconds that its clock lost against the host's from before the move to after it. */
  lost: number
  sent: Sent
  snapshot: Sent
  end: string
}

/** For whoever waits, on standard error. */
function progress(what: string): void {
  process.stderr.write(`${(performance.now() / 1000).toFixed(1)} s: ${what}\n`)
}

async function moveLinux(image: string, modules: string, vcpus: number): Promise<Moved> {
  const kvm = openKvm()
  writeFileSync('disk.img', new Uint8Array(8 << 20))
  const initrd = await linuxRoot(modules)
  const source = bootMachine({
    kvm,
    kernel: image,
    initrd,
    smp: vcpus,
    memory: 128,
    append: 'quiet',
    disks: ['disk.img'],
  })
  await source.console.expect('# ', { timeout: limit })
  progress('the guest has booted')
  await ask(source, 'mke2fs /dev/vda && mount -t ext4 /dev/vda /mnt && echo before >/mnt/file')
  await ask(source, 'mkdir /t && mount -t tmpfs t /t && dd if=/dev/urandom of=/t/data bs=64k count=16')
  await ask(source, '(i=0; while :; do i=$((i+1)); echo $i >/t/n; mv /t/n /t/count; sleep 0.1; done) & true')
  const found: Moved = { counts: [], digests: [], kept: [], cpus: [], lost: 0 } as unknown as Moved
  const look = async (machine: Machine) => {
    found.counts.push(Number(await ask(machine, 'cat /t/count')))
    found.digests.push(await ask(machine, 'md5sum </t/data'))
    found.kept.push(await ask(machine, 'cat /mnt/file'))
    found.cpus.push(Number(await ask(machine, 'nproc')))
  }
  await look(source)

  progress('it counts')
  const before = await clockOf(source)
  const [first, second] = await socketPair()
  const receiving = receiveMachine(second, { kvm, disks: ['disk.img'] })
  const [sent, machine] = await Promise.all([source.send(first, { rounds: 3 }), receiving])
  found.sent = sent
  const after = await clockOf(machine)
  found.lost = after.host - before.host - Number(after.guest - before.guest) / ticksPerMs(kvm)
  await look(machine)

  progress(`it has moved: ${JSON.stringify(sent)}`)
  await ask(machine, 'echo after >/mnt/file && sync')
  found.snapshot = await machine.send(createWriteStream('snapshot'), {
    whileStopped: () => copyFileSync('disk.img', 'copy.img'),
  })
  progress(`snapshot: ${JSON.stringify(found.snapshot)}`)
  const again = await receiveMachine(createReadStream('snapshot'), { kvm, disks: ['copy.img'] })
  await look(again)
  again.console.write('poweroff -f\n')
  found.end = await again.ended
  kvm.close()
  return found
}

/** The guest's counter and the host's clock (milliseconds) at one moment. */
async function clockOf(machine: Machine): Promise<{ guest: bigint; host: number }> {
  await machine.pause()
  const clocks = {
    guest: machine.vm.vcpus[0]!.registers.get('KVM_REG_ARM_TIMER_CNT'),
    host: performance.now(),
  }
  machine.resume()
  return clocks
}

function ticksPerMs(kvm: Kvm): number {
  const { guestReads = [] } = machineOf(kvm)
  return Number(guestReads.find(({ id }) => BigInt(id) === CNTFRQ_EL0)!.value) / 1000
}

async function socketPair(): Promise<[Socket, Socket]> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen('move.socket', resolve))
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  const pair: [Socket, Socket] = [connect('move.socket'), await accepted]
  server.close()
  return pair
}

const [image, modules, vcpus] = process.argv.slice(2)
try {
  process.stdout.write(`${JSON.stringify(await moveLinux(image!, modules!, Number(vcpus)))}\n`)
} catch (error) {
  const { stack, console: last } = error as Error & { console?: string }
  process.stderr.write(`${stack}\n${last ?? ''}\n`)
  process.exit(1)
}
