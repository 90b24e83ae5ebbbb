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
import { copyFileSync, createReadStream, createWriteStream, renameSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { openKvm } from '../../lib/kvm/index.js'
import { type Machine, MoveRefusedError, receiveMachine, type Sent } from '../../lib/machine/index.js'
import { bootGuest, clockOf, elected, type Look, lookAt, progress, ticksPerMs } from './move-linux-guest.js'
import { ask } from './talk-to-linux.js'

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
