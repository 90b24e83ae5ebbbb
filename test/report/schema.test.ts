import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { packageRoot } from '../../lib/package-root.js'
import { reportJsonSchema } from './json-schema.js'

test('the published JSON Schema is the one the readers use (npm run schema writes it)', () => {
  assert.equal(
    readFileSync(new URL('lib/report/report.schema.json', packageRoot), 'utf8'),
    reportJsonSchema(),
  )
})

test('the published JSON Schema lets nothing pass that is not described', () => {
  const visit = (schema: unknown): void => {
    if (schema === null || typeof schema !== 'object') return
    const { type, properties, additionalProperties } = schema as Record<string, unknown>
    if (type === 'object' && properties !== undefined) assert.equal(additionalProperties, false)
    Object.values(schema).forEach(visit)
  }
  visit(JSON.parse(reportJsonSchema()))
})
