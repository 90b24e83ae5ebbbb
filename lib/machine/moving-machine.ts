/** The JSON parts of the stream by which a machine moves: what the machine is, what it holds, and why a destination refuses it. */
import * as v from 'valibot'
import { checkDocument, checkShape, type DocumentFormat, parseJson } from '../documents/document.js'
import { FormatError } from '../documents/format-error.js'
import { text } from '../documents/entries.js'
import { type Finding, findingSchema } from '../migration/finding.js'
import { checkState, type State } from '../migration/state.js'
import { MachineError } from './errors.js'
import { bytesEntry, devicesSchema } from './saved-devices.js'

/** A disk as its guest knows it. Its content does not move with the machine. */
const diskSchema = v.strictObject({
  /** Bytes. */
  size: v.pipe(v.number(), v.integer(), v.minValue(512), v.maxValue(Number.MAX_SAFE_INTEGER)),
  readonly: v.boolean(),
})

const headerSchema = v.strictObject({
  format: v.literal('kvm-arm64/machine'),
  version: v.literal(1),
  /** Whether the source waits for answers, on the same stream. */
  asks: v.boolean(),
  /** Bytes of memory. */
  memory: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(Number.MAX_SAFE_INTEGER)),
  console: v.picklist(['serial', 'virtio']),
  disks: v.pipe(v.array(diskSchema), v.maxLength(32)),
  /** When the move began; the verdict is about it. A document of its own, checked as such. */
  state: v.unknown(),
})

const savedSchema = v.strictObject({
  state: v.unknown(),
  devices: devicesSchema,
  /** What the guest has yet to receive on its virtio console. */
  input: bytesEntry,
})

const REASONS_MAX = 1000
const FINDINGS_MAX = 10_000

const refusalSchema = v.strictObject({
  /** For readers. */
  reasons: v.pipe(v.array(text), v.minLength(1), v.maxLength(REASONS_MAX)),
  /** What the verdict found; empty if it was not the verdict that refused. */
  findings: v.pipe(v.array(findingSchema), v.maxLength(FINDINGS_MAX)),
})

/** What a machine is, and its state when its move began. */
export interface Header extends Omit<v.InferOutput<typeof headerSchema>, 'state'> {
  readonly state: State
}
/** What a stopped machine holds, besides its memory. */
export interface Saved extends Omit<v.InferOutput<typeof savedSchema>, 'state'> {
  readonly state: State
}
export type Refusal = v.InferOutput<typeof refusalSchema>

const headerFormat: DocumentFormat<v.InferOutput<typeof headerSchema>> = {
  noun: 'machine',
  schema: headerSchema,
}

const SOURCE = 'the stream'

/** @throws MachineError `ERR_MACHINE_STREAM` for anything but a header of this version */
export function readHeader(bytes: Buffer): Header {
  return reading(() => {
    const header = checkDocument(parseJson(bytes.toString(), SOURCE), SOURCE, headerFormat)
    return { ...header, state: checkState(header.state, SOURCE) }
  })
}

/** @throws MachineError `ERR_MACHINE_STREAM` */
export function readSaved(bytes: Buffer): Saved {
  return reading(() => {
    const saved = checkShape(savedSchema, parseJson(bytes.toString(), SOURCE), SOURCE)
    return { ...saved, state: checkState(saved.state, SOURCE) }
  })
}

/** Returns a refusal that `readRefusal` takes, with the gravest of what may be too much. */
export function refusalOf(reasons: readonly string[], findings: readonly Finding[]): Refusal {
  return { reasons: reasons.slice(0, REASONS_MAX), findings: findings.slice(0, FINDINGS_MAX) }
}

/** @throws MachineError `ERR_MACHINE_STREAM` */
export function readRefusal(bytes: Buffer): Refusal {
  return reading(() => checkShape(refusalSchema, parseJson(bytes.toString(), SOURCE), SOURCE))
}

function reading<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
    throw new MachineError('ERR_MACHINE_STREAM', error.message, { cause: error })
  }
}
