/**
 * The fleet as a document: which hosts are alike, which moves are possible, and why others are not. Refers to classes, predictions
 * and obstacles by their index, from 0.
 */
import * as v from 'valibot'
import { checkDocument, type DocumentFormat, FormatError, readDocument } from '../documents/document.js'
import { asText, hex64, text, uint32 } from '../documents/entries.js'
import { findingCodes, findingSchema } from '../migration/finding.js'
import { unknownFacts } from '../migration/verdict.js'
import { encodeRegister, hex } from '../registers/index.js'
import { cpuName } from '../report/cpu.js'
import { originSchema } from '../report/origin.js'
import { registerValue } from '../report/registers.js'
import type { FleetAnalysis } from './analyse.js'
import type { Fleet, HostClass } from './classes.js'
import { classDigest } from './summary.js'

const hostClass = v.strictObject({
  /** Its identity: the first 16 digits of the SHA-256 of what the reports of its hosts have in common. Labels and metrics have it too. */
  digest: classDigest,
  hostCount: uint32,
  /** For readers. */
  cpu: text,
  /** `KVM_REG_ARM_PSCI_VERSION` of a fresh VM; null if there is no such register. */
  psciVersion: v.nullable(hex64),
  /** Their `uname -r`: those of most hosts, at most eight. */
  releases: v.array(text),
  /** What answered KVM's calls when their reports were made, with the number of reports for each; those of most hosts. */
  origins: v.array(v.strictObject({ origin: originSchema, hostCount: uint32 })),
  /** One of its hosts: the first of `names`, or else where its report was read: a file, or a line of one. */
  first: text,
  /** Names of the hosts that have one, in alphabetical order. */
  names: v.array(text),
})

const prediction = v.strictObject({
  possible: v.boolean(),
  /** Gravest first. */
  obstacles: v.array(uint32),
  /** What the answer depends on and the reports do not say; absent if there is nothing. */
  unknown: v.exactOptional(v.array(v.picklist(unknownFacts))),
})

const apart = {
  pairs: v.array(v.tuple([uint32, uint32])),
  /** Hosts of all classes in these pairs. */
  hostCount: uint32,
}

const upgradedMove = v.strictObject({
  direction: v.picklist(['to', 'from']),
  class: uint32,
  obstacles: v.array(uint32),
})

/** The entries of a fleet; see the file's head. */
export const fleetSchema = v.strictObject({
  format: v.literal('kvm-arm64/fleet'),
  version: v.literal(1),
  /** Hosts whose report could be read and simulated. */
  hostCount: uint32,
  /** Reports that could not, each once however often it was read. */
  faulty: uint32,
  /** The rules that judged the moves. */
  vmm: text,
  /** The classes compared, those with most hosts first. */
  classes: v.array(hostClass),
  /** The classes that were not compared because there are too many. */
  left: v.strictObject({ classes: uint32, hostCount: uint32 }),
  /** Each distinct prediction once: of a million moves, most are predicted alike. */
  predictions: v.array(prediction),
  /** `moves[from][to]`: the index of the prediction for moves from one class to another, or between hosts of one. */
  moves: v.array(v.array(uint32)),
  /** What stops moves, or what a guest would notice. */
  obstacles: v.array(findingSchema),
  /** Classes with free movement inside, of two hosts or more: at most 20 groups. */
  groups: v.array(v.strictObject({ classes: v.array(uint32), hostCount: uint32 })),
  /** Pairs of classes with a single obstacle between them: a register, or a code if the obstacle is not about a register. */
  divides: v.array(
    v.union([
      v.strictObject({ register: v.strictObject({ id: hex64, name: text }), ...apart }),
      v.strictObject({ code: v.picklist(findingCodes.map(({ code }) => code)), ...apart }),
    ]),
  ),
  /** Moves that another kernel would make possible or impossible for a class. */
  upgrades: v.array(
    v.strictObject({
      class: uint32,
      /** The name of the report with the other kernel. */
      upgrade: text,
      opens: v.array(upgradedMove),
      closes: v.array(upgradedMove),
    }),
  ),
})

export type FleetDocument = v.InferOutput<typeof fleetSchema>

/** The format `kvm-arm64/fleet`. */
export const fleetFormat: DocumentFormat<FleetDocument> = {
  noun: 'fleet',
  schema: fleetSchema,
  checkMore(document, source) {
    const { classes, predictions, obstacles, groups, divides, upgrades } = document
    const refuse = (path: string, found: readonly number[], length: number, noun: string): void => {
      const wrong = found.find((index) => index >= length)
      if (wrong !== undefined) throw new FormatError(source, path, `no such ${noun}: ${wrong} of ${length}`)
    }
    const refuseClasses = (path: string, ...found: number[]) => refuse(path, found, classes.length, 'class')
    const refuseObstacles = (path: string, found: readonly number[]) =>
      refuse(`${path}.obstacles`, found, obstacles.length, 'obstacle')
    for (const [index, { obstacles: found }] of predictions.entries()) {
      refuseObstacles(`$.predictions[${index}]`, found)
    }
    checkMoves(document, source)
    const digests = classes.map(({ digest }) => digest)
    const again = digests.findIndex((digest, index) => digests.indexOf(digest) !== index)
    if (again >= 0) {
      const first = digests.indexOf(digests[again]!)
      throw new FormatError(source, `$.classes[${again}].digest`, `is already at $.classes[${first}]`)
    }
    for (const [index, group] of groups.entries()) refuseClasses(`$.groups[${index}]`, ...group.classes)
    for (const [index, { pairs }] of divides.entries()) refuseClasses(`$.divides[${index}]`, ...pairs.flat())
    for (const [index, { class: one, opens, closes }] of upgrades.entries()) {
      refuseClasses(`$.upgrades[${index}]`, one)
      for (const [which, changed] of Object.entries({ opens, closes })) {
        for (const [place, { class: other, obstacles: found }] of changed.entries()) {
          const path = `$.upgrades[${index}].${which}[${place}]`
          refuseClasses(path, other)
          refuseObstacles(path, found)
        }
      }
    }
  },
}

/** Checks that the table has a row and a column for each class. */
function checkMoves({ classes, predictions, moves }: FleetDocument, source: string): void {
  const size = classes.length
  const refuseLength = (path: string, { length }: readonly unknown[], noun: string): void => {
    if (length === size) return
    throw new FormatError(source, path, `expected ${size} ${noun}, one for each class, found ${length}`)
  }
  refuseLength('$.moves', moves, 'rows')
  for (const [from, row] of moves.entries()) {
    refuseLength(`$.moves[${from}]`, row, 'columns')
    const wrong = row.findIndex((index) => index >= predictions.length)
    if (wrong < 0) continue
    const problem = `expected the index of one of ${predictions.length} predictions, found ${row[wrong]}`
    throw new FormatError(source, `$.moves[${from}][${wrong}]`, problem)
  }
}

/**
 * Reads a fleet from a file, as `kvm-arm64 fleet --json` prints it.
 * @throws FormatError for a file that is missing, empty, truncated, of another format or version, or hostile
 */
export function readFleetDocument(file: string): FleetDocument {
  return readDocument(file, fleetFormat)
}

/**
 * Checks that data is a fleet.
 * @throws FormatError as `readFleetDocument`
 */
export function checkFleetDocument(data: unknown, source: string): FleetDocument {
  return checkDocument(data, source, fleetFormat)
}

/** Returns the document of a fleet that was read and analysed. */
export function fleetDocument({ hostCount, faults }: Fleet, analysis: FleetAnalysis): FleetDocument {
  const { vmm, classes, left, predictions, moves, obstacles, groups, divides, upgrades, errors } = analysis
  const refused = errors.reduce((sum, { class: one }) => sum + one.hostCount, 0)
  return {
    format: 'kvm-arm64/fleet',
    version: 1,
    hostCount: hostCount - refused,
    faulty: faults.length + refused,
    vmm: asText(vmm),
    classes: classes.map(describe),
    left,
    predictions,
    moves,
    obstacles,
    groups,
    divides,
    upgrades: upgrades.map(({ class: index, upgrade, opens, closes }) => ({
      class: index,
      upgrade: asText(upgrade),
      opens,
      closes,
    })),
  }
}

const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')

function describe(one: HostClass): FleetDocument['classes'][number] {
  const report = one.report()
  const psciVersion = registerValue(report, PSCI_VERSION)
  return {
    digest: one.digest,
    hostCount: one.hostCount,
    cpu: cpuName(report),
    psciVersion: psciVersion === undefined ? null : hex(psciVersion),
    releases: [...one.releases],
    origins: [...one.origins],
    first: one.names[0] ?? asText(one.first),
    names: [...one.names],
  }
}
