/** `KVM_CAP_DIRTY_LOG_RING_ACQ_REL`, `KVM_RESET_DIRTY_RINGS`, and the exit of a full ring. */
import type { VmFd } from '../../backend.js'
import type { Kvm, Vcpu, Vm } from '../../kvm/index.js'
import { capabilities, DIRTY_GFN_SIZE, KVM_DIRTY_RING_RSVD_ENTRIES } from '../../uapi.js'
import { type CheckGroup, notApplicable, violated } from '../check.js'
import {
  type Answer,
  answerOf,
  answerOfOutcome,
  expect,
  expectValue,
  onBareVm,
  SUCCESS,
  takesLateVcpus,
} from '../experiments.js'

const RING = 'api.rst, KVM_CAP_DIRTY_LOG_RING/KVM_CAP_DIRTY_LOG_RING_ACQ_REL'
const CODE = 0x8000_0000n
const LOGGED = 0x9000_0000n
const DEVICE = 0xa000_0000n
const SLOT = 1
/** str x2, [x1]; str x2, [x3]; as often as the longest experiment stores. */
const program = Uint32Array.from({ length: 4096 }, (_, n) => (n % 2 === 0 ? 0xf900_0022 : 0xf900_0062))

interface Ringed {
  readonly vm: Vm
  readonly vcpu: Vcpu
  /** Entries of the ring that may be in use. */
  readonly limit: number
  /** Makes the guest write to a page of the slot and then to a device; returns the reason of the first exit. */
  readonly write: (page: number) => string
  /** Takes the pages from the ring; fails the check unless they are these. */
  readonly expectTaken: (pages: readonly number[], when: string) => void
  readonly expectReset: (entries: number, when: string) => void
}

/** A new VM with the smallest ring, a slot of as many pages, and a guest that writes to the page given. */
function onRing(kvm: Kvm, experiment: (ringed: Ringed) => string, hasBitmap = false): string {
  needRing(kvm)
  // With pKVM, beginning a log makes Linux 6.18 warn in its kernel log (kvm_nested_s2_wp).
  if (!takesLateVcpus(kvm)) notApplicable('left out with pKVM, where the kernel warns')
  using code = kvm.createMemory(0x1_0000)
  const entries = code.pageSize / DIRTY_GFN_SIZE
  using vm = kvm.createVm()
  vm.enableDirtyRing(entries, { bitmap: hasBitmap })
  using memory = kvm.createMemory(entries * code.pageSize)
  code.write(0, new Uint8Array(program.buffer))
  vm.mapMemory(0, { address: CODE, memory: code })
  vm.mapMemory(SLOT, { address: LOGGED, memory, logDirtyPages: true })
  const vcpu = vm.createVcpu(0)
  vcpu.registers.set('pc', CODE)
  vcpu.registers.set('x3', DEVICE)
  const write = (page: number): string => {
    vcpu.registers.set('x1', LOGGED + BigInt(page * memory.pageSize))
    return vcpu.runSync({ timeout: 10_000 }).reason
  }
  const expectTaken = (pages: readonly number[], when: string): void => {
    const taken = vcpu.takeDirtyPages()
    if (taken.some(({ slot }) => slot !== SLOT)) violated(`a page of another slot is in the ring ${when}`)
    const found = taken.map(({ page }) => page).join(', ')
    if (found !== pages.join(', '))
      violated(`the pages in the ring ${when}: ${found}, not ${pages.join(', ')}`)
  }
  const expectReset = (count: number, when: string): void =>
    expectValue(`entries that are reset ${when}`, BigInt(vm.resetDirtyRings()), BigInt(count))
  const limit = entries - KVM_DIRTY_RING_RSVD_ENTRIES
  return experiment({ vm, vcpu, limit, write, expectTaken, expectReset })
}

function needRing(kvm: Kvm): void {
  if (kvm.checkExtension('KVM_CAP_DIRTY_LOG_RING_ACQ_REL') <= 0)
    notApplicable('this kernel has no dirty ring')
}

function expectMmio(reason: string): void {
  if (reason !== 'mmio') violated(`a guest that writes to a page ends with ${reason}`)
}

function besideBitmap({ vm, write, expectTaken }: Ringed): string {
  expectMmio(write(5))
  expectValue('the bitmap', vm.getDirtyLog(SLOT)[0]!, 0n)
  expectTaken([5], 'beside the bitmap')
  return 'ENXIO; in the ring alone'
}

function enable(vm: VmFd, size: number): Answer {
  return answerOfOutcome(vm.enableCap(capabilities.KVM_CAP_DIRTY_LOG_RING_ACQ_REL, 0, [BigInt(size)]))
}

function bitmap(vm: VmFd, flags = 0): Answer {
  return answerOfOutcome(vm.enableCap(capabilities.KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, flags, []))
}

export const dirtyRing: CheckGroup = {
  title: 'Dirty ring',
  checks: [
    {
      name: 'A page is in the ring once for its first write, and again once it was reset',
      promise:
        'KVM_RESET_DIRTY_RINGS write-protects the collected pages again, and returns how many there are',
      source: RING,
      mark: 'promised',
      experiment: (kvm) =>
        onRing(kvm, ({ write, expectTaken, expectReset }) => {
          for (const page of [3, 1, 3]) expectMmio(write(page))
          expectReset(0, 'before any was taken')
          expectTaken([3, 1], 'at first')
          expectMmio(write(3))
          expectTaken([], 'before they were reset')
          expectReset(2, 'once they were taken')
          expectReset(0, 'again')
          for (const page of [3, 2]) expectMmio(write(page))
          expectTaken([3, 2], 'after the reset')
          return 'once'
        }),
    },
    {
      name: 'A run ends with KVM_EXIT_DIRTY_RING_FULL at 64 entries before the ring is full, until some are reset',
      promise: 'KVM_RUN returns with KVM_EXIT_DIRTY_RING_FULL when the ring is full or almost full',
      source: RING,
      mark: 'promised',
      experiment: (kvm) =>
        onRing(kvm, ({ vcpu, limit, write, expectTaken, expectReset }) => {
          const pages = Array.from({ length: limit }, (_, page) => page)
          for (const page of pages.slice(1)) expectMmio(write(page))
          for (const when of ['when it is full', 'again']) {
            const reason = write(0)
            if (reason !== 'dirty-ring-full') violated(`the run ${when}: ${reason}`)
          }
          expect(
            'immediate_exit with a full ring',
            answerOf(() => vcpu.freeze()),
            SUCCESS,
          )
          expectTaken([...pages.slice(1), 0], 'when it is full')
          expectReset(limit, 'once it was full')
          expectMmio(write(0))
          expectTaken([0], 'at the end')
          return `at ${limit}`
        }),
    },
    {
      name: 'With a ring alone slots have no bitmap: ENXIO. With both, what a vCPU writes is in the ring alone',
      promise: 'KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP: pages dirtied without a running vCPU are in the bitmap',
      source: RING,
      mark: 'promised',
      experiment: (kvm) => {
        onRing(kvm, ({ vm }) => {
          expect(
            'KVM_GET_DIRTY_LOG',
            answerOf(() => vm.getDirtyLog(SLOT)),
            'ENXIO',
          )
          const clear = (): void => vm.clearDirtyLog(SLOT, new BigUint64Array(64))
          expect('KVM_CLEAR_DIRTY_LOG', answerOf(clear), 'ENXIO')
          return ''
        })
        return onRing(kvm, besideBitmap, true)
      },
    },
    {
      name: 'A ring is made once, before the first vCPU, with a power of 2 from a page to 1 MiB, and bitmaps before memory',
      promise: 'the size must be a power of two, it can be enabled once and before any vCPU',
      source: RING,
      mark: 'promised',
      experiment: (kvm) =>
        onBareVm(kvm, (first) => {
          needRing(kvm)
          expect('to reset without a ring', answerOfOutcome(first.resetDirtyRings()), 'EINVAL')
          expect('bitmaps without a ring', bitmap(first), 'EINVAL')
          for (const size of [0, 64 * DIRTY_GFN_SIZE - 1, 0x1_8000])
            expect(`${size} bytes`, enable(first, size), 'EINVAL')
          expect('2 MiB', enable(first, 0x20_0000), 'E2BIG')
          expect('64 KiB', enable(first, 0x1_0000), SUCCESS)
          expect('a second ring', enable(first, 0x1_0000), 'EINVAL')
          expect('bitmaps with a flag', bitmap(first, 1), 'EINVAL')
          expect('bitmaps', bitmap(first), SUCCESS)
          expect('to reset', answerOfOutcome(first.resetDirtyRings()), SUCCESS)
          return onBareVm(kvm, (second) => {
            const vcpu = second.createVcpu(0)
            if (typeof vcpu !== 'number') vcpu.close()
            expect('a ring after a vCPU', enable(second, 0x1_0000), 'EINVAL')
            return 'EINVAL, E2BIG'
          })
        }),
    },
  ],
}
