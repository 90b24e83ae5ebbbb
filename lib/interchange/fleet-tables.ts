/**
 * A fleet as tables for queries (SQL in `docs/queries.md`). Classes are named by their 16 digits, as everywhere; quantities of 64 bits
 * are UINT64, wider ones text. A cell is null if the report does not record it.
 */
import { join } from 'node:path'
import { makeDirectories } from '../documents/directory.js'
import { decodePsciVersion } from '../hypercalls/index.js'
import type { Fleet, HostClass } from '../fleet/classes.js'
import type { FleetDocument } from '../fleet/document.js'
import { encodeRegister, registerWidth } from '../registers/index.js'
import { cpuName } from '../report/cpu.js'
import { registerValue } from '../report/registers.js'
import type { Report } from '../report/report.js'
import type { WriteRule } from '../report/write-rule.js'
import { nodeFacts } from './node-facts.js'
import { type Columns, type Row, type Table, writeTable } from './parquet.js'

const text = { type: 'text', required: true } as const
const maybeText = { type: 'text' } as const
const uint32 = { type: 'uint32', required: true } as const
const boolean = { type: 'boolean', required: true } as const
const uint64 = { type: 'uint64' } as const
const maybeUint32 = { type: 'uint32' } as const
const maybeBoolean = { type: 'boolean' } as const
const texts = { type: 'texts', required: true } as const

/** A host that has a name, as its newest report or row shows it. */
const hostColumns = {
  name: text,
  class: text,
  /** `uname -r` */
  kernel: text,
  /** `uname -v` */
  build: text,
  /** Null if only rows of its class were read, and no report; likewise for all that classes show. */
  cpu: maybeText,
  /** What answered KVM's calls: `kernel`, `simulation`, `fingerprint`, `derivation` or `unknown`. */
  answered_by: text,
  probed_at: { type: 'timestamp' },
} as const satisfies Columns

const classColumns = {
  class: text,
  /** Hosts without a name count too. */
  host_count: uint32,
  /** Whether its moves were predicted: with too many classes, those of fewest hosts were not. */
  compared: boolean,
  kernels: texts,
  cpu: maybeText,
  /** MIDR_EL1 */
  midr: uint64,
  /** The newest, such as `1.1`. */
  psci: maybeText,
  vcpu_features: { type: 'texts' },
  interrupt_controllers: { type: 'texts' },
  /** Hz */
  counter_frequency: uint64,
  /** Bytes. */
  page_size: maybeUint32,
  /** The most bits of guest physical address. */
  address_bits: maybeUint32,
  memory_tagging: maybeBoolean,
  protected_kvm: maybeBoolean,
  cpu_kinds: maybeUint32,
} as const satisfies Columns

const registerColumns = {
  class: text,
  /**
   * Empty for a vCPU without optional features. Else the features that change the register, joined by `,`: a vCPU with these features
   * and no such row has the register as without them. `mte` is a VM with memory tagging.
   */
  configuration: text,
  /** Null if there is no such register in this configuration. */
  bits: maybeUint32,
  id: { type: 'uint64', required: true },
  name: text,
  /** Of a fresh vCPU; null if it counts time or has more than 64 bits. */
  value: uint64,
  /** Of a register that has more than 64 bits: `0x…`. */
  wide_value: maybeText,
  /** In `KVM_ARM_GET_REG_WRITABLE_MASKS`; null if it is 0 or the ioctl does not exist. */
  writable_mask: uint64,
  /** What a write before the first run does, as in a report; `any` if the register keeps any value. */
  write_rule: maybeText,
  /** The bits that the rules `bits`, `sets`, `clears` and `subset` name. */
  rule_bits: uint64,
} as const satisfies Columns

/** From a class to a class, under each VMM. */
const moveColumns = {
  vmm: text,
  from_class: text,
  to_class: text,
  possible: boolean,
  /** What the answer depends on and the reports do not say; empty if it is known. */
  unknown: texts,
  /** Identifies the rows of `obstacles`, together with `vmm`. */
  prediction: uint32,
} as const satisfies Columns

/** What stops the moves of a prediction, or what a guest would notice. */
const obstacleColumns = {
  vmm: text,
  prediction: uint32,
  /** From 0, the gravest first. */
  place: uint32,
  /** `docs/findings.md` explains each. */
  code: text,
  severity: text,
  stops: boolean,
  register: maybeText,
  register_id: uint64,
  field: maybeText,
  /** As in a verdict: `0x…`, or `counts` for a register that counts time. Null if there is none. */
  source: maybeText,
  destination: maybeText,
} as const satisfies Columns

/**
 * Writes the tables of a fleet as Parquet files into a directory, each file whole or not at all.
 * @param documents of the fleet, one for each VMM
 * @returns the files
 * @throws the error of `node:fs` for a file that cannot be written
 */
export function writeFleetTables(
  directory: string,
  fleet: Fleet,
  documents: readonly FleetDocument[],
): string[] {
  makeDirectories(directory)
  return Object.entries(fleetTables(fleet, documents)).map(([name, table]) => {
    const file = join(directory, `${name}.parquet`)
    writeTable(file, table)
    return file
  })
}

function fleetTables(fleet: Fleet, documents: readonly FleetDocument[]): Record<string, Table> {
  const shown = new Map(fleet.classes.map((one) => [one.digest, shownBy(one)]))
  return {
    hosts: { columns: hostColumns, rows: hostRows(fleet, shown) },
    classes: { columns: classColumns, rows: classRows(fleet, documents, shown) },
    registers: { columns: registerColumns, rows: registerRows(fleet) },
    moves: { columns: moveColumns, rows: moveRows(documents) },
    obstacles: { columns: obstacleColumns, rows: obstacleRows(documents) },
  }
}

function* hostRows({ hosts }: Fleet, shown: ReadonlyMap<string, Shown>): Generator<Row<typeof hostColumns>> {
  for (const { name, class: of, release, build, origin, probedAt } of hosts) {
    const time = Date.parse(probedAt)
    yield {
      name,
      class: of,
      kernel: release,
      build,
      cpu: shown.get(of)!.cpu,
      answered_by: origin.kind,
      // The pattern of a time lets some through that are none.
      probed_at: Number.isNaN(time) ? null : new Date(time),
    }
  }
}

function* classRows(
  { classes }: Fleet,
  documents: readonly FleetDocument[],
  shown: ReadonlyMap<string, Shown>,
): Generator<Row<typeof classColumns>> {
  const compared = new Set(documents.flatMap((document) => document.classes.map(({ digest }) => digest)))
  for (const one of classes) {
    yield {
      class: one.digest,
      host_count: one.hostCount,
      compared: compared.has(one.digest),
      kernels: one.releases,
      ...shown.get(one.digest)!,
    }
  }
}

const MIDR_EL1 = encodeRegister('MIDR_EL1')
const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')

type Shown = Omit<Row<typeof classColumns>, 'class' | 'host_count' | 'compared' | 'kernels'>

const nothingShown: Shown = {
  cpu: null,
  midr: null,
  psci: null,
  vcpu_features: null,
  interrupt_controllers: null,
  counter_frequency: null,
  page_size: null,
  address_bits: null,
  memory_tagging: null,
  protected_kvm: null,
  cpu_kinds: null,
}

/** What the report of a class shows. */
function shownBy(one: HostClass): Shown {
  if (!one.hasReport) return nothingShown
  const report = one.report()
  const facts = nodeFacts(report)
  const psci = registerValue(report, PSCI_VERSION)
  return {
    cpu: cpuName(report),
    midr: registerValue(report, MIDR_EL1) ?? null,
    psci: psci === undefined ? null : decodePsciVersion(psci),
    vcpu_features: facts.vcpuFeatures,
    interrupt_controllers: facts.interruptControllers ?? null,
    counter_frequency: facts.counterFrequency ?? null,
    page_size: facts.pageSize ?? null,
    address_bits: facts.ipaLimit ?? null,
    memory_tagging: facts.mte ?? null,
    protected_kvm: facts.protectedKvm ?? null,
    cpu_kinds: facts.cpuKinds ?? null,
  }
}

type ReportedRow = Pick<Report['registers'][number], 'id' | 'name' | 'value' | 'mask' | 'write'>

function* registerRows({ classes }: Fleet): Generator<Row<typeof registerColumns>> {
  for (const one of classes) {
    if (!one.hasReport) continue
    const report = one.report()
    for (const register of report.registers) yield registerRow(one.digest, '', register)
    const names = new Map(report.registers.map(({ id, name }) => [id, name]))
    for (const configuration of report.configurations) {
      if (!('added' in configuration)) continue
      const { features, mte, added, changed, removed } = configuration
      const of = [...features, ...(mte ? ['mte'] : [])].join(',')
      for (const register of [...added, ...changed]) yield registerRow(one.digest, of, register)
      for (const id of removed) yield removedRow(one.digest, of, id, names.get(id) ?? id)
    }
  }
}

function registerRow(
  digest: string,
  configuration: string,
  { id, name, value, mask, write }: ReportedRow,
): Row<typeof registerColumns> {
  const bits = registerWidth(BigInt(id))
  const isWide = bits > 64
  return {
    class: digest,
    configuration,
    bits,
    id: BigInt(id),
    name,
    value: isWide || value === null ? null : BigInt(value),
    wide_value: isWide ? value : null,
    writable_mask: mask === undefined ? null : BigInt(mask),
    write_rule: write?.rule ?? 'any',
    rule_bits: isWide ? null : ruleBits(write),
  }
}

function removedRow(
  digest: string,
  configuration: string,
  id: string,
  name: string,
): Row<typeof registerColumns> {
  return {
    class: digest,
    configuration,
    bits: null,
    id: BigInt(id),
    name,
    value: null,
    wide_value: null,
    writable_mask: null,
    write_rule: null,
    rule_bits: null,
  }
}

function ruleBits(write: WriteRule | undefined): bigint | null {
  switch (write?.rule) {
    case 'bits':
    case 'sets':
    case 'clears':
      return BigInt(write.bits)
    case 'subset':
      return BigInt(write.of)
    default:
      return null
  }
}

function* moveRows(documents: readonly FleetDocument[]): Generator<Row<typeof moveColumns>> {
  for (const { vmm, classes, moves, predictions } of documents) {
    for (const [from, row] of moves.entries()) {
      for (const [to, index] of row.entries()) {
        const { possible, unknown = [] } = predictions[index]!
        yield {
          vmm,
          from_class: classes[from]!.digest,
          to_class: classes[to]!.digest,
          possible,
          unknown,
          prediction: index,
        }
      }
    }
  }
}

function* obstacleRows(documents: readonly FleetDocument[]): Generator<Row<typeof obstacleColumns>> {
  for (const { vmm, predictions, obstacles } of documents) {
    for (const [prediction, { obstacles: found }] of predictions.entries()) {
      for (const [place, index] of found.entries()) {
        const finding = obstacles[index]!
        const { code, severity, stops, register, field } = finding
        yield {
          vmm,
          prediction,
          place,
          code,
          severity,
          stops,
          register: register?.name ?? null,
          register_id: register === undefined ? null : BigInt(register.id),
          field: field ?? null,
          source: register === undefined ? null : finding.source,
          destination: register === undefined ? null : finding.destination,
        }
      }
    }
  }
}
