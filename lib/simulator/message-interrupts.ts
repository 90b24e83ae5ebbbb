/** Message-signalled interrupts, and the routes of interrupts that eventfds raise. */
import {
  errnos,
  type GsiRoute,
  KVM_IRQCHIP_NUM_PINS,
  KVM_MAX_IRQ_ROUTES,
  KVM_MSI_VALID_DEVID,
  routeTypes,
} from '../uapi.js'
import type { VmState } from './state.js'

/** `KVM_SIGNAL_MSI` (`virt/kvm/irqchip.c:kvm_send_userspace_msi`). A simulated VM has no translation service to take the message. */
export function signalMsi(vm: VmState, flags: number): number {
  if (vm.gic === null || (flags & ~KVM_MSI_VALID_DEVID) !== 0) return -errnos.EINVAL
  return -errnos.ENODEV
}

/** `KVM_SET_GSI_ROUTING` (`virt/kvm/irqchip.c:kvm_set_irq_routing`): returns 0 or `-errno`. */
export function setGsiRouting(vm: VmState, flags: number, routes: readonly GsiRoute[]): number {
  if (flags !== 0 || routes.length > KVM_MAX_IRQ_ROUTES) return -errnos.EINVAL
  const routed = new Set<number>()
  for (const route of routes) {
    // One interrupt controller is all there is, so an interrupt has one route.
    if (!isPossible(route) || routed.has(route.gsi)) return -errnos.EINVAL
    routed.add(route.gsi)
  }
  const toPins = routes.filter(({ type }) => type === routeTypes.irqchip)
  vm.routes = new Map(toPins.map(({ gsi, words }) => [gsi, words[1] ?? 0]))
  return 0
}

function isPossible({ gsi, type, flags, words: [first = 0, second = 0] }: GsiRoute): boolean {
  if (gsi >= KVM_MAX_IRQ_ROUTES) return false
  if (type === routeTypes.msi) return (flags & ~KVM_MSI_VALID_DEVID) === 0
  return type === routeTypes.irqchip && flags === 0 && first === 0 && second < KVM_IRQCHIP_NUM_PINS
}
