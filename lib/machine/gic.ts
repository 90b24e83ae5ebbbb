import { KvmError, type Vm } from '../kvm/index.js'
import {
  KVM_DEV_ARM_VGIC_CTRL_INIT,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
  KVM_VGIC_V2_ADDR_TYPE_CPU,
  KVM_VGIC_V2_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
} from '../uapi.js'
import { MachineError } from './errors.js'
import {
  GIC_INTERRUPTS,
  gicCpuInterface,
  gicDistributor,
  gicRedistributor,
  redistributorSize,
} from './memory-map.js'

export type GicVersion = 2 | 3

const kinds = {
  3: {
    type: 'KVM_DEV_TYPE_ARM_VGIC_V3',
    addresses: [
      [KVM_VGIC_V3_ADDR_TYPE_DIST, gicDistributor.base],
      [KVM_VGIC_V3_ADDR_TYPE_REDIST, gicRedistributor.base],
    ],
    vcpus: Math.floor(gicRedistributor.size / redistributorSize),
  },
  2: {
    type: 'KVM_DEV_TYPE_ARM_VGIC_V2',
    addresses: [
      [KVM_VGIC_V2_ADDR_TYPE_DIST, gicDistributor.base],
      [KVM_VGIC_V2_ADDR_TYPE_CPU, gicCpuInterface.base],
    ],
    vcpus: 8,
  },
} as const

/** The most vCPUs a machine can have. */
export const VCPUS_MAX: number = kinds[3].vcpus

/**
 * Gives a VM an interrupt controller: a GICv3, or a GICv2 where the host can only make that. All vCPUs must be there: KVM takes no
 * further ones afterwards.
 * @throws MachineError `ERR_MACHINE_GIC`
 */
export function createGic(vm: Vm): GicVersion {
  const versions = [3, 2] as const
  for (const version of versions) {
    const { type, addresses, vcpus } = kinds[version]
    try {
      const gic = vm.createDevice(type)
      if (vm.vcpus.length > vcpus) {
        throw new MachineError(
          'ERR_MACHINE_GIC',
          `a GICv${version}, the best this host can make, serves ${vcpus} vCPUs, not ${vm.vcpus.length}`,
        )
      }
      gic.attributes.set(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0n, bytesOf(Uint32Array.of(GIC_INTERRUPTS)))
      for (const [kind, address] of addresses) {
        gic.attributes.set(KVM_DEV_ARM_VGIC_GRP_ADDR, kind, bytesOf(BigUint64Array.of(BigInt(address))))
      }
      gic.attributes.set(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT)
      return version
    } catch (error) {
      if (!(error instanceof KvmError && error.code === 'ENODEV')) throw error
    }
  }
  throw new MachineError('ERR_MACHINE_GIC', "this host's KVM can make neither a GICv3 nor a GICv2")
}

function bytesOf(numbers: Uint32Array | BigUint64Array): Uint8Array {
  return new Uint8Array(numbers.buffer)
}
