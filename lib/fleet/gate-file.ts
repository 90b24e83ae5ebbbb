/**
 * Reads a fleet's document for the gate. A scheduler starts the command for each move: loading the schemas and checking every entry, as
 * the reader of whole documents does, would take several times as long as the answer.
 */
import { FormatError } from '../documents/format-error.js'
import { readJson } from '../documents/text.js'
import { FleetGate, type GateDocument } from './gate.js'

/**
 * Reads a fleet from a file, as `kvm-arm64 fleet --json` prints it, for {@link FleetGate}. Unlike `readFleetDocument` it checks only the
 * entries that answers come from.
 * @throws FormatError for a file that cannot be read, is empty or too large, or is no such document
 */
export function readGate(file: string): FleetGate {
  const data = readJson(file, 'fleet')
  refuseOthers(data, file)
  return new FleetGate(data)
}

type Entries = Readonly<Record<string, unknown>>

/** @throws FormatError for data from which no answer can be taken */
function refuseOthers(data: unknown, file: string): asserts data is GateDocument {
  const require = (isRight: boolean, path: string, expected: string): void => {
    if (!isRight) throw new FormatError(file, path, `expected ${expected}`)
  }
  require(isObject(data), '$', 'a fleet')
  const { format, version, vmm, classes, left, predictions, moves, obstacles } = data as Entries
  require(format === 'kvm-arm64/fleet', '$.format', `"kvm-arm64/fleet", as kvm-arm64 fleet --json prints it`)
  require(version === 1, '$.version', '1, the only version this kvm-arm64 reads')
  require(typeof vmm === 'string', '$.vmm', 'a name')
  require(isObject(left), '$.left', 'numbers of classes and hosts')
  const size = listOf(classes).length
  require(Array.isArray(classes), '$.classes', 'a list')
  const digests = new Set<unknown>()
  for (const [index, one] of listOf(classes).entries()) {
    const { digest, hostCount, cpu, names } = entriesOf(one)
    const isClass = typeof digest === 'string' && typeof hostCount === 'number' && typeof cpu === 'string'
    require(isClass && areTexts(names), `$.classes[${index}]`, 'a class of hosts')
    require(!digests.has(digest), `$.classes[${index}].digest`, 'another class than before')
    digests.add(digest)
  }
  require(Array.isArray(obstacles), '$.obstacles', 'a list')
  for (const [index, finding] of listOf(obstacles).entries()) {
    require(isFinding(finding), `$.obstacles[${index}]`, 'a finding')
  }
  const found = listOf(obstacles).length
  require(Array.isArray(predictions), '$.predictions', 'a list')
  for (const [index, prediction] of listOf(predictions).entries()) {
    const { possible, obstacles: indices, unknown = [] } = entriesOf(prediction)
    const isPrediction = typeof possible === 'boolean' && Array.isArray(indices) && areTexts(unknown)
    require(isPrediction, `$.predictions[${index}]`, 'a prediction')
    require(listOf(indices).every((at) =>
      isIndex(at, found),
    ), `$.predictions[${index}].obstacles`, `indices of ${found} obstacles`)
  }
  const predicted = listOf(predictions).length
  require(listOf(moves).length === size, '$.moves', `${size} rows, one for each class`)
  for (const [from, row] of listOf(moves).entries()) {
    const isRow = listOf(row).length === size && listOf(row).every((at) => isIndex(at, predicted))
    require(isRow, `$.moves[${from}]`, `${size} indices of ${predicted} predictions, one for each class`)
  }
}

function isObject(value: unknown): value is Entries {
  return value !== null && typeof value === 'object' && !Array.isArray(value)
}

function entriesOf(value: unknown): Entries {
  return isObject(value) ? value : {}
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

function areTexts(value: unknown): boolean {
  return Array.isArray(value) && value.every((entry) => typeof entry === 'string')
}

/** Whether a value has the entries of a finding that decide an answer or are printed. */
function isFinding(value: unknown): boolean {
  const { code, severity, stops, register } = entriesOf(value)
  const isNamed = register === undefined || typeof entriesOf(register).name === 'string'
  return areTexts([code, severity]) && typeof stops === 'boolean' && isNamed
}

function isIndex(value: unknown, length: number): boolean {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < length
}
