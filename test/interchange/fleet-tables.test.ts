/** The tables of a fleet, and the SQL of `docs/queries.md`: DuckDB finds in them what the fleet's documents say. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { analyseFleet } from '../../lib/fleet/analyse.js'
import { readFleet } from '../../lib/fleet/classes.js'
import { type FleetDocument, fleetDocument } from '../../lib/fleet/document.js'
import { canMove, predictionOf } from '../../lib/fleet/moves.js'
import { hostRow, rowText } from '../../lib/fleet/summary.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { writeFleetTables } from '../../lib/interchange/fleet-tables.js'
import { writeTable } from '../../lib/interchange/parquet.js'
import { vmmRules } from '../../lib/migration/vmm/names.js'
import { packageRoot } from '../../lib/package-root.js'
import { encodeRegister } from '../../lib/registers/index.js'
import { registerValue } from '../../lib/report/registers.js'
import type { Report } from '../../lib/report/report.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-tables-'))
afterAll(() => rmSync(folder, { recursive: true }))

const DAY = 24 * 60 * 60 * 1000

/** A host whose report was made so many days before the newest. */
function host(name: string, of: string, days: number): { name: string; report: Report } {
  const probedAt = new Date(Date.parse('2026-11-30T12:00:00Z') - days * DAY).toISOString()
  return { name, report: { ...builtInReport(of), probedAt } }
}

const hosts = [
  host('node-1', 'linux-7.2-max', 0),
  host('node-2', 'linux-7.2-max', 40),
  host('node-3', 'linux-6.18-max', 2),
  host('node-4', 'linux-6.1-max', 90),
  host('node-5', 'linux-6.12-neoverse-n1', 3),
]
/** Its class has no report. */
const rowOnly = hostRow('node-6', 'f'.repeat(16), builtInReport('linux-6.1-max'))
const file = join(folder, 'reports.ndjson')
writeFileSync(file, `${hosts.map((line) => JSON.stringify(line)).join('\n')}\n${rowText(rowOnly)}\n`)
const fleet = readFleet(file)
const documents = (['strict', 'qemu'] as const).map((vmm) =>
  fleetDocument(fleet, analyseFleet(fleet, { rules: vmmRules(vmm) })),
)
// So that there is something that no report says.
documents[1]!.predictions[0]!.unknown = ['source-features', 'source-page-size']
const [strict] = documents as [FleetDocument]

let database: DuckDBConnection

beforeAll(async () => {
  writeFleetTables(join(folder, 'tables'), fleet, documents)
  database = await (await DuckDBInstance.create(':memory:')).connect()
})
afterAll(() => database.closeSync())

type Cell = string | number | boolean | null | Date | Cell[]

/** The rows of an answer; numbers of any width as numbers. */
async function rowsOf(sql: string): Promise<Cell[][]> {
  const there = sql.replaceAll(/'(\w+\.parquet)'/g, `'${folder}/tables/$1'`)
  const result = await database.runAndReadAll(there)
  return result.getRowsJS().map((row) => row.map(plain))
}

function plain(cell: unknown): Cell {
  if (typeof cell === 'bigint') return Number(cell)
  return Array.isArray(cell) ? cell.map(plain) : (cell as Cell)
}

const queries = new Map(
  [
    ...readFileSync(new URL('docs/queries.md', packageRoot), 'utf8').matchAll(
      /^## (.*)\n\n```sql\n([^]*?)```$/gm,
    ),
  ].map(([, question, sql]) => [question!, sql!]),
)

/** Class, host count of each class, and pairs of classes, as the strict document has them. */
const classes = strict.classes
const pairs = classes.flatMap((_, from) => classes.map((__, to) => [from, to] as const))
const hostCountOf = (digest: string) => fleet.classes.find((one) => one.digest === digest)!.hostCount
const classOfHost = (name: string) => fleet.hosts.find((row) => row.name === name)!.class
const reports = fleet.classes
  .filter(({ hasReport }) => hasReport)
  .map((one) => ({ of: one.digest, report: one.report() }))

/** Each different row once, with the number of its occurrences behind it. */
function counted(rows: readonly Cell[][]): Cell[][] {
  const counts = new Map<string, number>()
  for (const row of rows) counts.set(JSON.stringify(row), (counts.get(JSON.stringify(row)) ?? 0) + 1)
  return [...counts].map(([key, count]) => rowOf(key, [count]))
}

function rowOf(key: string, more: readonly Cell[]): Cell[] {
  return (JSON.parse(key) as Cell[]).concat(more)
}

function inOrder(rows: readonly Cell[][]): string[] {
  return rows.map((row) => JSON.stringify(row)).toSorted()
}

function decimal(value: string | null | undefined): string | null {
  return value === null || value === undefined ? null : String(BigInt(value))
}

async function typesOf(table: string): Promise<Record<string, Cell>> {
  const described = await rowsOf(`DESCRIBE SELECT * FROM '${table}.parquet'`)
  return Object.fromEntries(described.map(([name, type]) => [name, type!])) as Record<string, Cell>
}

/** What the documents answer to each question, in any order. */
const answers: Record<string, () => Cell[][]> = {
  'Which CPUs and kernels are there?': () =>
    counted(
      fleet.hosts.map((row) => [
        classes.find(({ digest }) => digest === row.class)?.cpu ?? null,
        row.release,
      ]),
    ),
  'Which reports are the oldest?': () =>
    ['node-2', 'node-4'].map((name) => {
      const row = fleet.hosts.find((one) => one.name === name)!
      return [name, row.release, new Date(row.probedAt)]
    }),
  'Which hosts can take a VM of a host?': () => {
    const from = classes.findIndex(({ digest }) => digest === classOfHost('node-1'))
    return classes
      .filter((_, to) => canMove(strict, from, to))
      .flatMap(({ names }) => names)
      .filter((name) => name !== 'node-1')
      .map((name) => [name])
  },
  'To how many other hosts can a VM of each class go?': () =>
    documents.flatMap((document) =>
      document.classes.map(({ digest }, from) => {
        const to = document.classes.filter((_, index) => canMove(document, from, index))
        const count = to.reduce((sum, one) => sum + one.hostCount - Number(one.digest === digest), 0)
        return [document.vmm, digest, count]
      }),
    ),
  'Which moves are possible one way only?': () =>
    pairs
      .filter(([from, to]) => canMove(strict, from, to) && !canMove(strict, to, from))
      .map(([from, to]) => [classes[from]!.digest, classes[to]!.digest]),
  'Which obstacles stop most moves between hosts?': () => {
    const found = new Map<string, [pairs: number, hosts: number]>()
    for (const [from, to] of pairs) {
      if (from === to) continue
      const stopping = predictionOf(strict, from, to).obstacles.map((index) => strict.obstacles[index]!)
      const keys = stopping
        .filter(({ stops }) => stops)
        .map(({ code, register }) => JSON.stringify([code, register?.name ?? null]))
      for (const key of new Set(keys)) {
        const [count, between] = found.get(key) ?? [0, 0]
        found.set(key, [count + 1, between + classes[from]!.hostCount * classes[to]!.hostCount])
      }
    }
    return [...found].map(([key, counts]) => rowOf(key, counts))
  },
  'Which answers depend on what no report says?': () => {
    const facts = documents.flatMap((document) =>
      pairs.flatMap(([from, to]) => {
        const { unknown = [] } = predictionOf(document, from, to)
        return unknown.map((fact): Cell[] => [document.vmm, fact])
      }),
    )
    return counted(facts)
  },
  'In which registers do hosts differ?': () => {
    const contents = new Map<string, { values: Set<string>; of: Set<string> }>()
    for (const { of, report } of reports) {
      for (const { name, value } of report.registers) {
        const known = contents.get(name) ?? { values: new Set(), of: new Set() }
        contents.set(name, known)
        if (value !== null) known.values.add(value)
        known.of.add(of)
      }
    }
    return [...contents]
      .filter(([, { values, of }]) => values.size > 1 || of.size < reports.length)
      .map(([name, { values, of }]) => [name, values.size, of.size])
  },
  'Which hosts have a feature of the CPU?': () => {
    const id = encodeRegister('ID_AA64ISAR0_EL1')
    return fleet.hosts.flatMap((row) => {
      const report = reports.find(({ of }) => of === row.class)?.report
      const atomic = report === undefined ? 0n : (registerValue(report, id)! >> 20n) & 15n
      return atomic > 0n ? [[row.name, Number(atomic)]] : []
    })
  },
  'Which registers of a class can a VMM change?': () => {
    const rules = reports.flatMap(({ of, report }) =>
      report.registers.map(({ write }): Cell[] => [of, write?.rule ?? 'any']),
    )
    return counted(rules)
  },
  'Under which VMM are most moves possible?': () =>
    documents.map((document) => {
      const others = pairs.filter(([from, to]) => from !== to)
      const known = others.filter(([from, to]) => {
        const { possible, unknown } = predictionOf(document, from, to)
        return possible && unknown === undefined
      })
      return [document.vmm, known.length, others.length]
    }),
}

describe('the queries', () => {
  it('are all tried', () => {
    assert.deepEqual([...queries.keys()], Object.keys(answers))
  })

  for (const [question, answer] of Object.entries(answers)) {
    it(`answer: ${question}`, async () => {
      const expected = answer()
      assert.deepEqual(inOrder(await rowsOf(queries.get(question)!)), inOrder(expected))
      assert.ok(expected.length > 0)
    })
  }
})

describe('the tables', () => {
  it('have typed columns', async () => {
    assert.deepEqual(await typesOf('hosts'), {
      name: 'VARCHAR',
      class: 'VARCHAR',
      kernel: 'VARCHAR',
      build: 'VARCHAR',
      cpu: 'VARCHAR',
      answered_by: 'VARCHAR',
      probed_at: 'TIMESTAMP',
    })
    assert.deepEqual(await typesOf('registers'), {
      class: 'VARCHAR',
      configuration: 'VARCHAR',
      bits: 'UINTEGER',
      id: 'UBIGINT',
      name: 'VARCHAR',
      value: 'UBIGINT',
      wide_value: 'VARCHAR',
      writable_mask: 'UBIGINT',
      write_rule: 'VARCHAR',
      rule_bits: 'UBIGINT',
    })
    const { possible, unknown, prediction } = await typesOf('moves')
    assert.deepEqual([possible, unknown, prediction], ['BOOLEAN', 'VARCHAR[]', 'UINTEGER'])
    const { midr, host_count: count, vcpu_features: features } = await typesOf('classes')
    assert.deepEqual([midr, count, features], ['UBIGINT', 'UINTEGER', 'VARCHAR[]'])
  })

  it('hold every register with all its bits', async () => {
    for (const { of, report } of reports) {
      const rows = await rowsOf(
        `SELECT id::VARCHAR, name, value::VARCHAR, wide_value, writable_mask::VARCHAR, rule_bits::VARCHAR
        FROM 'registers.parquet' WHERE class = '${of}' AND configuration = ''`,
      )
      assert.deepEqual(
        rows,
        report.registers.map(({ id, name, value, mask, write }) => {
          const isWide = value !== null && BigInt(value) >> 64n !== 0n
          const bits = write?.rule === 'subset' ? write.of : write && 'bits' in write ? write.bits : undefined
          const wide = rows.find((row) => row[1] === name)![3]!
          if (isWide) assert.equal(wide, value)
          return [
            String(BigInt(id)),
            name,
            wide === null ? decimal(value) : null,
            wide,
            decimal(mask),
            decimal(bits),
          ]
        }),
      )
    }
    const [[wide]] = (await rowsOf("SELECT count(*) FROM 'registers.parquet' WHERE bits > 64")) as [Cell[]]
    assert.ok((wide as number) > 0)
  })

  it('say where a feature adds, changes and removes registers', async () => {
    for (const { of, report } of reports) {
      for (const configuration of report.configurations) {
        if (!('added' in configuration)) continue
        const { features, mte, added, changed, removed } = configuration
        const name = [...features, ...(mte ? ['mte'] : [])].join(',')
        const [row] = await rowsOf(
          `SELECT count(*) FILTER (bits IS NOT NULL), count(*) FILTER (bits IS NULL)
          FROM 'registers.parquet' WHERE class = '${of}' AND configuration = '${name}'`,
        )
        assert.deepEqual(row, [added.length + changed.length, removed.length])
      }
    }
  })

  it('leave null what is not known of a class that has no report', async () => {
    assert.deepEqual(await rowsOf("SELECT name, cpu FROM 'hosts.parquet' WHERE cpu IS NULL"), [
      ['node-6', null],
    ])
    const [row] = await rowsOf(
      "SELECT class, host_count, compared, midr FROM 'classes.parquet' WHERE cpu IS NULL",
    )
    assert.deepEqual(row, [rowOnly.class, 1, false, null])
    assert.equal(hostCountOf(rowOnly.class), 1)
  })

  it('are replaced whole: none is left half written', () => {
    const path = join(folder, 'broken.parquet')
    const rows = (function* () {
      yield { name: 'a' }
      throw new Error('no more')
    })()
    const columns = { name: { type: 'text', required: true } } as const
    assert.throws(() => writeTable(path, { columns, rows }), /no more/)
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.includes('broken')),
      [],
    )
  })

  it('are written group by group, and may be empty', async () => {
    const columns = { number: { type: 'uint64' }, names: { type: 'texts', required: true } } as const
    const rows = (function* () {
      for (let index = 0; index < 120_000; index++) {
        yield {
          number: index % 3 === 0 ? null : 2n ** 63n + BigInt(index),
          names: index % 2 === 0 ? [] : ['a', `${index}`],
        }
      }
    })()
    writeTable(join(folder, 'tables', 'many.parquet'), { columns, rows })
    const [row] = await rowsOf(
      "SELECT count(*), count(number), sum(len(names)), max(number)::VARCHAR, max(names[2]::INT) FROM 'many.parquet'",
    )
    assert.deepEqual(row, [120_000, 80_000, 120_000, String(2n ** 63n + 119_999n), 119_999])
    const [groups] = await rowsOf("SELECT count(DISTINCT row_group_id) FROM parquet_metadata('many.parquet')")
    assert.deepEqual(groups, [3])
    writeTable(join(folder, 'tables', 'none.parquet'), { columns, rows: [] })
    assert.deepEqual(await rowsOf("SELECT * FROM 'none.parquet'"), [])
  })
})
