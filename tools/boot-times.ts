/**
 * Boots Debian's kernel on the KVM of one lab, in turns with our machine and with QEMU, and prints the time from the first `KVM_RUN` to
 * init, and the processor time of an idle guest: `npm run tool boot-times [SERIES] [ROUNDS] [quiet|verbose|both]`.
 */
import { basename } from 'node:path'
import { ensureKernel } from '../lib/lab/kernels.js'
import { bootLab } from '../lib/lab/index.js'
import { qemuDirectory } from '../test/lab-kernels/qemu-packages.js'
import type { BootTimes } from '../test/lab-kernels/time-boots.js'

const [series = '6.12', rounds = '3', which = 'quiet'] = process.argv.slice(2)
const consoles = (['quiet', 'verbose'] as const).filter((each) => which === each || which === 'both')
const { image } = await ensureKernel(series)
const qemu = await qemuDirectory('qemu@10.0')
await using lab = await bootLab({
  kernel: series,
  memory: 2048,
  copy: ['package.json', 'prebuilds', 'node_modules/valibot', 'dist/lib', 'dist/test', image, qemu],
  timeout: 600,
})
const program = ['node', 'dist/test/lab-kernels/time-boots.js']
const args = [basename(image), `./${basename(qemu)}`, rounds, ...consoles]
const { status, stdout, stderr } = await lab.run([...program, ...args])
if (status !== 0) throw new Error(String(stderr))
const times = JSON.parse(String(stdout)) as BootTimes[]

/** Milliseconds of processor time for each second. */
function idleOf(vmm: BootTimes['vmm'], vcpus: number): number {
  return median(
    times
      .filter((time) => time.vmm === vmm && time.vcpus === vcpus)
      .map(({ idle }) => idle)
      .toSorted((a, b) => a - b),
  )
}

function secondsOf(vmm: BootTimes['vmm'], vcpus: number, kind: BootTimes['console']): number[] {
  return times
    .filter((time) => time.vmm === vmm && time.vcpus === vcpus && time.console === kind)
    .map(({ milliseconds }) => milliseconds / 1000)
    .toSorted((a, b) => a - b)
}

function median(list: readonly number[]): number {
  return list[Math.floor(list.length / 2)]!
}

for (const vcpus of [1, 2]) {
  for (const kind of consoles) {
    const [ours, theirs] = [secondsOf('machine', vcpus, kind), secondsOf('qemu', vcpus, kind)]
    const [shown, others] = [ours, theirs].map((list) => list.map((time) => time.toFixed(1)).join(' '))
    const ratio = (median(ours) / median(theirs)).toFixed(2)
    console.log(`${series}, ${vcpus} vCPU, ${kind}: machine ${shown} s, QEMU ${others} s, medians ${ratio}`)
  }
  const [ours, theirs] = (['machine', 'qemu'] as const).map((vmm) => idleOf(vmm, vcpus).toFixed(0))
  console.log(
    `${series}, ${vcpus} vCPU, idle: machine ${ours} ms, QEMU ${theirs} ms of processor time each second`,
  )
}
