/** Calls about the registers of a GICv3. */
import { encodeRegister, hex, idParts } from '../../registers/index.js'
import type { Call } from '../../trace/index.js'
import {
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
} from '../../uapi.js'
import type { Context, KnownVcpu, KnownVm } from '../model.js'
import type { Random } from '../random.js'
import { littleEndian, MOST_VCPUS } from '../vocabulary.js'
import { attribute, createDevice, deviceAttribute } from './devices.js'
import { createVcpu } from './vms.js'

const GICD_CTLR = 0x0
const GICD_IIDR = 0x8
const SGI_FRAME = 0x1_0000

/** The registers of the distributor that are about interrupts: the first offset of each, and its bits for an interrupt. */
const INTERRUPT_REGISTERS: readonly (readonly [first: number, bits: number])[] = [
  ...[0x80, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380, 0xd00].map((first) => [first, 1] as const),
  [0x400, 8],
  [0x800, 8],
  [0xc00, 2],
  [0x6000, 64],
]
/** Interrupts of the vCPUs' own, the first shared ones, and the last that a GIC may have. */
const INTERRUPTS: readonly number[] = [32, 32, 32, 0, 33, 64, 96, 224, 992]

/** The other registers of the distributor, and what lies beside them. */
const DISTRIBUTOR_OFFSETS: readonly number[] = [
  GICD_CTLR,
  GICD_CTLR,
  0x4,
  GICD_IIDR,
  GICD_IIDR,
  0xc,
  0x10,
  0x14,
  0x40,
  0x50,
  0x101,
  0x106,
  0x5000,
  0x6104,
  0x7ffc,
  0x8000,
  0xffcc,
  0xffd0,
  0xffe8,
  0xfffc,
  SGI_FRAME,
]

const REDISTRIBUTOR_OFFSETS: readonly number[] = [
  0x0,
  0x4,
  0x8,
  0xc,
  0x10,
  0x14,
  0x40,
  0x70,
  0x74,
  0x78,
  0x7c,
  0xa0,
  0xa4,
  0xb4,
  0xb8,
  0xc0,
  0xc4,
  0xffd0,
  0xffe8,
  ...[0x80, 0x84, 0x100, 0x180, 0x200, 0x280, 0x400, 0x41c, 0x420].map((offset) => SGI_FRAME + offset),
  ...[0xc00, 0xc04, 0xc08, 0xd00, 0xe00, 0xe04, 0x101].map((offset) => SGI_FRAME + offset),
  2 * SGI_FRAME,
]
/**
 * GICR_ISACTIVER0 and GICR_ICACTIVER0. Which of them KVM connects to the CPU's own timers once a vCPU has run depends on the CPU: it
 * then ignores writes.
 */
const ACTIVE_OFFSETS: readonly number[] = [0x300, 0x380].map((offset) => SGI_FRAME + offset)

const interfaceIndex = (name: string): number => idParts(encodeRegister(`ICC_${name}_EL1`)).index

const INTERFACE: readonly number[] = [
  'PMR',
  'BPR0',
  'BPR1',
  'CTLR',
  'CTLR',
  'SRE',
  'IGRPEN0',
  'IGRPEN1',
  'AP0R0',
  'AP0R1',
  'AP0R3',
  'AP1R0',
  'AP1R2',
  'IAR1',
  'RPR',
  'SGI1R',
].map(interfaceIndex)
const [CTLR, BPR1] = [BigInt(interfaceIndex('CTLR')), BigInt(interfaceIndex('BPR1'))]
/**
 * On Linux 7.2 a guest makes no progress while its CPU interface has group 0 enabled and group 1 disabled, under QEMU 7.2 and 11.1. It
 * is not known whether the kernel or QEMU is at fault.
 */
const RUNNABLE_INTERFACE = INTERFACE.filter((index) => index !== interfaceIndex('IGRPEN0'))

/** Affinities that few vCPUs have. */
const ODD_AFFINITIES: readonly bigint[] = [0n, 1n, 5n, 0x100n, 0x100_0000n, 0xffff_ffffn]
const LINES: readonly number[] = [32, 32, 64, 96, 224, 992, 33, 63, 0x3ff, 0x420]

const WORDS: readonly bigint[] = [0n, 1n, 2n, 0xffff_ffffn, 0xaaaa_aaaan, 0x5555_5555n]
const IDENTIFICATIONS: readonly bigint[] = [0, 1, 2, 3, 4, 0x10].map(
  (revision) => 0x4b00_043bn | (BigInt(revision) << 12n),
)
/** Values of ICC_CTLR_EL1: priorities in bits 10:8, numbers in 13:11, both with the bits beside them. */
const CONTROLS: readonly bigint[] = [
  0x8c00, 0x8c01, 0x8c03, 0x8400, 0x8b00, 0x8d00, 0x9400, 0xcc00, 0xc00,
].map(BigInt)

/** An access to a register of the VM's GIC, or a call that comes before it. */
export function gicRegister(context: Context, vcpu: KnownVcpu): Call {
  const { random, model } = context
  const { vm } = vcpu
  if (vm.device === null) {
    // KVM makes no GIC once a vCPU has run.
    if (vm.hasRun) return attribute(context, vcpu)
    const isEarly = vm.vcpus.length < MOST_VCPUS && !model.isClosedToVcpus(vm) && random.oneIn(2)
    return isEarly ? createVcpu(context, vm) : createDevice(context, vcpu)
  }
  if (random.oneIn(16)) return deviceAttribute(random, vm.device)
  const [group, attr, size] = place(random, vm)
  const to = { device: vm.device, group, attr: hex(attr) }
  switch (random.below(5)) {
    case 0:
      return { op: 'has_device_attr', ...to }
    case 1:
    case 2:
      return { op: 'get_device_attr', ...to, size }
    default: {
      const value = (): string => littleEndian(valueFor(random, group, attr), size)
      if (random.oneIn(2)) {
        // The second write shows what the first leaves behind, and whether a register sets or clears.
        const second = { ...to, attr: hex(random.oneIn(2) ? attr : counterpart(group, attr)) }
        if (!random.oneIn(3)) model.plan({ op: 'set_device_attr', ...second, data: value() })
        model.plan({ op: 'get_device_attr', device: vm.device, group, attr: second.attr, size })
      }
      return { op: 'set_device_attr', ...to, data: random.oneIn(12) ? null : value() }
    }
  }
}

/**
 * The register that clears what another sets, or the other way round; ICC_BPR1_EL1 of ICC_CTLR_EL1, whose CBPR joins it to
 * ICC_BPR0_EL1; of the rest, the register itself.
 */
function counterpart(group: number, attr: bigint): bigint {
  if (group === KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS) {
    return (attr & 0xffffn) === CTLR ? (attr & ~0xffffn) | BPR1 : attr
  }
  const isFrame = group === KVM_DEV_ARM_VGIC_GRP_DIST_REGS || (attr & BigInt(SGI_FRAME)) !== 0n
  return isFrame && [0x100n, 0x300n].includes(attr & 0xff00n) ? attr ^ 0x80n : attr
}

function place(random: Random, vm: KnownVm): [group: number, attribute: bigint, size: number] {
  // The affinity of most vCPUs is their place in the order of creation.
  const affinity = random.oneIn(6) ? random.pick(ODD_AFFINITIES) : BigInt(random.below(vm.vcpus.length))
  const vcpu = affinity << 32n
  switch (random.below(4)) {
    case 0:
      return [KVM_DEV_ARM_VGIC_GRP_DIST_REGS, BigInt(distributorOffset(random)), 4]
    case 1: {
      const offsets = vm.hasRun ? REDISTRIBUTOR_OFFSETS : [...REDISTRIBUTOR_OFFSETS, ...ACTIVE_OFFSETS]
      return [KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, vcpu | BigInt(random.pick(offsets)), 4]
    }
    case 2: {
      const index = random.pick(vm.isOnlyConfigured ? INTERFACE : RUNNABLE_INTERFACE)
      return [KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, vcpu | BigInt(index), 8]
    }
    default: {
      // Once a vCPU has run, the lines of its private interrupts follow the timers, and so the time.
      const intid = vm.hasRun ? random.pick(LINES) : random.pick([0, 0, ...LINES])
      return [KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, vcpu | BigInt(intid), 4]
    }
  }
}

function distributorOffset(random: Random): number {
  if (random.oneIn(3)) return random.pick(DISTRIBUTOR_OFFSETS)
  const [first, bits] = random.pick(INTERRUPT_REGISTERS)
  return first + 4 * Math.floor((random.pick(INTERRUPTS) * bits) / 32)
}

function valueFor(random: Random, group: number, attr: bigint): bigint {
  if (group === KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS) {
    return random.oneIn(2) ? random.pick(CONTROLS) : random.bits(random.pick([3, 8, 33]))
  }
  if (group === KVM_DEV_ARM_VGIC_GRP_DIST_REGS && attr === BigInt(GICD_IIDR)) {
    return random.pick(IDENTIFICATIONS)
  }
  return random.oneIn(2) ? random.pick(WORDS) : random.bits(32)
}
