/** What the writer of device trees refuses; test/machine/dtc.test.ts has Debian's compiler read what it writes. */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { encodeDeviceTree } from '../../lib/machine/device-tree.js'

describe('a device tree', () => {
  test('has the header of version 17, and its sizes add up', () => {
    const tree = Buffer.from(encodeDeviceTree({ properties: { model: 'm' } }, 5))
    const [
      magic,
      total,
      structure,
      strings,
      reservations,
      version,
      compatible,
      cpu,
      stringsSize,
      structureSize,
    ] = Array.from({ length: 10 }, (_, index) => tree.readUInt32BE(4 * index))
    assert.equal(magic, 0xd00dfeed)
    assert.equal(total, tree.length)
    assert.deepEqual([version, compatible, cpu, reservations], [17, 16, 5, 40])
    assert.equal(strings, structure! + structureSize!)
    assert.equal(total, strings + stringsSize!)
  })

  for (const [name, value] of [
    ['a cell of more than 32 bits', [2 ** 32]],
    ['a negative cell', [-1]],
    ['a bigint of more than 64 bits', [1n << 64n]],
    ['a text with a NUL', 'a\0b'],
  ] as const) {
    test(`refuses ${name}`, () => {
      assert.throws(() => encodeDeviceTree({ properties: { value } }), RangeError)
    })
  }
})
