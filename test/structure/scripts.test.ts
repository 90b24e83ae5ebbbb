/** The npm scripts that messages, comments and pages name are in package.json. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'vitest'
import { packageRoot } from '../../lib/package-root.js'

const { scripts } = JSON.parse(readFileSync(new URL('package.json', packageRoot), 'utf8')) as {
  scripts: Record<string, string>
}

function filesOf(folder: string): string[] {
  return readdirSync(new URL(folder, packageRoot), { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.(ts|mjs|cc|h|md)$/.test(path))
    .map((path) => folder + path)
}

test('every npm script that is named exists', () => {
  const files = ['lib/', 'tools/', 'test/', 'native/', 'docs/'].flatMap(filesOf)
  let named = 0
  for (const file of [...files, 'README.md', 'CONTRIBUTING.md', 'CHANGELOG.md']) {
    const text = readFileSync(new URL(file, packageRoot), 'utf8')
    for (const [, name] of text.matchAll(/npm run (?:--silent )?(\w[\w:-]*\w)/g)) {
      named++
      assert.ok(Object.hasOwn(scripts, name!), `${file}: npm run ${name}`)
    }
  }
  assert.ok(named > 20)
})
