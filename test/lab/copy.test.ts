import assert from 'node:assert/strict'
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { copiedEntries, packageEntries } from '../../lib/lab/host-files.js'

describe('what is copied into the machine', () => {
  const outside = process.cwd()
  let directory: string
  beforeAll(async () => {
    directory = await realpath(await mkdtemp(join(tmpdir(), 'kvm-arm64-test-')))
    await mkdir(join(directory, 'work/src/deep'), { recursive: true })
    await writeFile(join(directory, 'work/src/a.mjs'), 'a')
    await writeFile(join(directory, 'work/src/deep/b.mjs'), 'b')
    await symlink('a.mjs', join(directory, 'work/src/link'))
    await writeFile(join(directory, 'elsewhere'), 'c')
    process.chdir(join(directory, 'work'))
  })
  afterAll(async () => {
    process.chdir(outside)
    await rm(directory, { recursive: true })
  })

  const cases: [what: string, paths: string[], inside: string[]][] = [
    ['a file below the current directory keeps its place', ['src/a.mjs'], ['lab/src', 'lab/src/a.mjs']],
    [
      'a directory goes with all it holds',
      ['src'],
      ['lab/src', 'lab/src/a.mjs', 'lab/src/deep', 'lab/src/deep/b.mjs', 'lab/src/link'],
    ],
    ['any other path goes under its own name', ['../elsewhere'], ['lab/elsewhere']],
    ['the same thing twice goes once', ['src/a.mjs', './src/a.mjs'], ['lab/src', 'lab/src/a.mjs']],
    [
      'the current directory goes as it is',
      ['.'],
      ['lab/src', 'lab/src/a.mjs', 'lab/src/deep', 'lab/src/deep/b.mjs', 'lab/src/link'],
    ],
  ]
  for (const [what, paths, inside] of cases) {
    it(what, async () => {
      const entries = await copiedEntries(paths)
      assert.deepEqual(
        entries.map(({ path }) => path),
        inside,
      )
    })
  }

  it('a path that is not there is named', async () => {
    await assert.rejects(copiedEntries(['src/missing.mjs']), {
      code: 'ERR_LAB_COPY',
      message: /src\/missing\.mjs/,
    })
  })

  it('this package goes with everything it depends on, parents before children', async () => {
    const entries = await packageEntries()
    const paths = new Set(entries.map(({ path }) => path))
    for (const path of [
      'kvm-arm64/package.json',
      'commander/index.js',
      'node-gyp-build/package.json',
      'string-width/index.js',
    ]) {
      assert.ok(paths.has(`node_modules/${path}`), path)
    }
    const made = new Set(['usr/local/bin'])
    for (const { type, path } of entries) {
      const parent = path.split('/').slice(0, -1).join('/')
      assert.ok(parent === '' || made.has(parent), `${path} has no directory`)
      if (type === 'directory') made.add(path)
    }
  })
})
