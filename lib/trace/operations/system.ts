/** Ioctls of `/dev/kvm`, and memory for guests. */
import * as v from 'valibot'
import { hex64, uint32 } from '../../documents/entries.js'
import { hex } from '../../registers/index.js'
import { number } from '../outcome.js'
import { bytes, ret, value } from './entries.js'
import { Operation } from './operation.js'

export const systemOperations = {
  /** `KVM_GET_API_VERSION` */
  api_version: new Operation({}, value).by('system', 'getApiVersion', {
    toCall: () => ({}),
    toArguments: () => [],
    toOutcome: number,
  }),

  /** `KVM_GET_VCPU_MMAP_SIZE` */
  vcpu_mmap_size: new Operation({}, value).by('system', 'getVcpuMmapSize', {
    toCall: () => ({}),
    toArguments: () => [],
    toOutcome: number,
  }),

  /** `KVM_CHECK_EXTENSION`, on `/dev/kvm` or on a VM. */
  check_extension: new Operation({ vm: v.optional(uint32), cap: uint32 }, value).by(
    ['vm', 'system'],
    'checkExtension',
    { toCall: ([cap]) => ({ cap }), toArguments: ({ cap }) => [cap], toOutcome: number },
  ),

  /** `KVM_CREATE_VM` */
  create_vm: new Operation({ vm: uint32, type: hex64 }, ret).by('system', 'createVm', {
    creates: 'vm',
    toCall: ([type]) => ({ type: hex(type) }),
    toArguments: ({ type }) => [BigInt(type)],
  }),

  /** `eventfd(2)` */
  create_event: new Operation({ event: uint32 }, ret).by('system', 'createEvent', {
    creates: 'event',
    toCall: () => ({}),
    toArguments: () => [],
  }),

  /** Memory to back a guest with, of `size` bytes. */
  create_memory: new Operation({ memory: uint32, size: bytes }, ret).by('system', 'createMemory', {
    creates: 'memory',
    toCall: ([size]) => ({ size }),
    toArguments: ({ size }) => [size],
  }),
}
