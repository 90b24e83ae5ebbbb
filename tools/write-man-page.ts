/** Part of `npm run build`: writes the man page beside the bundle. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { commandLine } from '../lib/cli/program.js'
import { packageRoot } from '../lib/package-root.js'
import { manPage } from './man-page.js'

const folder = new URL('dist/man/', packageRoot)
mkdirSync(folder, { recursive: true })
writeFileSync(new URL('kvm-arm64.1', folder), manPage(await commandLine()))
