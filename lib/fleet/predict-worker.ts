/** A thread that predicts the moves to one destination after the other; see predict-moves.ts. */
import { parentPort, workerData } from 'node:worker_threads'
import { vmmRules } from '../migration/vmm/names.js'
import type { MadeVm } from './predict.js'
import { type Job, predictArrivals, type ThreadStart, unpacker } from './prediction-jobs.js'

const { vmm, features, elect, sources: packed } = workerData as ThreadStart
const maker = { rules: vmmRules(vmm), features, elect }
const unpack = unpacker(maker.rules)
const vms = new Map<string, MadeVm>(packed.map(({ source, packed: vm }) => [source, unpack(vm)]))

parentPort!.on('message', ({ report, sources }: Job) => {
  const made = sources.map((source) => ({ source, vm: vms.get(source)! }))
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- to a thread, not a window
  parentPort!.postMessage(predictArrivals(report, made, maker))
})
