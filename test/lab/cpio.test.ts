import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'vitest'
import * as fc from 'fast-check'
import { writeCpio, type ArchiveEntry } from '../../lib/lab/cpio.js'

const modes = { directory: 0o040755, symlink: 0o120777, file: 0o100644 }

async function archive(entries: ArchiveEntry[]): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of writeCpio(entries)) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** Reads an archive as the kernel's initramfs code does: header, name and content each padded to four bytes. */
function read(data: Buffer): { path: string; mode: number; content: Buffer }[] {
  const found = []
  for (let at = 0; ;) {
    assert.equal(data.toString('latin1', at, at + 6), '070701')
    const field = (index: number) =>
      parseInt(data.toString('latin1', at + 6 + 8 * index, at + 14 + 8 * index), 16)
    const [mode, size, nameSize] = [field(1), field(6), field(11)]
    const path = data.toString('utf8', at + 110, at + 110 + nameSize - 1)
    const start = (at + 110 + nameSize + 3) & ~3
    if (path === 'TRAILER!!!') return found
    found.push({ path, mode, content: data.subarray(start, start + size) })
    at = (start + size + 3) & ~3
  }
}

describe('the archive the machine unpacks', () => {
  it('holds what was put in, whatever the lengths of names and contents', async () => {
    const name = fc.stringMatching(/^[a-zé][a-z0-9 ]{0,30}$/)
    const entry = fc.oneof(
      fc.record({ type: fc.constant('directory' as const), path: name }),
      fc.record({ type: fc.constant('symlink' as const), path: name, target: name }),
      fc.record({
        type: fc.constant('file' as const),
        path: name,
        executable: fc.boolean(),
        content: fc.uint8Array({ maxLength: 40 }),
      }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(entry), async (entries) => {
        const found = read(await archive(entries))
        assert.deepEqual(
          found,
          entries.map((each) => ({
            path: each.path,
            mode: modes[each.type] + (each.type === 'file' && each.executable ? 0o111 : 0),
            content: Buffer.from(
              each.type === 'file' ? each.content : each.type === 'symlink' ? each.target : '',
            ),
          })),
        )
      }),
    )
  })

  it('reads a file when its turn has come', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'kvm-arm64-test-'))
    try {
      const file = join(directory, 'file')
      const entry: ArchiveEntry = { type: 'file', path: 'file', executable: false, content: { file } }
      await assert.rejects(archive([entry]), { code: 'ENOENT' })
      await writeFile(file, 'seven..')
      assert.equal(read(await archive([entry]))[0]?.content.toString(), 'seven..')
    } finally {
      await rm(directory, { recursive: true })
    }
  })
})
