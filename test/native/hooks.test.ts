import assert from 'node:assert/strict'
import { createHook } from 'node:async_hooks'
import { describe, it } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { errnos } from '../../lib/uapi.js'
import { endlessHandles, hasKvm, withoutKvm } from './handles.js'

/** Runs `work` with a hook of `node:async_hooks` that calls `react` the first time it is called where `concerns` says so. */
function hooked<T>(
  hook: 'init' | 'promiseResolve',
  concerns: (type: unknown) => boolean,
  react: () => void,
  work: () => T,
): T {
  let armed = true
  const callback = (_id: number, type?: unknown) => {
    if (!armed || !concerns(type)) return
    armed = false
    react()
  }
  const installed = createHook({ [hook]: callback }).enable()
  try {
    return work()
  } finally {
    installed.disable()
    assert.equal(armed, false)
  }
}

if (hasKvm) {
  describe('A hook of node:async_hooks', () => {
    for (const type of ['kvm-arm64 vcpu', 'PROMISE']) {
      it(`that closes the vCPU while run() makes its ${type} leaves the run with EBADF`, async () => {
        const { vcpu, close } = endlessHandles()
        const run = hooked(
          'init',
          (made) => made === type,
          close,
          () => vcpu.run(),
        )
        assert.equal(await Promise.race([run, setTimeout(1000, 'in flight')]), -errnos.EBADF)
      })

      it(`that runs the vCPU while run() makes its ${type} leaves the outer run with EBUSY`, async () => {
        const { vcpu, close } = endlessHandles()
        let inner: Promise<number> | undefined
        const outer = hooked(
          'init',
          (made) => made === type,
          () => (inner = vcpu.run()),
          () => vcpu.run(),
        )
        assert.equal(await outer, -errnos.EBUSY)
        vcpu.kick()
        assert.equal(await inner, -errnos.EINTR)
        close()
      })
    }

    it('that runs the vCPU while close() settles its run is told EBADF', async () => {
      const { vcpu, close } = endlessHandles()
      const run = vcpu.run()
      let late: Promise<number> | undefined
      hooked(
        'promiseResolve',
        () => true,
        () => (late = vcpu.run()),
        close,
      )
      assert.equal(await run, -errnos.EINTR)
      assert.equal(await Promise.race([late, setTimeout(1000, 'in flight')]), -errnos.EBADF)
    })
  })
} else void it.skip(withoutKvm)
