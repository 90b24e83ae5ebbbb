/**
 * The state: what a VM's vCPUs hold, as data. `capture` writes it, `restore` puts it into another VM, `verdict` tells beforehand what
 * will become of it. Memory and devices are not in it, nor the attributes of vCPUs (stolen time's address, the PMU's interrupt): who runs
 * the VM chose them and sets them again. This file is its only definition, as report.ts is the report's.
 */
import * as v from 'valibot'
import type { FilterAction } from '../kvm/index.js'
import {
  checkDocument,
  type DocumentFormat,
  readDocument,
  refuseDuplicateIds,
} from '../documents/document.js'
import { hex, hex64, host, int32, registerId, text, uint32 } from '../documents/entries.js'
import { checkRegisterRows, requireRegisters } from '../documents/registers.js'
import { originSchema } from '../report/origin.js'
import { feature } from '../report/report.js'
import { capabilities, type Capability, type MpState, mpStates, smcccFilterActions } from '../uapi.js'

const register = v.strictObject({
  id: registerId,
  /** For readers; the id decides. */
  name: text,
  value: hex,
})

const vcpu = v.strictObject({
  /** As given to `KVM_CREATE_VCPU`. */
  id: v.pipe(int32, v.minValue(0)),
  /** Of its last `KVM_ARM_VCPU_INIT`. With `sve` it was finalized with the lengths `KVM_REG_ARM64_SVE_VLS` holds. */
  features: v.array(feature),
  /** All of them, of every width, in `KVM_GET_REG_LIST`'s order. */
  registers: v.pipe(v.array(register), v.maxLength(10_000)),
  mpState: v.picklist(Object.keys(mpStates) as MpState[]),
  /** The 64 bytes of `struct kvm_vcpu_events`, two digits each. */
  events: v.pipe(v.string(), v.regex(/^[0-9a-f]{128}$/, 'is not 64 bytes of two hexadecimal digits each')),
})

/** The entries of a state; see the file's head. */
export const stateSchema = v.strictObject({
  format: v.literal('kvm-arm64/state'),
  version: v.literal(1),
  capturedAt: v.pipe(v.string(), v.isoTimestamp()),
  host,
  /** Who answered when it was captured. */
  origin: v.exactOptional(originSchema),
  vm: v.strictObject({
    /** As given to `KVM_CREATE_VM`: bits 7:0 are the bits of guest physical address space, 0 for 40. */
    type: hex64,
    /** Enabled by `KVM_ENABLE_CAP`, without which some registers cannot be written. */
    capabilities: v.array(v.picklist(Object.keys(capabilities) as Capability[])),
    /** What userspace put into the SMCCC filter: `count` functions from `base`. */
    smcccFilter: v.array(
      v.strictObject({
        base: uint32,
        count: uint32,
        action: v.picklist(Object.keys(smcccFilterActions) as FilterAction[]),
      }),
    ),
  }),
  vcpus: v.pipe(v.array(vcpu), v.minLength(1), v.maxLength(4096)),
})

export type State = v.InferOutput<typeof stateSchema>
export type VcpuCapture = State['vcpus'][number]
export type CapturedRegister = VcpuCapture['registers'][number]

/** The format `kvm-arm64/state`. */
export const stateFormat: DocumentFormat<State> = { noun: 'state', schema: stateSchema, checkMore }

/**
 * Reads a state from a file.
 * @throws FormatError for a file that is missing, empty, truncated, of another format or version, or hostile
 */
export function readState(file: string): State {
  return readDocument(file, stateFormat)
}

/**
 * Checks data to be a state.
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
