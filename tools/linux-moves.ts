/**
 * Moves a running Linux guest on the KVM of labs: `npm run tool linux-moves [SERIES]…` within a lab of each kernel, over a socket and from
 * a snapshot; `npm run tool linux-moves FROM:TO …` from a lab of one kernel to one of another, through files. Prints a line for each move;
 * exits 1 if one failed.
 */
import { basename } from 'node:path'
import { bootLab, type Lab } from '../lib/lab/index.js'
import { type LinuxGuest, linuxGuest } from '../test/lab-kernels/linux-guest.js'
import type { Look, Moved } from '../test/lab-kernels/move-linux.js'

const program = 'dist/test/lab-kernels/move-linux.js'
/** The guest and its disk. */
const files = ['guest', 'disk.img']
const given = process.argv.slice(2)
for (const move of given.length > 0 ? given : ['5.10', '6.1', '6.12', '6.18', '7.2']) {
  const [from, to] = move.split(':') as [string, string | undefined]
  try {
    console.log(`${move}: ${to === undefined ? await within(from) : await between(from, to)}`)
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

async function between(from: string, to: string): Promise<string> {
  const guest = await linuxGuest(from)
  const looks: Look[] = []
  const contents: Buffer[] = []
  {
    await using lab = await boot(from, guest)
    looks.push((await run(lab, ['leave', basename(guest.image), guest.release, '2'])) as Look)
    for (const file of files) contents.push((await lab.run(['cat', file])).stdout)
  }
  await using lab = await boot(to, guest)
  for (const [index, file] of files.entries()) {
    await lab.run(['sh', '-c', `cat >${file}`], { stdin: contents[index]! })
  }
  looks.push((await run(lab, ['arrive'])) as Look)
  return looksText(looks)
}

async function boot(kernel: string, guest: LinuxGuest): Promise<Lab> {
  const programs = ['dist/lib', 'dist/test/lab-kernels', 'node_modules/valibot', 'package.json', 'prebuilds']
  return await bootLab({
    kernel,
    copy: [...programs, guest.image, guest.modules],
    timeout: 600,
    memory: 1536,
  })
}

async function run(lab: Lab, args: string[]): Promise<unknown> {
  const { status, stdout } = await lab.run(['node', '--jitless', program, ...args], {
    timeout: 600,
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
