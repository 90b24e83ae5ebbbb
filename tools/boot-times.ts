/**
 * Boots Debian's kernel on the KVM of one lab, in turns with our machine and with QEMU, and prints the time from the first `KVM_RUN` to
 * init: `npm run tool boot-times [SERIES] [ROUNDS] [verbose]`; with a verbose console too, it takes several times as long.
 */
import { basename } from 'node:path'
import { ensureKernel } from '../lib/lab/kernels.js'
import { bootLab } from '../lib/lab/index.js'
import { qemuDirectory } from '../test/lab-kernels/qemu-packages.js'
import type { BootTimes } from '../test/lab-kernels/time-boots.js'

const [series = '6.12', rounds = '3', verbose] = process.argv.slice(2)
const consoles = verbose === undefined ? (['quiet'] as const) : (['quiet', 'verbose'] as const)
const { image } = await ensureKernel(series)
const qemu = await qemuDirectory('qemu@10.0')
await using lab = await bootLab({
  kernel: series,
  memory: 2048,
  copy: ['package.json', 'prebuilds', 'dist/lib', 'dist/test', image, qemu],
  timeout: 600,
})
const program = ['node', 'dist/test/lab-kernels/time-boots.js']
const args = [basename(image), `./${basename(qemu)}`, rounds, ...consoles]
const { status, stdout, stderr } = await lab.run([...program, ...args])
if (status !== 0) throw new Error(String(stderr))
const times = JSON.parse(String(stdout)) as BootTimes[]

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
}
