/** Writes flattened device trees (Devicetree Specification 0.4, chapter 5), the form in which Linux gets its hardware described. */

/**
 * The value of a property: a text, several texts, cells of 32 bits, bytes as they are, or nothing, which means true. A `bigint` is
 * two cells, high half first.
 */
export type PropertyValue = string | readonly string[] | readonly (number | bigint)[] | Uint8Array | true

export interface DeviceNode {
  readonly properties: Readonly<Record<string, PropertyValue>>
  /** By name, with unit address: `memory@40000000`. */
  readonly children?: Readonly<Record<string, DeviceNode>>
}

const MAGIC = 0xd00d_feed
const VERSION = 17
/** Readers of version 16 understand it too. */
const LAST_COMPATIBLE_VERSION = 16
const HEADER_SIZE = 40
/** The end of the list of reserved memory, which is empty: two zero words of 64 bits. */
const RESERVATIONS_SIZE = 16

const BEGIN_NODE = 1
const END_NODE = 2
const PROPERTY = 3
const END = 9

/**
 * Returns the flattened tree.
 * @param bootCpu the physical id of the CPU that boots
 * @throws RangeError for a cell wider than 32 bits, a `bigint` wider than 64, and a name or text that contains a NUL
 */
export function encodeDeviceTree(root: DeviceNode, bootCpu = 0): Uint8Array {
  const strings = new StringTable()
  const structure = Buffer.concat([...nodePieces('', root, strings), cells([END])])
  const names = strings.bytes()
  const structureOffset = HEADER_SIZE + RESERVATIONS_SIZE
  const stringsOffset = structureOffset + structure.length
  const header = cells([
    MAGIC,
    stringsOffset + names.length,
    structureOffset,
    stringsOffset,
    HEADER_SIZE,
    VERSION,
    LAST_COMPATIBLE_VERSION,
    bootCpu,
    names.length,
    structure.length,
  ])
  return Buffer.concat([header, Buffer.alloc(RESERVATIONS_SIZE), structure, names])
}

/** Names of properties: each is stored once. */
class StringTable {
  readonly #offsets = new Map<string, number>()
  #size = 0

  offsetOf(name: string): number {
    const known = this.#offsets.get(name)
    if (known !== undefined) return known
    const offset = this.#size
    this.#offsets.set(name, offset)
    this.#size += text(name).length
    return offset
  }

  bytes(): Buffer {
    return Buffer.concat([...this.#offsets.keys()].map(text))
  }
}

function* nodePieces(name: string, node: DeviceNode, strings: StringTable): Generator<Buffer> {
  yield cells([BEGIN_NODE])
  yield padded(text(name))
  for (const [property, value] of Object.entries(node.properties)) {
    const bytes = propertyBytes(value)
    yield cells([PROPERTY, bytes.length, strings.offsetOf(property)])
    yield padded(bytes)
  }
  for (const [child, content] of Object.entries(node.children ?? {}))
    yield* nodePieces(child, content, strings)
  yield cells([END_NODE])
}

function propertyBytes(value: PropertyValue): Buffer {
  if (value === true) return Buffer.alloc(0)
  if (typeof value === 'string') return text(value)
  if (value instanceof Uint8Array) return Buffer.from(value)
  return Buffer.concat(value.map((part) => (typeof part === 'string' ? text(part) : cells([part]))))
}

function text(content: string): Buffer {
  if (content.includes('\0')) throw new RangeError('a text of a device tree cannot contain a NUL')
  return Buffer.from(`${content}\0`)
}

function cells(values: readonly (number | bigint)[]): Buffer {
  return Buffer.concat(
    values.map((value) => {
      const cell = Buffer.alloc(typeof value === 'bigint' ? 8 : 4)
      // These check the range.
      if (typeof value === 'bigint') cell.writeBigUInt64BE(value)
      else cell.writeUInt32BE(value)
      return cell
    }),
  )
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)])
}
