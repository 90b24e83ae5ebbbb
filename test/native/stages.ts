/**
 * Ends of a process or a worker with handles in one state or another. Started by `lifetime.test.ts` with the name of a stage; what
 * counts is how the process ends.
 */
import { once } from 'node:events'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { endlessHandles } from './handles.js'

const file = fileURLToPath(import.meta.url)

const stages: Record<string, () => void | Promise<void>> = {
  'everything open': () => {
    endlessHandles()
  },
  'a thread that has run before': async () => {
    const { vcpu } = endlessHandles()
    const run = vcpu.run()
    vcpu.kick()
    await run
  },
  'process.exit() during a run': async () => {
    void endlessHandles().vcpu.run()
    await sleep(20)
    process.exit(0)
  },
  'process.exit() right after the start of two runs': () => {
    void endlessHandles().vcpu.run()
    void endlessHandles().vcpu.run()
    process.exit(0)
  },
  'a run that is still wanted': async () => {
    const { vcpu } = endlessHandles()
    setTimeout(() => vcpu.kick(), 50).unref()
    // Nothing but the run keeps the process alive until it is interrupted.
    const timer = setInterval(() => undefined, 10).unref()
    await vcpu.run()
    clearInterval(timer)
    process.stdout.write('settled\n')
  },
  'close() during a run and process.exit()': () => {
    const handles = endlessHandles()
    void handles.vcpu.run()
    handles.close()
    process.exit(0)
  },
  'process.exit() with runs in workers': async () => {
    for (let i = 0; i < 2; i++) await inWorker('endless')
    process.exit(0)
  },
  'workers that are terminated during a run': async () => {
    // A worker takes a second to start under emulation.
    const times = process.arch === 'arm64' ? 4 : 30
    for (let i = 0; i < times; i++) {
      const { worker } = await inWorker('endless')
      await worker.terminate()
    }
  },
  'workers that end with everything open': async () => {
    await Promise.all(
      [1, 2, 3].map(async () => {
        const { exited } = await inWorker('leaving')
        await exited
      }),
    )
  },
  'a worker that is terminated during runSync() with a timeout': async () => {
    const { worker } = await inWorker('blocking')
    await worker.terminate()
  },
}

const workerStages: Record<string, (ready: () => void) => void> = {
  endless: (ready) => {
    void endlessHandles().vcpu.run()
    ready()
  },
  leaving: (ready) => {
    const { vcpu } = endlessHandles()
    void vcpu.run().then(ready)
    vcpu.kick()
  },
  blocking: (ready) => {
    const { vcpu } = endlessHandles()
    ready()
    for (;;) vcpu.runSync(50)
  },
}

/** A worker that has come as far as to call `ready`, after which it may never look at a message again. */
async function inWorker(stage: string): Promise<{ worker: Worker; exited: Promise<unknown> }> {
  const ready = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(file, { workerData: { stage, ready } })
  const exited = once(worker, 'exit')
  while (Atomics.load(ready, 0) === 0) await sleep(5)
  return { worker, exited }
}

if (isMainThread) {
  await stages[process.argv[2]!]!()
} else {
  const { stage, ready } = workerData as { stage: string; ready: Int32Array }
  workerStages[stage]!(() => {
    Atomics.store(ready, 0, 1)
  })
}
