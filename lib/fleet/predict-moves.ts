/** Predicts the moves of a large fleet in several threads, and keeps the answers between runs. */
import { availableParallelism } from 'node:os'
import { setImmediate } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { strict, type VmmRules } from '../migration/vmm/rules.js'
import { type VmmName, vmmNames, vmmRules } from '../migration/vmm/names.js'
import { packageRoot } from '../package-root.js'
import type { AnalyseOptions } from './analyse.js'
import type { Fleet } from './classes.js'
import { compareClasses, type ComparedClass } from './compared.js'
import { KnownMoves, type PredictedMoves } from './known-moves.js'
import type { Arrivals, Prediction } from './moves.js'
import type { Maker } from './predict.js'
import { PredictionCache } from './prediction-cache.js'
import { type Job, pack, predictArrivals, type ThreadStart } from './prediction-jobs.js'

export interface PredictOptions extends Pick<AnalyseOptions, 'rules' | 'features' | 'elect'> {
  /** A directory in which predictions are kept between runs. Default: none. */
  cache?: string
  /** The most threads. Default: as many as there are processors, at most 8; this thread alone for up to 2,500 moves. */
  threads?: number
  /** Called with the number of moves predicted so far, those of earlier runs included. */
  progress?: (done: number, of: number) => void
  /** Ends the work: what was predicted until then is in the cache, and in the result. */
  signal?: AbortSignal
}

/** Predicting so few moves takes less time than threads and cache do. */
export const FEW_MOVES = 2500

/**
 * Predicts the moves between all classes of a fleet, for `analyseFleet` with the same options. Classes that differ only in what no
 * prediction looks at share their predictions. Threads and cache do not change the result.
 *
 * Rules of your own, not from `vmmRules`, are used in this thread alone and without a cache: other threads and runs cannot find them.
 *
 * @throws the error of a thread
 *
 * @example
 * const predicted = await predictMoves(fleet, { cache: '/var/cache/predictions' })
 * const analysis = analyseFleet(fleet, { predicted })
 */
export async function predictMoves(
  { classes }: Fleet,
  { rules = strict, features, elect, cache: directory, threads, progress, signal }: PredictOptions = {},
): Promise<PredictedMoves> {
  const maker: Maker = { rules, features, elect }
  const compared = compareClasses(classes, maker)
  const known = new KnownMoves()
  const [sources, destinations] = (['source', 'destination'] as const).map(
    (end) => new Map(compared.classes.map((one) => [one[end], one])),
  ) as [Map<string, ComparedClass>, Map<string, ComparedClass>]
  const all = sources.size * destinations.size
  const name = nameOf(rules)
  const isLarge = name !== undefined && (threads !== undefined || all > FEW_MOVES)
  const cache = directory === undefined || !isLarge ? undefined : new PredictionCache(directory, maker)
  const todo: Task[] = []
  for (const [destination, one] of destinations) {
    const arrivals = cache?.read(destination)
    if (arrivals !== undefined) known.addArrivals(destination, arrivals)
    const missing = [...sources.keys()].filter((source) => known.get(source, destination) === undefined)
    if (missing.length > 0) todo.push({ destination, one, sources: missing, before: arrivals })
  }
  let done = all - todo.reduce((sum, task) => sum + task.sources.length, 0)
  const finish = (task: Task, arrivals: Arrivals): void => {
    known.addArrivals(task.destination, arrivals)
    cache?.write(task.destination, joined(task.before, arrivals))
    done += task.sources.length
    progress?.(done, all)
  }
  progress?.(done, all)
  const count = isLarge ? Math.min(threads ?? Math.min(8, availableParallelism()), todo.length) : 1
  // A worker starts from a file of JavaScript, which the sources are not.
  if (count > 1 && !import.meta.url.endsWith('.ts')) {
    const needed = new Set(todo.flatMap((task) => task.sources))
    const packed = [...needed].map((source) => ({ source, packed: pack(sources.get(source)!.vm()) }))
    await inThreads(count, { vmm: name!, features, elect, sources: packed }, todo, finish, signal)
  } else {
    for (const task of todo) {
      if (signal?.aborted) break
      const vms = task.sources.map((source) => ({ source, vm: sources.get(source)!.vm() }))
      finish(task, predictArrivals(task.one.of.report(), vms, maker))
      // Lets a signal arrive.
      await setImmediate()
    }
  }
  cache?.prune()
  return { compared, known }
}

/** The moves to one destination that are not known yet. */
interface Task {
  destination: string
  one: ComparedClass
  sources: string[]
  /** What the cache holds, of other sources. */
  before: Arrivals | undefined
}

async function inThreads(
  count: number,
  start: ThreadStart,
  tasks: readonly Task[],
  finish: (task: Task, arrivals: Arrivals) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const next = tasks.values()
  const work = (worker: Worker): Promise<void> =>
    new Promise((resolve, reject) => {
      let task: Task | undefined
      const proceed = (): void => {
        task = signal?.aborted ? undefined : next.next().value
        if (task === undefined) {
          resolve()
          return
        }
        const job: Job = { report: task.one.of.report(), sources: task.sources }
        // oxlint-disable-next-line unicorn/require-post-message-target-origin -- to a thread, not a window
        worker.postMessage(job)
      }
      worker.on('error', reject)
      worker.on('message', (arrivals: Arrivals) => {
        finish(task!, arrivals)
        proceed()
      })
      signal?.addEventListener('abort', () => resolve(), { once: true })
      proceed()
    })
  const file = new URL('dist/bundle/predict-worker.js', packageRoot)
  // Without the options of Node: those for a program on the command line, as --input-type, refuse a file.
  const options = { workerData: start, execArgv: [] }
  const workers = Array.from({ length: count }, () => new Worker(file, options))
  try {
    await Promise.all(workers.map(work))
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()))
  }
}

/** Returns the name by which another thread, or a later run, finds the same rules. */
function nameOf(rules: VmmRules): VmmName | undefined {
  return vmmNames().find((name) => name === rules.name && vmmRules(name) === rules)
}

/** A file of the cache that holds more sources, of other fleets too, is begun anew. */
const MANY = 10_000

/** Answers about one destination, from two sets of sources. */
function joined(before: Arrivals | undefined, now: Arrivals): Arrivals {
  if (before === undefined || Object.keys(before.sources).length > MANY) return now
  const findings = before.findings.length
  const predictions = before.predictions.length
  return {
    findings: [...before.findings, ...now.findings],
    predictions: [
      ...before.predictions,
      ...now.predictions.map((prediction) => shifted(prediction, findings)),
    ],
    sources: {
      ...before.sources,
      ...Object.fromEntries(
        Object.entries(now.sources).map(([source, index]) => [source, index + predictions]),
      ),
    },
  }
}

function shifted(prediction: Prediction, by: number): Prediction {
  return { ...prediction, obstacles: prediction.obstacles.map((index) => index + by) }
}
