/** `npm run schema` */
import { writeFileSync } from 'node:fs'
import { packageRoot } from '../lib/package-root.js'
import { jsonSchemas } from './json-schema.js'

for (const { file, text } of jsonSchemas) writeFileSync(new URL(file, packageRoot), text)
