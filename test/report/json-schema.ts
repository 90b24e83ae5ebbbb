import { toJsonSchema } from '@valibot/to-json-schema'
import { reportSchema } from '../../lib/report/report.js'

/** The published JSON Schema of the report, from the schema its readers use. */
export function reportJsonSchema(): string {
  const schema = toJsonSchema(reportSchema, {
    // The converter gets a record's picklist of keys right (`propertyNames`) and reports it as an error all the same.
    overrideSchema: ({ valibotSchema, jsonSchema }) =>
      valibotSchema.type === 'record' ? jsonSchema : undefined,
  })
  const head = { $schema: 'http://json-schema.org/draft-07/schema#', title: 'kvm-arm64 report, version 1' }
  return `${JSON.stringify({ ...head, ...schema }, null, 2)}\n`
}
