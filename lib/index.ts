/**
 * The arm64 KVM interface for Node.js, real or simulated. README.md has a first script; `doors/` holds the other entry points,
 * one for each subpath export of package.json. What no entry point exports is private.
 */
export type * from './backend.js'
export { builtInHosts, builtInReport, simulator } from './hosts/index.js'
export { AddonError, type AddonErrorCode, kernelBackend } from './kernel/index.js'
export type {
  Attributes,
  BatchResult,
  ClearedPages,
  Connection,
  ConstantRead,
  DebugCause,
  Device,
  DirtyPage,
  ElectedServices,
  Election,
  Exit,
  FilterAction,
  FilteredCalls,
  FilteredEvents,
  Gic,
  GicOptions,
  GicV2Options,
  GicV3Options,
  GuestAddressSpace,
  GuestDebug,
  GuestMemory,
  HostEvent,
  HypercallOptions,
  HypercallResult,
  Kvm,
  KvmErrorCode,
  KvmOptions,
  MemoryMapping,
  Message,
  MessageRoute,
  Mmio,
  PinRoute,
  Pmu,
  PostedRange,
  PostedWrite,
  RedistributorRegion,
  RegisterReference,
  Registers,
  Services,
  Statistic,
  Stats,
  StolenTime,
  SystemEvent,
  TimerName,
  Timers,
  Vcpu,
  VcpuInit,
  VcpuOptions,
  VcpuRunOptions,
  Vm,
  VmOptions,
  Watchpoint,
} from './kvm/index.js'
export { KvmError, openKvm } from './kvm/index.js'
export { census, type CensusCall, type CensusOptions } from './probe/census.js'
export { probe } from './probe/probe.js'
export { FormatError } from './documents/document.js'
export { formatDocument } from './documents/write.js'
export { diffReports, type Difference } from './report/diff.js'
export { checkDiff, type DiffDocument, readDiff } from './report/diff-document.js'
export { checkReport, parseReport, readReport } from './report/read.js'
export { originText, type Origin } from './report/origin.js'
export type { Configuration, Refusal, Report, ReportedRegister, Traits } from './report/report.js'
export type { WriteRule } from './report/write-rule.js'
export { SimulatorError, type SimulatorErrorCode } from './simulator/index.js'
export type { Capability, DeviceType, ErrnoName, MpState, VcpuFeature } from './uapi.js'
