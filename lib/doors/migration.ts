/** `kvm-arm64/migration`: the state of a VM, restoring it, and the verdict whether it can move to another host. */
export {
  attemptRestore,
  type RegisterOutcome,
  type RestoreAttempt,
  type RestoreManner,
  type StepRefusal,
  type UnsetRegister,
  type WriteBackRefusal,
} from '../migration/attempt.js'
export { capture, captureHost, type CaptureHostOptions } from '../migration/capture.js'
export {
  type Finding,
  type FindingCode,
  findingCodes,
  type Pin,
  type RegisterFinding,
  type Remedy,
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
export { type MoveVerdict, type UnknownFact, verdict, type VerdictOptions } from '../migration/verdict.js'
export {
  checkVerdict,
  type JudgedMove,
  readVerdict,
  type VerdictDocument,
} from '../migration/verdict-document.js'
export { type VmmName, vmmNames, vmmRules } from '../migration/vmm/names.js'
export { factsOfKvm, factsOfReport } from '../migration/vmm/facts.js'
export {
  type Gic,
  type HostFacts,
  type Obstacle,
  type OptionalFeature,
  type Reaction,
  type Setting,
  type Unsavable,
  type VmFeatures,
  type VmmRow,
  type VmmRules,
  type VmmVm,
  vmOn,
} from '../migration/vmm/rules.js'
