/** Nothing that a terminal obeys or hides comes through, and everything else stays as it is. */
import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { printable, printableJson, printableLines } from '../../lib/documents/printable.js'
import { formatDocument } from '../../lib/documents/write.js'

describe('printable text', () => {
  for (const [text, shown] of [
    ['\u001b[31mred', String.raw`\x1b[31mred`],
    ['a\nb\r\tc\u0000\u007f\u009b', String.raw`a\nb\r\tc\x00\x7f\x9b`],
    ['\u202egpj.exe\u2066', String.raw`\u202egpj.exe\u2066`],
    ['zero\u200bwidth\u00ad\ufeff', String.raw`zero\u200bwidth\xad\ufeff`],
    ['tag\u{e0001}, filler\u3164', String.raw`tag\u{e0001}, filler\u3164`],
    ['half \ud83d', String.raw`half \ud83d`],
    ['größer, 大, ✓, 😀', 'größer, 大, ✓, 😀'],
  ] as const) {
    it(`shows ${shown}`, () => assert.equal(printable(text), shown))
  }

  it('keeps newlines where there are lines', () => {
    assert.equal(printableLines('a\nb\u001b'), 'a\nb\\x1b')
  })

  it('shows every control, format and default-ignorable character of Unicode, and no visible one', () => {
    const all = Array.from({ length: 0xe0200 }, (_, code) => String.fromCodePoint(code))
    const [hidden, visible] = [[], []] as [string[], string[]]
    for (const character of all) {
      // Some format characters show: the signs of numbers in Arabic and Kaithi, joiners of hieroglyphs, beams of music.
      if (shows.test(character) || /\p{Cn}/u.test(character)) continue
      if (hides.test(character)) hidden.push(character)
      else visible.push(character)
    }
    assert.deepEqual(
      hidden
        .filter((character) => printable(character) === character)
        .map((one) => one.codePointAt(0)!.toString(16)),
      [],
    )
    // Joined, half a pair could become a whole one: these are all hidden.
    assert.equal(printable(visible.join('')), visible.join(''))
  })
})

const hides = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u
const shows =
  /[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u{110bd}\u{110cd}\u{13430}-\u{1343f}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}]/u

describe('printable JSON', () => {
  it('has the same value', () => {
    const value = { 'k\u202e': ['\u001b[0m', '\u{e0001}\u200b', '\ud83d', 'ü'] }
    const json = printableJson(JSON.stringify(value, null, 2))
    assert.deepEqual(JSON.parse(json), value)
    assert.match(json, /^[\n -~ü]*$/)
    assert.equal(
      formatDocument(value),
      '{ "k\\u202e": [ "\\u001b[0m", "\\udb40\\udc01\\u200b", "\\ud83d", "ü" ] }\n',
    )
  })
})
