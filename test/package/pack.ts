import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { packageRoot } from '../../lib/package-root.js'

export const root = fileURLToPath(packageRoot)

export const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  version: string
  exports: Record<string, string>
  scripts: Record<string, string>
  dependencies: Record<string, string>
}

/** Each JSON Schema: the name under which it is exported, and its file. */
export const schemas = Object.entries(manifest.exports)
  .filter(([name]) => name.endsWith('.schema.json'))
  .map(([name, file]) => [name.slice(2), file.slice(2)] as const)

/** Packs the package as it is built: scripts would build it anew, under the feet of the tests that run. */
export function pack(folder: string): { file: string; files: string[] } {
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder]
  const [packed] = JSON.parse(execFileSync('npm', args, { cwd: root, encoding: 'utf8' })) as [
    { filename: string; files: { path: string }[] },
  ]
  return { file: join(folder, packed.filename), files: packed.files.map(({ path }) => path) }
}
