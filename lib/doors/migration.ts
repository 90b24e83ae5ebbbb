/** `kvm-arm64/migration`: the state of a VM, restoring it, and the verdict whether it can move to another host. */
export {
  attemptRestore,
  type RegisterOutcome,
  type RestoreAttempt,
  type StepRefusal,
  type UnsetRegister,
} from '../migration/attempt.js'
export { capture, captureHost, type CaptureHostOptions } from '../migration/capture.js'
export {
  type Finding,
  type FindingCode,
  findingCodes,
  type Pin,
  type RegisterFinding,
  severities,
  type Severity,
  type StepFinding,
} from '../migration/finding.js'
export { restore, type Restored, RestoreError, type RestoreOptions } from '../migration/restore.js'
export { findingWords, type FindingWords } from '../migration/words.js'
export {
  type CapturedRegister,
  checkState,
  readState,
  type State,
  type VcpuCapture,
} from '../migration/state.js'
export { type MoveVerdict, verdict } from '../migration/verdict.js'
export {
  checkVerdict,
  type JudgedMove,
  readVerdict,
  type VerdictDocument,
} from '../migration/verdict-document.js'
export { type VmmName, vmmNames, vmmRules } from '../migration/vmm/names.js'
export type { Obstacle, Reaction, VmmRow, VmmRules } from '../migration/vmm/rules.js'
