/**
 * Runs inside the lab: moves a Linux guest that dirties its memory many times, then cuts the stream at random places. Prints what was
 * found as JSON: `move-many.js IMAGE MODULES VCPUS MOVES CUTS`.
 */
import { readdirSync } from 'node:fs'
import { openKvm } from '../../lib/kvm/index.js'
import { receiveMachine, type Sent } from '../../lib/machine/index.js'
import { duplexPair } from '../machine/duplex-pair.js'
import { bootGuest, clockOf, elected, type Look, lookAt, ticksPerMs } from './move-linux-guest.js'
import { ask } from './talk-to-linux.js'

/** What became of a guest that was moved many times. */
export interface ManyMoves {
  /** Before the first move, after each, and after each cut. */
  looks: Look[]
  sent: Sent[]
  /** Milliseconds that its clock lost in each move against the host's. */
  lost: number[]
  /** Where the stream was cut, in bytes, and descriptors that were open afterwards beyond those before. */
  cuts: { at: number; left: number }[]
}

const disks = ['disk.img']
const [image = '', modules = '', vcpus, moves, cuts] = process.argv.slice(2)
const kvm = openKvm()
let machine = await bootGuest(kvm, image, modules, Number(vcpus))
await ask(machine, '(while :; do dd if=/dev/urandom of=/t/dirty bs=64k count=4 2>/dev/null; done) & sleep 1')
const found: ManyMoves = { looks: [await lookAt(machine)], sent: [], lost: [], cuts: [] }
let length = 0
while (found.sent.length < Number(moves)) {
  const before = await clockOf(machine)
  const { here, there, out } = duplexPair()
  const [sent, moved] = await Promise.all([
    machine.send(here, { rounds: 3 }),
    receiveMachine(there, { kvm, disks, ...elected() }),
  ])
  machine = moved
  length = out.passed
  const after = await clockOf(machine)
  found.sent.push(sent)
  found.lost.push(after.host - before.host - Number(after.guest - before.guest) / ticksPerMs(kvm))
  found.looks.push(await lookAt(machine))
  process.stderr.write(`move ${found.sent.length}: ${JSON.stringify(sent)}\n`)
}
while (found.cuts.length < Number(cuts)) {
  const descriptors = openDescriptors()
  const at = Math.floor(Math.random() * length * 0.99)
  const { here, there, out } = duplexPair()
  out.limit = at
  const outcomes = await Promise.allSettled([
    machine.send(here, { rounds: 3 }),
    receiveMachine(there, { kvm, disks, ...elected() }),
  ])
  for (const { status } of outcomes) if (status !== 'rejected') throw new Error(`cut at ${at}: ${status}`)
  found.looks.push(await lookAt(machine))
  found.cuts.push({ at, left: openDescriptors() - descriptors })
  process.stderr.write(`cut ${found.cuts.length} at ${at}\n`)
}
await machine.close()
process.stdout.write(`${JSON.stringify(found)}\n`)

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}
