import { type ConversionConfig, toJsonSchema } from '@valibot/to-json-schema'
import type * as v from 'valibot'
import { baselineSchema } from '../lib/fleet/baseline/format.js'
import { fleetDiffSchema } from '../lib/fleet/diff.js'
import { gateSchema } from '../lib/fleet/gate-answer.js'
import { fleetSchema } from '../lib/fleet/document.js'
import { stateSchema } from '../lib/migration/state.js'
import { verdictSchema } from '../lib/migration/verdict-document.js'
import { diffSchema } from '../lib/report/diff-document.js'
import { reportSchema } from '../lib/report/report.js'

type Documents = Parameters<typeof toJsonSchema>[0] & {
  readonly entries: { readonly version: v.LiteralSchema<number, undefined> }
}
type Override = Parameters<NonNullable<ConversionConfig['overrideSchema']>>[0]
type Converted = ReturnType<NonNullable<ConversionConfig['overrideSchema']>>

/** The published JSON Schemas, generated from the schemas that their readers use. */
export const jsonSchemas: readonly { file: string; text: string }[] = [
  { file: 'lib/report/report.schema.json', text: jsonSchema('report', reportSchema) },
  { file: 'lib/report/diff.schema.json', text: jsonSchema('diff', diffSchema) },
  { file: 'lib/migration/state.schema.json', text: jsonSchema('state', stateSchema) },
  { file: 'lib/migration/verdict.schema.json', text: jsonSchema('verdict', verdictSchema) },
  { file: 'lib/fleet/fleet.schema.json', text: jsonSchema('fleet', fleetSchema) },
  { file: 'lib/fleet/fleet-diff.schema.json', text: jsonSchema('fleet-diff', fleetDiffSchema) },
  { file: 'lib/fleet/gate.schema.json', text: jsonSchema('gate', gateSchema) },
  { file: 'lib/fleet/baseline/baseline.schema.json', text: jsonSchema('baseline', baselineSchema) },
]

// The converter handles a record's picklist of keys correctly (`propertyNames`) but still reports it as an error.
function overrideSchema({ valibotSchema, jsonSchema: converted }: Override): Converted {
  return valibotSchema.type === 'record' ? converted : undefined
}

function jsonSchema(noun: string, documents: Documents): string {
  const { literal: version } = documents.entries.version
  const schema = toJsonSchema(documents, { overrideSchema })
  const head = {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: `kvm-arm64 ${noun}, version ${version}`,
  }
  return `${JSON.stringify({ ...head, ...schema }, null, 2)}\n`
}
