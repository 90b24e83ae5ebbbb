import { callAtOnce } from '../arguments.js'
import { configureByBaseline, refusedNames } from '../fleet/baseline/apply.js'
import type { CommonBaseline } from '../fleet/baseline/baseline.js'
import type { ConstantRead, Exit, GuestMemory, Kvm, PostedWrite, Vcpu, Vm } from '../kvm/index.js'
import { Bus, type FixRegister, type InterruptLine } from './bus.js'
import { MachineError } from './errors.js'
import { createGic } from './gic.js'
import { type BoardPlan, layOut, loadLinux } from './load-linux.js'
import {
  FIRST_SPI,
  RAM_BASE,
  type Range,
  serialInterrupt,
  serialPort,
  virtioInterrupt,
  virtioPort,
} from './memory-map.js'
import { Pause } from './pause.js'
import { Ram } from './ram.js'
import type { DevicesState } from './saved-devices.js'
import { LINE_STATUS, SERIAL_POSTED, SerialPort } from './serial.js'
import type { VirtioDevice } from './virtio/device.js'
import { INTERRUPT_STATUS, QUEUE_NOTIFY, VirtioMmio } from './virtio/mmio.js'

/** The devices of one start of a machine; they keep nothing from one start to the next. */
export interface BoardDevices {
  /** Receives what the guest sends on its serial port. */
  readonly serialOutput: (bytes: Uint8Array) => void
  readonly virtio: readonly VirtioDevice[]
}

/** How a start of a machine ended: by PSCI, because `stop` was called, or because the guest goes on elsewhere. */
export type BoardEnd = 'off' | 'reset' | 'crash' | 'stopped' | 'moved'

/** The slot of all the guest's memory. */
export const RAM_SLOT = 0

/**
 * Makes a VM with a kernel in its memory.
 * @throws MachineError `ERR_MACHINE_MEMORY`, `ERR_MACHINE_GIC`, `ERR_MACHINE_BASELINE`; KvmError as the calls of the handles
 */
export function bootBoard(kvm: Kvm, plan: BoardPlan, devices: BoardDevices): Board {
  const places = layOut(plan)
  const { baseline } = plan
  const vm = kvm.createVm(baseline && { ipaSize: baseline.ipaSize })
  let memory: GuestMemory | undefined
  try {
    for (const capability of baseline?.capabilities ?? []) vm.enableCapability(capability)
    memory = kvm.createMemory(plan.memory)
    vm.mapMemory(RAM_SLOT, { address: BigInt(RAM_BASE), memory })
    for (let id = 0; id < plan.vcpus; id++) {
      const off = id === 0 ? [] : (['power-off'] as const)
      vm.createVcpu(id, { features: [...plan.features, ...off] })
    }
    const gic = createGic(vm)
    const board = new Board(vm, memory, devices)
    loadLinux(vm, plan, places, { gic, virtioDevices: devices.virtio.length })
    if (baseline !== undefined) applyBaseline(vm, baseline)
    callAtOnce('configure', plan.configure, vm)
    return board
  } catch (error) {
    vm.close()
    memory?.close()
    throw error
  }
}

/** @throws MachineError `ERR_MACHINE_BASELINE` */
export function applyBaseline(vm: Vm, baseline: CommonBaseline): void {
  const refused = refusedNames(configureByBaseline(vm, baseline))
  if (refused.length === 0) return
  throw new MachineError(
    'ERR_MACHINE_BASELINE',
    `this host's KVM refuses ${refused.join(', ')} of the baseline: make the baseline with this host's report`,
  )
}

/** A VM with its memory and devices, until the guest's last instruction. */
export class Board {
  readonly vm: Vm
  readonly memory: GuestMemory
  readonly ram: Ram
  readonly serial: SerialPort
  readonly #serialOutput: (bytes: Uint8Array) => void
  /** What the guest has sent by the accesses that are being made. */
  #sent: number[] = []
  readonly #ports: VirtioMmio[]
  readonly #bus = new Bus()
  readonly #pause: Pause
  #end: BoardEnd | undefined
  #failure: unknown

  /**
   * @param vm ready to run, with `memory` in `RAM_SLOT` and an interrupt controller. Board closes both when it has run
   * @throws KvmError as the calls of the handles
   */
  constructor(vm: Vm, memory: GuestMemory, devices: BoardDevices) {
    this.vm = vm
    this.memory = memory
    this.#serialOutput = devices.serialOutput
    this.#pause = new Pause(vm.vcpus.length)
    this.ram = new Ram(RAM_BASE, memory.buffer)
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
        this.ram,
        device,
        this.#line(virtioInterrupt(index)),
        this.#fix(range.base + offset, size),
        (error) => this.#fail(error),
      )
      this.#bus.add(range, port)
      this.#post(range, QUEUE_NOTIFY, ({ data }) => port.notify(Number(data)))
      return port
    })
  }

  /**
   * Makes the guest stand still: resolves once every vCPU has left it with no access of its own unfinished. The devices leave guest
   * memory alone from then on. Each call needs a `resume`.
   * @throws MachineError `ERR_MACHINE_ENDED`; the promise rejects
   */
  async pause(): Promise<void> {
    const reached = this.#pause.begin()
    if (this.#end === undefined) for (const vcpu of this.vm.vcpus) vcpu.kick()
    await reached
    if (this.#pause.isOn) for (const port of this.#ports) port.pause()
    if (this.#end === undefined) return
    this.#pause.end()
    throw new MachineError('ERR_MACHINE_ENDED', `the machine has ended (${this.#end})`)
  }

  /** Ends a `pause`; the guest goes on when the last has ended. */
  resume(): void {
    this.#pause.end()
    if (!this.#pause.isOn) for (const port of this.#ports) port.resume()
  }

  /** Whether the guest has ended. */
  get isOver(): boolean {
    return this.#end !== undefined
  }

  /** Returns what the devices hold; the guest must stand still. */
  save(): DevicesState {
    return { serial: this.serial.save(), virtio: this.#ports.map((port) => port.save()) }
  }

  /**
   * Puts the devices into a state, in a machine that has not run. The interrupt controller already has the levels of their lines.
   * @throws RangeError for a state that no device of this machine can be in
   */
  restore({ serial, virtio }: DevicesState): void {
    if (virtio.length !== this.#ports.length) {
      throw new RangeError(
        `the state is of ${virtio.length} virtio devices, and the machine has ${this.#ports.length}`,
      )
    }
    this.serial.restore(serial)
    for (const [index, port] of this.#ports.entries()) port.restore(virtio[index]!)
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

  /** Makes `run` resolve with this end, unless the guest has ended. */
  stop(end: 'stopped' | 'moved' = 'stopped'): void {
    this.#finish(end)
  }

  async #runVcpu(vcpu: Vcpu): Promise<void> {
    let exit: Exit | undefined
    try {
      while (this.#end === undefined) {
        if (this.#pause.isOn) {
          // KVM completes an access at the next run; until then the registers are not those behind it.
          if (exit?.reason === 'mmio') vcpu.freeze()
          exit = undefined
          await this.#pause.wait()
        } else {
          exit = await vcpu.run()
          this.#handle(vcpu, exit)
        }
      }
    } catch (error) {
      this.#fail(error)
    } finally {
      this.#pause.leave()
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
    this.#pause.cancel()
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
    for (const port of this.#ports) port.stop()
    this.vm.close()
    this.memory.close()
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
