/** `kvm-arm64/migration`: the state of a VM, restoring it, and the verdict whether it can move to another host. */
export { capture, captureHost, type CaptureHostOptions } from '../migration/capture.js'
export { type Finding, severities, type Severity } from '../migration/finding.js'
export {
  attemptRestore,
  type RegisterOutcome,
  restore,
  type RestoreAttempt,
  type Restored,
  RestoreError,
  type RestoreOptions,
  type StepRefusal,
  type UnsetRegister,
} from '../migration/restore.js'
export {
  type CapturedRegister,
  checkState,
  readState,
  type State,
  type VcpuCapture,
} from '../migration/state.js'
export { type MoveVerdict, verdict } from '../migration/verdict.js'
export { isVmmName, type VmmName, vmmNames, vmmRules } from '../migration/vmm/names.js'
export type { Obstacle, Reaction, VmmRow, VmmRules } from '../migration/vmm/rules.js'
