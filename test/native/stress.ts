/**
 * Races everything that two threads of the addon do at once: runs, kicks, deadlines, ends of a vCPU and of an environment. Run under
 * ThreadSanitizer by `sanitizers.ts`, which looks at what it prints last.
 */
import assert from 'node:assert/strict'
import { setImmediate, setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { errnos } from '../../lib/uapi.js'
import { endlessHandles, hasKvm, opened } from './handles.js'

const interrupted = -errnos.EINTR
const file = fileURLToPath(import.meta.url)
/** An emulated CPU takes its time. */
const rounds = process.arch === 'arm64' ? 60 : 200

/** What a worker does until it is terminated: all that this thread does, or one run that nothing ends. */
interface Task {
  kind: 'work' | 'leave'
  /** How many workers have come as far as that. */
  started: Int32Array
}

/** Something else to do for this thread, of another length each time. */
async function meanwhile(round: number): Promise<void> {
  const kinds = [
    () => Promise.resolve(),
    () => setImmediate(),
    () => setTimeout(1),
    async () => {
      const end = performance.now() + (round % 10) / 20
      while (performance.now() < end);
    },
  ]
  await kinds[round % kinds.length]!()
}

async function runAndKick(): Promise<void> {
  const { vcpu, close } = endlessHandles()
  // What makes a run of fake-kvm.c end by itself, so that kicks come before, at and after its end.
  const exitAfter = new Int32Array(vcpu.runPage, 2048, 1)
  const endsByItself = process.arch !== 'arm64'
  for (let round = 0; round < rounds; round++) {
    if (endsByItself) exitAfter[0] = round % 2 === 0 ? 0 : 1 + ((round * 37) % 600)
    const run = vcpu.run()
    await meanwhile(round)
    const wasInFlight = (await Promise.race([run, Promise.resolve('in flight')])) === 'in flight'
    vcpu.kick()
    if (round % 5 === 0) vcpu.kick()
    const result = await run
    assert.ok(result === 0 || result === interrupted)
    if (endsByItself) exitAfter[0] = 0
    // A kick that its run had no use for is for this one, which nothing else would end before its time.
    const start = performance.now()
    assert.equal(vcpu.runSync(wasInFlight && result === 0 ? 10_000 : 0.2), interrupted)
    assert.ok(performance.now() - start < 5000, 'a kick was lost')
    assert.equal(new Uint8Array(vcpu.runPage)[1], 0)
  }
  close()
}

/** Writes of a guest that go on while this thread takes them, changes constants, and ends the run. */
async function post(): Promise<void> {
  for (let round = 0; round < rounds / 20; round++) {
    const { vm, vcpu, close } = endlessHandles()
    // Only the guest of fake-kvm.c writes, which knows no capabilities.
    if (vm.checkExtension(0) !== -errnos.ENOTTY) return close()
    const entries = new BigUint64Array(3 * 16)
    const writes = new Int32Array(vcpu.runPage, 2052, 1)
    writes[0] = 6000
    assert.equal(vm.addPosted(0x9000000n, 4, round), 0)
    let taken = 0
    const take = (): void => {
      for (let count = 16; count === 16; taken += count) count = vm.takePosted(entries)
    }
    vcpu.onPosted = take
    let run = vcpu.run()
    for (let n = 0; n < 20; n++) assert.equal(vm.setConstant(0x9000008n, 8, BigInt(n)), 0)
    await meanwhile(round)
    for (;;) {
      const outcome = await Promise.race([run, setTimeout(5, 'in flight')])
      if (outcome === 0) {
        // The log was full.
        take()
        taken++
        run = vcpu.run()
      } else if (outcome !== 'in flight' || round % 2 === 1 || taken >= 6000) break
    }
    if (round % 2 === 0) {
      vcpu.kick()
      assert.equal(await run, interrupted)
      assert.equal(taken, 6000)
    }
    close()
    const last = await run
    assert.ok(last === interrupted || (last === 0 && round % 2 === 1))
    take()
  }
}

async function closeInFlight(): Promise<void> {
  for (let round = 0; round < rounds / 4; round++) {
    const { vcpu, close } = endlessHandles()
    const run = vcpu.run()
    await meanwhile(round)
    if (round % 3 === 0) vcpu.kick()
    close()
    assert.equal(await run, interrupted)
  }
}

/** Events that are signalled, taken, awaited and closed at once. */
async function signal(): Promise<void> {
  const { system, close } = endlessHandles()
  for (let round = 0; round < rounds; round++) {
    const event = opened(system.createEvent())
    const wait = event.wait()
    if (round % 3 !== 0) event.signal(1n)
    await meanwhile(round)
    if (round % 5 === 0) event.take()
    event.close()
    const outcome = await wait
    assert.ok(outcome === 1n || outcome === interrupted)
  }
  close()
}

async function endEnvironments(): Promise<void> {
  for (let round = 0; round < rounds / 50; round++) {
    const started = new Int32Array(new SharedArrayBuffer(4))
    const kinds: Task['kind'][] = ['work', 'leave', 'leave']
    const workers = kinds.map((kind) => new Worker(file, { workerData: { kind, started } satisfies Task }))
    while (Atomics.load(started, 0) < workers.length) await setTimeout(5)
    await meanwhile(round)
    await Promise.all(workers.map((worker) => worker.terminate()))
  }
}

if (isMainThread) {
  assert.ok(hasKvm, 'nothing to race without KVM')
  await Promise.all([runAndKick(), runAndKick(), post(), signal(), closeInFlight(), endEnvironments()])
  console.log('raced')
} else {
  const { kind, started } = workerData as Task
  if (kind === 'leave') void endlessHandles().vcpu.run()
  Atomics.add(started, 0, 1)
  if (kind === 'work') await Promise.all([runAndKick(), post(), signal(), closeInFlight()])
}
