import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'vitest'
import { packageRoot } from '../../lib/package-root.js'
import { jsonSchemas } from '../../tools/json-schema.js'

for (const { file, text } of jsonSchemas) {
  test(`${file} is the schema the readers use (npm run schema writes it)`, () => {
    assert.equal(readFileSync(new URL(file, packageRoot), 'utf8'), text)
  })

  test(`${file} lets nothing pass that is not described`, () => {
    const visit = (schema: unknown): void => {
      if (schema === null || typeof schema !== 'object') return
      const { type, properties, additionalProperties } = schema as Record<string, unknown>
      if (type === 'object' && properties !== undefined) assert.equal(additionalProperties, false)
      Object.values(schema).forEach(visit)
    }
    visit(JSON.parse(text))
  })
}
