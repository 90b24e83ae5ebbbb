/** `KVM_{HAS,GET,SET}_DEVICE_ATTR`, of a VM, a vCPU or a device. */
import * as v from 'valibot'
import { hex64, uint32 } from '../../documents/entries.js'
import { hex } from '../../registers/index.js'
import {
  KVM_ARM_VM_SMCCC_CTRL,
  KVM_ARM_VM_SMCCC_FILTER,
  packSmcccFilter,
  SMCCC_FILTER_SIZE,
  type SmcccFilter,
  unpackSmcccFilter,
} from '../../uapi.js'
import { toHex } from '../outcome.js'
import { filled, LONGEST_PAYLOAD, oneOf, owner, owners, payload, ret, toBytes } from './entries.js'
import { Operation } from './operation.js'

const attribute = { ...owner, group: uint32, attr: hex64 }

export const attributeOperations = {
  has_device_attr: new Operation(attribute, ret).checked(oneOf(owners)).by(owners, 'hasDeviceAttr', {
    toCall: ([group, attr]) => ({ group, attr: hex(attr) }),
    toArguments: ({ group, attr }) => [group, BigInt(attr)],
  }),

  /** `size` is the size of the attribute's data, in bytes. */
  get_device_attr: new Operation(
    { ...attribute, size: v.pipe(uint32, v.maxValue(LONGEST_PAYLOAD)) },
    { data: v.optional(payload) },
  )
    .checked(oneOf(owners))
    .by(owners, 'getDeviceAttr', {
      toCall: ([group, attr, data]) => ({ group, attr: hex(attr), size: data.length }),
      toArguments: ({ group, attr }) => [group, BigInt(attr), new Uint8Array(LONGEST_PAYLOAD)],
      toOutcome: filled(([, , data], { size }) => ({ data: toHex(data.subarray(0, size)) })),
    }),

  /** `KVM_ARM_VM_SMCCC_FILTER` with padding of zero. Comes before `set_device_attr`, which would record it too. */
  smccc_filter: new Operation(
    { vm: uint32, base: uint32, nr: uint32, action: v.pipe(uint32, v.maxValue(255)) },
    ret,
  ).by('vm', 'setDeviceAttr', {
    takes: ([group, attr, data]) =>
      group === KVM_ARM_VM_SMCCC_CTRL && attr === KVM_ARM_VM_SMCCC_FILTER && filterIn(data) !== null,
    toCall: ([, , data]) => filterIn(data)!,
    toArguments: (filter) => [KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, packSmcccFilter(filter)],
  }),

  /** `data` null means a null address. */
  set_device_attr: new Operation({ ...attribute, data: v.nullable(payload) }, ret)
    .checked(oneOf(owners))
    .by(owners, 'setDeviceAttr', {
      toCall: ([group, attr, data]) => ({ group, attr: hex(attr), data: data && toHex(data) }),
      toArguments: ({ group, attr, data }) => [group, BigInt(attr), data === null ? null : toBytes(data)],
    }),
}

function filterIn(data: Uint8Array | null): SmcccFilter | null {
  return data === null || data.length < SMCCC_FILTER_SIZE ? null : unpackSmcccFilter(data)
}
