/**
 * Ends of a process or a worker with handles in one state or another. Started by `lifetime.test.ts` with the name of a stage; what
 * counts is how the process ends.
 */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { endlessHandles, opened, writingHandles } from './handles.js'

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
  'a run that was kicked and one that was closed': async () => {
    const handles = endlessHandles()
    const { vcpu } = handles
    const kicked = vcpu.run()
    await sleep(20)
    vcpu.kick()
    await kicked
    const closed = vcpu.run()
    await sleep(20)
    handles.close()
    await closed
  },
  'process.exit() with events that are awaited': async () => {
    const { system } = endlessHandles()
    for (let n = 0; n < 3; n++) void opened(system.createEvent()).wait()
    await sleep(20)
    process.exit(0)
  },
  'an event that is still awaited': async () => {
    const event = opened(endlessHandles().system.createEvent())
    setTimeout(() => event.signal(1n), 50).unref()
    await event.wait()
    process.stdout.write('settled\n')
  },
  'an event that cannot be awaited for lack of a descriptor': async () => {
    const event = opened(endlessHandles().system.createEvent())
    const files: number[] = []
    try {
      for (;;) files.push(openSync('/dev/null', 'r'))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EMFILE') throw error
    }
    const outcome = await event.wait()
    for (const each of files) closeSync(each)
    event.signal(2n)
    process.stdout.write(`${outcome} ${await event.wait()}\n`)
    event.close()
  },
  'workers that are terminated with events that are awaited': async () => {
    const times = process.arch === 'arm64' ? 2 : 10
    for (let n = 0; n < times; n++) {
      const { worker } = await inWorker('awaiting')
      await worker.terminate()
    }
  },
  'process.exit() with everything in use': async () => {
    useEverything()
    await sleep(50)
    process.exit(0)
  },
  'workers that are terminated with everything in use': async () => {
    const times = process.arch === 'arm64' ? 2 : 10
    for (let n = 0; n < times; n++) {
      const { worker } = await inWorker('using')
      await worker.terminate()
    }
  },
  'workers that call process.exit() with everything in use': async () => {
    await Promise.all(
      [1, 2].map(async () => {
        const { exited } = await inWorker('exiting')
        await exited
      }),
    )
  },
  'a signal that claims to be of a timer': async () => {
    const others = caughtSignals()
    endlessHandles().vcpu.runSync(1)
    const ours = caughtSignals().filter((signal) => !others.includes(signal))
    if (ours.length === 0) throw new Error('the addon catches no signal')
    for (const signal of ours) forgeTimerSignal(signal)
    await sleep(20)
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

function caughtSignals(): number[] {
  const [, mask] = /^SigCgt:\s+(\w+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))!
  return Array.from({ length: 64 }, (_, bit) => bit + 1).filter(
    (signal) => ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) === 1n,
  )
}

/** Has a child send this process a signal whose `siginfo_t` says SI_TIMER, as any process of the same user can. */
function forgeTimerSignal(signal: number): void {
  const rtSigqueueinfo = process.arch === 'arm64' ? 138 : 129
  // si_signo, si_errno, si_code, padding, si_timerid, si_overrun, si_value
  const siginfo = `my $siginfo = pack('l6 q x96', ${signal}, 0, -2, 0, 1, 0, 0x1234)`
  const send = `${siginfo}; syscall(${rtSigqueueinfo}, ${process.pid}, ${signal}, $siginfo) == 0 or die $!`
  // Without what the sanitizers preload into this process.
  execFileSync('perl', ['-e', send], { env: { ...process.env, LD_PRELOAD: '' } })
}

/** A run, a dirty ring that is taken from, statistics that are read, and an event that is awaited, again and again. */
function useEverything(turned: () => void = () => undefined): void {
  const { system, vm, vcpu } = process.arch === 'arm64' ? writingHandles() : endlessHandles()
  // Linux before 5.14 has none.
  const stats = [vm.getStatsFd(), vcpu.getStatsFd()].filter((fd) => typeof fd !== 'number')
  const event = opened(system.createEvent())
  const entries = new BigUint64Array(2 * 64)
  const run = async (): Promise<void> => {
    // A ring that is full ends a run.
    while ((await vcpu.run()) === 0);
  }
  const wait = async (): Promise<void> => {
    while (typeof (await event.wait()) === 'bigint');
  }
  const turn = (): void => {
    for (const fd of stats) fd.read(0, new Uint8Array(24))
    // The guest of fake-kvm.c has no ring.
    if (process.arch === 'arm64') {
      vcpu.takeDirty(entries)
      vm.resetDirtyRings()
    }
    event.signal(1n)
    turned()
    setImmediate(turn)
  }
  void run()
  void wait()
  turn()
}

const workerStages: Record<string, (ready: () => void) => void> = {
  using: (ready) => {
    let turns = 0
    useEverything(() => {
      if (++turns === 3) ready()
    })
  },
  exiting: (ready) => {
    ready()
    let turns = 0
    useEverything(() => {
      // In a worker, this ends the worker.
      if (++turns === 3) process.exit(0)
    })
  },
  awaiting: (ready) => {
    const { system } = endlessHandles()
    const event = opened(system.createEvent())
    void event.wait()
    void opened(system.createEvent()).wait()
    event.signal(1n)
    ready()
  },
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
