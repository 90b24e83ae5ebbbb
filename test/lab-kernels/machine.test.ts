/** A machine boots Debian's own kernels on real KVM: consoles, several vCPUs, a disk that outlives a restart; and a guest moves. */
import assert from 'node:assert/strict'
import { basename } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { bootLab, type Lab } from '../../lib/lab/index.js'
import { ensurePrograms } from '../debian.js'
import type { Found } from './boot-linux.js'
import { type LinuxGuest, linuxGuest } from './linux-guest.js'
import type { Moved } from './move-linux.js'

/** The lab's kernel, the guest's, its vCPUs, its console, and the interrupt controller of all. */
const cases = [
  ['6.12', '6.12', 2, 'serial', '3'],
  ['7.2', '7.2', 1, 'virtio', '2'],
] as const

beforeAll(() => ensurePrograms(['xz']))

for (const [host, guestSeries, vcpus, kind, gic] of cases) {
  describe(`a machine on ${host} with GICv${gic}`, () => {
    let guest: LinuxGuest
    let lab: Lab
    beforeAll(async () => {
      guest = await linuxGuest(guestSeries)
      const programs = ['boot-linux', 'move-linux', 'move-linux-guest', 'talk-to-linux'].map(
        (name) => `dist/test/lab-kernels/${name}.js`,
      )
      lab = await bootLab({
        kernel: host,
        gic,
        copy: [
          'dist/lib',
          ...programs,
          'node_modules/valibot',
          'package.json',
          'prebuilds',
          guest.image,
          guest.modules,
        ],
      })
    })
    afterAll(() => lab?.close())

    async function run(program: string, args: string[], options: string[] = []): Promise<unknown> {
      const path = `dist/test/lab-kernels/${program}.js`
      const of = [basename(guest.image), guest.release, String(vcpus)]
      const command = ['node', ...options, path, ...of, ...args]
      const { status, stdout, stderr } = await lab.run(command, { timeout: 600 })
      assert.equal(status, 0, String(stderr))
      return JSON.parse(String(stdout))
    }

    test(`boots ${guestSeries} with ${vcpus} vCPUs and a ${kind} console`, async () => {
      const { release, cpus, interrupts, random, kept, end } = (await run('boot-linux', [kind])) as Found
      assert.deepEqual(
        { release, cpus, kept, end },
        { release: guest.release, cpus: vcpus, kept: 'written before', end: 'off' },
      )
      // Disk, random numbers, console: each has interrupted the guest.
      const expected = kind === 'serial' ? ['ttyS0', 'virtio0', 'virtio1'] : ['virtio0', 'virtio1', 'virtio2']
      assert.deepEqual(interrupts.toSorted(), expected)
      assert.notEqual(random[0], random[1])
      assert.ok(random.every((text) => /^[0-9a-f]{32}$/.test(text)))
    })

    // No stream carries a GICv2.
    if (gic === '2') return
    test('moves a running guest, and starts it from a snapshot', async () => {
      const { looks, lost, sent, snapshot, end } = (await run('move-linux', [], ['--jitless'])) as Moved
      // It has gone on counting each time.
      const [first, second, third] = looks.map(({ count }) => count) as [number, number, number]
      assert.ok(first > 0 && second > first && third > second, `${first} ${second} ${third}`)
      assert.equal(new Set(looks.map(({ digest }) => digest)).size, 1)
      assert.deepEqual(
        looks.map((look) => look.kept),
        ['before', 'before', 'after'],
      )
      assert.deepEqual(
        looks.map((look) => look.cpus),
        [vcpus, vcpus, vcpus],
      )
      // Its clock stood still for part of the time for which it did.
      assert.ok(lost > -1 && lost < sent.downtime + 1, `lost ${lost} ms of ${sent.downtime}`)
      assert.ok(sent.rounds >= 1 && snapshot.bytes > 0)
      assert.equal(end, 'off')
    })
  })
}
