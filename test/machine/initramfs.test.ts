import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { writeCpio } from '../../lib/lab/cpio.js'
import { initramfs } from '../../lib/machine/index.js'

test('an initial root has every file, link and directory, parents first', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-initramfs-'))
  const file = join(folder, 'f')
  writeFileSync(file, 'from a file')
  const made = await initramfs({
    init: '#!/bin/sh\n',
    '/bin/tools/a': { file },
    'bin/tools/b': Uint8Array.of(1),
    'bin/sh': { link: 'tools/a' },
    'proc/': '',
  })
  rmSync(folder, { recursive: true })
  const expected: Uint8Array[] = []
  for await (const piece of writeCpio([
    { type: 'file', path: 'init', executable: true, content: Buffer.from('#!/bin/sh\n') },
    { type: 'directory', path: 'bin' },
    { type: 'directory', path: 'bin/tools' },
    { type: 'file', path: 'bin/tools/a', executable: true, content: Buffer.from('from a file') },
    { type: 'file', path: 'bin/tools/b', executable: true, content: Uint8Array.of(1) },
    { type: 'symlink', path: 'bin/sh', target: 'tools/a' },
    { type: 'directory', path: 'proc' },
  ])) {
    expected.push(piece)
  }
  assert.deepEqual(Buffer.from(made), Buffer.concat(expected))
})

test('a file that is not there is named', async () => {
  await expect(initramfs({ init: { file: '/nonexistent/init' } })).rejects.toThrow(/\/nonexistent\/init/)
})
