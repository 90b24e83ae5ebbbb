import type { FixRegister, InterruptLine, MmioDevice } from '../bus.js'
import type { Ram } from '../ram.js'
import type { VirtioState } from '../saved-devices.js'
import type { VirtioDevice } from './device.js'
import { QUEUE_SIZE_MAX, QueueError, VirtQueue } from './queue.js'

/** Registers (Virtual I/O Device 1.2, section 4.2.2), 32 bits each. */
const register = {
  magic: 0x00,
  version: 0x04,
  deviceId: 0x08,
  vendorId: 0x0c,
  deviceFeatures: 0x10,
  deviceFeaturesSelect: 0x14,
  driverFeatures: 0x20,
  driverFeaturesSelect: 0x24,
  queueSelect: 0x30,
  queueSizeMax: 0x34,
  queueSize: 0x38,
  queueReady: 0x44,
  queueNotify: 0x50,
  interruptStatus: 0x60,
  interruptAcknowledge: 0x64,
  status: 0x70,
  queueDescriptors: 0x80,
  queueAvailable: 0x90,
  queueUsed: 0xa0,
  sharedMemoryLength: 0xb0,
  sharedMemoryBase: 0xb8,
  configurationGeneration: 0xfc,
  configuration: 0x100,
} as const

/** The register by which a driver says that a queue has requests: it need not wait until they are served. */
export const QUEUE_NOTIFY = { offset: register.queueNotify, size: 4 } as const
/** The register that a driver reads first at each interrupt. */
export const INTERRUPT_STATUS = { offset: register.interruptStatus, size: 4 } as const

/** `virt` */
const MAGIC = 0x7472_6976
const VERSION = 2
const VENDOR = 0x4d56_4b41
const VERSION_1 = 1n << 32n

const STATUS_FEATURES_OK = 8
const STATUS_DRIVER_OK = 4
const STATUS_NEEDS_RESET = 0x40
const INTERRUPT_QUEUE = 1
const INTERRUPT_CONFIGURATION = 2

/** What the driver has said about a queue before it makes it ready. */
interface QueueSetup {
  size: number
  /** Low and high half of each address, by register. */
  readonly halves: Map<number, number>
}

/**
 * The registers of a virtio device in memory. A driver that breaks the rules gets a device that needs a reset and does nothing until
 * then.
 */
export class VirtioMmio implements MmioDevice {
  readonly #ram: Ram
  readonly #device: VirtioDevice
  readonly #interrupt: InterruptLine
  readonly #fixInterruptStatus: FixRegister
  readonly #fail: (error: unknown) => void
  #features: bigint
  #accepted = 0n
  #deviceFeaturesSelect = 0
  #driverFeaturesSelect = 0
  #queueSelect = 0
  #setups: QueueSetup[] = []
  #queues = new Map<number, VirtQueue>()
  readonly #notified = new Set<number>()
  #status = 0
  #interruptStatus = 0
  #isStopped = false
  #isPaused = false
  #failure: Error | undefined

  /** @param fail receives what a queue throws that is served later, outside an access of the driver */
  constructor(
    ram: Ram,
    device: VirtioDevice,
    interrupt: InterruptLine,
    fixInterruptStatus: FixRegister = () => undefined,
    fail: (error: unknown) => void = (error) => {
      throw error
    },
  ) {
    this.#ram = ram
    this.#device = device
    this.#interrupt = interrupt
    this.#fixInterruptStatus = fixInterruptStatus
    this.#fail = fail
    this.#features = VERSION_1 | device.features
    this.#fixInterruptStatus(0)
    this.#reset()
    device.attach?.((queue) => this.#serve(queue))
  }

  /** The rule the driver broke, while the device needs a reset for it. */
  get failure(): Error | undefined {
    return this.#failure
  }

  /** Ends all use of the guest's memory. */
  stop(): void {
    this.#isStopped = true
  }

  /** Serves no queue, and so leaves the guest's memory alone, until `resume`. */
  pause(): void {
    this.#isPaused = true
  }

  /** Ends a `pause`, and serves what has come meanwhile. */
  resume(): void {
    this.#isPaused = false
    for (const queue of this.#queues.keys()) this.notify(queue)
  }

  /** Returns all it holds, without what its device does. */
  save(): VirtioState {
    return {
      type: this.#device.type,
      accepted: `0x${this.#accepted.toString(16)}`,
      deviceFeaturesSelect: this.#deviceFeaturesSelect,
      driverFeaturesSelect: this.#driverFeaturesSelect,
      queueSelect: this.#queueSelect,
      setups: this.#setups.map(({ size, halves }) => ({ size, halves: [...halves] })),
      queues: [...this.#queues].map(([index, { place, progress }]) =>
        Object.assign({ index }, place, progress),
      ),
      status: this.#status,
      interruptStatus: this.#interruptStatus,
      failure: this.#failure?.message ?? null,
    }
  }

  /**
   * Puts new registers into a state. The interrupt controller already has the line's level; `resume` serves what is left.
   * @throws RangeError for a state that this device cannot be in
   */
  restore(state: VirtioState): void {
    const accepted = BigInt(state.accepted)
    if (state.type !== this.#device.type) {
      throw new RangeError(`the state is of a virtio device of type ${state.type}, not ${this.#device.type}`)
    }
    if ((accepted & ~this.#features) !== 0n && (state.status & STATUS_FEATURES_OK) !== 0) {
      throw new RangeError(
        `its driver uses features 0x${(accepted & ~this.#features).toString(16)}, which this device lacks`,
      )
    }
    if (state.setups.length !== this.#device.queues) {
      throw new RangeError(
        `the state has ${state.setups.length} queues, and the device ${this.#device.queues}`,
      )
    }
    this.#accepted = accepted
    this.#deviceFeaturesSelect = state.deviceFeaturesSelect
    this.#driverFeaturesSelect = state.driverFeaturesSelect
    this.#queueSelect = state.queueSelect
    this.#setups = state.setups.map(({ size, halves }) => ({ size, halves: new Map(halves) }))
    for (const { index, size, descriptors, available, used, taken, given } of state.queues) {
      if (index >= this.#device.queues) throw new RangeError(`the device has no queue ${index}`)
      try {
        const place = { size, descriptors, available, used }
        this.#queues.set(index, new VirtQueue(this.#ram, place, { taken, given }))
      } catch (error) {
        if (!(error instanceof QueueError)) throw error
        throw new RangeError(error.message, { cause: error })
      }
    }
    this.#status = state.status
    this.#failure = state.failure === null ? undefined : new QueueError(state.failure)
    this.#interruptStatus = state.interruptStatus
    this.#fixInterruptStatus(state.interruptStatus)
  }

  /** The driver has notified a queue, and goes on: it is served soon, and once for all of its notifications until then. */
  notify(queue: number): void {
    // Others mean nothing, and a driver could name any number of them.
    if (queue >= this.#device.queues) return
    if (this.#notified.size === 0) {
      this.#later(() => {
        const queues = [...this.#notified]
        this.#notified.clear()
        for (const each of queues) this.#serve(each)
      })
    }
    this.#notified.add(queue)
  }

  #later(work: () => void): void {
    setImmediate(() => {
      try {
        work()
      } catch (error) {
        this.#fail(error)
      }
    })
  }

  read(offset: number, size: number): number {
    if (offset >= register.configuration)
      return this.#readConfiguration(offset - register.configuration, size)
    return size === 4 ? this.#read(offset) : 0
  }

  write(offset: number, size: number, value: number): void {
    if (size === 4 && offset < register.configuration) this.#write(offset, value)
  }

  #readConfiguration(offset: number, size: number): number {
    let value = 0
    for (let index = 0; index < size; index++) {
      value += (this.#device.configuration[offset + index] ?? 0) * 2 ** (8 * index)
    }
    return value
  }

  #read(offset: number): number {
    switch (offset) {
      case register.magic:
        return MAGIC
      case register.version:
        return VERSION
      case register.deviceId:
        return this.#device.type
      case register.vendorId:
        return VENDOR
      case register.deviceFeatures:
        return half(this.#features, this.#deviceFeaturesSelect)
      case register.queueSizeMax:
        return this.#queueSelect < this.#device.queues ? QUEUE_SIZE_MAX : 0
      case register.queueReady:
        return this.#queues.has(this.#queueSelect) ? 1 : 0
      case register.interruptStatus:
        return this.#interruptStatus
      case register.status:
        return this.#status
      case register.sharedMemoryLength:
      case register.sharedMemoryLength + 4:
      case register.sharedMemoryBase:
      case register.sharedMemoryBase + 4:
        // No such region.
        return 0xffff_ffff
      default:
        return 0
    }
  }

  #write(offset: number, value: number): void {
    switch (offset) {
      case register.deviceFeaturesSelect:
        this.#deviceFeaturesSelect = value
        break
      case register.driverFeaturesSelect:
        this.#driverFeaturesSelect = value
        break
      case register.driverFeatures:
        if (this.#driverFeaturesSelect > 1) break
        this.#accepted = withHalf(this.#accepted, this.#driverFeaturesSelect, value)
        break
      case register.queueSelect:
        this.#queueSelect = value
        break
      case register.queueReady:
        this.#setReady(value === 1)
        break
      case register.queueNotify:
        this.#serve(value)
        break
      case register.interruptAcknowledge:
        this.#setInterrupt(this.#interruptStatus & ~value)
        break
      case register.status:
        this.#setStatus(value & 0xff)
        break
      default:
        this.#setUpQueue(offset, value)
    }
  }

  #setUpQueue(offset: number, value: number): void {
    const setup = this.#setups[this.#queueSelect]
    // A queue that is ready stays where it is.
    if (setup === undefined || this.#queues.has(this.#queueSelect)) return
    if (offset === register.queueSize) setup.size = value
    else if (addressRegisters.has(offset)) setup.halves.set(offset, value)
  }

  #setReady(ready: boolean): void {
    const setup = this.#setups[this.#queueSelect]
    if (setup === undefined || this.#needsReset || ready === this.#queues.has(this.#queueSelect)) return
    if (!ready) {
      this.#queues.delete(this.#queueSelect)
      return
    }
    const address = (low: number) => (setup.halves.get(low) ?? 0) + (setup.halves.get(low + 4) ?? 0) * 2 ** 32
    this.#guard(() => {
      const place = {
        size: setup.size,
        descriptors: address(register.queueDescriptors),
        available: address(register.queueAvailable),
        used: address(register.queueUsed),
      }
      this.#queues.set(this.#queueSelect, new VirtQueue(this.#ram, place))
    })
  }

  #setStatus(status: number): void {
    if (status === 0) {
      this.#reset()
      return
    }
    const isAcceptable = (this.#accepted & ~this.#features) === 0n && (this.#accepted & VERSION_1) !== 0n
    const accepted = isAcceptable ? status : status & ~STATUS_FEATURES_OK
    const wasReady = (this.#status & STATUS_DRIVER_OK) !== 0
    // The driver cannot clear a bit except by a reset, nor set this one.
    this.#status |= accepted & ~STATUS_NEEDS_RESET
    // Linux 5.10 requests random numbers before it is ready, and never notifies again.
    if (!wasReady && (this.#status & STATUS_DRIVER_OK) !== 0) {
      for (const queue of this.#queues.keys()) this.notify(queue)
    }
  }

  #reset(): void {
    this.#status = 0
    this.#accepted = 0n
    this.#deviceFeaturesSelect = 0
    this.#driverFeaturesSelect = 0
    this.#queueSelect = 0
    this.#queues.clear()
    this.#setups = Array.from({ length: this.#device.queues }, () => ({ size: 0, halves: new Map() }))
    this.#failure = undefined
    this.#setInterrupt(0)
  }

  get #needsReset(): boolean {
    return (this.#status & STATUS_NEEDS_RESET) !== 0
  }

  #serve(index: number): void {
    const queue = this.#queues.get(index)
    if (this.#isStopped || this.#isPaused || queue === undefined || this.#needsReset) return
    if ((this.#status & STATUS_DRIVER_OK) === 0) return
    let isMore = false
    this.#guard(() => (isMore = this.#device.serve(index, queue)))
    if (queue.takeInterrupt()) this.#setInterrupt(this.#interruptStatus | INTERRUPT_QUEUE)
    // By then the driver may have reset the device, and set up another queue.
    if (isMore) this.#later(() => this.#queues.get(index) === queue && this.#serve(index))
  }

  #guard(work: () => void): void {
    try {
      work()
    } catch (error) {
      if (!(error instanceof QueueError)) throw error
      this.#failure = error
      this.#status |= STATUS_NEEDS_RESET
      if ((this.#status & STATUS_DRIVER_OK) !== 0)
        this.#setInterrupt(this.#interruptStatus | INTERRUPT_CONFIGURATION)
    }
  }

  #setInterrupt(status: number): void {
    const was = this.#interruptStatus !== 0
    if (status !== this.#interruptStatus) this.#fixInterruptStatus(status)
    this.#interruptStatus = status
    if ((status !== 0) !== was) this.#interrupt(status !== 0)
  }
}

const addressRegisters: ReadonlySet<number> = new Set(
  [register.queueDescriptors, register.queueAvailable, register.queueUsed].flatMap((low) => [low, low + 4]),
)

/** Half 0 or 1 of a number of 64 bits; what is beyond reads 0. */
function half(value: bigint, index: number): number {
  return index > 1 ? 0 : Number((value >> BigInt(32 * index)) & 0xffff_ffffn)
}

function withHalf(value: bigint, index: number, replacement: number): bigint {
  const shift = BigInt(32 * index)
  return (value & ~(0xffff_ffffn << shift)) | (BigInt(replacement) << shift)
}
