/**
 * Boots Debian's kernels in a machine on the KVM of labs of the same kernels, and has each guest prove its consoles, disk and restart:
 * `npm run tool linux-boots [SERIES]…`. Prints a line for each guest; exits 1 if one failed.
 */
import { basename } from 'node:path'
import { bootLab } from '../lib/lab/index.js'
import type { Found } from '../test/lab-kernels/boot-linux.js'
import { linuxGuest } from '../test/lab-kernels/linux-guest.js'

const given = process.argv.slice(2)
const program = 'dist/test/lab-kernels/boot-linux.js'
for (const series of given.length > 0 ? given : ['5.10', '6.1', '6.12', '6.18', '7.2']) {
  const guest = await linuxGuest(series)
  const copy = [
    'package.json',
    'prebuilds',
    'node_modules/valibot',
    'dist/lib',
    'dist/test/lab-kernels',
    guest.image,
    guest.modules,
  ]
  await using lab = await bootLab({ kernel: series, copy, timeout: 600 })
  for (const vcpus of [1, 2]) {
    const args = [basename(guest.image), guest.release, String(vcpus), 'serial']
    const { status, stdout, stderr } = await lab.run(['node', program, ...args])
    if (status !== 0) {
      process.exitCode = 1
      console.log(`${series}, ${vcpus} vCPU: FAILED\n${String(stderr)}`)
      continue
    }
    const { release, cpus, interrupts, kept, end, shell } = JSON.parse(String(stdout)) as Found
    const isRight = release === guest.release && cpus === vcpus && kept === 'written before' && end === 'off'
    if (!isRight) process.exitCode = 1
    console.log(
      `${series}, ${vcpus} vCPU: ${isRight ? 'right' : 'WRONG'}: Linux ${release} on ${cpus} CPUs, shell after` +
        ` ${(shell / 1000).toFixed(1)} s, interrupts of ${interrupts.join(' ')}, file after the restart "${kept}", end ${end}`,
    )
  }
}
