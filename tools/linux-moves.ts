/**
 * Moves a running Linux guest on the KVM of labs: `npm run tool linux-moves [SERIES]…` within a lab of each kernel, over a socket and from
 * a snapshot; `npm run tool linux-moves FROM:TO[:TO …] …` from a lab of one kernel to those of others, through files, with the baseline of
 * their reports elected; `FROM!TO` without, which must be refused; `npm run tool linux-moves many SERIES MOVES CUTS` within a lab, with
 * memory dirtied on purpose, and then cuts of the stream. Prints a line for each move; exits 1 if one failed.
 */
import { basename } from 'node:path'
import { computeBaseline } from '../lib/fleet/baseline/baseline.js'
import type { Baseline } from '../lib/fleet/baseline/format.js'
import { builtInReport } from '../lib/hosts/index.js'
import { bootLab, type Lab } from '../lib/lab/index.js'
import { type LinuxGuest, linuxGuest } from '../test/lab-kernels/linux-guest.js'
import type { Look } from '../test/lab-kernels/move-linux-guest.js'
import type { Moved, Refused } from '../test/lab-kernels/move-linux.js'
import type { ManyMoves } from '../test/lab-kernels/move-many.js'

/** The guest and its disk. */
const files = ['guest', 'disk.img']
const given = process.argv.slice(2)
if (given[0] === 'many') console.log(await many(given[1]!, given.slice(2)))
else
  for (const move of given.length > 0 ? given : ['5.10', '6.1', '6.12', '6.18', '7.2']) {
    const way = move.split(/[:!]/)
    try {
      const found = way.length === 1 ? await within(move) : await along(way, !move.includes('!'))
      console.log(`${move}: ${found}`)
    } catch (error) {
      process.exitCode = 1
      console.log(`${move}: FAILED: ${(error as Error).message}`)
    }
  }

async function within(series: string): Promise<string> {
  const guest = await linuxGuest(series)
  await using lab = await boot(series, guest)
  const found = (await run(lab, [basename(guest.image), guest.release, '2'])) as Moved
  const { sent, snapshot, lost } = found
  return (
    `${looksText(found.looks)}; over a socket ${sentText(sent)} in ${sent.rounds} rounds, its clock lost ${lost.toFixed(1)} ms;` +
    ` to a file ${sentText(snapshot)}; end ${found.end}`
  )
}

/** Moves a guest from the first kernel of a way to the last. */
async function along(way: readonly string[], elects: boolean): Promise<string> {
  const guest = await linuxGuest(way[0]!)
  const contents = new Map<string, Buffer>()
  if (elects) contents.set('baseline.json', Buffer.from(JSON.stringify(baselineOf(way))))
  const looks: (Look | Refused)[] = []
  for (const [place, kernel] of way.entries()) {
    await using lab = await boot(kernel, guest)
    for (const [file, stdin] of contents) await lab.run(['sh', '-c', `cat >${file}`], { stdin })
    if (place === 0)
      looks.push((await run(lab, ['leave', basename(guest.image), guest.release, '2'])) as Look)
    else looks.push((await run(lab, [place === way.length - 1 ? 'arrive' : 'pass'])) as Look | Refused)
    for (const file of files) contents.set(file, (await lab.run(['cat', file])).stdout)
  }
  const refusal = looks.find((look) => 'refused' in look)
  if (elects === (refusal !== undefined)) process.exitCode = 1
  return refusal ? `refused: ${refusal.refused.join('; ')}` : looksText(looks as Look[])
}

function baselineOf(way: readonly string[]): Baseline {
  const names = [...new Set(way)].map((kernel) => `linux-${kernel}-neoverse-n1`)
  const hosts = names.map((name) => ({ name, report: builtInReport(name) }))
  return computeBaseline(hosts, { features: ['psci-0.2'] })
}

async function many(series: string, counts: string[]): Promise<string> {
  const guest = await linuxGuest(series)
  await using lab = await boot(series, guest)
  const args = [basename(guest.image), guest.release, '2', ...counts]
  const { looks, sent, lost, cuts } = (await run(lab, args, 'move-many')) as ManyMoves
  const leaks = cuts.filter(({ left }) => left > 0)
  const wrong = sent.filter(({ downtime }, index) => lost[index]! < -1 || lost[index]! > downtime + 1)
  if (leaks.length + wrong.length > 0) process.exitCode = 1
  const downtimes = sent.map(({ downtime }) => downtime).toSorted((one, other) => one - other)
  return (
    `${looksText(looks)}; ${sent.length} moves, still for ${inMs(downtimes[0])} to ${inMs(downtimes.at(-1))}, clock lost at most ` +
    `${inMs(Math.max(...lost))}, ${wrong.length} times more than the guest stood still, or gained; ` +
    `${cuts.length} cuts, ${leaks.length} of which left a descriptor`
  )
}

function inMs(duration = NaN): string {
  return `${duration.toFixed(0)} ms`
}

async function boot(kernel: string, guest: LinuxGuest): Promise<Lab> {
  const programs = [
    'dist/lib',
    'dist/test/lab-kernels',
    'dist/test/machine',
    'node_modules/valibot',
    'package.json',
    'prebuilds',
  ]
  return await bootLab({
    kernel,
    cpu: 'neoverse-n1',
    copy: [...programs, guest.image, guest.modules],
    timeout: 3600,
    memory: 1536,
  })
}

async function run(lab: Lab, args: string[], name = 'move-linux'): Promise<unknown> {
  const program = `dist/test/lab-kernels/${name}.js`
  const { status, stdout } = await lab.run(['node', '--jitless', program, ...args], {
    timeout: 3600,
    stderr: process.stderr,
  })
  if (status !== 0) throw new Error(`status ${status}`)
  return JSON.parse(String(stdout))
}

function looksText(looks: readonly Look[]): string {
  const isWhole = looks.every(
    ({ digest, cpus, count }, index) =>
      digest === looks[0]!.digest && cpus === 2 && (index === 0 || count > looks[index - 1]!.count),
  )
  if (!isWhole) process.exitCode = 1
  return `${isWhole ? 'whole' : 'NOT WHOLE'}, counted ${looks.map(({ count }) => count).join(' ')}`
}

function sentText({ bytes, downtime, duration }: Moved['sent']): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB in ${(duration / 1000).toFixed(1)} s, still for ${downtime.toFixed(0)} ms`
}
