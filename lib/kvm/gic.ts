import {
  checkBoolean,
  checkOptions,
  checkSize,
  checkUint32,
  checkUint64,
  invalidType,
  outOfRange,
} from '../arguments.js'
import {
  KVM_DEV_ARM_VGIC_CTRL_INIT,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
  KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES,
  KVM_VGIC_ITS_ADDR_TYPE,
  KVM_VGIC_V2_ADDR_TYPE_CPU,
  KVM_VGIC_V2_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION,
} from '../uapi.js'
import type { Attributes } from './attributes.js'
import type { Device } from './device.js'

/** Room for the redistributors of `count` vCPUs, 128 KiB each, in the order of their creation. */
export interface RedistributorRegion {
  /** Guest physical address, a multiple of 64 KiB. */
  address: bigint
  /** 1 to 4095. */
  count: number
}

interface CommonGicOptions {
  /** Guest physical address of the distributor: a multiple of 64 KiB for a GICv3, of 4 KiB for a GICv2. */
  distributor: bigint
  /** Interrupts in all, the 32 of each vCPU included: a multiple of 32 from 64 to 992. Default: KVM's, 256. */
  irqs?: number
  /** Whether to initialise the GIC, after which the VM takes no further vCPU. Default: true. */
  init?: boolean
}

export interface GicV3Options extends CommonGicOptions {
  version: 3
  /** Guest physical address of the redistributors of all vCPUs, a multiple of 64 KiB; or regions with room for all. */
  redistributors: bigint | readonly RedistributorRegion[]
  /** Guest physical address of each interrupt translation service (MSIs), a multiple of 64 KiB. Default: none. */
  its?: readonly bigint[]
  /** The private interrupt (PPI) by which a GIC of a guest hypervisor asks for maintenance. Default: KVM's. */
  maintenanceIrq?: number
}

export interface GicV2Options extends CommonGicOptions {
  version: 2
  /** Guest physical address of the CPU interface, a multiple of 4 KiB. */
  cpuInterface: bigint
}

export type GicOptions = GicV3Options | GicV2Options

/** An interrupt controller that KVM emulates; `Vm.createGic` makes it. */
export class Gic implements Disposable {
  readonly version: 2 | 3
  /** The settings and registers of the device itself (`devices/arm-vgic-v3.rst`, `devices/arm-vgic.rst`). */
  readonly attributes: Attributes
  /** Those of each interrupt translation service (`devices/arm-vgic-its.rst`). */
  readonly its: readonly Attributes[]
  readonly #devices: readonly Device[]

  constructor(version: 2 | 3, device: Device, its: readonly Device[]) {
    this.version = version
    this.attributes = device.attributes
    this.its = its.map(({ attributes }) => attributes)
    this.#devices = [device, ...its]
  }

  /**
   * Interrupts in all, the 32 of each vCPU included: 32 before they were set or the GIC initialised.
   * @throws KvmError `ERR_KVM_CLOSED`
   */
  get irqs(): number {
    const data = this.attributes.get(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0n, 4)
    return new DataView(data.buffer).getUint32(0, true)
  }

  /**
   * Initialises the GIC and its translation services, once every vCPU exists. May be repeated.
   * @throws KvmError `EBUSY` while a vCPU runs, `ENXIO` without an address, `ERR_KVM_CLOSED`
   */
  init(): void {
    for (const attributes of [this.attributes, ...this.its]) {
      attributes.set(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT)
    }
  }

  /**
   * Writes which message-signalled interrupts are pending to the tables in guest memory that the guest set up.
   * @throws KvmError `ENXIO` for a GICv2, `EBUSY` while a vCPU runs, `EFAULT` for a table outside guest memory, `ERR_KVM_CLOSED`
   */
  savePendingTables(): void {
    this.attributes.set(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES)
  }

  /** Closes the handles; the devices stay in their VM. May be repeated. */
  close(): void {
    for (const device of this.#devices) device.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** @throws TypeError, RangeError */
export function checkGicOptions(options: GicOptions): void {
  const common = ['version', 'distributor', 'irqs', 'init']
  checkOptions(options, 'options', [...common, 'redistributors', 'its', 'maintenanceIrq', 'cpuInterface'])
  const { version, distributor, irqs, init = true } = options
  if (version === 2) checkOptions(options, 'options', [...common, 'cpuInterface'])
  else if (version === 3)
    checkOptions(options, 'options', [...common, 'redistributors', 'its', 'maintenanceIrq'])
  else throw outOfRange('version', '2 or 3', version)
  checkUint64(distributor, 'distributor')
  if (irqs !== undefined) checkUint32(irqs, 'irqs')
  checkBoolean(init, 'init')
  if (options.version === 2) {
    checkUint64(options.cpuInterface, 'cpuInterface')
    return
  }
  const { redistributors, its = [], maintenanceIrq } = options
  if (typeof redistributors === 'bigint') checkUint64(redistributors, 'redistributors')
  else {
    checkList(redistributors, 'redistributors', 'an address or an array of regions')
    for (const [index, region] of redistributors.entries()) checkRegion(region, `redistributors[${index}]`)
  }
  checkList(its, 'its', 'an array of addresses')
  for (const [index, address] of its.entries()) checkUint64(address, `its[${index}]`)
  if (maintenanceIrq !== undefined) checkUint32(maintenanceIrq, 'maintenanceIrq')
}

function checkList(value: unknown, name: string, expected: string): void {
  if (!Array.isArray(value)) throw invalidType(name, expected, value)
}

function checkRegion(region: RedistributorRegion, name: string): void {
  checkOptions(region, name, ['address', 'count'])
  checkUint64(region.address, `${name}.address`)
  checkSize(region.count, `${name}.count`)
  if (region.count < 1 || region.count > 4095)
    throw outOfRange(`${name}.count`, 'from 1 to 4095', region.count)
  if (region.address % 0x1_0000n !== 0n || region.address >> 52n !== 0n) {
    throw outOfRange(`${name}.address`, 'a multiple of 64 KiB below 2^52', region.address)
  }
}

/** Sets up a GIC that was made. */
export function configureGic(options: GicOptions, device: Device, its: readonly Device[]): Gic {
  const { attributes } = device
  const setAddress = (type: bigint, address: bigint): void =>
    attributes.set(KVM_DEV_ARM_VGIC_GRP_ADDR, type, bytesOf(BigUint64Array.of(address)))
  if (options.irqs !== undefined) {
    attributes.set(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0n, bytesOf(Uint32Array.of(options.irqs)))
  }
  if (options.version === 2) {
    setAddress(KVM_VGIC_V2_ADDR_TYPE_DIST, options.distributor)
    setAddress(KVM_VGIC_V2_ADDR_TYPE_CPU, options.cpuInterface)
  } else {
    const { distributor, redistributors, maintenanceIrq } = options
    setAddress(KVM_VGIC_V3_ADDR_TYPE_DIST, distributor)
    if (typeof redistributors === 'bigint') setAddress(KVM_VGIC_V3_ADDR_TYPE_REDIST, redistributors)
    else {
      for (const [index, { address, count }] of redistributors.entries()) {
        // The count is in bits 63:52, the region's place in the list in 11:0.
        setAddress(KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, (BigInt(count) << 52n) | address | BigInt(index))
      }
    }
    if (maintenanceIrq !== undefined) {
      attributes.set(KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ, 0n, bytesOf(Uint32Array.of(maintenanceIrq)))
    }
    for (const [index, address] of (options.its ?? []).entries()) {
      const data = bytesOf(BigUint64Array.of(address))
      its[index]!.attributes.set(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_ITS_ADDR_TYPE, data)
    }
  }
  const gic = new Gic(options.version, device, its)
  if (options.init ?? true) gic.init()
  return gic
}

function bytesOf(numbers: Uint32Array | BigUint64Array): Uint8Array {
  return new Uint8Array(numbers.buffer)
}
