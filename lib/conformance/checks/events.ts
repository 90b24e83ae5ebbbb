/** `KVM_IOEVENTFD` and `KVM_IRQFD`. */
import type { EventFd, VmFd } from '../../backend.js'
import type { HostEvent, Kvm, Vm } from '../../kvm/index.js'
import {
  KVM_IOEVENTFD_FLAG_DATAMATCH,
  KVM_IOEVENTFD_FLAG_DEASSIGN,
  KVM_IOEVENTFD_VALID_FLAG_MASK,
  KVM_IRQFD_FLAG_DEASSIGN,
} from '../../uapi.js'
import { type CheckGroup, notApplicable } from '../check.js'
import {
  type Answer,
  answerOf,
  answerOfOutcome,
  expect,
  expectValue,
  onBareVm,
  onGic,
  onProgram,
  runToStore,
  SUCCESS,
} from '../experiments.js'

const IOEVENTFD = 'api.rst, KVM_IOEVENTFD'
const IRQFD = 'api.rst, KVM_IRQFD'

const DEVICE = 0xa000_0000n
const BELL = DEVICE + 8n
/** str w2, [x1]; str w2, [x3]; as often as the longest experiment writes. */
const program = Uint32Array.from({ length: 32 }, (_, n) => (n % 2 === 0 ? 0xb900_0022 : 0xb900_0062))

/** A new VM with an event, and a guest that stores 32 bits to the bell and then to a device. */
function onBell(
  kvm: Kvm,
  experiment: (vm: Vm, event: HostEvent, write: (value: bigint) => bigint) => string,
): string {
  if (kvm.checkExtension('KVM_CAP_IOEVENTFD') <= 0) notApplicable('no KVM_CAP_IOEVENTFD')
  return onProgram(kvm, program, { x1: BELL, x3: DEVICE }, (vcpu, vm) => {
    using event = kvm.createEvent()
    // Returns the first exit of the two stores.
    const write = (value: bigint): bigint => {
      vcpu.registers.set('x2', value)
      const first = runToStore(vcpu)
      if (first !== DEVICE) expectValue('the next exit', runToStore(vcpu), DEVICE)
      return first
    }
    return experiment(vm, event, write)
  })
}

function onEvent(kvm: Kvm, experiment: (vm: VmFd, event: EventFd) => string): string {
  using event = kvm.createEvent()
  return onBareVm(kvm, (vm) => experiment(vm, event.fd))
}

export const events: CheckGroup = {
  title: 'Events',
  checks: [
    {
      name: 'A write to a doorbell is counted and does not end the run',
      promise: 'a guest write in the registered address will signal the event instead of triggering an exit',
      source: IOEVENTFD,
      mark: 'promised',
      experiment: (kvm) =>
        onBell(kvm, (vm, event, write) => {
          expectValue('the exit without a doorbell', write(1n), BELL)
          const bell = vm.mmio.doorbell(BELL, 4, event)
          for (const value of [1n, 2n]) expectValue('the exit with it', write(value), DEVICE)
          expectValue('the count', event.take(), 2n)
          bell.close()
          expectValue('the exit after it', write(1n), BELL)
          expectValue('the count after it', event.take(), 0n)
          return 'counts it'
        }),
    },
    {
      name: 'A doorbell for a value counts that value alone, and one of size 0 writes of every size',
      promise:
        'with the flag datamatch the event is signaled only if the written value equals datamatch; length 0 is any',
      source: IOEVENTFD,
      mark: 'promised',
      experiment: (kvm) =>
        onBell(kvm, (vm, event, write) => {
          const bell = vm.mmio.doorbell(BELL, 4, event, 7n)
          expectValue('the exit of value 7', write(7n), DEVICE)
          expectValue('the exit of value 8', write(8n), BELL)
          expectValue('the count', event.take(), 1n)
          bell.close()
          const wide = vm.mmio.doorbell(BELL, 8, event)
          expectValue('the exit with a doorbell of 8 bytes', write(7n), BELL)
          wide.close()
          if (vm.checkExtension('KVM_CAP_IOEVENTFD_ANY_LENGTH') <= 0) return 'that value'
          vm.mmio.doorbell(BELL, 0, event)
          expectValue('the exit with a doorbell of any size', write(7n), DEVICE)
          expectValue('the count', event.take(), 1n)
          return 'counts these'
        }),
    },
    {
      name: 'KVM_IOEVENTFD refuses other sizes and flags, ends of the address space, and what is taken or unknown',
      promise:
        'sizes are 0, 1, 2, 4 and 8; a second event for the same writes is EEXIST; an unknown one is ENOENT',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onEvent(kvm, (vm, event) => {
          const ask = (address: bigint, size: number, flags: number, datamatch = 0n): Answer =>
            answerOfOutcome(vm.ioEventFd(event, address, size, flags, datamatch))
          expect('size 3', ask(BELL, 3, 0), 'EINVAL')
          expect('size 16', ask(BELL, 16, 0), 'EINVAL')
          expect('an unknown flag', ask(BELL, 4, KVM_IOEVENTFD_VALID_FLAG_MASK + 1), 'EINVAL')
          expect('the end of the address space', ask((1n << 64n) - 2n, 4, 0), 'EINVAL')
          expect('a value of any size', ask(BELL, 0, KVM_IOEVENTFD_FLAG_DATAMATCH), 'EINVAL')
          expect('a value', ask(BELL, 4, KVM_IOEVENTFD_FLAG_DATAMATCH, 7n), SUCCESS)
          expect('another value', ask(BELL, 4, KVM_IOEVENTFD_FLAG_DATAMATCH, 8n), SUCCESS)
          expect('the same value', ask(BELL, 4, KVM_IOEVENTFD_FLAG_DATAMATCH, 7n), 'EEXIST')
          expect('every value', ask(BELL, 4, 0), 'EEXIST')
          expect('any size', ask(BELL, 0, 0), 'EEXIST')
          expect('another size', ask(BELL, 2, 0), SUCCESS)
          const remove = KVM_IOEVENTFD_FLAG_DEASSIGN
          expect('removing every value', ask(BELL, 4, remove), 'ENOENT')
          expect('removing one', ask(BELL, 4, remove | KVM_IOEVENTFD_FLAG_DATAMATCH, 7n), SUCCESS)
          expect('removing it again', ask(BELL, 4, remove | KVM_IOEVENTFD_FLAG_DATAMATCH, 7n), 'ENOENT')
          return 'EINVAL, EEXIST, ENOENT'
        }),
    },
    {
      name: 'KVM_IRQFD needs an initialised GIC, and takes an event for one interrupt',
      promise: 'assigns an eventfd to a GSI; deassigning it is the same call with the flag',
      source: IRQFD,
      mark: 'promised',
      experiment: (kvm) => {
        onEvent(kvm, (vm, event) => {
          expect('without a GIC', answerOfOutcome(vm.irqFd(event, 0, 0, null)), 'EAGAIN')
          expect('an unknown flag', answerOfOutcome(vm.irqFd(event, 0, 4, null)), 'EINVAL')
          const removed = vm.irqFd(event, 0, KVM_IRQFD_FLAG_DEASSIGN, null)
          expect('removing what is not there', answerOfOutcome(removed), SUCCESS)
          return ''
        })
        return onGic(kvm, (vm) => {
          using event = kvm.createEvent()
          const connection = vm.connectIrq(1, event)
          const again = (): Answer => answerOf(() => vm.connectIrq(2, event))
          expect('a second interrupt', again(), 'EBUSY')
          event.signal()
          connection.close()
          expect('a second interrupt after the first', again(), SUCCESS)
          return 'EAGAIN, EBUSY'
        })
      },
    },
  ],
}
