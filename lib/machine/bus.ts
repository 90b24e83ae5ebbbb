import type { Range } from './memory-map.js'

/** A device whose registers the guest accesses in memory. Values are unsigned numbers of at most 32 bits. */
export interface MmioDevice {
  /** @param size 1, 2 or 4 bytes */
  read(offset: number, size: number): number
  write(offset: number, size: number, value: number): void
}

/** A line to the interrupt controller; the device calls it when the line's level changes. */
export type InterruptLine = (level: boolean) => void

/**
 * Makes every read of a register find a value, without a call of the device, until it gives another; with `undefined` the device
 * answers each read again.
 */
export type FixRegister = (value: number | undefined) => void

/** Leads each access to the device at its address. What no device has reads as 0, and writes there have no effect. */
export class Bus {
  readonly #devices: { range: Range; device: MmioDevice }[] = []

  add(range: Range, device: MmioDevice): void {
    this.#devices.push({ range, device })
  }

  /** @param size 1, 2, 4 or 8 bytes */
  read(address: bigint, size: number): bigint {
    const found = this.#find(address, size)
    if (found === undefined) return 0n
    const { device, offset } = found
    if (size < 8) return BigInt(device.read(offset, size))
    return BigInt(device.read(offset, 4)) | (BigInt(device.read(offset + 4, 4)) << 32n)
  }

  write(address: bigint, size: number, value: bigint): void {
    const found = this.#find(address, size)
    if (found === undefined) return
    const { device, offset } = found
    if (size < 8) return device.write(offset, size, Number(value))
    device.write(offset, 4, Number(value & 0xffff_ffffn))
    device.write(offset + 4, 4, Number(value >> 32n))
  }

  #find(address: bigint, size: number): { device: MmioDevice; offset: number } | undefined {
    const place = Number(address)
    for (const { range, device } of this.#devices) {
      const offset = place - range.base
      if (offset >= 0 && offset + size <= range.size) return { device, offset }
    }
    return undefined
  }
}
