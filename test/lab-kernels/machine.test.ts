/** A machine boots Debian's own kernels on real KVM: consoles, several vCPUs, a disk that outlives a restart, the command. */
import assert from 'node:assert/strict'
import { basename } from 'node:path'
import { beforeAll, describe, test } from 'vitest'
import { bootLab } from '../../lib/lab/index.js'
import { ensurePrograms } from '../debian.js'
import type { Found } from './boot-linux.js'
import { linuxGuest } from './linux-guest.js'

/** The lab's kernel, the guest's, its vCPUs, its console, and the interrupt controller of all. */
const cases = [
  ['6.12', '6.12', 2, 'serial', '3'],
  ['7.2', '7.2', 1, 'virtio', '2'],
] as const

beforeAll(() => ensurePrograms(['xz']))

describe('a machine in the lab', () => {
  for (const [host, guestSeries, vcpus, kind, gic] of cases) {
    test(`on ${host} with GICv${gic} boots ${guestSeries} with ${vcpus} vCPUs and a ${kind} console`, async () => {
      const guest = await linuxGuest(guestSeries)
      await using lab = await bootLab({
        kernel: host,
        gic,
        copy: [
          'dist/lib',
          'dist/test/lab-kernels/boot-linux.js',
          'dist/test/lab-kernels/talk-to-linux.js',
          'node_modules/valibot',
          'package.json',
          'prebuilds',
          guest.image,
          guest.modules,
        ],
      })
      const { status, stdout, stderr } = await lab.run(
        [
          'node',
          'dist/test/lab-kernels/boot-linux.js',
          basename(guest.image),
          guest.release,
          String(vcpus),
          kind,
        ],
        { timeout: 600 },
      )
      assert.equal(status, 0, String(stderr))
      const { release, cpus, interrupts, random, kept, end } = JSON.parse(String(stdout)) as Found
      assert.deepEqual(
        { release, cpus, kept, end },
        {
          release: guest.release,
          cpus: vcpus,
          kept: 'written before',
          end: 'off',
        },
      )
      // Disk, random numbers, console: each has interrupted the guest.
      const expected = kind === 'serial' ? ['ttyS0', 'virtio0', 'virtio1'] : ['virtio0', 'virtio1', 'virtio2']
      assert.deepEqual(interrupts.toSorted(), expected)
      assert.notEqual(random[0], random[1])
      assert.ok(random.every((text) => /^[0-9a-f]{32}$/.test(text)))
    })
  }
})
