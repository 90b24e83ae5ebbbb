import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, it } from 'vitest'
import { makeDirectories } from '../../lib/documents/directory.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-directory-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('makeDirectories', () => {
  it('makes what is missing, and again changes nothing', () => {
    const directory = join(folder, 'a', 'b', 'c')
    makeDirectories(directory, 0o700)
    makeDirectories(directory)
    assert.equal(statSync(directory).mode & 0o777, 0o700)
    makeDirectories('/')
  })

  it('fails where a file is in the way', () => {
    const file = join(folder, 'file')
    writeFileSync(file, '')
    assert.throws(() => makeDirectories(file), { code: 'EEXIST' })
    assert.throws(() => makeDirectories(join(file, 'a')), { code: 'ENOTDIR' })
  })

  it('fails where the file system makes no directories', () => {
    assert.throws(() => makeDirectories('/proc/kvm-arm64/a'), /mkdir/)
  })
})
