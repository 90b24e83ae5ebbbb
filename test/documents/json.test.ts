/** Text of files as JSON: what JSON.parse reads is read alike, but for a byte order mark and keys that stand twice. */
import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import { describe, it } from 'vitest'
import { parseJson } from '../../lib/documents/document.js'
import { parseStrictJson } from '../../lib/documents/json.js'

describe('JSON of a file', () => {
  it('is what JSON.parse reads', () => {
    fc.assert(
      fc.property(fc.json(), fc.constantFrom(undefined, 1), (json, indent) => {
        const text = JSON.stringify(JSON.parse(json), null, indent)
        assert.deepEqual(parseStrictJson(text), JSON.parse(text))
        assert.deepEqual(parseStrictJson(`\ufeff${text}`), JSON.parse(text))
      }),
      { numRuns: 300, seed: 7 },
    )
  })

  for (const [json, problem] of [
    ['{"a":1,"b":{},"a":2}', 'f: $.a: appears twice'],
    ['{"a":[{"x":"}"},{"b":"\\"{,","c d":[1,"b"],"c d":0}]}', 'f: $.a[1]["c d"]: appears twice'],
    [String.raw`{"a":1,"\u0061":2}`, 'f: $.a: appears twice'],
    ['{"__proto__":1,"__proto__":2}', 'f: $.__proto__: appears twice'],
    ['{"a":{"b":":","c":{}},"a":[]}', 'f: $.a: appears twice'],
    ['', 'f: is empty'],
    ['\ufeff \n', 'f: is empty'],
    ['\ufeff\ufeff{}', /^f: is not JSON: /],
    ['{', /^f: is not JSON: /],
  ] as const) {
    it(`is refused: ${json}`, () => assert.throws(() => parseJson(json, 'f'), { message: problem }))
  }

  it('may have a colon in a key and in a text', () => {
    const json = String.raw`{":":":","\":":["\\",":\":"],"a": {"b" : "c:d"}}`
    assert.deepEqual(parseJson(json, 'f'), JSON.parse(json))
  })

  it('may have the same key in different objects, and keys that objects inherit', () => {
    const json = '[{"a":{"a":[{"a":1},{"a":2}]}},{"a":"a"},{"constructor":1,"toString":2}]'
    assert.deepEqual(parseJson(json, 'f'), JSON.parse(json))
  })
})
