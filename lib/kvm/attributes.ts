import { checkArray, checkSize, checkUint32, checkUint64, outOfRange } from '../arguments.js'
import type { AttributeFd } from '../backend.js'
import { hex } from '../registers/index.js'
import { errnos, SMCCC_FILTER_SIZE } from '../uapi.js'
import { check, kvmError, type KvmErrorDetails } from './errors.js'

/** The kind of handle that owns the attributes; it decides what the group numbers mean. */
export type AttributeOwnerKind = 'vm' | 'vcpu' | 'gic' | 'its' | 'other'

export interface AttributeOwner {
  readonly kind: AttributeOwnerKind
  /** KVM's id of the vCPU, if the owner is a vCPU. */
  readonly vcpu?: number
  /** Returns the remedy for `EBUSY` caused by runs in flight; undefined if no run is in flight. */
  runRemedy(): string | undefined
}

/** A setting that KVM accepted. */
export interface Written {
  readonly group: number
  readonly attribute: bigint
  /** Null for an attribute that carries none. */
  readonly data: Uint8Array | null
}

interface Group {
  readonly name: string
  /** Size of an attribute's data in bytes: one size for the whole group, or a size for each attribute number. */
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

/** Remedy for `EBUSY` when no vCPU runs. */
const settled: Record<AttributeOwnerKind, string> = {
  vm: 'The first run of any vCPU froze it: set it on a new VM',
  vcpu: 'It was settled before, by an earlier call or by the first run of a vCPU: set it on a new VM',
  gic:
    'The GIC takes each of these settings once, before it is initialised (KVM_DEV_ARM_VGIC_CTRL_INIT) and before the first run;' +
    ' create all vCPUs before that too',
  its: 'It was settled when the ITS was initialised or a vCPU first ran: set it on a new VM',
  other: 'It was settled before, by an earlier call or by the first run of a vCPU',
}

/** Whose settings KVM does not report. */
const keepers: ReadonlySet<AttributeOwnerKind> = new Set(['vm', 'vcpu'])

/**
 * The device attributes of a VM, a vCPU or a device: settings that KVM addresses by a group number and an attribute number. The
 * kernel documents them for each kind of handle, with the size and meaning of their data, in `Documentation/virt/kvm/devices/`:
 * `vm.rst`, `vcpu.rst`, `arm-vgic-v3.rst`, `arm-vgic-its.rst`. Groups are unsigned 32-bit numbers, attributes unsigned 64-bit
 * numbers; data is little-endian.
 *
 * @example
 * const gic = vm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3')
 * const address = new Uint8Array(BigUint64Array.of(0x0800_0000n).buffer)
 * gic.attributes.set(0, 2n, address) // KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST
 */
export class Attributes {
  readonly #fd: AttributeFd
  readonly #owner: AttributeOwner
  readonly #written: Written[] = []

  constructor(fd: AttributeFd, owner: AttributeOwner) {
    this.#fd = fd
    this.#owner = owner
  }

  /**
   * `KVM_HAS_DEVICE_ATTR`: returns whether the attribute exists. `ENXIO` means no. So do `EINVAL` and `ENOTTY`, which kernels
   * without any attributes here return.
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
   * @param size of the attribute's data in bytes, as the kernel document gives it, at most 65536; bytes that KVM writes beyond it
   * are dropped
   * @param input the first bytes that KVM reads, for an attribute that takes an argument there: the index of a redistributor region
   * @throws KvmError `ENXIO` for an attribute that does not exist or cannot be read, `EBUSY` while a vCPU runs, `ERR_KVM_CLOSED`; others as
   * its document has them
   * @throws TypeError for another type
   * @throws RangeError for a number wider than 32 or 64 bits, a size below the attribute's, and more input than `size`
   */
  get(group: number, attribute: bigint, size: number, input?: Uint8Array): Uint8Array {
    checkNumbers(group, attribute)
    checkSize(size, 'size')
    if (size > MAX_SIZE) throw outOfRange('size', `at most ${MAX_SIZE} bytes`, size)
    this.#checkLength('size', size, group, attribute)
    const data = new Uint8Array(size)
    if (input !== undefined) {
      checkArray(input, Uint8Array, 0, 'input')
      if (input.length > size) throw outOfRange('input', `at most ${size} bytes, the size`, input.length)
      data.set(input)
    }
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
    if (keepers.has(this.#owner.kind)) this.#written.push({ group, attribute, data: data?.slice() ?? null })
  }

  /**
   * What `set` set on a VM or a vCPU, in its order: KVM has no call that reports most of it. Empty for devices, whose settings can
   * be read.
   */
  get written(): readonly Written[] {
    return [...this.#written]
  }

  /** KVM reads and writes as many bytes as the attribute has, whatever size the caller passes. */
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

/** Far more bytes than any KVM attribute has. */
const MAX_SIZE = 0x1_0000

function checkNumbers(group: number, attribute: bigint): void {
  checkUint32(group, 'group')
  checkUint64(attribute, 'attribute')
}

function littleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n)
}
