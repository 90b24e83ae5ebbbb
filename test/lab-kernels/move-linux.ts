/**
 * Runs inside the lab: moves a Linux guest that counts, writes and keeps time. Prints what was found as JSON.
 *
 * - `move-linux.js IMAGE MODULES VCPUS`: from one machine to another over a socket, then to a snapshot, and starts that
 * - `move-linux.js leave IMAGE MODULES VCPUS`: to the file `guest`, with its disk in `disk.img`
 * - `move-linux.js pass`: from these files, and to them again
 * - `move-linux.js arrive`: from these files, and off; prints the reasons if the host refuses the guest
 *
 * The last three use the baseline in `baseline.json`, if there is one.
 */
import {
  copyFileSync,
  createReadStream,
  createWriteStream,
  existsSync,
  renameSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { type Baseline, readBaseline } from '../../lib/fleet/baseline/format.js'
import { CNTFRQ_EL0 } from '../../lib/report/machine.js'
import { type Kvm, openKvm } from '../../lib/kvm/index.js'
import {
  bootMachine,
  type Machine,
  MoveRefusedError,
  receiveMachine,
  type Sent,
} from '../../lib/machine/index.js'
import { machineOf } from '../../lib/migration/machine-facts.js'
import { ask, limit, linuxRoot } from './talk-to-linux.js'

/** What the guest says of itself at one moment. */
export interface Look {
  /** What it has counted to. */
  count: number
  /** The digest of a file in its memory. */
  digest: string
  /** A file on its disk. */
  kept: string
  cpus: number
}

/** Why a host did not take a guest. */
export interface Refused {
  refused: readonly string[]
}

/** What became of a guest that was moved, and started from a snapshot then. */
export interface Moved {
  /** Before the move, after it, and from the snapshot. */
  looks: Look[]
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

/** What the hosts of a way have in common, if it is elected. */
function elected(): { baseline?: Baseline } {
  return existsSync('baseline.json') ? { baseline: readBaseline('baseline.json') } : {}
}

async function bootGuest(kvm: Kvm, image: string, modules: string, vcpus: number): Promise<Machine> {
  writeFileSync('disk.img', new Uint8Array(8 << 20))
  const initrd = await linuxRoot(modules)
  const disks = ['disk.img']
  const guest = bootMachine({
    kvm,
    kernel: image,
    initrd,
    smp: vcpus,
    memory: 128,
    append: 'quiet',
    disks,
    ...elected(),
  })
  await guest.console.expect('# ', { timeout: limit })
  progress('the guest has booted')
  await ask(guest, 'mke2fs /dev/vda && mount -t ext4 /dev/vda /mnt && echo before >/mnt/file')
  await ask(guest, 'mkdir /t && mount -t tmpfs t /t && dd if=/dev/urandom of=/t/data bs=64k count=16')
  await ask(
    guest,
    '(i=0; while :; do i=$((i+1)); echo $i >/t/n; mv /t/n /t/count; sleep 0.1; done) & sleep 1',
  )
  return guest
}

async function lookAt(machine: Machine): Promise<Look> {
  return {
    count: Number(await ask(machine, 'cat /t/count')),
    digest: await ask(machine, 'md5sum </t/data'),
    kept: await ask(machine, 'cat /mnt/file'),
    cpus: Number(await ask(machine, 'nproc')),
  }
}

async function move(image: string, modules: string, vcpus: number): Promise<Moved> {
  const kvm = openKvm()
  const source = await bootGuest(kvm, image, modules, vcpus)
  const looks = [await lookAt(source)]
  progress('it counts')

  const before = await clockOf(source)
  const [first, second] = await socketPair()
  const [sent, machine] = await Promise.all([
    source.send(first, { rounds: 2 }),
    receiveMachine(second, { kvm, disks: ['disk.img'] }),
  ])
  const after = await clockOf(machine)
  const lost = after.host - before.host - Number(after.guest - before.guest) / ticksPerMs(kvm)
  progress(`it has moved: ${JSON.stringify(sent)}`)
  looks.push(await lookAt(machine))

  await ask(machine, 'echo after >/mnt/file && sync')
  const snapshot = await machine.send(createWriteStream('guest'), {
    rounds: 1,
    whileStopped: () => copyFileSync('disk.img', 'copy.img'),
  })
  progress(`it is in a file: ${JSON.stringify(snapshot)}`)
  const again = await receiveMachine(createReadStream('guest'), { kvm, disks: ['copy.img'] })
  looks.push(await lookAt(again))
  return { looks, lost, sent, snapshot, end: await powerOff(again) }
}

async function leave(image: string, modules: string, vcpus: number): Promise<Look> {
  const guest = await bootGuest(openKvm(), image, modules, vcpus)
  const look = await lookAt(guest)
  await ask(guest, 'sync')
  await guest.send(createWriteStream('guest'))
  return look
}

async function pass(): Promise<Look> {
  const guest = await receiveMachine(createReadStream('guest'), { disks: ['disk.img'], ...elected() })
  const look = await lookAt(guest)
  await ask(guest, 'sync')
  await guest.send(createWriteStream('next'))
  renameSync('next', 'guest')
  return look
}

async function arrive(): Promise<Look | Refused> {
  let guest: Machine
  try {
    guest = await receiveMachine(createReadStream('guest'), { disks: ['disk.img'], ...elected() })
  } catch (error) {
    if (!(error instanceof MoveRefusedError)) throw error
    return { refused: error.reasons }
  }
  const look = await lookAt(guest)
  await powerOff(guest)
  return look
}

async function powerOff(machine: Machine): Promise<string> {
  machine.console.write('poweroff -f\n')
  return await machine.ended
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

const parts = { leave, pass, arrive }
const [mode = '', ...rest] = process.argv.slice(2)
const isPart = Object.hasOwn(parts, mode)
const [image = '', modules = '', vcpus] = isPart ? rest : [mode, ...rest]
try {
  const perform = isPart ? parts[mode as keyof typeof parts] : move
  process.stdout.write(`${JSON.stringify(await perform(image, modules, Number(vcpus)))}\n`)
} catch (error) {
  const { stack, console: last } = error as Error & { console?: string }
  process.stderr.write(`${stack}\n${last ?? ''}\n`)
  process.exit(1)
}
