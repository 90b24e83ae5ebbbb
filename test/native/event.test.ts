/** Eventfds: counting, waiting, and how a wait ends. */
import assert from 'node:assert/strict'
import { createHook } from 'node:async_hooks'
import { after, describe, it } from 'node:test'
import { setImmediate, setTimeout } from 'node:timers/promises'
import type { EventFd } from '../../lib/backend.js'
import { SimulatedEvent } from '../../lib/simulator/event.js'
import { errnos } from '../../lib/uapi.js'
import { endlessHandles, hasKvm, opened, openDescriptors, withoutKvm } from './handles.js'
import { endOf } from './stage-end.js'

const MOST = (1n << 64n) - 2n

if (hasKvm) {
  describe('An event', () => {
    const { system, vm, close } = endlessHandles()
    after(close)
    const made = (): EventFd => opened(system.createEvent())

    it('counts', () => {
      const event = made()
      assert.equal(event.take(), -errnos.EAGAIN)
      assert.equal(event.signal(3n), 0)
      assert.equal(event.signal(MOST - 3n), 0)
      assert.equal(event.signal(1n), -errnos.EAGAIN)
      assert.equal(event.signal(MOST + 1n), -errnos.EINVAL)
      assert.equal(event.take(), MOST)
      event.close()
    })

    it('answers as the simulator’s does', async () => {
      const counts = [0n, 1n, 2n, 5n, MOST - 1n, MOST, MOST + 1n]
      let seed = 7
      // Numbers of one sequence, the same each time.
      const next = (below: number): number => {
        seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff
        return (seed >> 8) % below
      }
      for (let round = 0; round < 60; round++) {
        const both: readonly EventFd[] = [made(), new SimulatedEvent()]
        let waits: Promise<bigint | number>[] | undefined
        const calls: string[] = []
        const compare = (call: string, answers: readonly unknown[]): void => {
          calls.push(`${call}: ${answers.map(String).join(', ')}`)
          assert.ok(answers[0] === answers[1], calls.join('\n'))
        }
        for (let step = 0; step < 12; step++) {
          const kind = next(8)
          if (kind < 4) {
            const count = counts[next(counts.length)]!
            compare(
              `signal(${count})`,
              both.map((event) => event.signal(count)),
            )
          } else if (kind < 6 && waits === undefined) {
            compare(
              'take()',
              both.map((event) => event.take()),
            )
          } else if (kind === 6) {
            const started = both.map((event) => event.wait())
            if (waits === undefined) waits = started
            else compare('a second wait()', await Promise.all(started))
          } else if (kind === 7 && next(4) === 0) {
            for (const event of both) event.close()
          }
          // The addon's thread takes a count when it gets to it: from then on nothing else decides.
          const settled = waits && (await Promise.race([waits[1], Promise.resolve(undefined)]))
          if (waits === undefined || settled === undefined) continue
          compare('wait()', await Promise.all(waits))
          waits = undefined
        }
        for (const event of both) event.close()
        if (waits !== undefined) compare('wait() and close()', await Promise.all(waits))
      }
    })

    it('refuses what is no count as the simulator’s does', () => {
      const both: readonly EventFd[] = [made(), new SimulatedEvent()]
      for (const count of [-1n, 1n << 64n, -(1n << 64n), 1, 0.5, '1', null, undefined, {}] as bigint[]) {
        const [real, simulated] = both.map((event) => {
          try {
            return event.signal(count)
          } catch (error) {
            const { name, code } = error as Error & { code?: string }
            return `${name} ${code}`
          }
        })
        assert.equal(simulated, real, String(count))
        assert.equal(typeof real, 'string', String(count))
      }
      for (const event of both) {
        assert.equal(event.take(), -errnos.EAGAIN)
        event.close()
      }
    })

    it('says that a file descriptor is missing, and can be awaited once there is one', async () => {
      const stage = 'an event that cannot be awaited for lack of a descriptor'
      const limited = ['sh', '-c', 'ulimit -n 80 && exec "$0" "$@"']
      const { code, stdout, stderr } = await endOf(stage, ...limited)
      assert.deepEqual([code, stdout, stderr], [0, `${-errnos.EMFILE} 2\n`, ''])
    })

    it('is awaited, once at a time', async () => {
      const event = made()
      event.signal(2n)
      assert.equal(await event.wait(), 2n)
      for (let round = 1n; round < 20n; round++) {
        const wait = event.wait()
        assert.equal(await event.wait(), -errnos.EBUSY)
        event.signal(round)
        assert.equal(await wait, round)
      }
      event.close()
    })

    it('loses nothing between take() and wait()', async () => {
      const event = made()
      let counted = 0n
      for (let round = 0; round < 200; round++) {
        const wait = event.wait()
        event.signal(1n)
        if (round % 3 === 0) await setImmediate()
        const taken = event.take()
        if (typeof taken === 'bigint') {
          counted += taken
          event.signal(1n)
          counted -= 1n
        }
        counted += BigInt(await wait)
      }
      assert.equal(counted, 200n)
      event.close()
    })

    it('settles a wait when it is closed, and is closed then', async () => {
      const event = made()
      const wait = event.wait()
      await setTimeout(5)
      event.close()
      event.close()
      assert.equal(await wait, -errnos.EINTR)
      assert.equal(event.signal(1n), -errnos.EBADF)
      assert.equal(event.take(), -errnos.EBADF)
      assert.equal(await event.wait(), -errnos.EBADF)
      assert.equal(vm.ioEventFd(event, 0n, 4, 0, 0n), -errnos.EBADF)
      assert.equal(vm.irqFd(event, 0, 0, null), -errnos.EBADF)
    })

    it('leaves no descriptor and no thread', async () => {
      const before = openDescriptors()
      for (let round = 0; round < 50; round++) {
        const event = made()
        const wait = event.wait()
        if (round % 2 === 0) event.signal(1n)
        event.close()
        await wait
      }
      assert.equal(openDescriptors(), before)
    })

    it('may be closed by a hook of its own promise', async () => {
      const event = made()
      let isArmed = true
      const hook = createHook({
        init: () => {
          if (!isArmed) return
          isArmed = false
          event.close()
        },
      }).enable()
      const wait = event.wait()
      hook.disable()
      assert.equal(await wait, -errnos.EBADF)
    })

    it('is refused where another object is', () => {
      const event = made()
      for (const other of [null, undefined, {}, vm, 1, Object.create(event)]) {
        assert.throws(() => vm.ioEventFd(other as EventFd, 0n, 4, 0, 0n), TypeError)
        assert.throws(() => vm.irqFd(other as EventFd, 0, 0, null), TypeError)
        if (other !== null) assert.throws(() => vm.irqFd(event, 0, 0, other as EventFd), TypeError)
      }
      event.close()
    })

    it('is refused by a closed /dev/kvm', () => {
      const handles = endlessHandles()
      handles.close()
      assert.equal(handles.system.createEvent(), -errnos.EBADF)
    })
  })
} else void it.skip(withoutKvm)
