import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, test } from 'vitest'
import { FormatError } from '../../lib/documents/document.js'
import { checkReport, parseReport, readReport } from '../../lib/report/read.js'
import { badReports } from './bad-input.js'
import { sampleReport } from './sample.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-report-'))
afterAll(() => rmSync(folder, { recursive: true }))

function refusalOf(read: () => unknown): FormatError {
  try {
    read()
  } catch (error) {
    assert.ok(error instanceof FormatError, `not a FormatError: ${String(error)}`)
    return error
  }
  return assert.fail('was taken for a report')
}

describe('reading a report', () => {
  test('gives back what was written', () => {
    const file = join(folder, 'good.json')
    writeFileSync(file, JSON.stringify(sampleReport()))
    assert.deepEqual(readReport(file), sampleReport())
    assert.deepEqual(parseReport(JSON.stringify(sampleReport()), 'text'), sampleReport())
    assert.deepEqual(checkReport(sampleReport(), 'data'), sampleReport())
  })

  for (const [what, { text, path, problem }] of Object.entries(badReports)) {
    test(`refuses ${what}, naming the file and the entry`, () => {
      const file = join(folder, 'bad.json')
      writeFileSync(file, text)
      const error = refusalOf(() => readReport(file))
      assert.equal(error.code, 'ERR_KVM_FORMAT')
      assert.equal(error.source, file)
      assert.equal(error.path, path)
      assert.match(error.message, problem)
      assert.ok(error.message.startsWith(path === '$' ? `${file}: ` : `${file}: ${path}: `), error.message)
      assert.ok(error.message.length < 1100, `${error.message.length} characters of message`)
      assert.doesNotMatch(error.message, /\p{Cc}/u)
    })
  }

  test('refuses what is no file, naming it and the errno', () => {
    assert.match(
      refusalOf(() => readReport(join(folder, 'none.json'))).message,
      /none\.json: cannot be read \(ENOENT\)/,
    )
    assert.match(refusalOf(() => readReport(folder)).message, /cannot be read \(EISDIR\)/)
  })

  test('refuses a file without end, reading no more than a report can have', () => {
    assert.match(
      refusalOf(() => readReport('/dev/zero')).message,
      /larger than any report \(64 MiB at most\)/,
    )
  })

  test('reads a pipe', () => {
    const pipe = join(folder, 'pipe')
    execFileSync('mkfifo', [pipe])
    const file = join(folder, 'good.json')
    writeFileSync(file, JSON.stringify(sampleReport()))
    spawn('sh', ['-c', 'cat "$0" > "$1"', file, pipe], { stdio: 'ignore' })
    assert.deepEqual(readReport(pipe), sampleReport())
  })
})
