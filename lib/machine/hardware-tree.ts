import type { DeviceNode } from './device-tree.js'
import type { GicVersion } from './gic.js'
import {
  gicCpuInterface,
  gicDistributor,
  gicRedistributor,
  RAM_BASE,
  type Range,
  serialInterrupt,
  serialPort,
  virtioInterrupt,
  virtioPort,
} from './memory-map.js'

/** What of a machine its device tree describes. */
export interface Hardware {
  readonly vcpus: number
  /** In bytes. */
  readonly memory: number
  readonly gic: GicVersion
  readonly virtioDevices: number
  /** The kernel's command line. */
  readonly commandLine: string
  /** Where the initial root is, if there is one. */
  readonly initrd: Range | undefined
  /** Random bytes: kernels mix the first into their entropy, and place themselves by the second. */
  readonly rngSeed: Uint8Array
  readonly kaslrSeed: bigint
}

const GIC_HANDLE = 1
const CLOCK_HANDLE = 2

/** Kinds of interrupt in an `interrupts` property of a GIC. */
const SPI = 0
const PPI = 1
const LEVEL_HIGH = 4

/** Of the architected timers: secure and non-secure physical, virtual, hypervisor; KVM has them at 30 and 27. */
const TIMER_PPIS = [13, 14, 11, 10]

/** Describes the machine to Linux (`Documentation/devicetree/bindings/`). */
export function hardwareTree(hardware: Hardware): DeviceNode {
  const { vcpus, memory, gic, virtioDevices, commandLine, initrd, rngSeed, kaslrSeed } = hardware
  const virtio = Array.from({ length: virtioDevices }, (_, index) => virtioNode(index))
  const serialName = nodeName('serial', serialPort)
  return {
    properties: {
      compatible: 'linux,dummy-virt',
      model: 'kvm-arm64 machine',
      '#address-cells': [2],
      '#size-cells': [2],
      'interrupt-parent': [GIC_HANDLE],
    },
    children: {
      chosen: {
        properties: {
          bootargs: commandLine,
          'stdout-path': `/${serialName}`,
          'rng-seed': rngSeed,
          'kaslr-seed': [kaslrSeed],
          ...(initrd && {
            'linux,initrd-start': [BigInt(initrd.base)],
            'linux,initrd-end': [BigInt(initrd.base + initrd.size)],
          }),
        },
      },
      aliases: { properties: { serial0: `/${serialName}` } },
      [`memory@${RAM_BASE.toString(16)}`]: {
        properties: { device_type: 'memory', reg: [BigInt(RAM_BASE), BigInt(memory)] },
      },
      cpus: cpusNode(vcpus),
      psci: { properties: { compatible: ['arm,psci-1.0', 'arm,psci-0.2'], method: 'hvc' } },
      timer: {
        properties: {
          compatible: 'arm,armv8-timer',
          'always-on': true,
          interrupts: TIMER_PPIS.flatMap((ppi) => [PPI, ppi, LEVEL_HIGH | cpuMask(gic, vcpus)]),
        },
      },
      'apb-pclk': {
        properties: {
          compatible: 'fixed-clock',
          '#clock-cells': [0],
          'clock-frequency': [SERIAL_CLOCK],
          phandle: [CLOCK_HANDLE],
        },
      },
      [nodeName('interrupt-controller', gicDistributor)]: gicNode(gic),
      [serialName]: {
        properties: {
          compatible: 'ns16550a',
          reg: reg(serialPort),
          interrupts: [SPI, serialInterrupt, LEVEL_HIGH],
          clocks: [CLOCK_HANDLE],
          'clock-frequency': [SERIAL_CLOCK],
        },
      },
      ...Object.fromEntries(virtio),
    },
  }
}

/** That of a PC's serial port. */
const SERIAL_CLOCK = 1_843_200

function cpusNode(vcpus: number): DeviceNode {
  const cpus = Array.from({ length: vcpus }, (_, id) => {
    const affinity = affinityOf(id)
    const properties = {
      device_type: 'cpu',
      compatible: 'arm,armv8',
      reg: [affinity],
      'enable-method': 'psci',
    }
    return [`cpu@${affinity.toString(16)}`, { properties }] as const
  })
  return {
    properties: { '#address-cells': [1], '#size-cells': [0] },
    children: Object.fromEntries(cpus),
  }
}

/** The affinity KVM derives from a vCPU's id: 16 at level 0 (`arch/arm64/kvm/sys_regs.c:reset_mpidr`). */
function affinityOf(id: number): number {
  return (id & 0xf) | ((id >> 4) << 8)
}

/** A GICv2's private interrupts name the CPUs that have them. */
function cpuMask(gic: GicVersion, vcpus: number): number {
  return gic === 2 ? ((1 << vcpus) - 1) << 8 : 0
}

function gicNode(version: GicVersion): DeviceNode {
  const ranges = [gicDistributor, version === 3 ? gicRedistributor : gicCpuInterface]
  return {
    properties: {
      compatible: version === 3 ? 'arm,gic-v3' : 'arm,cortex-a15-gic',
      'interrupt-controller': true,
      '#interrupt-cells': [3],
      '#address-cells': [0],
      reg: ranges.flatMap(reg),
      phandle: [GIC_HANDLE],
    },
  }
}

function virtioNode(index: number): readonly [string, DeviceNode] {
  const port = virtioPort(index)
  const properties = {
    compatible: 'virtio,mmio',
    reg: reg(port),
    interrupts: [SPI, virtioInterrupt(index), LEVEL_HIGH],
    'dma-coherent': true,
  } as const
  return [nodeName('virtio', port), { properties }]
}

function nodeName(kind: string, { base }: Range): string {
  return `${kind}@${base.toString(16)}`
}

function reg({ base, size }: Range): bigint[] {
  return [BigInt(base), BigInt(size)]
}
