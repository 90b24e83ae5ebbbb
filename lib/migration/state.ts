/**
 * The state: what a VM holds, as data: its vCPUs, its GICv3 and its settings. `capture` writes it, `restore` puts it into another VM,
 * and `verdict` predicts whether that will succeed. The content of memory is not in it, nor are devices of the VMM. This file and
 * device-state.ts are the only definition of the state, as report.ts is of the report.
 */
import * as v from 'valibot'
import type { FilterAction } from '../kvm/index.js'
import {
  checkDocument,
  checkShape,
  type DocumentFormat,
  readDocument,
  refuseDuplicateIds,
} from '../documents/document.js'
import { hex, hex64, host, int32, registerId, text, uint32 } from '../documents/entries.js'
import { checkRegisterRows, requireRegisters } from '../documents/registers.js'
import { originSchema } from '../report/origin.js'
import { vcpuDeviceEntries, vmDeviceEntries } from './device-state.js'
import { machineSchema } from './machine-facts.js'
import { feature } from '../report/report.js'
import { capabilities, type Capability, type MpState, mpStates, smcccFilterActions } from '../uapi.js'

const register = v.strictObject({
  id: registerId,
  /** For readers; programs use the id. */
  name: text,
  value: hex,
})

/** Entries of a vCPU in version 1. */
const vcpuEntries = {
  /** As passed to `KVM_CREATE_VCPU`. */
  id: v.pipe(int32, v.minValue(0)),
  /** Features of its last `KVM_ARM_VCPU_INIT`. With `sve` it was finalized with the lengths in `KVM_REG_ARM64_SVE_VLS`. */
  features: v.array(feature),
  /** All registers, of every width, in the order of `KVM_GET_REG_LIST`. */
  registers: v.pipe(v.array(register), v.maxLength(10_000)),
  mpState: v.picklist(Object.keys(mpStates) as MpState[]),
  /** The 64 bytes of `struct kvm_vcpu_events`, two digits each. */
  events: v.pipe(v.string(), v.regex(/^[0-9a-f]{128}$/, 'is not 64 bytes of two hexadecimal digits each')),
}

/** Entries of the VM in version 1. */
const vmEntries = {
  /** As passed to `KVM_CREATE_VM`: bits 7:0 are the bits of guest physical address space, 0 for 40. */
  type: hex64,
  /** Capabilities enabled by `KVM_ENABLE_CAP`; some registers cannot be written without them. */
  capabilities: v.array(v.picklist(Object.keys(capabilities) as Capability[])),
  /** The ranges userspace put into the SMCCC filter: `count` functions from `base`. */
  smcccFilter: v.array(
    v.strictObject({
      base: uint32,
      count: uint32,
      action: v.picklist(Object.keys(smcccFilterActions) as FilterAction[]),
    }),
  ),
}

function listOf<T extends v.GenericSchema>(vcpu: T) {
  return v.pipe(v.array(vcpu), v.minLength(1), v.maxLength(4096))
}

/** The entries of a state; see the file's head. */
export const stateSchema = v.strictObject({
  format: v.literal('kvm-arm64/state'),
  version: v.literal(2),
  capturedAt: v.pipe(v.string(), v.isoTimestamp()),
  host,
  /** What answered KVM's calls when the state was captured. */
  origin: v.exactOptional(originSchema),
  vm: v.strictObject({ ...vmEntries, ...vmDeviceEntries }),
  /** The machine on which it was captured; absent if it was not recorded. */
  machine: v.exactOptional(machineSchema),
  vcpus: listOf(v.strictObject({ ...vcpuEntries, ...vcpuDeviceEntries })),
})

export type State = v.InferOutput<typeof stateSchema>
export type VcpuCapture = State['vcpus'][number]
export type CapturedRegister = VcpuCapture['registers'][number]

/** The format `kvm-arm64/state`. */
export const stateFormat: DocumentFormat<State> = {
  noun: 'state',
  schema: stateSchema,
  checkMore,
  earlier: new Map([[1, readVersion1]]),
}

const version1Schema = v.strictObject({
  ...stateSchema.entries,
  version: v.literal(1),
  vm: v.strictObject(vmEntries),
  vcpus: listOf(v.strictObject(vcpuEntries)),
})

/** Version 1 had vCPUs alone; all else is absent, which means that it is not known. */
function readVersion1(data: unknown, source: string): State {
  const state = checkShape(version1Schema, data, source)
  return { ...state, version: 2 }
}

/**
 * Reads a state from a file.
 * @throws FormatError for a file that is missing, empty, truncated, of another format or version, or hostile
 */
export function readState(file: string): State {
  return readDocument(file, stateFormat)
}

/**
 * Checks that data is a state.
 * @throws FormatError as `readState`
 */
export function checkState(data: unknown, source: string): State {
  return checkDocument(data, source, stateFormat)
}

function checkMore(state: State, source: string): void {
  refuseDuplicateIds(state.vcpus, '$.vcpus', source)
  for (const [vcpuIndex, { registers }] of state.vcpus.entries()) {
    const path = `$.vcpus[${vcpuIndex}].registers`
    checkRegisterRows(registers, path, source)
    requireRegisters(registers, path, source)
  }
}
