/** What KVM writes to the structure of stolen time (`arch/arm64/kvm/pvtime.c:kvm_update_stolen_time`). */
import { readGuestMemory, writeGuestMemory } from './memory-slots.js'
import type { VcpuState } from './state.js'

/** Offset of `stolen_time` in `struct pvclock_vcpu_stolen_time`, in bytes. */
const STOLEN_TIME = 8n

/** KVM adds the time stolen at each run, also of a stopped vCPU; none is here, but the page counts as written. */
export function recordStolenTime(vcpu: VcpuState): void {
  const { vm, stolenTimeBase } = vcpu
  if (stolenTimeBase === null) return
  const address = stolenTimeBase + STOLEN_TIME
  const time = readGuestMemory(vm, address, 8)?.getBigUint64(0, true)
  if (time !== undefined)
    writeGuestMemory(vcpu, address, new Uint8Array(BigUint64Array.of(time).buffer), 'kvm')
}
