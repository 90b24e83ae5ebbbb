/** Where everything lies in the guest's physical address space, and which interrupt each device has. */

/** A range of guest physical addresses. */
export interface Range {
  readonly base: number
  /** In bytes. */
  readonly size: number
}

export const gicDistributor: Range = { base: 0x0800_0000, size: 0x1_0000 }
/** GICv2 only. */
export const gicCpuInterface: Range = { base: 0x0801_0000, size: 0x2_0000 }
/** GICv3 only: two frames of 64 KiB for each vCPU. */
export const gicRedistributor: Range = { base: 0x0804_0000, size: 0xfc_0000 }
export const redistributorSize = 0x2_0000

export const serialPort: Range = { base: 0x0900_0000, size: 0x1000 }

/** The virtio-mmio device of each number. */
export function virtioPort(index: number): Range {
  return { base: 0x0a00_0000 + index * 0x200, size: 0x200 }
}

export const RAM_BASE = 0x4000_0000

/** Shared peripheral interrupts, numbered from 0; the GIC's own number is 32 higher. */
export const serialInterrupt = 1
export function virtioInterrupt(index: number): number {
  return 16 + index
}

/** The most virtio devices a machine can have. */
export const virtioPorts = 32

/** Interrupts of the GIC: 32 private ones of each vCPU, then the shared ones; a multiple of 32. */
export const GIC_INTERRUPTS = 128

/** The GIC's number of a shared peripheral interrupt. */
export const FIRST_SPI = 32
