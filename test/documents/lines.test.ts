import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, it } from 'vitest'
import * as fc from 'fast-check'
import { openInput } from '../../lib/documents/input.js'
import { readLines } from '../../lib/documents/lines.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-lines-'))
afterAll(() => rmSync(folder, { recursive: true }))

function fileOf(content: string): string {
  const file = join(folder, 'lines')
  writeFileSync(file, content)
  return file
}

function linesOf(file: string, limit: number): [number, string | undefined][] {
  const input = openInput(file)
  try {
    return Array.from(readLines(input, limit), ({ number, bytes }) => [number, bytes?.toString()])
  } finally {
    input.close()
  }
}

describe('lines of a stream', () => {
  it('are those of its text, however they fall on what is read at once', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.string({ maxLength: 5 }),
            fc.nat({ max: 400_000 }).map((n) => 'x'.repeat(n)),
          ),
        ),
        fc.boolean(),
        (texts, ends) => {
          const lines = texts.map((text) => text.replaceAll('\n', ''))
          const file = fileOf(lines.join('\n') + (ends ? '\n' : ''))
          const found = linesOf(file, 1_000_000)
          rmSync(file)
          const expected = lines.map((text, index): [number, string] => [index + 1, text])
          if (expected.at(-1)?.[1] === '' && !ends) expected.pop()
          if (expected.length === 0 && ends) expected.push([1, ''])
          assert.deepEqual(found, expected)
        },
      ),
      { numRuns: 40, seed: 7 },
    )
  })

  it('that are too long are read over, and told by their number', () => {
    const found = linesOf(fileOf(`a\n${'b'.repeat(3_000_000)}\nc\n${'d'.repeat(5_000_000)}`), 100_000)
    assert.deepEqual(found, [
      [1, 'a'],
      [2, undefined],
      [3, 'c'],
      [4, undefined],
    ])
  })

  it('that are too long are read over also where one read returns their end', () => {
    const found = linesOf(fileOf(`${'a'.repeat(100_001)}\n${'b'.repeat(100_000)}\n`), 100_000)
    assert.deepEqual(found, [
      [1, undefined],
      [2, 'b'.repeat(100_000)],
    ])
  })
})
