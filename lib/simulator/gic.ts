import type { DeviceFd } from '../backend.js'
import {
  errnos,
  KVM_DEV_ARM_VGIC_CTRL_INIT,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
  KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
  KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
} from '../uapi.js'
import { checkUint32, checkUint64 } from '../arguments.js'
import { NO_ADDRESS, readWord, writeWord } from './attributes.js'
import { PRIVATE_INTERRUPTS } from './gic-interrupts.js'
import { accessRegister, hasRegister, isAnyRunning } from './gic-registers.js'
import type { Gic, VmState } from './state.js'

/** Size of the distributor's frame, in bytes; both addresses must be multiples of it. */
const FRAME = 0x1_0000n
/** `VGIC_MAX_RESERVED`: 1024 itself is one too many. */
const MAX_INTERRUPTS = 1023
/** Number of interrupts of a GIC if userspace set none. */
const DEFAULT_INTERRUPTS = 256

/**
 * The VGICv3 of a simulated VM (`arch/arm64/kvm/vgic/vgic-kvm-device.c`). `gic-registers.ts` has its registers.
 */
export class SimulatedGic implements DeviceFd {
  readonly #vm: VmState
  readonly #gic: Gic
  #closed = false

  constructor(vm: VmState, gic: Gic) {
    this.#vm = vm
    this.#gic = gic
  }

  hasDeviceAttr(group: number, attribute: bigint): number {
    const barrier = this.#barrier(group, attribute)
    if (barrier < 0) return barrier
    if (registerGroups.has(group)) return hasRegister(this.#vm, group, attribute)
    return this.#isKnown(group, attribute) ? 0 : -errnos.ENXIO
  }

  getDeviceAttr(group: number, attribute: bigint, data: Uint8Array): number {
    const barrier = this.#barrier(group, attribute)
    if (barrier < 0) return barrier
    if (group === KVM_DEV_ARM_VGIC_GRP_NR_IRQS) {
      writeWord(data, 4, BigInt(this.#gic.spis + PRIVATE_INTERRUPTS))
      return 0
    }
    if (this.#isRegister(group)) return accessRegister(this.#vm, group, attribute, 'read', data)
    const frame = group === KVM_DEV_ARM_VGIC_GRP_ADDR ? frameOf(attribute) : undefined
    if (frame === undefined) return -errnos.ENXIO
    writeWord(data, 8, this.#gic[frame] ?? NO_ADDRESS)
    return 0
  }

  setDeviceAttr(group: number, attribute: bigint, data: Uint8Array | null): number {
    const barrier = this.#barrier(group, attribute)
    if (barrier < 0) return barrier
    if (this.#isRegister(group)) return accessRegister(this.#vm, group, attribute, 'write', data)
    if (!this.#isKnown(group, attribute)) return -errnos.ENXIO
    if (group === KVM_DEV_ARM_VGIC_GRP_CTRL) {
      return attribute === KVM_DEV_ARM_VGIC_CTRL_INIT ? this.#initialise() : this.#savePendingTables()
    }
    if (data === null) return -errnos.EFAULT
    return group === KVM_DEV_ARM_VGIC_GRP_NR_IRQS
      ? this.#setInterrupts(Number(readWord(data, 4)))
      : this.#setAddress(frameOf(attribute)!, readWord(data, 8))
  }

  close(): void {
    this.#closed = true
  }

  #barrier(group: number, attribute: bigint): number {
    checkUint32(group, 'group')
    checkUint64(attribute, 'attribute')
    if (this.#closed) return -errnos.EBADF
    return this.#vm.dead ? -errnos.EIO : 0
  }

  #isKnown(group: number, attribute: bigint): boolean {
    switch (group) {
      case KVM_DEV_ARM_VGIC_GRP_ADDR:
        return frameOf(attribute) !== undefined
      case KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
        return true
      case KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ:
        return this.#vm.host.gic.hasMaintenanceInterrupt
      default:
        return (
          group === KVM_DEV_ARM_VGIC_GRP_CTRL &&
          (attribute === KVM_DEV_ARM_VGIC_CTRL_INIT || attribute === KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES)
        )
    }
  }

  #initialise(): number {
    if (this.#gic.spis === 0) this.#gic.spis = DEFAULT_INTERRUPTS - PRIVATE_INTERRUPTS
    if (!this.#gic.initialised) this.#vm.routes = null
    this.#gic.initialise(this.#vm.vcpus.values())
    return 0
  }

  /** Without a translation service nothing is pending there. */
  #savePendingTables(): number {
    if (isAnyRunning(this.#vm)) return -errnos.EBUSY
    return this.#gic.initialised || !this.#gic.model.savesOnlyOnceInitialised ? 0 : -errnos.ENXIO
  }

  #isRegister(group: number): boolean {
    if (group === KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ) return this.#vm.host.gic.hasMaintenanceInterrupt
    return registerGroups.has(group)
  }

  #setInterrupts(count: number): number {
    const isPossible = count >= 2 * PRIVATE_INTERRUPTS && count <= MAX_INTERRUPTS && count % 32 === 0
    if (!isPossible) return -errnos.EINVAL
    if (this.#gic.spis !== 0) return -errnos.EBUSY
    this.#gic.spis = count - PRIVATE_INTERRUPTS
    return 0
  }

  #setAddress(frame: 'distributor' | 'redistributor', address: bigint): number {
    const isCheckedFirst = this.#vm.host.traits.vgicAddressCheckedFirst === true
    const refusal = isCheckedFirst ? this.#oldRefusal(frame, address) : this.#refusal(frame, address)
    if (refusal < 0) return refusal
    this.#gic[frame] = address
    if (frame === 'redistributor') for (const vcpu of this.#vm.vcpus.values()) vcpu.hasRedistributor = true
    return 0
  }

  #refusal(frame: 'distributor' | 'redistributor', address: bigint): number {
    if (this.#gic[frame] !== null) return -errnos.EEXIST
    if (address % FRAME !== 0n) return -errnos.EINVAL
    return address + FRAME > this.#end ? -errnos.E2BIG : 0
  }

  /**
   * Kernels with the trait `vgicAddressCheckedFirst` check the distributor's address before they check whether it already has one.
   * They refuse a second address of the redistributors without checking it.
   */
  #oldRefusal(frame: 'distributor' | 'redistributor', address: bigint): number {
    if (frame === 'redistributor' && this.#gic[frame] !== null) return -errnos.EINVAL
    if (address >= this.#end) return -errnos.E2BIG
    if (address % FRAME !== 0n) return -errnos.EINVAL
    return this.#gic[frame] === null ? 0 : -errnos.EEXIST
  }

  /** Limit of the guest's address space. */
  get #end(): bigint {
    return 1n << BigInt(this.#vm.ipaBits)
  }
}

const registerGroups = new Set([
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
])

function frameOf(attribute: bigint): 'distributor' | 'redistributor' | undefined {
  if (attribute === KVM_VGIC_V3_ADDR_TYPE_DIST) return 'distributor'
  return attribute === KVM_VGIC_V3_ADDR_TYPE_REDIST ? 'redistributor' : undefined
}
