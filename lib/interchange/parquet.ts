/** Writes tables as Parquet files (`parquet.thrift` of apache/parquet-format), which DuckDB, Spark, pandas and others read. */
import { ByteWriter, ParquetWriter } from 'hyparquet-writer'
import { openDraft } from '../documents/write.js'

type Schema = ConstructorParameters<typeof ParquetWriter>[0]['schema']
type SchemaElement = Schema[number]

/** What the cells of a column hold. A cell may be null unless its column is `required`. */
interface Cells {
  text: string
  texts: readonly string[]
  boolean: boolean
  uint32: number
  uint64: bigint
  /** Milliseconds since 1970, UTC. */
  timestamp: Date
}

export interface Column {
  readonly type: keyof Cells
  readonly required?: true
}

/** The columns of a table by name, in their order. */
export type Columns = Readonly<Record<string, Column>>

/** A row of a table. */
export type Row<C extends Columns> = {
  readonly [Name in keyof C]: Cells[C[Name]['type']] | (C[Name] extends { required: true } ? never : null)
}

export interface Table<C extends Columns = Columns> {
  readonly columns: C
  /** Read once. */
  readonly rows: Iterable<Row<C>>
}

const optional = { repetition_type: 'OPTIONAL' } as const

const elements: { readonly [Type in keyof Cells]: readonly Omit<SchemaElement, 'name'>[] } = {
  text: [{ type: 'BYTE_ARRAY', converted_type: 'UTF8' }],
  texts: [{ converted_type: 'LIST', num_children: 1 }],
  boolean: [{ type: 'BOOLEAN' }],
  uint32: [{ type: 'INT32', converted_type: 'UINT_32' }],
  uint64: [{ type: 'INT64', converted_type: 'UINT_64' }],
  timestamp: [{ type: 'INT64', converted_type: 'TIMESTAMP_MILLIS' }],
}

function elementsOf([name, { type, required }]: [string, Column]): SchemaElement[] {
  const [element] = elements[type]
  const repetition = required ? { repetition_type: 'REQUIRED' as const } : optional
  const column = { name, ...element, ...repetition }
  if (type !== 'texts') return [column]
  return [
    column,
    { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
    { name: 'element', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'REQUIRED' },
  ]
}

/** Rows that are in memory at a time. */
const ROWS = 50_000

/**
 * Writes a table to a file, whole or not at all. Holds no more than 50,000 rows in memory.
 * @throws the error of `node:fs` for a file that cannot be written
 */
export function writeTable<C extends Columns>(file: string, { columns, rows }: Table<C>): void {
  const entries = Object.entries(columns)
  const schema: Schema = [
    { name: 'root', num_children: entries.length },
    ...entries.flatMap((entry) => elementsOf(entry)),
  ]
  const draft = openDraft(file)
  try {
    const bytes = new ByteWriter(1024 * 1024)
    const writer = new ParquetWriter({ writer: bytes, schema, createdBy: 'kvm-arm64' })
    const flush = (): void => {
      draft.write(bytes.getBytes())
      bytes.index = 0
    }
    for (const group of grouped(rows)) {
      // Both calls return promises only for sinks that do.
      void writer.write({
        columnData: entries.map(([name]) => ({ name, data: group.map((row) => row[name]) })),
        rowGroupSize: ROWS,
      })
      flush()
    }
    void writer.finish()
    flush()
    draft.publish()
  } catch (error) {
    draft.discard()
    throw error
  }
}

function* grouped<T>(rows: Iterable<T>): Generator<T[]> {
  let group: T[] = []
  for (const row of rows) {
    group.push(row)
    if (group.length < ROWS) continue
    yield group
    group = []
  }
  if (group.length > 0) yield group
}
