/** Sequences of ioctls, recorded and replayed. */
export { describeAnswers, describeCall } from './describe.js'
export type { Call, CallOf, Op, Outcome, TraceEntry, TraceHead } from './format.js'
export { Player } from './player.js'
export { readTrace, type Trace } from './read.js'
export { recordingBackend } from './record.js'
export { type TraceAnswer, type Divergence, replay } from './replay.js'
export { formatTrace, TraceWriter } from './write.js'
