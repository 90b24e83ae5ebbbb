/** `kvm-arm64/trace`: calls of KVM recorded, replayed on another backend, and invented until two backends differ. */
export { type FuzzFinding, fuzz, type FuzzOptions, type Profile, profiles } from '../fuzz/index.js'
export {
  type Call,
  type CallOf,
  describeAnswers,
  describeCall,
  type Divergence,
  formatTrace,
  type Op,
  type Outcome,
  Player,
  readTrace,
  recordingBackend,
  replay,
  type Trace,
  type TraceAnswer,
  type TraceEntry,
  type TraceHead,
  TraceWriter,
} from '../trace/index.js'
