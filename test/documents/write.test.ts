import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import fs, {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, beforeEach, describe, test } from 'vitest'
import { parseReport } from '../../lib/report/read.js'
import { formatDocument, writeFileAtomically } from '../../lib/documents/write.js'
import { sampleReport } from '../report/sample.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-write-'))
const file = join(folder, 'report.json')
afterAll(() => rmSync(folder, { recursive: true }))
beforeEach(() => writeFileSync(file, 'old'))

describe('the text of a report', () => {
  test('reads back as the same report', () => {
    assert.deepEqual(parseReport(formatDocument(sampleReport()), 'text'), sampleReport())
  })

  test('leaves out what is undefined, as JSON does', () => {
    const report = sampleReport()
    report.traits.init.registerWidth = undefined
    assert.deepEqual(parseReport(formatDocument(report), 'text'), sampleReport())
  })

  test('has one line for each register, so that two can be compared with diff', () => {
    const { registers } = sampleReport()
    const lines = formatDocument(sampleReport()).split('\n')
    const start = lines.indexOf('  "registers": [') + 1
    const entries = lines.slice(start, start + registers.length)
    assert.deepEqual(
      entries.map((line) => JSON.parse(line.replace(/,$/, ''))),
      registers,
    )
    assert.equal(lines[start + registers.length], '  ],')
    assert.ok(lines.every((line) => line.length < 200))
  })
})

describe('writing a file whole or not at all', () => {
  test('replaces the content and leaves nothing beside it', () => {
    writeFileAtomically(file, 'new')
    assert.equal(readFileSync(file, 'utf8'), 'new')
    assert.deepEqual(readdirSync(folder), ['report.json'])
  })

  test('keeps the permissions of the file it replaces', () => {
    chmodSync(file, 0o600)
    writeFileAtomically(file, 'new')
    assert.equal(statSync(file).mode & 0o777, 0o600)
  })

  test('replaces the file a symbolic link leads to, not the link', () => {
    const link = join(folder, 'link.json')
    symlinkSync('report.json', link)
    writeFileAtomically(link, 'through the link')
    assert.ok(lstatSync(link).isSymbolicLink())
    assert.equal(readFileSync(file, 'utf8'), 'through the link')
    rmSync(link)
  })

  test('makes the file a symbolic link leads to', () => {
    const directory = join(folder, 'directory')
    mkdirSync(directory)
    symlinkSync('directory', join(folder, 'alias'))
    symlinkSync('../new.json', join(directory, 'second.json'))
    symlinkSync('alias/second.json', join(folder, 'first.json'))
    writeFileAtomically(join(folder, 'first.json'), 'through both links')
    assert.equal(readFileSync(join(folder, 'new.json'), 'utf8'), 'through both links')
    assert.deepEqual(readdirSync(folder), ['alias', 'directory', 'first.json', 'new.json', 'report.json'])
    assert.ok(lstatSync(join(folder, 'first.json')).isSymbolicLink())
    for (const made of ['alias', 'directory', 'first.json', 'new.json']) {
      rmSync(join(folder, made), { recursive: true })
    }
  })

  test('takes a name as long as names can be', () => {
    const long = join(folder, 'n'.repeat(255))
    writeFileAtomically(long, 'new')
    assert.equal(readFileSync(long, 'utf8'), 'new')
    rmSync(long)
  })

  test('writes to a pipe instead of replacing it', async () => {
    // As to a device, such as /dev/null, which a test that failed would take from the machine.
    const pipe = join(folder, 'pipe')
    execFileSync('mkfifo', [pipe])
    const reader = spawn('cat', [pipe], { stdio: ['ignore', 'pipe', 'inherit'] })
    writeFileAtomically(pipe, 'through the pipe')
    assert.ok(lstatSync(pipe).isFIFO())
    assert.equal(await text(reader.stdout), 'through the pipe')
    rmSync(pipe)
  })

  for (const [what, target, code] of [
    ['a directory', '.', 'EISDIR'],
    ['a directory that is missing', 'missing/report.json', 'ENOENT'],
    ['a directory that is a file', 'report.json/x.json', 'ENOTDIR'],
  ] as const) {
    test(`fails with ${code} for ${what} and leaves nothing behind`, () => {
      assert.throws(() => writeFileAtomically(join(folder, target), 'new'), { code })
      assert.deepEqual(readdirSync(folder), ['report.json'])
      assert.equal(readFileSync(file, 'utf8'), 'old')
    })
  }

  test('keeps the old content where the disk is full', () => {
    const disk = join(folder, 'disk')
    mkdirSync(disk)
    const free = mountSmallDisk(disk) ?? fillDisk()
    try {
      const full = join(disk, 'report.json')
      writeFileSync(full, 'old')
      assert.throws(() => writeFileAtomically(full, 'x'.repeat(100_000)), { code: 'ENOSPC' })
      assert.equal(readFileSync(full, 'utf8'), 'old')
      assert.deepEqual(readdirSync(disk), ['report.json'])
    } finally {
      free()
      rmSync(disk, { recursive: true })
    }
    assert.ok(!existsSync(disk))
  })
})

/** Mounts a disk of 16 KiB and returns how to unmount it; undefined without the right to. */
function mountSmallDisk(directory: string): (() => void) | undefined {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', directory], { stdio: 'pipe' })
    return () => execFileSync('umount', [directory])
  } catch {
    return undefined
  }
}

/** Lets Node.js write 16 KiB at most, as if the disk had no more, and returns how to end that. */
function fillDisk(): () => void {
  const { writeFileSync: write } = fs
  const room = 16 * 1024
  fs.writeFileSync = (target, data, options) => {
    const content = data as string
    write(target, content.slice(0, room), options)
    if (content.length <= room) return
    throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
  }
  syncBuiltinESMExports()
  return () => {
    fs.writeFileSync = write
    syncBuiltinESMExports()
  }
}
