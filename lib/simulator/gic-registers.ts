/**
 * The registers of a GICv3 as device attributes: where an attribute points, and what KVM checks before it accesses the register
 * (`arch/arm64/kvm/vgic/vgic-kvm-device.c:vgic_v3_attr_regs_access`).
 */
import {
  errnos,
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
  KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ,
} from '../uapi.js'
import { vcpuWithAffinity } from './affinity.js'
import { readWord, writeWord } from './attributes.js'
import { interfaceRegister } from './gic-cpu-interface.js'
import { type Frame, hasFrameRegister, readFrame, writeFrame } from './gic-frames.js'
import { type Interrupt, PRIVATE_INTERRUPTS } from './gic-interrupts.js'
import { isPrivateInterrupt } from './interrupts.js'
import type { Gic, VcpuState, VmState } from './state.js'

export function isAnyRunning({ vcpus }: VmState): boolean {
  return [...vcpus.values()].some(({ wake }) => wake !== null)
}

/** `KVM_HAS_DEVICE_ATTR` of a group of registers: returns 0 or `-errno`. */
export function hasRegister(vm: VmState, group: number, attribute: bigint): number {
  if (group === KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO) return isLineLevel(attribute) ? 0 : -errnos.ENXIO
  if (vcpuOf(vm, group, attribute) === undefined) return -errnos.EINVAL
  const exists =
    group === KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS
      ? interfaceRegister(attribute) !== undefined
      : hasFrameRegister(frameOf(group), vm.gic!, offsetOf(attribute))
  return exists ? 0 : -errnos.ENXIO
}

/** `KVM_GET_DEVICE_ATTR` and `KVM_SET_DEVICE_ATTR` of a register: returns 0 or `-errno`. */
export function accessRegister(
  vm: VmState,
  group: number,
  attribute: bigint,
  access: 'read' | 'write',
  data: Uint8Array | null,
): number {
  const gic = vm.gic!
  const { readsValueFirst } = vm.host.gic
  if (readsValueFirst && data === null) return -errnos.EFAULT
  const vcpu = vcpuOf(vm, group, attribute)
  if (vcpu === undefined) return -errnos.EINVAL
  const isOfCpu = group === KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS
  if (!isOfCpu && data === null) return -errnos.EFAULT
  if (isAnyRunning(vm)) return -errnos.EBUSY
  if (group === KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ) return accessMaintenance(gic, access, data!)
  if (!gic.initialised && !isEarly(vm, group, attribute)) return -errnos.EBUSY
  if (isOfCpu) {
    if (data === null) return -errnos.EFAULT
    if (interfaceRegister(attribute) === undefined) return readsValueFirst ? -errnos.ENXIO : -errnos.ENOENT
    return accessInterface(vcpu, attribute, access, data)
  }
  if (group === KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO) return accessLevels(gic, vcpu, attribute, access, data!)
  const frame = frameOf(group)
  const offset = offsetOf(attribute)
  if (access === 'write') return writeFrame(frame, { gic, vcpu }, offset, Number(readWord(data!, 4)))
  writeWord(data!, 4, BigInt(readFrame(frame, { gic, vcpu }, offset)))
  return 0
}

const GICD_IIDR = 0x8
const GICD_TYPER2 = 0xc

function isEarly({ host }: VmState, group: number, attribute: bigint): boolean {
  const offset = offsetOf(attribute)
  const identifies = offset === GICD_IIDR || offset === GICD_TYPER2
  return host.gic.identifiesBeforeInit && group === KVM_DEV_ARM_VGIC_GRP_DIST_REGS && identifies
}

/** The vCPU whose affinity is in bits 63:32; any for the distributor. */
function vcpuOf(vm: VmState, group: number, attribute: bigint): VcpuState | undefined {
  if (group === KVM_DEV_ARM_VGIC_GRP_DIST_REGS) return [...vm.vcpus.values()][0]
  const affinity = attribute >> 32n
  return vcpuWithAffinity(vm, (affinity & 0xff_ffffn) | ((affinity >> 24n) << 32n))
}

function offsetOf(attribute: bigint): number {
  return Number(attribute & 0xffff_ffffn)
}

function frameOf(group: number): Frame {
  return group === KVM_DEV_ARM_VGIC_GRP_DIST_REGS ? 'distributor' : 'redistributor'
}

function accessMaintenance(gic: Gic, access: 'read' | 'write', data: Uint8Array): number {
  if (access === 'read') {
    writeWord(data, 4, BigInt(gic.maintenanceInterrupt))
    return 0
  }
  if (gic.initialised) return -errnos.EBUSY
  const interrupt = Number(readWord(data, 4))
  if (!isPrivateInterrupt(interrupt)) return -errnos.EINVAL
  gic.maintenanceInterrupt = interrupt
  return 0
}

function accessInterface(
  { cpuInterface }: VcpuState,
  attribute: bigint,
  access: 'read' | 'write',
  data: Uint8Array,
): number {
  const register = interfaceRegister(attribute)!
  if (access === 'write') return register.write(cpuInterface, readWord(data, 8))
  const value = register.read(cpuInterface)
  if (typeof value === 'number') return value
  writeWord(data, 8, value)
  return 0
}

/** Bits 31:10 choose the information; there is only the level of the lines. */
function isLineLevel(attribute: bigint): boolean {
  return (attribute & 0xffff_fc00n) === 0n
}

const SOFTWARE_INTERRUPTS = 16

function accessLevels(
  gic: Gic,
  vcpu: VcpuState,
  attribute: bigint,
  access: 'read' | 'write',
  data: Uint8Array,
): number {
  const first = Number(attribute & 0x3ffn)
  if (!isLineLevel(attribute) || first % 32 !== 0) return -errnos.EINVAL
  const interrupts: readonly Interrupt[] =
    first === 0 ? vcpu.interrupts : gic.shared.slice(first - PRIVATE_INTERRUPTS, first)
  const lines = [...interrupts.entries()].filter(([bit]) => first > 0 || bit >= SOFTWARE_INTERRUPTS)
  if (access === 'write') {
    const levels = Number(readWord(data, 4))
    for (const [bit, interrupt] of lines) interrupt.line = ((levels >>> bit) & 1) === 1
    return 0
  }
  const levels = lines.reduce(
    (word, [bit, { edge, line }]) => (!edge && line ? word | (1n << BigInt(bit)) : word),
    0n,
  )
  writeWord(data, 4, levels)
  return 0
}
