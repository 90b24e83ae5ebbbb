/** `KVM_ARM_MTE_COPY_TAGS`. */
import type { VmFd } from '../../backend.js'
import type { Kvm, Vm } from '../../kvm/index.js'
import { KVM_ARM_TAGS_FROM_GUEST, KVM_ARM_TAGS_TO_GUEST, MTE_GRANULE } from '../../uapi.js'
import { type CheckGroup, notApplicable, violated } from '../check.js'
import {
  type Answer,
  answerOf,
  answerOfOutcome,
  expect,
  expectValue,
  onBareVm,
  SUCCESS,
} from '../experiments.js'

const DOCUMENT = 'api.rst, KVM_ARM_MTE_COPY_TAGS'
const MEMORY = 0x4000_0000n
/** Bytes; a page of every host. */
const SIZE = 0x1_0000

/** A new VM with tags, and memory. */
function onTagged(kvm: Kvm, experiment: (vm: Vm) => string): string {
  using vm = kvm.createVm()
  if (answerOf(() => vm.enableCapability('KVM_CAP_ARM_MTE')) !== SUCCESS)
    notApplicable('this host has no VM with tags')
  using memory = kvm.createMemory(SIZE)
  const mapped = answerOf(() => vm.mapMemory(0, { address: MEMORY, memory }))
  // Linux before 6.2 refuses shared memory.
  if (mapped === 'EINVAL') notApplicable('this kernel gives VMs with tags no memory of this kind')
  return experiment(vm)
}

function copy(vm: VmFd, address: bigint, length: number, flags: number): Answer {
  return answerOfOutcome(vm.copyMteTags(address, length, new Uint8Array(SIZE), flags))
}

export const memoryTags: CheckGroup = {
  title: 'Memory tags',
  checks: [
    {
      name: 'Tags that were copied to a guest are read back, up to where its memory ends',
      promise: 'copies tags, and returns the number of bytes: fewer if the end of the memory is reached',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onTagged(kvm, (vm) => {
          const tags = Uint8Array.from({ length: SIZE / MTE_GRANULE }, (_, n) => n % 16)
          expectValue('bytes written', BigInt(vm.writeTags(MEMORY, tags)), BigInt(SIZE))
          const read = vm.readTags(MEMORY, 2 * SIZE)
          expectValue('tags read', BigInt(read.length), BigInt(tags.length))
          if (read.some((tag, n) => tag !== tags[n])) violated('other tags are read back')
          const outside = MEMORY + BigInt(SIZE)
          expect(
            'tags without memory',
            answerOf(() => vm.readTags(outside, SIZE)),
            'EFAULT',
          )
          return 'read back'
        }),
    },
    {
      name: 'Addresses and lengths that are not multiples of a page are EINVAL',
      promise: 'guest_ipa and length must be PAGE_SIZE aligned',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onTagged(kvm, (vm) => {
          const read = (address: bigint, length: number): Answer =>
            answerOf(() => vm.readTags(address, length))
          expect('half a page', read(MEMORY, 0x800), 'EINVAL')
          expect('16 bytes on', read(MEMORY + 16n, SIZE), 'EINVAL')
          expect('nothing', read(MEMORY, 0), SUCCESS)
          return 'EINVAL'
        }),
    },
    {
      name: 'A VM without tags has none to copy: EINVAL',
      promise: 'the VM must have KVM_CAP_ARM_MTE enabled',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onBareVm(kvm, (vm) => {
          for (const flags of [KVM_ARM_TAGS_TO_GUEST, KVM_ARM_TAGS_FROM_GUEST, 2]) {
            for (const length of [0, SIZE]) {
              expect(`${length} bytes with flags ${flags}`, copy(vm, MEMORY, length, flags), 'EINVAL')
            }
          }
          return 'EINVAL'
        }),
    },
  ],
}
