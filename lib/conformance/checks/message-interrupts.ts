/** `KVM_SIGNAL_MSI` and `KVM_SET_GSI_ROUTING`. */
import type { VmFd } from '../../backend.js'
import type { Kvm } from '../../kvm/index.js'
import {
  capabilities,
  deviceTypes,
  type GsiRoute,
  KVM_IRQCHIP_NUM_PINS,
  KVM_MAX_IRQ_ROUTES,
  KVM_MSI_VALID_DEVID,
  packGsiRoutes,
  routeTypes,
} from '../../uapi.js'
import { type CheckGroup, notApplicable } from '../check.js'
import { type Answer, answerOfOutcome, expect, onBareVm, SUCCESS } from '../experiments.js'

const ROUTING = 'api.rst, KVM_SET_GSI_ROUTING'

function withCapability(
  kvm: Kvm,
  capability: 'KVM_CAP_SIGNAL_MSI' | 'KVM_CAP_IRQ_ROUTING',
  experiment: (vm: VmFd) => string,
): string {
  return onBareVm(kvm, (vm) =>
    vm.checkExtension(capabilities[capability]) > 0 ? experiment(vm) : notApplicable(`no ${capability}`),
  )
}

function route(vm: VmFd, routes: readonly GsiRoute[], flags = 0): Answer {
  return answerOfOutcome(vm.setGsiRouting(flags, packGsiRoutes(routes)))
}

const toPin = (gsi: number, pin: number): GsiRoute => ({
  gsi,
  type: routeTypes.irqchip,
  flags: 0,
  words: [0, pin],
})
const toMessage = (gsi: number): GsiRoute => ({
  gsi,
  type: routeTypes.msi,
  flags: KVM_MSI_VALID_DEVID,
  words: [0x809_0040, 0, 3, 8],
})

export const messageInterrupts: CheckGroup = {
  title: 'Messages and routes',
  checks: [
    {
      name: 'A message without a GIC is EINVAL, and without a translation service ENODEV',
      promise: 'only valid with an in-kernel irqchip that handles MSI messages',
      source: 'api.rst, KVM_SIGNAL_MSI',
      mark: 'promised',
      experiment: (kvm) =>
        withCapability(kvm, 'KVM_CAP_SIGNAL_MSI', (vm) => {
          const signal = (flags: number): Answer => answerOfOutcome(vm.signalMsi(0x809_0040n, 3, flags, 8))
          expect('without a GIC', signal(KVM_MSI_VALID_DEVID), 'EINVAL')
          const gic = vm.createDevice(deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3, 0)
          if (typeof gic === 'number') return 'EINVAL'
          try {
            expect('with a GIC', signal(KVM_MSI_VALID_DEVID), 'ENODEV')
            expect('with an unknown flag', signal(2), 'EINVAL')
          } finally {
            gic.close()
          }
          return 'EINVAL, ENODEV'
        }),
    },
    {
      name: 'Interrupts are routed to pins of the GIC and to messages, also without a GIC',
      promise: 'KVM_IRQ_ROUTING_IRQCHIP and KVM_IRQ_ROUTING_MSI entries overwrite the previous ones',
      source: ROUTING,
      mark: 'promised',
      experiment: (kvm) =>
        withCapability(kvm, 'KVM_CAP_IRQ_ROUTING', (vm) => {
          expect('two routes', route(vm, [toPin(0, 5), toMessage(KVM_MAX_IRQ_ROUTES - 1)]), SUCCESS)
          expect('one of them again', route(vm, [toMessage(0)]), SUCCESS)
          const most = Array.from({ length: KVM_MAX_IRQ_ROUTES }, (_, gsi) => toPin(gsi, gsi % 900))
          expect('as many as can be', route(vm, most), SUCCESS)
          expect('none', route(vm, []), SUCCESS)
          return 'accepts both types'
        }),
    },
    {
      name: 'Routes with flags are EINVAL, as are GSIs, pins, types and numbers of routes beyond the limits',
      promise: 'no flags are specified so far, the corresponding field must be set to zero',
      source: ROUTING,
      mark: 'promised',
      experiment: (kvm) =>
        withCapability(kvm, 'KVM_CAP_IRQ_ROUTING', (vm) => {
          const one = toPin(0, 5)
          expect('flags', route(vm, [one], 1), 'EINVAL')
          expect('flags of a route to a pin', route(vm, [{ ...one, flags: 1 }]), 'EINVAL')
          expect('flags of a message', route(vm, [{ ...toMessage(0), flags: 2 }]), 'EINVAL')
          expect('two routes of a GSI', route(vm, [one, toPin(0, 6)]), 'EINVAL')
          expect('GSI 4096', route(vm, [toPin(KVM_MAX_IRQ_ROUTES, 5)]), 'EINVAL')
          expect('pin 988', route(vm, [toPin(0, KVM_IRQCHIP_NUM_PINS)]), 'EINVAL')
          expect('another controller', route(vm, [{ ...one, words: [1, 5] }]), 'EINVAL')
          expect('another type', route(vm, [{ ...one, type: 3 }]), 'EINVAL')
          const tooMany = Array.from({ length: KVM_MAX_IRQ_ROUTES + 1 }, (_, gsi) => toPin(gsi, 0))
          expect('4097 routes', route(vm, tooMany), 'EINVAL')
          return 'EINVAL'
        }),
    },
  ],
}
