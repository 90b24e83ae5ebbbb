/** `kvm-arm64/fleet`: many hosts at once: classes, moves, baselines, and applying a baseline to a VM. */
export {
  analyseFleet,
  type AnalyseOptions,
  type Divide,
  type FleetAnalysis,
  type Upgrade,
  type UpgradedMove,
} from '../fleet/analyse.js'
export {
  apply,
  type Applied,
  type AppliedRegister,
  configureByBaseline,
  withBaseline,
} from '../fleet/baseline/apply.js'
export { type BaselineOptions, type CommonBaseline, computeBaseline } from '../fleet/baseline/baseline.js'
export { electBaseline } from '../fleet/baseline/elect.js'
export type { NamedReport } from '../fleet/baseline/candidate.js'
export {
  type Baseline,
  type BaselineBitmap,
  checkBaseline,
  type PinnedRegister,
  readBaseline,
  type Unreconciled,
} from '../fleet/baseline/format.js'
export {
  type Fleet,
  fleetSummary,
  type HostClass,
  readFleet,
  type ReadFleetOptions,
} from '../fleet/classes.js'
export { diffFleets, type FleetDiff } from '../fleet/diff.js'
export {
  checkFleetDocument,
  type FleetDocument,
  fleetDocument,
  readFleetDocument,
} from '../fleet/document.js'
export { type HostRow, hostRow, type Summary, summaryLines } from '../fleet/summary.js'
export { FleetGate, type GateClass, type GateDocument, type GateMove } from '../fleet/gate.js'
export { checkGateAnswer, type GateAnswer } from '../fleet/gate-answer.js'
export { readGate } from '../fleet/gate-file.js'
export { moveKeys } from '../fleet/move-keys.js'
export { canMove, type MoveTable, type Prediction, predictionOf } from '../fleet/moves.js'
export type { PredictedMoves } from '../fleet/known-moves.js'
export { predictMoves, type PredictOptions } from '../fleet/predict-moves.js'
