/** `KVM_ARM_SET_COUNTER_OFFSET`. */
import type { Kvm, Vcpu, Vm } from '../../kvm/index.js'
import { capabilities } from '../../uapi.js'
import { type CheckGroup, notApplicable, violated } from '../check.js'
import {
  type Answer,
  answerOf,
  answerOfOutcome,
  expect,
  expectWrite,
  isListed,
  onBareVm,
  onVcpu,
  SUCCESS,
} from '../experiments.js'

const DOCUMENT = 'api.rst, KVM_ARM_SET_COUNTER_OFFSET'
const OFFSET = 1n << 62n
/** Ticks that no experiment takes: more than an hour at 1 GHz. */
const PATIENCE = 1n << 42n
const COUNTERS = ['KVM_REG_ARM_TIMER_CNT', 'KVM_REG_ARM_PTIMER_CNT'] as const

function withOffsets(kvm: Kvm, experiment: (vcpu: Vcpu, vm: Vm) => string): string {
  if (kvm.checkExtension('KVM_CAP_COUNTER_OFFSET') <= 0) notApplicable('this kernel sets no offset')
  return onVcpu(kvm, experiment)
}

/** Fails the check unless the counter is a little more than `ticks`. */
function expectTicks(vcpu: Vcpu, counter: (typeof COUNTERS)[number], ticks: bigint): void {
  const ahead = BigInt.asUintN(64, vcpu.registers.get(counter) - ticks)
  if (ahead > PATIENCE) violated(`${counter} is not set back by the offset`)
}

export const counterOffset: CheckGroup = {
  title: 'Counter offset',
  checks: [
    {
      name: 'One offset sets both counters of every vCPU back, and writes to them then change nothing',
      promise:
        'guest counter = host counter - offset; later writes of the counters are ignored, and return no error',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        withOffsets(kvm, (vcpu, vm) => {
          const set = (offset: bigint): Answer => answerOf(() => vm.setCounterOffset(offset))
          const counters = COUNTERS.filter((counter) => isListed(vcpu, counter))
          expect('an offset of 0', set(0n), SUCCESS)
          const before = vcpu.registers.get('KVM_REG_ARM_TIMER_CNT')
          expect('an offset', set(OFFSET), SUCCESS)
          const [other] = [vm.createVcpu(1)]
          for (const counter of counters) {
            expectTicks(vcpu, counter, before - OFFSET)
            expectTicks(other, counter, before - OFFSET)
            expectWrite(vcpu, counter, 5n)
            expectTicks(vcpu, counter, before - OFFSET)
          }
          return 'sets them back'
        }),
    },
    {
      name: 'A reserved word that is not 0 is EINVAL',
      promise: 'the reserved field must be zero',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onBareVm(kvm, (vm) => {
          if (vm.checkExtension(capabilities.KVM_CAP_COUNTER_OFFSET) <= 0) {
            notApplicable('this kernel sets no offset')
          }
          expect('a reserved word of 1', answerOfOutcome(vm.setCounterOffset(0n, 1n)), 'EINVAL')
          return 'EINVAL'
        }),
    },
  ],
}
