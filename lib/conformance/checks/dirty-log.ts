/** `KVM_GET_DIRTY_LOG` and `KVM_CLEAR_DIRTY_LOG`. */
import type { Kvm, Vm } from '../../kvm/index.js'
import { KVM_DIRTY_LOG_INITIALLY_SET, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE } from '../../uapi.js'
import { type CheckGroup, notApplicable, violated } from '../check.js'
import { answerOf, expect, expectValue, SUCCESS, takesLateVcpus } from '../experiments.js'

const CODE = 0x8000_0000n
const LOGGED = 0x9000_0000n
const DEVICE = 0xa000_0000n
/** str x2, [x1]; str x2, [x3]; as often as the longest experiment writes. */
const program = Uint32Array.from({ length: 32 }, (_, n) => (n % 2 === 0 ? 0xf900_0022 : 0xf900_0062))
/** Pages of the slot that is logged: two words of its bitmap, the second of them not full. */
const PAGES = 100
const SLOT = 1

interface Logged {
  readonly vm: Vm
  /** Maps the slot again, with or without its log. */
  log: (isLogged: boolean) => void
  /** Makes the guest write to a page of the slot. */
  write: (page: number) => void
  /** `KVM_GET_DIRTY_LOG`; fails the check unless it is this. */
  expectLog: (first: bigint, second: bigint, when: string) => void
}

/** A new VM with a slot without a log, and a guest that writes to the page given. */
function onLogged(kvm: Kvm, experiment: (logged: Logged) => string, manual?: bigint): string {
  // Switching a log on makes Linux 6.18 report a fault of its own in its log (kvm_nested_s2_wp).
  if (!takesLateVcpus(kvm)) notApplicable('left out with pKVM, where the kernel warns')
  using vm = kvm.createVm()
  if (manual !== undefined) {
    const enabled = answerOf(() => vm.enableCapability('KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2', manual))
    if (enabled === 'EINVAL') notApplicable('this kernel cannot protect pages on request')
    expect('KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2', enabled, SUCCESS)
  }
  using code = kvm.createMemory(0x1_0000)
  using memory = kvm.createMemory(PAGES * code.pageSize)
  code.write(0, new Uint8Array(program.buffer))
  vm.mapMemory(0, { address: CODE, memory: code })
  const log = (logDirtyPages: boolean): void => vm.mapMemory(SLOT, { address: LOGGED, memory, logDirtyPages })
  log(false)
  const vcpu = vm.createVcpu(0)
  vcpu.registers.set('pc', CODE)
  vcpu.registers.set('x3', DEVICE)
  const write = (page: number): void => {
    vcpu.registers.set('x1', LOGGED + BigInt(page * memory.pageSize))
    const { reason } = vcpu.runSync({ timeout: 10_000 })
    if (reason !== 'mmio') violated(`a guest that writes to page ${page} ends with ${reason}`)
  }
  const expectLog = (first: bigint, second: bigint, when: string): void => {
    const words = vm.getDirtyLog(SLOT)
    expectValue(`the first word ${when}`, words[0]!, first)
    expectValue(`the second word ${when}`, words[1]!, second)
  }
  return experiment({ vm, log, write, expectLog })
}

const GET = 'api.rst, KVM_GET_DIRTY_LOG'
const CLEAR = 'api.rst, KVM_CLEAR_DIRTY_LOG'

export const dirtyLog: CheckGroup = {
  title: 'Dirty log',
  checks: [
    {
      name: 'A slot without a log, and an empty one, are ENOENT',
      promise: 'the slot must have KVM_MEM_LOG_DIRTY_PAGES',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onLogged(kvm, ({ vm }) => {
          for (const slot of [SLOT, SLOT + 1]) {
            expect(
              `get of slot ${slot}`,
              answerOf(() => vm.getDirtyLog(slot)),
              'ENOENT',
            )
            const none = BigUint64Array.of(0n, 0n)
            expect(
              `clear of slot ${slot}`,
              answerOf(() => vm.clearDirtyLog(slot, none)),
              'ENOENT',
            )
          }
          return 'ENOENT'
        }),
    },
    {
      name: 'The log has a bit for each page written since the last call, and is then empty',
      promise:
        'a bitmap of any pages dirtied since the last call; its bits are cleared before the ioctl returns',
      source: GET,
      mark: 'promised',
      experiment: (kvm) =>
        onLogged(kvm, ({ log, write, expectLog }) => {
          write(2)
          log(true)
          expectLog(0n, 0n, 'at first')
          for (const page of [0, 63, 64, 99, 0]) write(page)
          expectLog((1n << 63n) | 1n, (1n << 35n) | 1n, 'after four pages')
          expectLog(0n, 0n, 'after they were read')
          write(64)
          expectLog(0n, 1n, 'after another write')
          log(false)
          log(true)
          expectLog(0n, 0n, 'of a new log')
          return 'exactly these'
        }),
    },
    {
      name: 'With KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 only KVM_CLEAR_DIRTY_LOG empties the log',
      promise: 'KVM_GET_DIRTY_LOG will not automatically clear the dirty log',
      source: 'api.rst, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2',
      mark: 'promised',
      experiment: (kvm) =>
        onLogged(
          kvm,
          ({ vm, log, write, expectLog }) => {
            log(true)
            for (const page of [1, 2, 70]) write(page)
            for (const when of ['at first', 'once more']) expectLog(6n, 1n << 6n, when)
            vm.clearDirtyLog(SLOT, BigUint64Array.of(2n), { pages: 64 })
            expectLog(4n, 1n << 6n, 'without page 1')
            vm.clearDirtyLog(SLOT, BigUint64Array.of((1n << 64n) - 1n), { firstPage: 64 })
            expectLog(4n, 0n, 'without the second word')
            write(1)
            expectLog(6n, 0n, 'after page 1 was written again')
            return 'keeps it until it is cleared'
          },
          KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
        ),
    },
    {
      name: 'With KVM_DIRTY_LOG_INITIALLY_SET a new log has every page',
      promise: 'all bits of the dirty bitmap will be initialized to 1 when created',
      source: 'api.rst, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2',
      mark: 'promised',
      experiment: (kvm) =>
        onLogged(
          kvm,
          ({ log, expectLog }) => {
            log(true)
            expectLog((1n << 64n) - 1n, (1n << 36n) - 1n, 'at first')
            return 'every page, and no bit beyond them'
          },
          KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET,
        ),
    },
    {
      name: 'Cleared pages begin at a multiple of 64 and are one, or end the slot: else EINVAL',
      promise: 'first_page must be a multiple of 64; num_pages too unless it is the end of the slot',
      source: CLEAR,
      mark: 'promised',
      experiment: (kvm) =>
        onLogged(kvm, ({ vm, log }) => {
          log(true)
          const clear = (firstPage: number, pages: number): string =>
            answerOf(() => vm.clearDirtyLog(SLOT, new BigUint64Array(4), { firstPage, pages }))
          for (const [first, pages] of [
            [0, 100],
            [0, 64],
            [64, 36],
            [0, 0],
          ] as const) {
            expect(`${pages} pages from ${first}`, clear(first, pages), SUCCESS)
          }
          for (const [first, pages] of [
            [1, 64],
            [0, 63],
            [0, 128],
            [64, 64],
            [128, 0],
          ] as const) {
            expect(`${pages} pages from ${first}`, clear(first, pages), 'EINVAL')
          }
          return 'EINVAL'
        }),
    },
  ],
}
