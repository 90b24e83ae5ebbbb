import type { FixRegister, InterruptLine, MmioDevice } from './bus.js'
import type { SerialState } from './saved-devices.js'

/**
 * Registers whose writes change nothing that the guest reads at once, so it need not wait for them. Linux writes the transmit register
 * for each character, and the interrupt enable register twice for each line of its log.
 */
export const SERIAL_POSTED = { offset: 0, size: 2 } as const

/** Registers of a 16550, one byte each; three have another meaning while LCR.DLAB is set. */
const RECEIVE_OR_TRANSMIT = 0
const INTERRUPT_ENABLE = 1
const INTERRUPT_ID_OR_FIFO_CONTROL = 2
const LINE_CONTROL = 3
const MODEM_CONTROL = 4
/** Linux reads it before each character that it prints. */
export const LINE_STATUS = 5
const MODEM_STATUS = 6
const SCRATCH = 7

const ENABLE_RECEIVED = 1
const ENABLE_TRANSMITTED = 2
const ID_NONE = 1
const ID_TRANSMITTED = 2
const ID_RECEIVED = 4
const ID_FIFOS = 0xc0
const FIFO_ENABLE = 1
const FIFO_CLEAR_RECEIVED = 2
const DIVISOR_LATCH = 0x80
const LOOPBACK = 0x10
const DATA_READY = 1
/** Transmit register and shift register are empty: what is written is sent at once. */
const TRANSMIT_EMPTY = 0x60
/** Carrier, data set ready, clear to send. */
const MODEM_READY = 0xb0

const FIFO_SIZE = 16
/** Linux prints its log on a port that is never ready too, ten characters in a second. */
const SENT_WHILE_HELD = 0x1_0000

/**
 * A serial port as the 16550A has it, which every Linux can drive early in its boot. What the guest sends leaves at once; what it
 * shall receive waits without limit, outside the FIFO of 16 bytes, until the guest listens. It does once it enables the interrupt
 * for input or polls the line status: Linux empties the FIFO before, and what was typed early would be lost.
 *
 * While there is no input the line status never changes: it is fixed, so that reads of it need no exit.
 */
export class SerialPort implements MmioDevice {
  readonly #send: (byte: number) => void
  readonly #interrupt: InterruptLine
  readonly #fixLineStatus: FixRegister
  /** Input in pieces, and how much of the first has been taken. */
  readonly #waiting: Uint8Array[] = []
  #taken = 0
  #fifo: number[] = []
  #fifoEnabled = false
  #transmitted = false
  #interruptEnable = 0
  #lineControl = 0
  #modemControl = 0
  #scratch = 0
  #divisor = 1
  #level = false
  #fixedLineStatus: number | undefined
  /** Bytes that the guest may still send although the port reports that it cannot; beyond, they are lost, as on a wire. */
  #credit = Infinity
  #isListening = false
  #lastRead: number | undefined

  /** @param send receives each byte the guest sends */
  constructor(
    send: (byte: number) => void,
    interrupt: InterruptLine,
    fixLineStatus: FixRegister = () => undefined,
  ) {
    this.#send = send
    this.#interrupt = interrupt
    this.#fixLineStatus = fixLineStatus
    this.#update()
  }

  /** Gives the guest bytes to receive. */
  receive(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#waiting.push(bytes)
    this.#fill()
    this.#update()
  }

  /** Reports to the guest that nothing can be sent, until it is called with false. */
  hold(isHeld: boolean): void {
    this.#credit = isHeld ? SENT_WHILE_HELD : Infinity
    if (!isHeld) this.#transmitted = true
    this.#update()
  }

  /** Returns all it holds, but for whether it is held. */
  save(): SerialState {
    const [first, ...others] = this.#waiting
    const waiting = first === undefined ? [] : [first.subarray(this.#taken), ...others]
    return {
      waiting: Buffer.concat(waiting).toString('base64'),
      fifo: Buffer.from(this.#fifo).toString('base64'),
      fifoEnabled: this.#fifoEnabled,
      // As at the end of the hold, which the other machine need not have.
      transmitted: this.#transmitted || this.#isHeld,
      interruptEnable: this.#interruptEnable,
      lineControl: this.#lineControl,
      modemControl: this.#modemControl,
      scratch: this.#scratch,
      divisor: this.#divisor,
      isListening: this.#isListening,
      lastRead: this.#lastRead ?? null,
      level: this.#level,
    }
  }

  /** Puts a new port into a state. The interrupt controller already has the line's level. */
  restore(state: SerialState): void {
    const waiting = Buffer.from(state.waiting, 'base64')
    if (waiting.length > 0) this.#waiting.push(waiting)
    this.#fifo = [...Buffer.from(state.fifo, 'base64')]
    this.#fifoEnabled = state.fifoEnabled
    this.#transmitted = state.transmitted
    this.#interruptEnable = state.interruptEnable & 0xf
    this.#lineControl = state.lineControl
    this.#modemControl = state.modemControl & 0x1f
    this.#scratch = state.scratch
    this.#divisor = state.divisor
    this.#isListening = state.isListening
    this.#lastRead = state.lastRead ?? undefined
    this.#level = state.level
    this.#update()
  }

  get #isHeld(): boolean {
    return this.#credit !== Infinity
  }

  read(offset: number): number {
    // As the port can always send, nobody reads its line status twice but to wait for input.
    if (offset === LINE_STATUS && this.#lastRead === LINE_STATUS) this.#listen()
    this.#lastRead = offset
    const value = this.#read(offset)
    this.#update()
    return value
  }

  write(offset: number, _size: number, value: number): void {
    this.#lastRead = undefined
    this.#write(offset, value & 0xff)
    this.#update()
  }

  #read(offset: number): number {
    const latch = (this.#lineControl & DIVISOR_LATCH) !== 0
    switch (offset) {
      case RECEIVE_OR_TRANSMIT: {
        if (latch) return this.#divisor & 0xff
        const byte = this.#fifo.shift() ?? 0
        this.#fill()
        return byte
      }
      case INTERRUPT_ENABLE:
        return latch ? this.#divisor >> 8 : this.#interruptEnable
      case INTERRUPT_ID_OR_FIFO_CONTROL: {
        const id = this.#pending()
        // Reading which interrupt it is acknowledges this one.
        if (id === ID_TRANSMITTED) this.#transmitted = false
        return id | (this.#fifoEnabled ? ID_FIFOS : 0)
      }
      case LINE_CONTROL:
        return this.#lineControl
      case MODEM_CONTROL:
        return this.#modemControl
      case LINE_STATUS:
        return (this.#isHeld ? 0 : TRANSMIT_EMPTY) | (this.#fifo.length > 0 ? DATA_READY : 0)
      case MODEM_STATUS:
        return this.#modemStatus()
      case SCRATCH:
        return this.#scratch
      default:
        return 0
    }
  }

  #write(offset: number, value: number): void {
    const latch = (this.#lineControl & DIVISOR_LATCH) !== 0
    switch (offset) {
      case RECEIVE_OR_TRANSMIT:
        if (latch) this.#divisor = (this.#divisor & 0xff00) | value
        else this.#transmit(value)
        break
      case INTERRUPT_ENABLE:
        if (latch) this.#divisor = (this.#divisor & 0xff) | (value << 8)
        else {
          if ((value & ~this.#interruptEnable & ENABLE_TRANSMITTED) !== 0) this.#transmitted = true
          this.#interruptEnable = value & 0xf
          if ((value & ENABLE_RECEIVED) !== 0) this.#listen()
        }
        break
      case INTERRUPT_ID_OR_FIFO_CONTROL:
        this.#fifoEnabled = (value & FIFO_ENABLE) !== 0
        if ((value & FIFO_CLEAR_RECEIVED) !== 0) this.#fifo = []
        this.#fill()
        break
      case LINE_CONTROL:
        this.#lineControl = value
        break
      case MODEM_CONTROL:
        this.#modemControl = value & 0x1f
        break
      case SCRATCH:
        this.#scratch = value
        break
      default:
    }
  }

  #transmit(byte: number): void {
    if ((this.#modemControl & LOOPBACK) === 0) {
      if (this.#credit-- > 0) this.#send(byte)
    } else if (this.#fifo.length < this.#room) {
      this.#fifo.push(byte)
    }
    this.#transmitted = true
  }

  get #room(): number {
    return this.#fifoEnabled ? FIFO_SIZE : 1
  }

  #listen(): void {
    this.#isListening = true
    this.#fill()
  }

  #fill(): void {
    if (!this.#isListening) return
    while (this.#fifo.length < this.#room && this.#waiting.length > 0) {
      const [piece] = this.#waiting
      this.#fifo.push(piece![this.#taken++]!)
      if (this.#taken < piece!.length) continue
      this.#waiting.shift()
      this.#taken = 0
    }
  }

  /** In loopback the outputs of modem control are connected to the inputs of modem status. */
  #modemStatus(): number {
    const control = this.#modemControl
    if ((control & LOOPBACK) === 0) return MODEM_READY
    return ((control & 2) << 3) | ((control & 1) << 5) | ((control & 4) << 4) | ((control & 8) << 4)
  }

  #pending(): number {
    if ((this.#interruptEnable & ENABLE_RECEIVED) !== 0 && this.#fifo.length > 0) return ID_RECEIVED
    const isSent = this.#transmitted && !this.#isHeld
    return (this.#interruptEnable & ENABLE_TRANSMITTED) !== 0 && isSent ? ID_TRANSMITTED : ID_NONE
  }

  #update(): void {
    // The guest that waits for input by polling is only found by its reads.
    const hasInput = this.#fifo.length > 0 || this.#waiting.length > 0
    // In loopback a byte that is on its way here as a posted write has to be found by the next read.
    const isQuiet = !hasInput && (this.#modemControl & LOOPBACK) === 0
    const fixed = isQuiet ? this.#read(LINE_STATUS) : undefined
    if (fixed !== this.#fixedLineStatus) {
      this.#fixedLineStatus = fixed
      this.#fixLineStatus(fixed)
    }
    const level = this.#pending() !== ID_NONE
    if (level === this.#level) return
    this.#level = level
    this.#interrupt(level)
  }
}
