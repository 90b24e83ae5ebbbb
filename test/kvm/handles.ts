/** One of each handle of a simulated host. */
import type { Backend, VmFd } from '../../lib/backend.js'
import { simulator } from '../../lib/hosts/index.js'
import { openKvm } from '../../lib/kvm/index.js'
import type { Device, GuestMemory, HostEvent, Kvm, Vcpu, Vm } from '../../lib/kvm/index.js'

export interface Handles {
  readonly backend: Backend
  readonly kvm: Kvm
  readonly vm: Vm
  readonly vcpu: Vcpu
  readonly memory: GuestMemory
  /** A VM with nothing but the GIC, without which the other's vCPU can run. */
  readonly gicVm: Vm
  readonly gic: Device
  readonly event: HostEvent
}

/** Where the guest's memory is. Nothing backs the address before it. */
export const MEMORY_ADDRESS = 0x8000_0000n

/** A VM whose guest writes x0 to an address without memory, again and again. */
export function handles(backend: Backend = simulator('linux-6.18-cortex-a57')): Handles {
  const kvm = openKvm(backend)
  const vm = kvm.createVm()
  const memory = kvm.createMemory(0x1_0000)
  // str x0, [x1]; b .-4
  memory.write(0, new Uint8Array(Uint32Array.of(0xf900_0020, 0x17ff_ffff).buffer))
  vm.mapMemory(0, { address: MEMORY_ADDRESS, memory })
  const vcpu = vm.createVcpu(0)
  vcpu.registers.set('pc', MEMORY_ADDRESS)
  vcpu.registers.set('x1', MEMORY_ADDRESS - 8n)
  const gicVm = kvm.createVm()
  const gic = gicVm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3')
  return { backend, kvm, vm, vcpu, memory, gicVm, gic, event: kvm.createEvent() }
}

/** A host of which every new VM is changed before anyone gets it. */
export function changingVms(change: (vm: VmFd) => void): Backend {
  const backend = simulator('linux-6.18-cortex-a57')
  return {
    ...backend,
    open: () => {
      const system = backend.open()
      if (typeof system === 'number') return system
      const create = system.createVm.bind(system)
      system.createVm = (type) => {
        const vm = create(type)
        if (typeof vm !== 'number') change(vm)
        return vm
      }
      return system
    },
  }
}
