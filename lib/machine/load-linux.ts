import { randomBytes } from 'node:crypto'
import type { CommonBaseline } from '../fleet/baseline/baseline.js'
import type { Vm } from '../kvm/index.js'
import type { VcpuFeature } from '../uapi.js'
import { encodeDeviceTree } from './device-tree.js'
import { MachineError } from './errors.js'
import type { GicVersion } from './gic.js'
import { hardwareTree } from './hardware-tree.js'
import type { KernelImage } from './image.js'
import { RAM_BASE, type Range } from './memory-map.js'

/** What a machine is made of each time it starts. */
export interface BoardPlan {
  readonly kernel: KernelImage
  readonly initrd: Uint8Array | undefined
  readonly commandLine: string
  readonly vcpus: number
  readonly features: readonly VcpuFeature[]
  /** Bytes, a multiple of 2 MiB. */
  readonly memory: number
  /** Applied before `configure`. */
  readonly baseline: CommonBaseline | undefined
  /** Called last, with a VM that is ready for its first run. */
  readonly configure: (vm: Vm) => void
}

const MIB = 0x10_0000
/** Linux maps no more of it (`arch/arm64/include/asm/boot.h`). */
const DEVICE_TREE_SIZE = 2 * MIB

/**
 * Writes kernel, device tree and initrd to a VM's memory, and makes its first vCPU start there.
 * @throws MachineError `ERR_MACHINE_MEMORY`
 */
export function loadLinux(
  vm: Vm,
  plan: BoardPlan,
  places: Places,
  found: { gic: GicVersion; virtioDevices: number },
): void {
  const tree = encodeDeviceTree(
    hardwareTree({
      vcpus: plan.vcpus,
      memory: plan.memory,
      ...found,
      commandLine: plan.commandLine,
      initrd: plan.initrd && places.initrd,
      rngSeed: randomBytes(64),
      kaslrSeed: randomBytes(8).readBigUInt64LE(),
    }),
  )
  if (tree.length > DEVICE_TREE_SIZE) {
    throw new MachineError(
      'ERR_MACHINE_MEMORY',
      `the device tree has ${tree.length} bytes, and Linux takes ${DEVICE_TREE_SIZE}: shorten append`,
    )
  }
  const { memory } = vm
  memory.write(BigInt(places.kernel.base), plan.kernel.bytes)
  memory.write(BigInt(places.deviceTree.base), tree)
  if (plan.initrd) memory.write(BigInt(places.initrd.base), plan.initrd)
  // The other registers are as the boot protocol wants them after `init`: x1 to x3 are 0, the MMU is off.
  const [first] = vm.vcpus
  first!.registers.set('pc', BigInt(places.kernel.base))
  first!.registers.set('x0', BigInt(places.deviceTree.base))
}

/** Where each part of a guest lies at its start. */
export interface Places {
  readonly kernel: Range
  readonly deviceTree: Range
  readonly initrd: Range
}

/**
 * Puts kernel, device tree and initrd one behind the other, from the start of memory.
 * @throws MachineError `ERR_MACHINE_MEMORY`
 */
export function layOut({ kernel, initrd, memory }: BoardPlan): Places {
  const start = RAM_BASE + kernel.textOffset
  const treeStart = Math.ceil((start + kernel.size) / DEVICE_TREE_SIZE) * DEVICE_TREE_SIZE
  const initrdStart = treeStart + DEVICE_TREE_SIZE
  const initrdSize = initrd?.length ?? 0
  const end = initrdStart + initrdSize
  if (end > RAM_BASE + memory) {
    const needed = Math.ceil((end - RAM_BASE) / MIB)
    throw new MachineError(
      'ERR_MACHINE_MEMORY',
      `kernel and initrd do not fit into ${memory / MIB} MiB: give the machine more than ${needed} MiB`,
    )
  }
  return {
    kernel: { base: start, size: kernel.size },
    deviceTree: { base: treeStart, size: DEVICE_TREE_SIZE },
    initrd: { base: initrdStart, size: initrdSize },
  }
}
