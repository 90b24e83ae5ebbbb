/** `npm run schema`: writes the published JSON Schemas and `docs/findings.md`. */
import { writeFileSync } from 'node:fs'
import { packageRoot } from '../lib/package-root.js'
import { findingsDocument } from './findings-doc.js'
import { jsonSchemas } from './json-schema.js'

for (const { file, text } of jsonSchemas) writeFileSync(new URL(file, packageRoot), text)
writeFileSync(new URL('docs/findings.md', packageRoot), findingsDocument())
