/** Finds vCPUs by the affinity in their MPIDR_EL1 (`arch/arm64/kvm/arm.c:kvm_mpidr_to_vcpu`, `kvm_init_mpidr_data`). */
import { MPIDR_HWID_BITMASK } from '../hypercalls/index.js'
import { encodeRegister } from '../registers/index.js'
import type { VcpuState, VmState } from './state.js'

const MPIDR_EL1 = encodeRegister('MPIDR_EL1')

/** The affinity of a vCPU that is not yet initialised is 0. */
export function affinityOf({ file, values }: VcpuState): bigint {
  const slot = file?.slots.get(MPIDR_EL1)
  return slot === undefined ? 0n : values[slot]! & MPIDR_HWID_BITMASK
}

/** Returns the vCPU that PSCI selects: the table's, if it still has that affinity, else the first. */
export function vcpuWithAffinity({ vcpus, affinityTable }: VmState, affinity: bigint): VcpuState | undefined {
  const wanted = affinity & MPIDR_HWID_BITMASK
  const noted = affinityTable?.byBits.get(wanted & affinityTable.mask)
  if (noted !== undefined && affinityOf(noted) === wanted) return noted
  return [...vcpus.values()].find((vcpu) => affinityOf(vcpu) === wanted)
}

/** Fills the table before the first run of a vCPU, on hosts that have one; of several vCPUs with one affinity it holds the last. */
export function tabulateAffinities(vm: VmState): void {
  const { host, vcpus, affinityTable } = vm
  if (host.traits.hypercalls.sameAffinity === 'first' || affinityTable !== null || vcpus.size === 1) return
  const affinities = [...vcpus.values()].map(affinityOf)
  const mask = affinities.reduce((bits, affinity) => bits | (affinity ^ affinities[0]!), 0n)
  const differing = mask.toString(2).replaceAll('0', '').length
  // A mask of 64 bits and 16 bits for each combination of the differing ones, in no more than a page.
  if (8 + 2 * 2 ** differing > host.pageSize) return
  const byBits = new Map([...vcpus.values()].map((vcpu, index) => [affinities[index]! & mask, vcpu]))
  vm.affinityTable = { mask, byBits }
}
