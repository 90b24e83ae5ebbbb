import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { errnos } from '../../lib/uapi.js'
import { collectUntil } from './garbage.js'
import { endlessHandles, hasKvm, opened, openDescriptors, withoutKvm } from './handles.js'
import { endOf } from './stage-end.js'

/** The address ranges in use by this process. */
function mappings(): { from: number; to: number }[] {
  const lines = readFileSync('/proc/self/maps', 'utf8').matchAll(/^([0-9a-f]+)-([0-9a-f]+) /gm)
  return [...lines].map(([, from, to]) => ({ from: parseInt(from!, 16), to: parseInt(to!, 16) }))
}

if (hasKvm) {
  describe('A process ends as it should', () => {
    const stages = [
      'everything open',
      'a thread that has run before',
      'process.exit() during a run',
      'process.exit() right after the start of two runs',
      'close() during a run and process.exit()',
      'process.exit() with runs in workers',
      'workers that are terminated during a run',
      'workers that end with everything open',
      'process.exit() with events that are awaited',
      'workers that are terminated with events that are awaited',
      'process.exit() with everything in use',
      'workers that are terminated with everything in use',
      'workers that call process.exit() with everything in use',
      'a worker that is terminated during runSync() with a timeout',
    ]
    for (const stage of stages) {
      it(`with ${stage}`, async () => {
        assert.deepEqual(await endOf(stage), { code: 0, signal: null, stdout: '', stderr: '' })
      })
    }

    it('but not before a run has ended that somebody waits for', async () => {
      for (const stage of ['a run that is still wanted', 'an event that is still awaited']) {
        assert.deepEqual(await endOf(stage), { code: 0, signal: null, stdout: 'settled\n', stderr: '' })
      }
    })
  })

  describe('What nobody refers to any more', () => {
    it('is closed by the garbage collector, threads included', async () => {
      const before = openDescriptors()
      await (async () => {
        for (let i = 0; i < 5; i++) {
          const { system, vm, vcpu } = endlessHandles()
          const memory = opened(system.createMemory(65536))
          // Linux before 5.14 has none.
          for (const stats of [vm.getStatsFd(), vcpu.getStatsFd()]) {
            if (typeof stats !== 'number') assert.equal(stats.read(0, new Uint8Array(24)), 24)
          }
          const event = opened(system.createEvent())
          event.signal(1n)
          await event.wait()
          assert.equal(
            vm.setUserMemoryRegion({
              slot: 7,
              flags: 0,
              address: 0x40000000n,
              memory,
              offset: 0,
              size: 65536,
            }),
            0,
          )
          const run = vcpu.run()
          vcpu.kick()
          await run
        }
      })()
      assert.ok(openDescriptors() > before)
      assert.ok(
        await collectUntil(() => openDescriptors() <= before),
        `${openDescriptors()} instead of ${before}`,
      )
    })

    it('is kept while it runs, and collected afterwards', async () => {
      const { reference, run } = (() => {
        const { vcpu } = endlessHandles()
        return { reference: new WeakRef(vcpu), run: vcpu.run() }
      })()
      assert.equal(await collectUntil(() => reference.deref() === undefined), false)
      reference.deref()!.kick()
      assert.equal(await run, -errnos.EINTR)
      assert.ok(await collectUntil(() => reference.deref() === undefined))
    })

    it('is collected although somebody has its functions, which then throw', async () => {
      const { reference, functions } = (() => {
        const { vcpu } = endlessHandles()
        const own = vcpu as object as Record<string, (...all: unknown[]) => unknown>
        const { getOneReg, setOneReg, runSync } = own
        return {
          reference: new WeakRef(vcpu),
          functions: [() => getOneReg!(0n), () => setOneReg!(0n, 0n), () => runSync!(1)],
        }
      })()
      for (const call of functions) assert.equal(typeof call(), 'number')
      assert.ok(await collectUntil(() => reference.deref() === undefined))
      await collectUntil(() => false)
      for (const call of functions) assert.throws(call, { name: 'TypeError', message: 'Illegal invocation' })
    })

    it('gives its addresses back, which close() left to what Node.js may still do there', async () => {
      const gibibyte = 2 ** 30
      const { system, close } = endlessHandles()
      const range = (() => {
        const memory = opened(system.createMemory(gibibyte))
        const mapped = mappings().find(({ from, to }) => to - from === gibibyte)!
        memory.close()
        return mapped
      })()
      const isMapped = () => mappings().some(({ from, to }) => from <= range.from && to >= range.to)
      assert.ok(isMapped())
      assert.ok(await collectUntil(() => !isMapped()))
      close()
    })

    it('keeps its mapping for an ArrayBuffer that was moved, even after close()', () => {
      const { system, close } = endlessHandles()
      const memory = opened(system.createMemory(65536))
      const buffer: ArrayBuffer & { transfer?: () => ArrayBuffer } = memory.buffer!
      new Uint8Array(buffer).fill(7)
      // Node.js 20 has no transfer() yet, and copies.
      const moved = buffer.transfer?.() ?? structuredClone(buffer)
      memory.close()
      assert.ok(new Uint8Array(moved).every((byte) => byte === 7))
      assert.equal(memory.buffer!.byteLength, 0)
      close()
    })

    it('keeps its mapping as long as somebody has the ArrayBuffer over it', async () => {
      const { runPage, buffer } = (() => {
        const handles = endlessHandles()
        const memory = opened(handles.system.createMemory(65536))
        new Uint8Array(memory.buffer!).fill(7)
        return { runPage: handles.vcpu.runPage, buffer: memory.buffer! }
      })()
      await collectUntil(() => false)
      assert.ok(new Uint8Array(buffer).every((byte) => byte === 7))
      assert.equal(new Uint8Array(runPage)[1], 0)
    })
  })
} else void it.skip(withoutKvm)
