import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { setImmediate, setTimeout } from 'node:timers/promises'
import { errnos } from '../../lib/uapi.js'
import type { VcpuFd } from '../../lib/backend.js'
import { endlessHandles, hasKvm, type Handles, pc, withoutKvm } from './handles.js'

const interrupted = -errnos.EINTR

function timed(run: () => number): { result: number; milliseconds: number } {
  const start = performance.now()
  const result = run()
  return { result, milliseconds: performance.now() - start }
}

/** Each of them but runs. What architecture answers is none of theirs. */
function requestsTo(vcpu: VcpuFd): (() => unknown)[] {
  const [one, two, answers] = [new BigUint64Array(1), new BigUint64Array(2), new Int32Array(1)]
  const bytes = new Uint8Array(64)
  return [
    () => vcpu.init(0xffffffff, []),
    () => vcpu.finalize(0),
    () => vcpu.getRegList(two),
    () => vcpu.getOneReg(pc),
    () => vcpu.setOneReg(pc, 0n),
    () => vcpu.getOneRegAtNull(pc),
    () => vcpu.setOneRegAtNull(pc),
    () => vcpu.getRegs(one, one, answers),
    () => vcpu.setRegs(one, one, answers),
    () => vcpu.getMpState(),
    () => vcpu.setMpState(0),
    () => vcpu.getVcpuEvents(bytes),
    () => vcpu.setVcpuEvents(bytes),
    () => vcpu.hasDeviceAttr(1, 0n),
    () => vcpu.getDeviceAttr(1, 0n, bytes),
    () => vcpu.setDeviceAttr(1, 0n, null),
  ]
}

if (hasKvm) {
  describe('A run that does not end by itself', () => {
    let handles: Handles
    beforeEach(() => {
      handles = endlessHandles()
    })
    afterEach(() => handles.close())

    /** `kvm_run.immediate_exit` */
    function immediateExit(value?: number): number {
      const page = new Uint8Array(handles.vcpu.runPage)
      if (value !== undefined) page[1] = value
      return page[1]!
    }

    it('is interrupted by its timeout', () => {
      for (const timeout of [1, 20, 60.5]) {
        const { result, milliseconds } = timed(() => handles.vcpu.runSync(timeout))
        assert.equal(result, interrupted)
        assert.ok(milliseconds >= timeout - 1, `${milliseconds} ms instead of ${timeout}`)
        assert.equal(immediateExit(), 0)
      }
    })

    it('is interrupted by a timeout shorter than the way to the kernel, every time', () => {
      for (let i = 0; i < 200; i++) {
        for (const timeout of [Number.MIN_VALUE, 1e-4, 0.005, 0.02]) {
          assert.equal(handles.vcpu.runSync(timeout), interrupted)
          assert.equal(immediateExit(), 0)
        }
      }
    })

    it('leaves no timer behind that would interrupt a later run', async () => {
      assert.equal(handles.vcpu.runSync(1), interrupted)
      const run = handles.vcpu.run()
      const first = await Promise.race([run, setTimeout(100, 'still running')])
      assert.equal(first, 'still running')
      handles.vcpu.kick()
      assert.equal(await run, interrupted)
    })

    it('is interrupted by a kick', async () => {
      const run = handles.vcpu.run()
      await setTimeout(30)
      handles.vcpu.kick()
      assert.equal(await run, interrupted)
      assert.equal(immediateExit(), 0)
    })

    it('is interrupted by a kick at any moment, every time', async () => {
      for (let i = 0; i < 300; i++) {
        const run = handles.vcpu.run()
        if (i % 3 === 1) await setImmediate()
        if (i % 3 === 2) for (let spin = 0; spin < i * 100; spin++);
        handles.vcpu.kick()
        if (i % 5 === 0) handles.vcpu.kick()
        assert.equal(await run, interrupted)
        assert.equal(immediateExit(), 0)
      }
    })

    it('is not interrupted by a kick that came before it', async () => {
      handles.vcpu.kick()
      assert.ok(timed(() => handles.vcpu.runSync(30)).milliseconds >= 29)
      const run = handles.vcpu.run()
      handles.vcpu.kick()
      await run
      handles.vcpu.kick()
      assert.equal(immediateExit(), 0)
      assert.ok(timed(() => handles.vcpu.runSync(30)).milliseconds >= 29)
    })

    it('returns at once where the script has set immediate_exit, which stays set', async () => {
      immediateExit(1)
      for (let i = 0; i < 3; i++) {
        assert.equal(handles.vcpu.runSync(0), interrupted)
        assert.equal(await handles.vcpu.run(), interrupted)
        assert.equal(immediateExit(), 1)
      }
      immediateExit(0)
      assert.ok(timed(() => handles.vcpu.runSync(30)).milliseconds >= 29)
    })

    it('leaves immediate_exit set where the script has, whatever else interrupts it', async () => {
      immediateExit(1)
      for (let i = 0; i < 500; i++) {
        assert.equal(handles.vcpu.runSync(0.001 + (i % 50) / 1e4), interrupted)
        const run = handles.vcpu.run()
        handles.vcpu.kick()
        assert.equal(await run, interrupted)
        assert.equal(immediateExit(), 1)
      }
    })

    it('keeps every other run of its vCPU away, which answers EBUSY', async () => {
      const run = handles.vcpu.run()
      assert.equal(await handles.vcpu.run(), -errnos.EBUSY)
      assert.equal(handles.vcpu.runSync(0), -errnos.EBUSY)
      assert.equal(handles.vcpu.runSync(10), -errnos.EBUSY)
      handles.vcpu.kick()
      assert.equal(await run, interrupted)
      assert.equal(handles.vcpu.runSync(1), interrupted)
    })

    it('lets every other request to its vCPU be answered, with EBUSY', async () => {
      const { vcpu } = handles
      const run = vcpu.run()
      await setTimeout(20)
      const requests = requestsTo(vcpu)
      assert.deepEqual(
        requests.map((request) => request()),
        requests.map(() => -errnos.EBUSY),
      )
      vcpu.kick()
      assert.equal(await run, interrupted)
      for (const request of requests) assert.notEqual(request(), -errnos.EBUSY)
    })

    it('does not hold up the event loop', async () => {
      let settled = false
      const run = handles.vcpu.run().finally(() => (settled = true))
      // Turns are counted and not timed: an emulated CPU may take its time over each.
      for (let turn = 0; turn < 50; turn++) await setImmediate()
      assert.equal(settled, false)
      handles.vcpu.kick()
      assert.equal(await run, interrupted)
    })

    it('is interrupted by close(), which settles it with EINTR', async () => {
      for (let i = 0; i < 20; i++) {
        const each = endlessHandles()
        const run = each.vcpu.run()
        if (i % 2 === 0) await setImmediate()
        each.close()
        assert.equal(await run, interrupted)
        assert.equal(each.vcpu.runPage.byteLength, 0)
      }
    })

    it('goes on beside another one', async () => {
      const other = endlessHandles()
      const runs = [handles.vcpu.run(), other.vcpu.run()]
      await setTimeout(20)
      other.vcpu.kick()
      assert.equal(await runs[1], interrupted)
      assert.equal(await Promise.race([runs[0], setTimeout(20, 'still running')]), 'still running')
      handles.vcpu.kick()
      assert.equal(await runs[0], interrupted)
      other.close()
    })
  })
} else void it.skip(withoutKvm)
