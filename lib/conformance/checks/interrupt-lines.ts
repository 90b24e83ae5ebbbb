/** `KVM_IRQ_LINE`. */
import { cpuInputs, irqTypes, packIrq } from '../../uapi.js'
import type { VmFd } from '../../backend.js'
import * as rig from '../../probe/rig.js'
import { type CheckGroup, notApplicable } from '../check.js'
import {
  type Answer,
  answerOf,
  answerOfOutcome,
  expect,
  GIC_INTERRUPTS,
  onBareVm,
  onGic,
  onVcpu,
  SUCCESS,
  takesLateVcpus,
} from '../experiments.js'

const DOCUMENT = 'api.rst, KVM_IRQ_LINE'
const PSCI_CPU_SUSPEND = 0x8400_0001

/** Raises an input of vCPU 0. */
function raiseInput(vm: VmFd, number: number): Answer {
  return answerOfOutcome(vm.irqLine(packIrq({ type: irqTypes.cpu, vcpu: 0, number }), 1))
}

export const interruptLines: CheckGroup = {
  title: 'Interrupt lines',
  checks: [
    {
      name: 'A vCPU without a GIC has two inputs, IRQ and FIQ; any other is EINVAL',
      promise: 'irq_type[CPU]: out-of-kernel GIC: irq_id 0 is IRQ, irq_id 1 is FIQ',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onBareVm(kvm, (vm) =>
          rig.onVcpu(vm, 0, () => {
            expect('IRQ', raiseInput(vm, cpuInputs.irq), SUCCESS)
            expect('FIQ', raiseInput(vm, cpuInputs.fiq), SUCCESS)
            expect('input 2', raiseInput(vm, 2), 'EINVAL')
            expect('input 65535', raiseInput(vm, 0xffff), 'EINVAL')
            return 'accepts both'
          }),
        ),
    },
    {
      name: 'KVM_IRQ_LINE for a vCPU that does not exist is EINVAL',
      promise: 'the vCPU must exist',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onBareVm(kvm, (vm) => {
          expect('IRQ of vCPU 0', raiseInput(vm, cpuInputs.irq), 'EINVAL')
          return 'EINVAL'
        }),
    },
    {
      name: 'A raised input ends a guest’s wait for an interrupt, even if the guest masks it',
      promise: 'CPU_SUSPEND waits as WFI does, which a masked interrupt ends too',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) => {
        if (!takesLateVcpus(kvm)) notApplicable('with pKVM, Linux 6.18 goes on waiting')
        for (const input of ['irq', 'fiq'] as const) {
          onVcpu(kvm, (vcpu) => {
            vcpu.setIrq(input, true)
            const raised = vcpu.hypercall(PSCI_CPU_SUSPEND)
            expect(`CPU_SUSPEND with ${input} raised`, raised.exit?.reason ?? 'returns', 'returns')
            vcpu.setIrq(input, false)
            const lowered = vcpu.hypercall(PSCI_CPU_SUSPEND, [], { timeout: 100 })
            expect(`CPU_SUSPEND with ${input} lowered`, lowered.exit?.reason ?? 'returns', 'interrupted')
          })
        }
        return 'ends it while raised'
      },
    },
    {
      name: 'Interrupts of a GIC that the VM does not have are ENXIO, and so are inputs of a vCPU where it has one',
      promise: 'KVM chooses the controller by the type of the interrupt',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) => {
        onVcpu(kvm, (vcpu, vm) => {
          expect(
            'SPI 32 without a GIC',
            answerOf(() => vm.setIrq(32, true)),
            'ENXIO',
          )
          expect(
            'PPI 20 without a GIC',
            answerOf(() => vcpu.setIrq(20, true)),
            'ENXIO',
          )
        })
        return onGic(kvm, (_, vcpu) => {
          expect(
            'IRQ with a GIC',
            answerOf(() => vcpu.setIrq('irq', true)),
            'ENXIO',
          )
          return 'ENXIO'
        })
      },
    },
    {
      name: 'An interrupt of a GICv3 that is not initialised is EBUSY',
      promise: 'userspace initialises a GICv3 before it injects interrupts',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onGic(
          kvm,
          (vm, vcpu) => {
            expect(
              'SPI 32',
              answerOf(() => vm.setIrq(32, true)),
              'EBUSY',
            )
            expect(
              'PPI 20',
              answerOf(() => vcpu.setIrq(20, true)),
              'EBUSY',
            )
            return 'EBUSY'
          },
          false,
        ),
    },
    {
      name: 'A GIC’s interrupts can be raised up to the number it was given',
      promise: 'in-kernel GIC: SPI, irq_id between 32 and 1019; PPI, irq_id between 16 and 31',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onGic(kvm, (vm, vcpu) => {
          for (const intid of [32, 33, GIC_INTERRUPTS - 1]) {
            for (const level of [true, true, false]) {
              expect(
                `SPI ${intid}`,
                answerOf(() => vm.setIrq(intid, level)),
                SUCCESS,
              )
            }
          }
          for (const intid of [16, 20, 31]) {
            expect(
              `PPI ${intid}`,
              answerOf(() => vcpu.setIrq(intid, true)),
              SUCCESS,
            )
          }
          // Any other is EINVAL. That is left out: Linux 5.10 warns of it in its log.
          return `accepts those below ${GIC_INTERRUPTS}`
        }),
    },
  ],
}
