import { randomBytes } from 'node:crypto'
import type { ConstantRead, Exit, GuestMemory, Kvm, PostedWrite, Vcpu, Vm } from '../kvm/index.js'
import type { VcpuFeature } from '../uapi.js'
import { Bus, type FixRegister, type InterruptLine } from './bus.js'
import { encodeDeviceTree } from './device-tree.js'
import { MachineError } from './errors.js'
import { createGic } from './gic.js'
import { hardwareTree } from './hardware-tree.js'
import type { KernelImage } from './image.js'
import {
  FIRST_SPI,
  RAM_BASE,
  type Range,
  serialInterrupt,
  serialPort,
  virtioInterrupt,
  virtioPort,
} from './memory-map.js'
import { Ram } from './ram.js'
import { LINE_STATUS, SERIAL_POSTED, SerialPort } from './serial.js'
import type { VirtioDevice } from './virtio/device.js'
import { INTERRUPT_STATUS, QUEUE_NOTIFY, VirtioMmio } from './virtio/mmio.js'

/** What a machine is made of each time it starts. */
export interface BoardPlan {
  readonly kernel: KernelImage
  readonly initrd: Uint8Array | undefined
  readonly commandLine: string
  readonly vcpus: number
  readonly features: readonly VcpuFeature[]
  /** Bytes, a multiple of 2 MiB. */
  readonly memory: number
  /** Called last, with a VM that is ready for its first run. */
  readonly configure: (vm: Vm) => void
}

/** The devices of one start of a machine; they keep nothing from one start to the next. */
export interface BoardDevices {
  /** Receives what the guest sends on its serial port. */
  readonly serialOutput: (bytes: Uint8Array) => void
  readonly virtio: readonly VirtioDevice[]
}

/** How a start of a machine ended: by PSCI, or because `stop` was called. */
export type BoardEnd = 'off' | 'reset' | 'crash' | 'stopped'

const MIB = 0x10_0000
/** Linux maps no more of it (`arch/arm64/include/asm/boot.h`). */
const DEVICE_TREE_SIZE = 2 * MIB

/** A VM with its memory and devices, from power-on to the guest's last instruction. */
export class Board {
  readonly vm: Vm
  readonly serial: SerialPort
  readonly #memory: GuestMemory
  readonly #serialOutput: (bytes: Uint8Array) => void
  /** What the guest has sent by the accesses that are being made. */
  #sent: number[] = []
  readonly #ports: VirtioMmio[]
  readonly #bus = new Bus()
  #end: BoardEnd | undefined
  #failure: unknown

  /** @throws MachineError `ERR_MACHINE_MEMORY`, `ERR_MACHINE_GIC`; KvmError as the calls of the handles */
  constructor(kvm: Kvm, plan: BoardPlan, devices: BoardDevices) {
    const places = layOut(plan)
    this.#serialOutput = devices.serialOutput
    this.vm = kvm.createVm()
    try {
      this.#memory = kvm.createMemory(plan.memory)
      this.vm.mapMemory(0, { address: BigInt(RAM_BASE), memory: this.#memory })
      for (let id = 0; id < plan.vcpus; id++) {
        const off = id === 0 ? [] : (['power-off'] as const)
        this.vm.createVcpu(id, { features: [...plan.features, ...off] })
      }
      const gic = createGic(this.vm)
      const ram = new Ram(RAM_BASE, this.#memory.buffer)
      this.serial = new SerialPort(
        (byte) => this.#sent.push(byte),
        this.#line(serialInterrupt),
        this.#fix(serialPort.base + LINE_STATUS, 1),
      )
      this.#bus.add(serialPort, this.serial)
      this.#post(serialPort, SERIAL_POSTED, ({ address, size, data }) => this.#bus.write(address, size, data))
      this.#ports = devices.virtio.map((device, index) => {
        const range = virtioPort(index)
        const { offset, size } = INTERRUPT_STATUS
        const port = new VirtioMmio(
          ram,
          device,
          this.#line(virtioInterrupt(index)),
          this.#fix(range.base + offset, size),
          (error) => this.#fail(error),
        )
        this.#bus.add(range, port)
        this.#post(range, QUEUE_NOTIFY, ({ data }) => port.notify(Number(data)))
        return port
      })

      const tree = encodeDeviceTree(
        hardwareTree({
          vcpus: plan.vcpus,
          memory: plan.memory,
          gic,
          virtioDevices: this.#ports.length,
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
      const { memory } = this.vm
      memory.write(BigInt(places.kernel.base), plan.kernel.bytes)
      memory.write(BigInt(places.deviceTree.base), tree)
      if (plan.initrd) memory.write(BigInt(places.initrd.base), plan.initrd)
      // The other registers are as the boot protocol wants them after `init`: x1 to x3 are 0, the MMU is off.
      const [first] = this.vm.vcpus
      first!.registers.set('pc', BigInt(places.kernel.base))
      first!.registers.set('x0', BigInt(places.deviceTree.base))
      plan.configure(this.vm)
    } catch (error) {
      this.#close()
      throw error
    }
  }

  /**
   * Runs the guest until its end, and closes the VM.
   * @throws MachineError `ERR_MACHINE_GUEST`, KvmError; the promise rejects
   */
  async run(): Promise<BoardEnd> {
    try {
      await Promise.all(this.vm.vcpus.map((vcpu) => this.#runVcpu(vcpu)))
      if (this.#failure !== undefined) throw this.#failure
      return this.#end!
    } finally {
      this.#close()
    }
  }

  /** Makes `run` resolve with `stopped`, unless the guest has ended. */
  stop(): void {
    this.#finish('stopped')
  }

  async #runVcpu(vcpu: Vcpu): Promise<void> {
    try {
      while (this.#end === undefined) this.#handle(vcpu, await vcpu.run())
    } catch (error) {
      this.#fail(error)
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= error
    this.#finish('crash')
  }

  #handle(vcpu: Vcpu, exit: Exit): void {
    switch (exit.reason) {
      case 'mmio':
        if (exit.write) this.#write(() => this.#bus.write(exit.address, exit.size, exit.data))
        else vcpu.respond(this.#bus.read(exit.address, exit.size))
        break
      case 'interrupted':
        break
      case 'system-event': {
        const end = exit.event === 'shutdown' ? 'off' : exit.event
        if (end === 'off' || end === 'reset' || end === 'crash') this.#finish(end)
        else throw guestError(vcpu, exit)
        break
      }
      default:
        throw guestError(vcpu, exit)
    }
  }

  /** The vCPU whose guest asked for it has left; KVM leaves all others where they are, also those that are off. */
  #finish(end: BoardEnd): void {
    if (this.#end !== undefined) return
    this.#end = end
    for (const vcpu of this.vm.vcpus) vcpu.kick()
  }

  /** Makes writes of the guest, and passes on together what it sends by them: a serial port takes one byte at a time. */
  #write(make: () => void): void {
    make()
    if (this.#sent.length === 0) return
    const sent = Uint8Array.from(this.#sent)
    this.#sent = []
    this.#serialOutput(sent)
  }

  /** Lets the guest go on at once behind its writes to some registers of a device. */
  #post(
    { base }: Range,
    registers: { offset: number; size: number },
    make: (write: PostedWrite) => void,
  ): void {
    this.vm.mmio.posted(BigInt(base + registers.offset), registers.size, (writes) => {
      try {
        this.#write(() => {
          for (const write of writes) make(write)
        })
      } catch (error) {
        this.#fail(error)
      }
    })
  }

  #fix(address: number, size: number): FixRegister {
    let fixed: ConstantRead | undefined
    return (value) => {
      if (this.#end !== undefined) return
      if (value === undefined) {
        fixed?.close()
        fixed = undefined
      } else if (fixed === undefined) {
        fixed = this.vm.mmio.constant(BigInt(address), size, BigInt(value))
      } else {
        fixed.value = BigInt(value)
      }
    }
  }

  #line(interrupt: number): InterruptLine {
    return (level) => this.#end === undefined && this.vm.setIrq(FIRST_SPI + interrupt, level)
  }

  #close(): void {
    for (const port of this.#ports ?? []) port.stop()
    this.vm.close()
    this.#memory?.close()
  }
}

function guestError(vcpu: Vcpu, exit: Exit): MachineError {
  const { reason, ...details } = exit
  const shown = Object.entries(details).map(([name, value]) => `${name} ${inWords(value)}`)
  return new MachineError(
    'ERR_MACHINE_GUEST',
    `the guest cannot go on: vCPU ${vcpu.id} ended with ${[reason, ...shown].join(', ')}`,
  )
}

function inWords(value: unknown): string {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`
  return Array.isArray(value) ? value.map(inWords).join(' ') : String(value)
}

interface Places {
  readonly kernel: Range
  readonly deviceTree: Range
  readonly initrd: Range
}

/** Kernel, device tree and initrd one behind the other, from the start of memory. */
function layOut({ kernel, initrd, memory }: BoardPlan): Places {
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
