/** Packs the package and checks it with publint and attw: a part of `npm run check`, which has them on its PATH. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pack, schemas } from '../test/package/pack.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-check-package-'))
try {
  const { file } = pack(folder)
  execFileSync('publint', ['run', '--strict', file], { stdio: 'inherit' })
  const notModules = schemas.map(([name]) => name)
  execFileSync(
    'attw',
    ['--profile', 'esm-only', '--format', 'ascii', file, '--exclude-entrypoints', ...notModules],
    { stdio: 'inherit' },
  )
} finally {
  rmSync(folder, { recursive: true })
}
