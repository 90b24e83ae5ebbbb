/** A dirty ring while its vCPU runs on a thread of its own, and when nobody has the vCPU any more. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { errnos, exitReasons } from '../../../lib/uapi.js'
import { collectUntil } from '../garbage.js'
import { openDescriptors, writingHandles, writtenSize } from '../handles.js'

const RING_BYTES = 0x1_0000

/** Mappings of vCPUs that are as long as a ring. */
function mappedRings(): number {
  const lines = readFileSync('/proc/self/maps', 'utf8').matchAll(
    /^([0-9a-f]+)-([0-9a-f]+) .*anon_inode:kvm-vcpu/gm,
  )
  return [...lines].filter(([, from, to]) => parseInt(to!, 16) - parseInt(from!, 16) === RING_BYTES).length
}

/** Takes what is in the ring, and frees the entries, until so many have been taken. Returns the pages. */
async function take(handles: ReturnType<typeof writingHandles>, count: number): Promise<number[]> {
  const { vm, vcpu } = handles
  const entries = new BigUint64Array(2 * 100)
  const pages: number[] = []
  let run = vcpu.run()
  let isOver = false
  const settle = (): void => {
    isOver = true
  }
  void run.then(settle)
  let end = performance.now() + 30_000
  while (pages.length < count) {
    const taken = vcpu.takeDirty(entries)
    assert.ok(taken >= 0, String(taken))
    for (let n = 0; n < taken; n++) {
      assert.equal(entries[2 * n], 1n)
      pages.push(Number(entries[2 * n + 1]))
    }
    assert.equal(vm.resetDirtyRings(), taken)
    if (taken > 0) end = performance.now() + 30_000
    else assert.ok(performance.now() < end, `only ${pages.length} entries came`)
    if (isOver) {
      assert.equal(await run, 0)
      assert.equal(new DataView(vcpu.runPage).getUint32(8, true), exitReasons.KVM_EXIT_DIRTY_RING_FULL)
      isOver = false
      run = vcpu.run()
      void run.then(settle)
    }
    await setImmediate()
  }
  vcpu.kick()
  const outcome = await run
  assert.ok(outcome === 0 || outcome === -errnos.EINTR, String(outcome))
  return pages
}

describe('A dirty ring', () => {
  it('is taken from while the vCPU runs on its thread, and loses no page', async () => {
    const handles = writingHandles()
    if (!handles.hasRing) {
      assert.equal(handles.vcpu.takeDirty(new BigUint64Array(2)), -errnos.ENXIO)
      return handles.close()
    }
    const pages = await take(handles, 10_000)
    const perSlot = Math.max(...pages) + 1
    assert.ok(writtenSize % perSlot === 0, String(perSlot))
    // The guest goes through the slot in order, so the ring does. A page that is reset before the write to it has completed comes again.
    for (const [index, page] of pages.entries()) {
      const last = pages[index - 1]
      if (last !== undefined)
        assert.ok(page === last || page === (last + 1) % perSlot, `${page} after ${last}`)
    }
    handles.close()
    assert.equal(handles.vcpu.takeDirty(new BigUint64Array(2)), -errnos.EBADF)
  })

  it('is unmapped when the vCPU is closed during a run', async () => {
    const before = [openDescriptors(), mappedRings()]
    for (let round = 0; round < 5; round++) {
      const handles = writingHandles()
      const run = handles.vcpu.run()
      for (let turn = 0; turn < round; turn++) await setImmediate()
      handles.vcpu.takeDirty(new BigUint64Array(20))
      if (handles.hasRing) assert.equal(mappedRings(), before[1]! + 1)
      handles.close()
      const outcome = await run
      // A ring that filled up has ended it before.
      assert.ok(outcome === -errnos.EINTR || (outcome === 0 && handles.hasRing), String(outcome))
    }
    assert.deepEqual([openDescriptors(), mappedRings()], before)
  })

  it('is unmapped by the garbage collector, but not while the vCPU runs', async () => {
    const rings = mappedRings()
    const { reference, run } = (() => {
      const { vcpu } = writingHandles()
      return { reference: new WeakRef(vcpu), run: vcpu.run() }
    })()
    const { hasRing } = (() => {
      const handles = writingHandles()
      handles.close()
      return handles
    })()
    // A ring that is full ends the run, and with it the reason to keep the vCPU.
    if (!hasRing) assert.equal(await collectUntil(() => reference.deref() === undefined), false)
    reference.deref()?.takeDirty(new BigUint64Array(20))
    reference.deref()?.kick()
    await run
    // Descriptors are counted in lifetime.test.ts, where no other file is being imported.
    const isGone = (): boolean => reference.deref() === undefined && mappedRings() <= rings
    assert.ok(await collectUntil(isGone), `${mappedRings()} rings, ${rings} before`)
  })
})
