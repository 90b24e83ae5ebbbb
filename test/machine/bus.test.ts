import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { Bus } from '../../lib/machine/bus.js'

type Access = ['read' | 'write', offset: number, size: number, value?: number]

describe('the bus', () => {
  const log: Access[] = []
  const bus = new Bus()
  bus.add(
    { base: 0x1000, size: 0x100 },
    {
      read: (offset, size) => (log.push(['read', offset, size]), offset + 1),
      write: (offset, size, value) => log.push(['write', offset, size, value]),
    },
  )

  /** What reached the device. */
  function reached(): Access[] {
    return log.splice(0)
  }

  test('leads an access to the device at its address', () => {
    assert.equal(bus.read(0x1004n, 4), 5n)
    bus.write(0x10ffn, 1, 0xffn)
    assert.deepEqual(reached(), [
      ['read', 4, 4],
      ['write', 255, 1, 255],
    ])
  })

  test('makes two accesses of one of 8 bytes', () => {
    assert.equal(bus.read(0x1000n, 8), 0x5_0000_0001n)
    bus.write(0x10f8n, 8, 0x1122_3344_5566_7788n)
    assert.deepEqual(reached(), [
      ['read', 0, 4],
      ['read', 4, 4],
      ['write', 0xf8, 4, 0x5566_7788],
      ['write', 0xfc, 4, 0x1122_3344],
    ])
  })

  for (const [address, size] of [
    [0xfffn, 1],
    [0x1100n, 1],
    [0x10fdn, 4],
    [0xffff_ffff_ffff_fff8n, 8],
  ] as const) {
    test(`has nothing at 0x${address.toString(16)}, ${size}`, () => {
      assert.equal(bus.read(address, size), 0n)
      bus.write(address, size, 1n)
      assert.deepEqual(reached(), [])
    })
  }
})
