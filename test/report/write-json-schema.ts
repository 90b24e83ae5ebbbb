/** `npm run schema` */
import { writeFileSync } from 'node:fs'
import { packageRoot } from '../../lib/package-root.js'
import { reportJsonSchema } from './json-schema.js'

writeFileSync(new URL('lib/report/report.schema.json', packageRoot), reportJsonSchema())
