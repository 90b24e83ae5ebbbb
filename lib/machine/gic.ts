import { type GicOptions, KvmError, type Vm } from '../kvm/index.js'
import { MachineError } from './errors.js'
import {
  GIC_INTERRUPTS,
  gicCpuInterface,
  gicDistributor,
  gicRedistributor,
  redistributorSize,
} from './memory-map.js'

export type GicVersion = 2 | 3

const common = { distributor: BigInt(gicDistributor.base), irqs: GIC_INTERRUPTS }
/** The best first. */
const kinds: readonly GicOptions[] = [
  { version: 3, ...common, redistributors: BigInt(gicRedistributor.base) },
  { version: 2, ...common, cpuInterface: BigInt(gicCpuInterface.base) },
]

const VCPUS_OF_GICV2 = 8
/** The most vCPUs a machine can have. */
export const VCPUS_MAX: number = Math.floor(gicRedistributor.size / redistributorSize)

/**
 * Gives a VM an interrupt controller: a GICv3, or a GICv2 where the host can only make that. All vCPUs must be there: KVM takes no
 * further ones afterwards.
 * @throws MachineError `ERR_MACHINE_GIC`
 */
export function createGic(vm: Vm): GicVersion {
  for (const kind of kinds) {
    try {
      return vm.createGic(kind).version
    } catch (error) {
      if (!(error instanceof KvmError)) throw error
      // KVM counts the vCPUs when it makes a GICv2.
      if (kind.version === 2 && error.code === 'E2BIG' && vm.vcpus.length > VCPUS_OF_GICV2) {
        throw new MachineError(
          'ERR_MACHINE_GIC',
          `a GICv2, the best this host can make, serves ${VCPUS_OF_GICV2} vCPUs, not ${vm.vcpus.length}`,
          { cause: error },
        )
      }
      if (error.code !== 'ENODEV') throw error
    }
  }
  throw new MachineError('ERR_MACHINE_GIC', "this host's KVM can make neither a GICv3 nor a GICv2")
}
