/** Eventfds: counting, waiting, and how a wait ends. */
import assert from 'node:assert/strict'
import { createHook } from 'node:async_hooks'
import { after, describe, it } from 'node:test'
import { setImmediate, setTimeout } from 'node:timers/promises'
import type { EventFd } from '../../lib/backend.js'
import { errnos } from '../../lib/uapi.js'
import { endlessHandles, hasKvm, opened, openDescriptors, withoutKvm } from './handles.js'

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
