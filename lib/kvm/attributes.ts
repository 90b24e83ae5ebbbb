import { checkArray, checkSize, checkUint32, checkUint64, outOfRange } from '../arguments.js'
import type { AttributeFd } from '../backend.js'
import { hex } from '../registers/index.js'
import { errnos, SMCCC_FILTER_SIZE } from '../uapi.js'
import { check, kvmError, type KvmErrorDetails } from './errors.js'

/** The kind of a handle decides what the numbers of its groups mean. */
export type AttributeOwnerKind = 'vm' | 'vcpu' | 'gic' | 'its' | 'other'

export interface AttributeOwner {
  readonly kind: AttributeOwnerKind
  /** KVM's id, where a vCPU is the owner. */
  readonly vcpu?: number
  /** What to do about runs in flight, which make KVM answer `EBUSY`; undefined where there are none. */
  runRemedy(): string | undefined
}

interface Group {
  readonly name: string
  /** Bytes of an attribute's data: of all of them, or by the attribute's number. */
  readonly bytes: number | readonly number[]
}

const ADDRESSES: Group = { name: 'KVM_DEV_ARM_VGIC_GRP_ADDR', bytes: 8 }
const CONTROL: Group = { name: 'KVM_DEV_ARM_VGIC_GRP_CTRL', bytes: 0 }

/** `Documentation/virt/kvm/devices/`: `vm.rst`, `vcpu.rst`, `arm-vgic.rst`, `arm-vgic-v3.rst`, `arm-vgic-its.rst`. */
const groups: Record<AttributeOwnerKind, ReadonlyMap<number, Group>> = {
  vm: new Map([[0, { name: 'KVM_ARM_VM_SMCCC_CTRL', bytes: [SMCCC_FILTER_SIZE] }]]),
  vcpu: new Map([
    [0, { name: 'KVM_ARM_VCPU_PMU_V3_CTRL', bytes: [4, 0, 8, 4, 4] }],
    [1, { name: 'KVM_ARM_VCPU_TIMER_CTRL', bytes: [4, 4, 4, 4] }],
    [2, { name: 'KVM_ARM_VCPU_PVTIME_CTRL', bytes: [8] }],
  ]),
  gic: new Map([
    [0, ADDRESSES],
    [1, { name: 'KVM_DEV_ARM_VGIC_GRP_DIST_REGS', bytes: 4 }],
    [2, { name: 'KVM_DEV_ARM_VGIC_GRP_CPU_REGS', bytes: 4 }],
    [3, { name: 'KVM_DEV_ARM_VGIC_GRP_NR_IRQS', bytes: 4 }],
    [4, CONTROL],
    [5, { name: 'KVM_DEV_ARM_VGIC_GRP_REDIST_REGS', bytes: 4 }],
    [6, { name: 'KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS', bytes: 8 }],
    [7, { name: 'KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO', bytes: 4 }],
    [9, { name: 'KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ', bytes: 4 }],
  ]),
  its: new Map([
    [0, ADDRESSES],
    [4, CONTROL],
    [8, { name: 'KVM_DEV_ARM_VGIC_GRP_ITS_REGS', bytes: 8 }],
  ]),
  other: new Map(),
}

/** What `EBUSY` means while no vCPU runs. */
const settled: Record<AttributeOwnerKind, string> = {
  vm: 'The first run of any vCPU froze it: set it on a new VM',
  vcpu: 'It was settled before, by an earlier call or by the first run of a vCPU: set it on a new VM',
  gic:
    'The GIC takes each of these settings once, before it is initialised (KVM_DEV_ARM_VGIC_CTRL_INIT) and before the first run;' +
    ' create all vCPUs before that too',
  its: 'It was settled when the ITS was initialised or a vCPU first ran: set it on a new VM',
  other: 'It was settled before, by an earlier call or by the first run of a vCPU',
}

/**
 * The device attributes of a VM, a vCPU or a device: settings that KVM numbers, in groups that it numbers too. One kernel document
 * for each kind of handle lists them, with size and meaning of each one's data, in `Documentation/virt/kvm/devices/`: `vm.rst`,
 * `vcpu.rst`, `arm-vgic-v3.rst`, `arm-vgic-its.rst`. Groups are unsigned numbers of 32 bits, attributes of 64; data is little-endian.
 *
 * @example
 * const gic = vm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3')
 * const address = new Uint8Array(BigUint64Array.of(0x0800_0000n).buffer)
 * gic.attributes.set(0, 2n, address) // KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST
 */
export class Attributes {
  readonly #fd: AttributeFd
  readonly #owner: AttributeOwner

  constructor(fd: AttributeFd, owner: AttributeOwner) {
    this.#fd = fd
    this.#owner = owner
  }

  /**
   * `KVM_HAS_DEVICE_ATTR`: whether there is such an attribute. `ENXIO` means no, as do `EINVAL` and `ENOTTY`, which kernels without any
   * attributes here answer.
   * @param group 32 bits
   * @param attribute 64 bits
   * @throws KvmError `EBUSY` while the vCPU runs, `ERR_KVM_CLOSED`, and any other errno
   * @throws TypeError for another type
   * @throws RangeError for a number wider than 32 or 64 bits
   */
  has(group: number, attribute: bigint): boolean {
    checkNumbers(group, attribute)
    const outcome = this.#fd.hasDeviceAttr(group, attribute)
    if (outcome === -errnos.ENXIO || outcome === -errnos.EINVAL || outcome === -errnos.ENOTTY) return false
    if (outcome < 0) throw kvmError(outcome, this.#details('KVM_HAS_DEVICE_ATTR', outcome, group, attribute))
    return true
  }

  /**
   * `KVM_GET_DEVICE_ATTR`
   * @param group 32 bits
   * @param attribute 64 bits
   * @param size of the attribute's data in bytes, as its document gives it, at most 65536; what KVM writes beyond is dropped
   * @throws KvmError `ENXIO` for an attribute that does not exist or cannot be read, `EBUSY` while a vCPU runs, `ERR_KVM_CLOSED`; others as
   * its document has them
   * @throws TypeError for another type
   * @throws RangeError for a number wider than 32 or 64 bits, and for a size below the attribute's
   */
  get(group: number, attribute: bigint, size: number): Uint8Array {
    checkNumbers(group, attribute)
    checkSize(size, 'size')
    if (size > MAX_SIZE) throw outOfRange('size', `at most ${MAX_SIZE} bytes`, size)
    this.#checkLength('size', size, group, attribute)
    const data = new Uint8Array(size)
    const outcome = this.#fd.getDeviceAttr(group, attribute, data)
    check(outcome, this.#details('KVM_GET_DEVICE_ATTR', outcome, group, attribute))
    return data
  }

  /**
   * `KVM_SET_DEVICE_ATTR`
   * @param group 32 bits
   * @param attribute 64 bits
   * @param data of the size the attribute's document has; absent for attributes that carry none
   * @throws KvmError `ENXIO` for an attribute that does not exist, `EFAULT` without data it needs, `EBUSY` for what is settled already and
   * while a vCPU runs, `EINVAL` for a value it may not have, `ERR_KVM_CLOSED`; others as its document has them
   * @throws TypeError for another type
   * @throws RangeError for a number wider than 32 or 64 bits, and for data shorter than the attribute's
   */
  set(group: number, attribute: bigint, data?: Uint8Array): void {
    checkNumbers(group, attribute)
    if (data !== undefined) {
      checkArray(data, Uint8Array, 0, 'data')
      this.#checkLength('data', data.length, group, attribute)
    }
    const outcome = this.#fd.setDeviceAttr(group, attribute, data ?? null)
    check(outcome, this.#details('KVM_SET_DEVICE_ATTR', outcome, group, attribute, data))
  }

  /** KVM reads and writes as many bytes as the attribute has, whatever the caller gave. */
  #checkLength(name: string, length: number, group: number, attribute: bigint): void {
    const known = groups[this.#owner.kind].get(group)
    if (known === undefined) return
    const { bytes } = known
    const needed = typeof bytes === 'number' ? bytes : (bytes[Number(attribute)] ?? 0)
    if (length < needed) {
      const which = `attribute ${hex(attribute)} of group ${group} (${known.name})`
      throw outOfRange(name, `at least ${needed} bytes for ${which}`, length)
    }
  }

  #details(
    syscall: string,
    outcome: number,
    group: number,
    attribute: bigint,
    data?: Uint8Array,
  ): KvmErrorDetails {
    const { kind, vcpu } = this.#owner
    const name = groups[kind].get(group)?.name
    return {
      syscall,
      attribute: { group, attribute, ...(name !== undefined && { groupName: name }) },
      value: data && littleEndian(data.subarray(0, 8)),
      vcpu,
      remedy: outcome === -errnos.EBUSY ? (this.#owner.runRemedy() ?? settled[kind]) : undefined,
    }
  }
}

/** No attribute of KVM has nearly as many bytes. */
const MAX_SIZE = 0x1_0000

function checkNumbers(group: number, attribute: bigint): void {
  checkUint32(group, 'group')
  checkUint64(attribute, 'attribute')
}

function littleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n)
}
