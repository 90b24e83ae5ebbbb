/** What the devices of a machine hold, as data: part of the stream by which a machine moves. */
import * as v from 'valibot'
import { hex64, text, uint32 } from '../documents/entries.js'
import { QUEUE_SIZE_MAX } from './virtio/queue.js'

const byte = v.pipe(uint32, v.maxValue(0xff))
const uint16 = v.pipe(uint32, v.maxValue(0xffff))
/** A guest address, or what a driver wrote as one. */
const address = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 64))

/** Bytes, in base64. A regular expression cannot check megabytes of it: its stack ends. */
export const bytesEntry = v.pipe(
  v.string(),
  v.check((input) => Buffer.from(input, 'base64').toString('base64') === input, 'is not base64'),
)

export const serialSchema = v.strictObject({
  /** What the guest has yet to receive, behind the FIFO. */
  waiting: bytesEntry,
  /** At most the 16 bytes of the FIFO. */
  fifo: v.pipe(v.string(), v.maxLength(24), bytesEntry),
  fifoEnabled: v.boolean(),
  transmitted: v.boolean(),
  interruptEnable: byte,
  lineControl: byte,
  modemControl: byte,
  scratch: byte,
  divisor: uint16,
  isListening: v.boolean(),
  /** The register that the guest read last; null if it has written since. */
  lastRead: v.nullable(uint16),
  /** Of the line to the interrupt controller. */
  level: v.boolean(),
})

export const virtioSchema = v.strictObject({
  /** The device's type. */
  type: uint32,
  /** Features the driver accepted. */
  accepted: hex64,
  deviceFeaturesSelect: uint32,
  driverFeaturesSelect: uint32,
  queueSelect: uint32,
  /** What the driver has said about each queue. */
  setups: v.pipe(
    v.array(
      v.strictObject({
        size: uint32,
        /** Registers of addresses, and the values written there. */
        halves: v.pipe(v.array(v.tuple([uint16, uint32])), v.maxLength(6)),
      }),
    ),
    v.maxLength(16),
  ),
  /** The queues that are ready. */
  queues: v.pipe(
    v.array(
      v.strictObject({
        index: byte,
        size: v.pipe(uint32, v.maxValue(QUEUE_SIZE_MAX)),
        descriptors: address,
        available: address,
        used: address,
        /** Requests taken and given back, modulo 2^16. */
        taken: uint16,
        given: uint16,
      }),
    ),
    v.maxLength(16),
  ),
  status: byte,
  interruptStatus: byte,
  /** The rule the driver broke; null if it broke none. */
  failure: v.nullable(text),
})

export const devicesSchema = v.strictObject({
  serial: serialSchema,
  /** In the order of their addresses. */
  virtio: v.pipe(v.array(virtioSchema), v.maxLength(32)),
})

export type SerialState = v.InferOutput<typeof serialSchema>
export type VirtioState = v.InferOutput<typeof virtioSchema>
export type DevicesState = v.InferOutput<typeof devicesSchema>
