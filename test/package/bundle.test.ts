/** What Node.js reads to import an entry point: each file and each package costs about a millisecond. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'vitest'
import { packageRoot } from '../../lib/package-root.js'

/** The files and packages that a file of the bundle imports, at once or through others. */
function importsOf(file: string): string[] {
  const found = new Set([`./${file}`])
  for (const name of found) {
    if (!name.startsWith('./')) continue
    const text = readFileSync(new URL(`dist/bundle/${name}`, packageRoot), 'utf8')
    for (const [, imported] of text.matchAll(/^(?:import|export)\b[^;]*? ?"([^"]+)";$/gm))
      found.add(imported!)
  }
  return [...found]
}

describe('An import', () => {
  it('of the library reads four files, no other package and no cryptography', () => {
    const imports = importsOf('index.js')
    const files = imports.filter((name) => name.startsWith('./'))
    assert.equal(files.length, 4, String(files))
    const others = imports.filter((name) => !name.startsWith('./'))
    assert.ok(others.includes('node:fs'))
    assert.deepEqual(
      others.filter((name) => !name.startsWith('node:') || name === 'node:crypto'),
      [],
    )
  })

  it('of the command needs neither the library nor the registers', () => {
    const files = importsOf('main.js').filter((name) => name.startsWith('./'))
    assert.ok(files.length <= 3, String(files))
    assert.deepEqual(
      files.filter((name) => /library|registers/.test(name)),
      [],
    )
  })
})
