/**
 * The arm64 KVM interface for Node.js, real or simulated. README.md has a first script.
 */
export type * from './backend.js'
export { apply, type Applied, type AppliedRegister } from './compat/baseline/apply.js'
export { baseline, type BaselineOptions, type NamedReport } from './compat/baseline/baseline.js'
export {
  type Baseline,
  type BaselineBitmap,
  baselineFormat,
  checkBaseline,
  type PinnedRegister,
  readBaseline,
  type Unreconciled,
} from './compat/baseline/format.js'
export { census, type CensusCall, type CensusOptions } from './compat/census.js'
export { capture, captureHost, type CaptureHostOptions } from './compat/capture.js'
export {
  analyseFleet,
  type AnalyseOptions,
  type Divide,
  type FleetAnalysis,
  type Move,
  type FleetObstacle,
  type Upgrade,
  type UpgradedMove,
} from './compat/fleet/analyse.js'
export { type Fleet, type HostClass, readFleet } from './compat/fleet/hosts.js'
export { baselineConfiguration, baselineOfTemplate, TemplateError } from './compat/interchange/baseline.js'
export {
  type ConfiguredRegister,
  guestConfiguration,
  type GuestConfiguration,
} from './compat/interchange/configuration.js'
export type { Emitted } from './compat/interchange/emitted.js'
export {
  type CpuTemplate,
  firecrackerTemplate,
  formatCpuTemplate,
  parseCpuTemplate,
  type ReadTemplate,
} from './compat/interchange/firecracker.js'
export {
  type Fingerprint,
  parseFingerprint,
  reportFromFingerprint,
  UnlikeHostError,
} from './compat/interchange/fingerprint.js'
export { kubevirtSelectors } from './compat/interchange/kubevirt.js'
export { nfdFeatures } from './compat/interchange/nfd.js'
export { prometheusMetrics } from './compat/interchange/prometheus.js'
export { qemuCpuOption, type QemuVersion, qemuVersions } from './compat/interchange/qemu.js'
export { diffReports, type Difference } from './compat/diff.js'
export { probe } from './compat/probe.js'
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
} from './compat/restore.js'
export {
  type CapturedRegister,
  checkState,
  readState,
  type State,
  stateFormat,
  type VcpuCapture,
} from './compat/state.js'
export { type Finding, severities, type Severity } from './compat/finding.js'
export { type MoveVerdict, verdict } from './compat/verdict.js'
export { vmmNames, vmmRules } from './compat/vmm/names.js'
export type { Obstacle, Reaction, VmmRow, VmmRules } from './compat/vmm/rules.js'
export {
  type Check,
  type CheckGroup,
  checkGroups,
  type CheckResult,
  conformance,
  type ConformanceOptions,
  junitXml,
  type Mark,
  type Verdict,
} from './conformance/index.js'
export {
  allowedByDefault,
  bitmapOfServices,
  decodeFunctionId,
  decodePsciVersion,
  encodeFunctionId,
  encodePsciVersion,
  functionIds,
  type FunctionIdParts,
  functionName,
  functionNamed,
  functionOf,
  type Gate,
  gateOf,
  type HypercallFunction,
  hypercallFunctions,
  knownMask,
  type PsciFunction,
  psciFunctions,
  psciReturns,
  type PsciVersion,
  psciVersions,
  type Service,
  type ServiceBitmap,
  serviceBitmapOf,
  serviceBitmaps,
  type ServiceGroup,
  servicesInBitmap,
  smcccReturns,
  trngReturns,
  UnknownServiceError,
  type Workaround,
  type WorkaroundLevel,
  workarounds,
} from './hypercalls/index.js'
export { AddonError, type AddonErrorCode, kernelBackend } from './kernel/index.js'
export * from './kvm/index.js'
export {
  bootLab,
  type BootOptions,
  Lab,
  LabError,
  type LabErrorCode,
  type LabKernel,
  type LabTimings,
  listKernels,
  type RunOptions,
  type RunResult,
} from './lab/index.js'
export {
  decodeFields,
  decodeRegister,
  encodeRegister,
  type Field,
  type FieldValue,
  fieldValue,
  idFromParts,
  type IdParts,
  idParts,
  type Register,
  registerFields,
  registerName,
  type RegisterSpace,
  registerWidth,
  type SafeRule,
  systemRegisterId,
  type SystemRegisterParts,
  UnknownRegisterError,
} from './registers/index.js'
export {
  checkDocument,
  type DocumentFormat,
  FormatError,
  parseDocument,
  readDocument,
} from './report/document.js'
export { checkReport, parseReport, readReport, reportFormat } from './report/read.js'
export type {
  Accepts,
  Configuration,
  Refusal,
  Report,
  ReportedRegister,
  Traits,
  Write,
} from './report/report.js'
export { formatDocument, writeFileAtomically } from './report/write.js'
export {
  builtInHosts,
  builtInReport,
  simulator,
  SimulatorError,
  type SimulatorErrorCode,
} from './simulator/index.js'
export {
  type Call,
  type CallOf,
  describeAnswers,
  describeCall,
  type Divergence,
  type FuzzFinding,
  formatTrace,
  fuzz,
  type FuzzOptions,
  type Op,
  type Outcome,
  Player,
  type Profile,
  profiles,
  readTrace,
  recordingBackend,
  replay,
  type TraceAnswer,
  type Trace,
  type TraceEntry,
  type TraceHead,
  TraceWriter,
} from './trace/index.js'
export {
  capabilities,
  type Capability,
  deviceTypes,
  type ErrnoName,
  errnos,
  exitReasons,
  type MpState,
  mpStates,
  systemEvents,
  type VcpuFeature,
  vcpuFeatures,
} from './uapi.js'
